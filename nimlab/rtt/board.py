"""What happened -> numbers under the names of the catalog.

In: ended probes, rosters, failures, requests of other peers. Out: the exposition's text at a given time. Pure
state; times are arguments. Not done here: making anything happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nimlab.rtt.dns import Reason
from nimlab.rtt.echo import Treatment
from nimlab.rtt.ledger import Ledger
from nimlab.rtt.metrics import Registry
from nimlab.rtt.outcome import Method, Result
from nimlab.rtt.rounds import Probe

_SHOWN_FROM_THE_START: Final = (
    (Method.TCP, Treatment.ANSWERED),
    (Method.UDP, Treatment.ANSWERED),
    (Method.UDP, Treatment.IGNORED),
)


class Board:
    """All numbers of this exporter. Counters are there from the start, so a first increase is seen as one."""

    def __init__(self, ledger: Ledger, *, version: str) -> None:
        self._ledger = ledger
        self._registry = registry = Registry()
        registry.put("nimlab_rtt_exporter_info", 1, version)
        registry.put("nimlab_rtt_peers_discovered", 0)
        registry.put("nimlab_rtt_peers_sampled", 0)
        registry.add("nimlab_rtt_rounds_total", 0)
        registry.add("nimlab_rtt_rounds_skipped_total", 0)
        for reason in Reason:
            registry.add("nimlab_rtt_discovery_errors_total", 0, reason.value)
        for method, treatment in _SHOWN_FROM_THE_START:
            registry.add("nimlab_rtt_echo_requests_total", 0, method.value, treatment.value)

    def note_method(self, method: Method, *, usable: bool) -> None:
        """Say whether a method that was asked for works here."""
        self._registry.put("nimlab_rtt_method_usable", int(usable), method.value)
        if usable:
            self._registry.open_histogram("nimlab_rtt_seconds", method.value)
            self._registry.add("nimlab_rtt_process_timed_total", 0, method.value)
            for result in Result:
                self._registry.add("nimlab_rtt_probes_total", 0, method.value, result.value)

    def note_targets(self, targets: Iterable[str], *, discovered: int, now_s: float, wall_s: float) -> None:
        """Say who is probed from now on, of how many that are there."""
        names = {*targets}
        self._ledger.retarget(names, now_s=now_s)
        self._registry.put("nimlab_rtt_peers_discovered", discovered)
        self._registry.put("nimlab_rtt_peers_sampled", len(names))
        self._registry.put("nimlab_rtt_discovery_success_timestamp_seconds", round(wall_s, 3))

    def count_failure(self, reason: Reason) -> None:
        """Count a question to DNS that brought nothing usable."""
        self._registry.add("nimlab_rtt_discovery_errors_total", 1, reason.value)

    def count_echo(self, method: Method, treatment: Treatment) -> None:
        """Count what came in at the echo port."""
        self._registry.add("nimlab_rtt_echo_requests_total", 1, method.value, treatment.value)

    def count_probe(self, probe: Probe, *, wall_s: float) -> None:
        """Count a probe that has ended."""
        method, outcome = probe.method.value, probe.outcome
        self._ledger.record(probe.peer, probe.method, outcome)
        self._registry.add("nimlab_rtt_probes_total", 1, method, outcome.result.value)
        if outcome.rtt_s is None:
            return
        self._registry.observe("nimlab_rtt_seconds", outcome.rtt_s, method)
        self._registry.put("nimlab_rtt_last_success_timestamp_seconds", round(wall_s, 3))
        if not outcome.kernel_timed:
            self._registry.add("nimlab_rtt_process_timed_total", 1, method)

    def count_round(self, *, duration_s: float, skipped: int) -> None:
        """Count a round that has ended, and those that fall out because of it."""
        self._registry.put("nimlab_rtt_round_duration_seconds", duration_s)
        self._registry.add("nimlab_rtt_rounds_total", 1)
        self._registry.add("nimlab_rtt_rounds_skipped_total", skipped)

    def expose(self, *, now_s: float) -> str:
        """Return all numbers as text; peers that left too long ago aren't in it."""
        self._ledger.forget(now_s=now_s)
        rows = [((row.peer, row.method.value), row) for row in self._ledger.rows()]
        put_all = self._registry.put_all
        put_all("nimlab_rtt_peer_last_seconds", {key: r.last_s for key, r in rows if r.last_s is not None})
        put_all("nimlab_rtt_peer_min_seconds", {key: r.least_s for key, r in rows if r.least_s is not None})
        put_all("nimlab_rtt_peer_loss_ratio", {key: r.loss_ratio for key, r in rows})
        return self._registry.expose()
