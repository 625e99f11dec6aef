"""Facts about workloads: requested resources, immutable fields, and the peers that a change restarts.

In: manifests and live objects. Out: numbers and field paths. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import peers_of, restart_pending
from nimlab.units import UnitError, parse_quantity

_MUTABLE: Final[Mapping[str, frozenset[str]]] = {
    # source: kubernetes, pkg/apis/apps/validation; revisionHistoryLimit is mutable since 1.32
    "StatefulSet": frozenset({
        "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
    }),
}  # fmt: skip
_IMMUTABLE: Final[Mapping[str, frozenset[str]]] = {
    "Deployment": frozenset({"selector"}),
    "DaemonSet": frozenset({"selector"}),
    "Service": frozenset({"clusterIP"}),
}
_BANDWIDTH: Final = frozenset({"kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"})
_DEFAULT_GRACE_S: Final = 30
_STAGGER: Final = "stagger"
"""Name of the init container that delays the start of a peer by its index."""
_START_S: Final = 2


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


def caveats_of(manifest: Manifest | None) -> tuple[str, ...]:
    """Return warnings about settings that have less effect than their names suggest; sorted.

    If a pod has bandwidth annotations, container runtimes configure a burst of 512 MiB. At 16 Mbit/s, a peer
    sends for more than four minutes before the limit applies (kubernetes/kubernetes#90838; measured in
    docs/shaping.md).
    """
    template = ((manifest or {}).get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    if _BANDWIDTH.isdisjoint(annotations):
        return ()
    return ("`method: cni` limits only the long-term average: the first 512 MiB each way are not limited",)


def immutable_changes(desired: Manifest, live: Manifest) -> tuple[str, ...]:
    """Return the paths of changed fields that the server refuses to change in place; sorted.

    nimlab compares the fields itself, because the server's response (status 422) does not contain the name of
    the field, and this status has many other causes.
    """
    kind = desired["kind"]
    changed = [
        f"spec.{name}"
        for name, value in (desired.get("spec") or {}).items()
        if _is_immutable(kind, name) and not _covers(value, (live.get("spec") or {}).get(name))
    ]
    if kind == "RoleBinding" and desired.get("roleRef") != live.get("roleRef"):
        changed.append("roleRef")
    if live.get("immutable") and kind in ("ConfigMap", "Secret"):
        changed.extend(k for k in ("data", "binaryData") if desired.get(k) != live.get(k))
    return tuple(sorted(changed))


def replacement_trial(desired: Manifest) -> Manifest:
    """Return the object with another name, for a dry run of a replacement.

    With its own name, the server would reject the change of the immutable field, or report that the object
    already exists.
    """
    return {**desired, "metadata": {**desired["metadata"], "name": f"{desired['metadata']['name']}-new"}}


def restarts_of(live: Manifest, predicted: Manifest | None) -> int:
    """Return the number of running peers that an update deletes and creates again.

    Peers that are removed by scaling down do not count. `predicted` is the object after the update; it is
    None if the object itself does not change. The result is then the number of outdated peers that remain
    after an interrupted sync.
    """
    if live["kind"] != "StatefulSet":
        return 0
    status = live.get("status") or {}
    existing = int(status.get("replicas") or 0)
    if predicted is not None and changes_template(live, predicted):
        return min(existing, peers_of(predicted).wanted)
    if restart_pending(live):
        return existing - int(status.get("updatedReplicas") or 0)
    return 0


def estimate_restart_s(desired: Manifest, peers: int, *, at_once: bool) -> int:
    """Return the estimated time in seconds to restart the peers, all at once or one after another.

    One restart takes the grace period, the initial delays of the probes, and a short start time. It takes
    longer if an image must be pulled or no node has free resources.
    """
    pod = desired["spec"]["template"]["spec"]
    probes = [c.get(p) or {} for c in pod["containers"] for p in ("startupProbe", "readinessProbe")]
    delay_s = max((int(probe.get("initialDelaySeconds") or 0) for probe in probes), default=0)
    delay_s += int(desired["spec"].get("minReadySeconds") or 0)
    grace_s = int(pod.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))
    rounds = min(peers, 1) if at_once else peers
    return rounds * (grace_s + delay_s + _START_S) + _staggered_s(pod, peers, at_once=at_once)


def _staggered_s(pod: Mapping[str, Any], peers: int, *, at_once: bool) -> int:
    """Return the time in seconds that staggered starts add to a restart of the peers.

    If all peers restart at once, this is the delay of the last peer. Otherwise, it is the sum of all delays.
    """
    flags = next((c.get("args") or () for c in pod.get("initContainers", ()) if c["name"] == _STAGGER), ())
    values = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    try:
        step_ms, first = int(values["--step-ms"]), int(values.get("--first", "0"))
    except (KeyError, ValueError):  # a template may define another init container of the same name
        return 0
    steps = [first + peers - 1] if at_once else range(first, first + peers)
    return sum(steps) * step_ms // 1000 if peers else 0


def changes_template(live: Manifest, predicted: Manifest) -> bool:
    """Return True if two states of a StatefulSet have different pod templates."""
    return live["kind"] == "StatefulSet" and bool(predicted["spec"]["template"] != live["spec"]["template"])


def adopts_peers(desired: Manifest, live: Manifest) -> bool:
    """Return True if the selector of a new StatefulSet would match the peers of the live StatefulSet."""
    if live["kind"] != "StatefulSet":
        return True
    selector = desired["spec"].get("selector") or {}
    labels = (live["spec"]["template"].get("metadata") or {}).get("labels") or {}
    live_selector = live["spec"].get("selector") or {}
    same_expressions = selector.get("matchExpressions") == live_selector.get("matchExpressions")
    return same_expressions and all(
        labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()
    )


def is_restarted_by_sync(manifest: Manifest) -> bool:
    """Return True if the sync itself must delete the peers of an old revision (update strategy OnDelete)."""
    strategy = (manifest.get("spec") or {}).get("updateStrategy") or {}
    return manifest["kind"] == "StatefulSet" and strategy.get("type") == "OnDelete"


def _is_immutable(kind: str, name: str) -> bool:
    if kind in _MUTABLE:
        return name not in _MUTABLE[kind]
    return name in _IMMUTABLE.get(kind, frozenset())


def _covers(wanted: object, live: Any) -> bool:  # noqa: ANN401 -- any JSON value
    """Return True if `live` contains all values of `wanted`; additional map keys in `live` are ignored."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(_covers(v, live.get(k)) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(a, b) for a, b in zip(wanted, live, strict=True))
        )
    return bool(wanted == live)


def _request(container: Mapping[str, Any], name: str) -> Decimal:
    resources = container.get("resources") or {}
    text = (resources.get("requests") or {}).get(name) or (resources.get("limits") or {}).get(name)
    try:
        return parse_quantity(str(text or "0"))
    except UnitError:  # a live object may contain forms that nimlab cannot parse; the sum is only for display
        return Decimal(0)
