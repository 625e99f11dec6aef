"""Record events as metrics of the catalog.

Probes, discovered peers, DNS failures and echo requests are recorded in the registry; `expose` returns the
metrics as text. Times are arguments; no clock is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nimlab.agents.rtt.dns import Reason
from nimlab.agents.rtt.echo import Treatment
from nimlab.agents.rtt.metrics import Registry
from nimlab.agents.rtt.outcome import Method, Result
from nimlab.agents.rtt.peer_window import PeerWindow
from nimlab.agents.rtt.rounds import Probe

_INITIAL_ECHO_SERIES: Final = (
    (Method.TCP, Treatment.ANSWERED),
    (Method.UDP, Treatment.ANSWERED),
    (Method.UDP, Treatment.IGNORED),
)


class MetricRecorder:
    """All metrics of the exporter. Counters start at 0, so that `rate()` includes the first increase."""

    def __init__(self, window: PeerWindow, *, version: str) -> None:
        self._window = window
        self._registry = registry = Registry()
        registry.put("nimlab_rtt_exporter_info", 1, version)
        registry.put("nimlab_rtt_peers_discovered", 0)
        registry.put("nimlab_rtt_peers_sampled", 0)
        registry.add("nimlab_rtt_rounds_total", 0)
        registry.add("nimlab_rtt_rounds_skipped_total", 0)
        for reason in Reason:
            registry.add("nimlab_rtt_discovery_errors_total", 0, reason.value)
        for method, treatment in _INITIAL_ECHO_SERIES:
            registry.add("nimlab_rtt_echo_requests_total", 0, method.value, treatment.value)

    def note_method(self, method: Method, *, usable: bool) -> None:
        """Record whether a configured method works in this pod."""
        self._registry.put("nimlab_rtt_method_usable", int(usable), method.value)
        if usable:
            self._registry.open_histogram("nimlab_rtt_seconds", method.value)
            self._registry.add("nimlab_rtt_process_timed_total", 0, method.value)
            for result in Result:
                self._registry.add("nimlab_rtt_probes_total", 0, method.value, result.value)

    def note_targets(self, targets: Iterable[str], *, discovered: int, now_s: float, wall_s: float) -> None:
        """Record the current targets and the number of discovered peers."""
        names = {*targets}
        self._window.retarget(names, now_s=now_s)
        self._registry.put("nimlab_rtt_peers_discovered", discovered)
        self._registry.put("nimlab_rtt_peers_sampled", len(names))
        self._registry.put("nimlab_rtt_discovery_success_timestamp_seconds", round(wall_s, 3))

    def count_failure(self, reason: Reason) -> None:
        """Count a DNS query without a usable answer."""
        self._registry.add("nimlab_rtt_discovery_errors_total", 1, reason.value)

    def count_echo(self, method: Method, treatment: Treatment) -> None:
        """Count a connection or datagram at the echo port."""
        self._registry.add("nimlab_rtt_echo_requests_total", 1, method.value, treatment.value)

    def count_probe(self, probe: Probe, *, wall_s: float) -> None:
        """Count a completed probe."""
        method, outcome = probe.method.value, probe.outcome
        self._window.record(probe.peer, probe.method, outcome)
        self._registry.add("nimlab_rtt_probes_total", 1, method, outcome.result.value)
        if outcome.rtt_s is None:
            return
        self._registry.observe("nimlab_rtt_seconds", outcome.rtt_s, method)
        self._registry.put("nimlab_rtt_last_success_timestamp_seconds", round(wall_s, 3))
        if not outcome.kernel_timed:
            self._registry.add("nimlab_rtt_process_timed_total", 1, method)

    def count_round(self, *, duration_s: float, skipped: int) -> None:
        """Count a completed round, and the rounds that were skipped while it was running."""
        self._registry.put("nimlab_rtt_round_duration_seconds", duration_s)
        self._registry.add("nimlab_rtt_rounds_total", 1)
        self._registry.add("nimlab_rtt_rounds_skipped_total", skipped)

    def expose(self, *, now_s: float) -> str:
        """Return all metrics as text, without peers whose linger time is over."""
        self._window.forget(now_s=now_s)
        rows = [((row.peer, row.method.value), row) for row in self._window.rows()]
        put_all = self._registry.put_all
        put_all("nimlab_rtt_peer_last_seconds", {key: r.last_s for key, r in rows if r.last_s is not None})
        put_all("nimlab_rtt_peer_min_seconds", {key: r.least_s for key, r in rows if r.least_s is not None})
        put_all("nimlab_rtt_peer_loss_ratio", {key: r.loss_ratio for key, r in rows})
        return self._registry.expose()
