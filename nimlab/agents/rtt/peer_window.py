"""Keep the latest probe outcomes of each peer, to compute its last and lowest round-trip time and its loss.

Times are arguments; no clock is read. The rows of a former target remain for the linger time, so that
Prometheus scrapes the last values. The number of peers is limited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from nimlab.agents.rtt.outcome import Method, Outcome, Result

# Result.ERROR is a local failure and does not count as loss.
_NO_ANSWER: Final = frozenset({Result.TIMEOUT, Result.REFUSED, Result.UNREACHABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Values of one peer and method over the window. Times are None if no probe succeeded."""

    peer: str
    method: Method
    last_s: float | None
    least_s: float | None
    loss_ratio: float


@dataclass(slots=True)
class _History:
    """Outcomes of one peer. `untargeted_at_s` is the time at which it stopped being a target."""

    untargeted_at_s: float | None = None
    windows: dict[Method, deque[float | None]] = field(default_factory=dict)


class PeerWindow:
    """The latest outcomes of the current and the recent targets."""

    def __init__(self, *, window_probes: int, linger_s: float, max_peers: int) -> None:
        self._window_probes = window_probes
        self._linger_s = linger_s
        self._max_peers = max_peers
        self._histories: dict[str, _History] = {}

    def retarget(self, peers: Iterable[str], *, now_s: float) -> None:
        """Set the current targets."""
        targets = set(peers)
        for peer in targets:
            self._histories.setdefault(peer, _History()).untargeted_at_s = None
        for peer, history in self._histories.items():
            if peer not in targets and history.untargeted_at_s is None:
                history.untargeted_at_s = now_s
        self.forget(now_s=now_s)

    def record(self, peer: str, method: Method, outcome: Outcome) -> None:
        """Record the outcome of a probe; ignore it if the peer was removed in the meantime."""
        history = self._histories.get(peer)
        if history is None:
            return
        if outcome.rtt_s is not None or outcome.result in _NO_ANSWER:
            window = history.windows.setdefault(method, deque(maxlen=self._window_probes))
            window.append(outcome.rtt_s)

    def forget(self, *, now_s: float) -> None:
        """Remove former targets after the linger time, or earlier if there are too many peers."""
        former = sorted(
            (history.untargeted_at_s, peer)
            for peer, history in self._histories.items()
            if history.untargeted_at_s is not None
        )
        surplus = len(self._histories) - self._max_peers
        for index, (untargeted_at_s, peer) in enumerate(former):
            if index < surplus or now_s - untargeted_at_s >= self._linger_s:
                del self._histories[peer]

    def rows(self) -> Iterator[Row]:
        """Yield the rows sorted by peer; none for a peer without a completed probe."""
        for peer, history in sorted(self._histories.items()):
            for method, window in history.windows.items():
                times = [rtt_s for rtt_s in window if rtt_s is not None]
                yield Row(
                    peer=peer,
                    method=method,
                    last_s=times[-1] if times else None,
                    least_s=min(times) if times else None,
                    loss_ratio=1 - len(times) / len(window),
                )
