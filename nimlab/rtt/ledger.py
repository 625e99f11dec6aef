"""What is known of each peer lately: outcomes of probes -> last, least and loss, over a window of probes.

In: who is a target now, and what became of probes to them. Out: rows for exposition. Pure state; the time is
an argument. A target that is none any more keeps its rows for a stated time, so that its last ones are
scraped, then it is forgotten; never more peers are kept than was said. Not done here: probing, and sums over
all peers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from nimlab.rtt.outcome import Method, Outcome, Result

# A failure of our own says nothing about the peer.
_NO_ANSWER: Final = frozenset({Result.TIMEOUT, Result.REFUSED, Result.UNREACHABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One peer and method over the window. Times are None if no probe in it succeeded."""

    peer: str
    method: Method
    last_s: float | None
    least_s: float | None
    loss_ratio: float


@dataclass(slots=True)
class _Page:
    """What is known of one peer. `left_s`: since when it isn't a target."""

    left_s: float | None = None
    windows: dict[Method, deque[float | None]] = field(default_factory=dict)


class Ledger:
    """The peers that are targets, and those that were lately."""

    def __init__(self, *, window_probes: int, linger_s: float, max_peers: int) -> None:
        self._window_probes = window_probes
        self._linger_s = linger_s
        self._max_peers = max_peers
        self._pages: dict[str, _Page] = {}

    def retarget(self, peers: Iterable[str], *, now_s: float) -> None:
        """Say who the targets are from now on."""
        targets = set(peers)
        for peer in targets:
            self._pages.setdefault(peer, _Page()).left_s = None
        for peer, page in self._pages.items():
            if peer not in targets and page.left_s is None:
                page.left_s = now_s
        self.forget(now_s=now_s)

    def record(self, peer: str, method: Method, outcome: Outcome) -> None:
        """Keep what became of a probe; one to a peer that is forgotten meanwhile is dropped."""
        page = self._pages.get(peer)
        if page is None:
            return
        if outcome.rtt_s is not None or outcome.result in _NO_ANSWER:
            window = page.windows.setdefault(method, deque(maxlen=self._window_probes))
            window.append(outcome.rtt_s)

    def forget(self, *, now_s: float) -> None:
        """Drop who left too long ago, and those that left first if there are too many."""
        left = sorted((page.left_s, peer) for peer, page in self._pages.items() if page.left_s is not None)
        surplus = len(self._pages) - self._max_peers
        for index, (left_s, peer) in enumerate(left):
            if index < surplus or now_s - left_s >= self._linger_s:
                del self._pages[peer]

    def rows(self) -> Iterator[Row]:
        """Yield what is known, sorted by peer; nothing for a peer without a finished probe."""
        for peer, page in sorted(self._pages.items()):
            for method, window in page.windows.items():
                times = [rtt_s for rtt_s in window if rtt_s is not None]
                yield Row(
                    peer=peer,
                    method=method,
                    last_s=times[-1] if times else None,
                    least_s=min(times) if times else None,
                    loss_ratio=1 - len(times) / len(window),
                )
