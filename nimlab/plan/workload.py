"""Facts about workloads that planning needs: what they cost, what can't be changed in place, who restarts.

In: manifests and live objects. Out: numbers and field paths. Nothing is decided here. Pure.
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
    # apimachinery's pkg/apis/apps/validation; revisionHistoryLimit since 1.32
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
_START_S: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Pods and what they ask for; differences may be negative."""

    pods: int = 0
    cpu_m: int = 0
    memory_bytes: int = 0

    def minus(self, other: Resources) -> Resources:
        """Return this minus the other."""
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
    """Return what a workload asks for: its replicas times their requests; nothing for other kinds."""
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
    """What a node must have free for a pod, as the scheduler counts (KEP-753).

    Native sidecars stay, so each init container runs beside those before it; what all containers need
    together, or one of the steps before them, whichever is more.
    """
    sidecars = most = Decimal(0)
    for container in pod.get("initContainers", ()):
        request = _request(container, name)
        most = max(most, sidecars + request)
        if container.get("restartPolicy") == "Always":
            sidecars += request
    return max(most, sidecars + sum((_request(c, name) for c in pod.get("containers", ())), Decimal(0)))


def caveats_of(manifest: Manifest | None) -> tuple[str, ...]:
    """Return what a workload seems to promise and doesn't; sorted.

    A container runtime asks for a burst of 512 MiB with the bandwidth annotations, which at 16 Mbit/s is more
    than four minutes without a limit (kubernetes/kubernetes#90838; measured in docs/shaping.md).
    """
    template = ((manifest or {}).get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    if _BANDWIDTH.isdisjoint(annotations):
        return ()
    return ("`method: cni` bounds the long-run average only: the first 512 MiB each way pass unlimited",)


def immutable_changes(desired: Manifest, live: Manifest) -> tuple[str, ...]:
    """Return the paths of desired fields that the server will not change in place; sorted.

    Told apart here, from the two objects: the server's 422 doesn't name the field, and means many other
    things as well.
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


def trial_of(desired: Manifest) -> Manifest:
    """Return the object under another name, for a dry run of a replacement.

    Under its own name the server would refuse the immutable field, or say that it exists.
    """
    return {**desired, "metadata": {**desired["metadata"], "name": f"{desired['metadata']['name']}-new"}}


def restarts_of(live: Manifest, predicted: Manifest | None) -> int:
    """Return how many running peers an update deletes and makes anew; 0 where nothing restarts.

    Those that a smaller size removes aren't made anew.
    `predicted` is None when the object itself stays as it is: then peers of an older revision count, which
    an interrupted sync has left behind.
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
    """Return about how many seconds it takes to restart so many peers, all at once or one after another.

    For each: its grace period to stop, the delays of its probes, and a moment to start. An image that has to
    be pulled, or a node that is full, takes longer.
    """
    pod = desired["spec"]["template"]["spec"]
    probes = [c.get(p) or {} for c in pod["containers"] for p in ("startupProbe", "readinessProbe")]
    delay_s = max((int(probe.get("initialDelaySeconds") or 0) for probe in probes), default=0)
    delay_s += int(desired["spec"].get("minReadySeconds") or 0)
    grace_s = int(pod.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))
    rounds = min(peers, 1) if at_once else peers
    return rounds * (grace_s + delay_s + _START_S) + _staggered_s(pod, peers, at_once=at_once)


def _staggered_s(pod: Mapping[str, Any], peers: int, *, at_once: bool) -> int:
    """How many seconds peers wait for their turn: the last of them, or one after another."""
    flags = next((c.get("args") or () for c in pod.get("initContainers", ()) if c["name"] == _STAGGER), ())
    asked = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    try:
        step_ms, first = int(asked["--step-ms"]), int(asked.get("--first", "0"))
    except (KeyError, ValueError):  # a template may have an init container of that name that is not ours
        return 0
    places = [first + peers - 1] if at_once else range(first, first + peers)
    return sum(places) * step_ms // 1000 if peers else 0


def changes_template(live: Manifest, made: Manifest) -> bool:
    """Return True when the two have different pod templates."""
    return live["kind"] == "StatefulSet" and bool(made["spec"]["template"] != live["spec"]["template"])


def adopts_peers(desired: Manifest, live: Manifest) -> bool:
    """Return True when a new StatefulSet would find the peers of the live one by their labels."""
    if live["kind"] != "StatefulSet":
        return True
    selector = desired["spec"].get("selector") or {}
    labels = (live["spec"]["template"].get("metadata") or {}).get("labels") or {}
    same = selector.get("matchExpressions") == (live["spec"].get("selector") or {}).get("matchExpressions")
    return same and all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def restarts_together(manifest: Manifest) -> bool:
    """Return True when the sync itself deletes the peers of an old revision."""
    strategy = (manifest.get("spec") or {}).get("updateStrategy") or {}
    return manifest["kind"] == "StatefulSet" and strategy.get("type") == "OnDelete"


def _is_immutable(kind: str, name: str) -> bool:
    if kind in _MUTABLE:
        return name not in _MUTABLE[kind]
    return name in _IMMUTABLE.get(kind, frozenset())


def _covers(wanted: object, live: Any) -> bool:  # noqa: ANN401 -- any JSON value
    """True when live has all that is wanted; what the server filled in beside it doesn't matter."""
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
    except UnitError:  # a live object may hold forms that we never write; the count is for people
        return Decimal(0)
