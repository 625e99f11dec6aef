"""Run the exporter: discover peers, probe them and serve the metrics until it is stopped.

This module runs the steps in one event loop and one thread; each step is implemented in its own module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from nimlab import __version__
from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.config import Config
from nimlab.agents.rtt.dns import DnsError, Reason
from nimlab.agents.rtt.echo import serve_echo
from nimlab.agents.rtt.http_server import Page, Pages, serve_http
from nimlab.agents.rtt.log import Level, Log
from nimlab.agents.rtt.metric_recorder import MetricRecorder
from nimlab.agents.rtt.outcome import Method, Prober
from nimlab.agents.rtt.peer_window import PeerWindow
from nimlab.agents.rtt.peers import Peer, Roster, Self, complete, discover
from nimlab.agents.rtt.probe_icmp import IcmpProber, why_not_permitted
from nimlab.agents.rtt.probe_tcp import TcpProber
from nimlab.agents.rtt.probe_udp import UdpProber
from nimlab.agents.rtt.resolve import Resolver
from nimlab.agents.rtt.ring import choose_targets, fraction_of
from nimlab.agents.rtt.rounds import next_start, probe_all

_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
_MISSED_ROUNDS: Final = 3  # number of missed rounds after which /healthz fails
# /healthz does not fail sooner: rounds may be missed for lack of CPU time, and a restart does not help.
_LEAST_PATIENCE_S: Final = 10.0
_ICMP_HINT: Final = "set the pod's sysctl net.ipv4.ping_group_range to a range with this process's group"


async def run(config: Config, *, clock: Clock, log: Log, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises OSError if a port is not available."""
    exporter = Exporter(config, clock=clock, log=log)
    async with AsyncExitStack() as stack:
        stack.enter_context(serve_echo(config.pod_ip, config.echo_port, exporter.recorder.count_echo))
        metrics_port = await stack.enter_async_context(
            serve_http(config.metrics_address, config.metrics_port, exporter.pages())
        )
        log(
            Level.INFO,
            "started",
            version=__version__,
            methods=",".join(method.value for method in exporter.probers),
            metrics_port=metrics_port,
            echo_port=config.echo_port,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(exporter.keep_discovering()),
                group.create_task(exporter.keep_probing()),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
    log(Level.INFO, "stopped")


class Exporter:
    """An exporter: the discovered peers, the current targets, and the steps of its loops."""

    def __init__(self, config: Config, *, clock: Clock, log: Log) -> None:
        window = PeerWindow(
            window_probes=config.window_probes, linger_s=config.linger_s, max_peers=config.max_peer_series
        )
        self.recorder = MetricRecorder(window, version=__version__)
        self._config = config
        self._clock = clock
        self._log = log
        self._me = Self(name=config.pod_name, address=config.pod_ip, echo_port=config.echo_port)
        self._resolver = Resolver(
            resolv_conf=config.resolv_conf, port=config.dns_port, timeout_s=config.dns_timeout_s
        )
        self._roster: Roster | None = None
        self._targets: tuple[Peer, ...] = ()
        self._failure: Reason | None = None
        self._beat_s = clock.monotonic_s()
        self.probers = self._open_probers()

    async def keep_discovering(self) -> None:
        """Query DNS periodically, and more often while no targets are known."""
        turn = 0
        while True:
            await self.update_targets()
            turn += 1
            pause_s = self._config.discovery_interval_s
            if not self._targets:
                pause_s = min(pause_s, self._config.interval_s)
            await self._clock.sleep(pause_s * self._stretch(f"look {turn}"))

    async def keep_probing(self) -> None:
        """Run rounds of probes. The time of the first round depends on the pod name, to spread the load."""
        interval_s = self._config.interval_s
        start_s = self._clock.monotonic_s() + interval_s * fraction_of(self._config.pod_name)
        turn = 0
        while True:
            await self._clock.sleep(max(0.0, start_s - self._clock.monotonic_s()))
            duration_s = await self.probe()
            turn += 1
            stretch = self._stretch(f"round {turn}")
            start_s, skipped = next_start(start_s, self._beat_s, interval_s=interval_s, stretch=stretch)
            self.recorder.count_round(duration_s=duration_s, skipped=skipped)

    async def update_targets(self) -> None:
        """Query DNS and choose the targets. Keep the previous targets if there is no usable answer."""
        try:
            roster = await discover(self._config.service, self._me, self._resolver)
        except DnsError as error:
            self._note_failures([error])
            return
        chosen = choose_targets(roster.own, roster.peers, fanout=self._config.fanout)
        known = {peer.name: peer.address for peer in self._targets if peer.address is not None}
        targets, errors = await complete([roster.peers[name] for name in chosen], known, self._resolver)
        self._note_failures(errors)
        self._keep(roster, targets)

    async def probe(self) -> float:
        """Run one round of probes, count it and return its duration in seconds."""
        started_s = self._clock.monotonic_s()
        for probe in await probe_all(self._targets, self.probers):
            self.recorder.count_probe(probe, wall_s=self._clock.wall_s())
        self._beat_s = self._clock.monotonic_s()
        return self._beat_s - started_s

    def pages(self) -> Pages:
        """Return the HTTP pages by path."""
        return {"/metrics": self.show_metrics, "/healthz": self.show_health, "/readyz": self.show_readiness}

    def show_metrics(self) -> Page:
        """Return the current metrics."""
        return Page(body=self.recorder.expose(now_s=self._clock.monotonic_s()), content_type=_EXPOSITION)

    def show_health(self) -> Page:
        """Return 503 if no round has completed for too long, so that the kubelet restarts the container."""
        config = self._config
        patience_s = _MISSED_ROUNDS * config.interval_s * (1 + config.jitter_ratio) + config.timeout_s
        late_s = self._clock.monotonic_s() - self._beat_s
        if late_s > max(patience_s, _LEAST_PATIENCE_S):
            return Page(status=503, body=f"no round of probes for {late_s:.1f} s\n")
        return Page(body="ok\n")

    def show_readiness(self) -> Page:
        """Return 200 if DNS has returned the list of peers at least once, otherwise 503."""
        if self._roster is None:
            reason = self._failure.value if self._failure else "not asked yet"
            return Page(status=503, body=f"peers unknown: {reason}\n")
        return Page(body="ready\n")

    def _keep(self, roster: Roster, targets: tuple[Peer, ...]) -> None:
        if self._roster is None or len(self._roster.peers) != len(roster.peers):
            self._log(Level.INFO, "peers", discovered=len(roster.peers), sampled=len(targets))
        self._roster, self._targets = roster, targets
        self.recorder.note_targets(
            (peer.name for peer in targets),
            discovered=len(roster.peers),
            now_s=self._clock.monotonic_s(),
            wall_s=self._clock.wall_s(),
        )

    def _note_failures(self, errors: Sequence[DnsError]) -> None:
        """Count the errors; log a reason once, until it changes or the errors end."""
        for error in errors:
            self.recorder.count_failure(error.reason)
            if error.reason is not self._failure:
                kept = 0 if self._roster is None else len(self._roster.peers)
                self._log(
                    Level.WARNING, "discovery-failed", reason=error.reason.value, what=str(error), kept=kept
                )
            self._failure = error.reason
        if not errors:
            self._failure = None

    def _open_probers(self) -> Mapping[Method, Prober]:
        """Return a prober for each permitted method; log the methods that are not permitted."""
        probers: dict[Method, Prober] = {}
        for method in self._config.probe_methods:
            obstacle = why_not_permitted() if method is Method.ICMP else None
            self.recorder.note_method(method, usable=obstacle is None)
            if obstacle is None:
                probers[method] = self._open_prober(method)
            else:
                self._log(
                    Level.WARNING, "method-not-usable", method=method.value, why=obstacle, hint=_ICMP_HINT
                )
        return probers

    def _open_prober(self, method: Method) -> Prober:
        timeout_s, clock = self._config.timeout_s, self._clock
        if method is Method.ICMP:
            return IcmpProber(timeout_s=timeout_s, clock=clock)
        if method is Method.UDP:
            return UdpProber(timeout_s=timeout_s, clock=clock)
        return TcpProber(timeout_s=timeout_s, clock=clock)

    def _stretch(self, turn: str) -> float:
        """Return the jitter factor of a turn, around 1; it depends only on the pod name and the turn."""
        return 1 + self._config.jitter_ratio * (2 * fraction_of(f"{self._config.pod_name} {turn}") - 1)
