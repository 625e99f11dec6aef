"""Restarts of pods: whether a change of a workload restarts its pods, how many, and for how long.

In: manifests and live objects. Out: numbers. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import peers_of, restart_pending

_BANDWIDTH: Final = frozenset({"kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"})


_DEFAULT_GRACE_S: Final = 30


_STAGGER: Final = "stagger"
"""Name of the init container that delays the start of a peer by its index."""


_START_S: Final = 2


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


def is_restarted_by_sync(manifest: Manifest) -> bool:
    """Return True if the sync itself must delete the peers of an old revision (update strategy OnDelete)."""
    strategy = (manifest.get("spec") or {}).get("updateStrategy") or {}
    return manifest["kind"] == "StatefulSet" and strategy.get("type") == "OnDelete"
