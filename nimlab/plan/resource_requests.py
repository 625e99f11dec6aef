"""Resources that the pods of a workload request, and the totals of a lab.

In: manifests and live objects. Out: numbers of pods, CPU and memory. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nimlab.objects.manifest import Manifest
from nimlab.units import UnitError, parse_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Number of pods, and the sum of their resource requests. A difference of two values may be negative."""

    pods: int = 0
    cpu_m: int = 0
    memory_bytes: int = 0

    def minus(self, other: Resources) -> Resources:
        """Return the difference."""
        return Resources(
            pods=self.pods - other.pods,
            cpu_m=self.cpu_m - other.cpu_m,
            memory_bytes=self.memory_bytes - other.memory_bytes,
        )

    def plus(self, other: Resources) -> Resources:
        """Return the sum."""
        return Resources(
            pods=self.pods + other.pods,
            cpu_m=self.cpu_m + other.cpu_m,
            memory_bytes=self.memory_bytes + other.memory_bytes,
        )


def resources_of(manifest: Manifest | None) -> Resources:
    """Return the pods of a StatefulSet or Deployment and the sum of their requests; zero for other kinds."""
    if manifest is None or manifest["kind"] not in ("StatefulSet", "Deployment"):
        return Resources()
    spec = manifest["spec"]
    pods = spec.get("replicas", 1)
    pod = spec["template"]["spec"]
    return Resources(
        pods=pods,
        cpu_m=pods * int(_pod_request(pod, "cpu") * 1000),
        memory_bytes=pods * int(_pod_request(pod, "memory")),
    )


def _pod_request(pod: Mapping[str, Any], name: str) -> Decimal:
    """Return the amount of a resource that a node must have free for a pod (KEP-753).

    Each init container runs at the same time as the native sidecars before it, which keep running. At the
    end, all containers and all sidecars run. The request is the maximum over all these states.
    """
    sidecars = most = Decimal(0)
    for container in pod.get("initContainers", ()):
        request = _request(container, name)
        most = max(most, sidecars + request)
        if container.get("restartPolicy") == "Always":
            sidecars += request
    return max(most, sidecars + sum((_request(c, name) for c in pod.get("containers", ())), Decimal(0)))


def _request(container: Mapping[str, Any], name: str) -> Decimal:
    resources = container.get("resources") or {}
    text = (resources.get("requests") or {}).get(name) or (resources.get("limits") or {}).get(name)
    try:
        return parse_quantity(str(text or "0"))
    except UnitError:  # a live object may contain forms that nimlab cannot parse; the sum is only for display
        return Decimal(0)
