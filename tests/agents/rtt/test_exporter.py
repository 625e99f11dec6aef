"""The exporter's loops in this process: DNS and peers are real, the time is simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.agents.rtt.config import Config, parse_config
from nimlab.agents.rtt.log import Field, Level
from nimlab.agents.rtt.main_loop import Exporter, run
from nimlab.agents.rtt.outcome import Method, Outcome, Prober, Result
from nimlab.agents.rtt.probe_icmp import why_not_permitted
from tests.agents.rtt.dns_server import DnsServer, Mood, Zone, serve_dns
from tests.agents.rtt.exposition import Exposition, read_exposition
from tests.agents.rtt.fake_time import EnoughError, FakeTime
from tests.agents.rtt.world import DOMAIN, settings_of

Events = list[dict[str, Any]]


class ExporterUnderTest:
    """An exporter under test, with its clock and its log."""

    def __init__(self, server: DnsServer, folder: Path, *, sleeps: int = 1000, **settings: object) -> None:
        defaults: dict[str, object] = {
            "interval_s": 5,
            "timeout_s": 1,
            "discovery_interval_s": 20,
            "dns_timeout_s": 10,
            **settings,
        }
        environ = settings_of(folder, server, "p-0", "127.0.5.1", 9106, defaults)
        self.config: Config = parse_config([], environ)
        self.time = FakeTime(sleeps=sleeps)
        self.events: Events = []
        self.exporter = Exporter(self.config, clock=self.time.clock(), log=self._log)

    def _log(self, level: Level, event: str, **fields: Field) -> None:
        self.events.append({"level": level.value, "event": event, **fields})

    def probe_with(self, probe: Callable[[str], Outcome]) -> None:
        """Replace the probes: each returns the given outcome for its address at once."""

        async def prober(address: str, _port: int) -> Outcome:
            return probe(address)

        self.exporter.probers = {Method.TCP: prober}

    def scrape(self) -> Exposition:
        return read_exposition(self.exporter.show_metrics().body)

    def peers(self) -> set[str]:
        return self.scrape().labels_of("nimlab_rtt_peer_loss_ratio", "peer")


def a_zone(count: int) -> Zone:
    return Zone(domain=DOMAIN, pods={f"p-{n}": (f"127.0.5.{n + 1}", 9106) for n in range(count)})


def took(_address: str) -> Outcome:
    return Outcome(result=Result.SUCCESS, rtt_s=0.001, kernel_timed=True)


def lost(_address: str) -> Outcome:
    return Outcome(result=Result.TIMEOUT)


def test_peers_are_discovered_chosen_and_probed(tmp_path: Path) -> None:
    with serve_dns(a_zone(20)) as server:
        under_test = ExporterUnderTest(server, tmp_path)
        under_test.probe_with(took)

        async def turn() -> None:
            await under_test.exporter.update_targets()
            await under_test.exporter.probe()

        asyncio.run(turn())
    read = under_test.scrape()
    assert read.value("nimlab_rtt_peers_discovered") == 19
    assert read.value("nimlab_rtt_peers_sampled") == 8
    assert len(under_test.peers()) == 8
    assert "p-0" not in under_test.peers()
    assert under_test.events == [{"level": "info", "event": "peers", "discovered": 19, "sampled": 8}]


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (Mood.FAILING, "server_failure"),
        (Mood.SILENT, "timeout"),
        (Mood.GARBAGE, "timeout"),
        (None, "not_found"),
    ],
)
def test_the_last_valid_list_is_kept(tmp_path: Path, mood: Mood | None, reason: str) -> None:
    zone = a_zone(4)
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path, dns_timeout_s=0.05 if reason == "timeout" else 10)
        under_test.probe_with(took)

        async def fail() -> None:
            await under_test.exporter.update_targets()
            if mood is None:
                zone.pods = {}
            else:
                zone.mood = mood
            under_test.time.now_s += 1000
            await under_test.exporter.update_targets()
            await under_test.exporter.update_targets()
            await under_test.exporter.probe()

        asyncio.run(fail())
    read = under_test.scrape()
    assert under_test.peers() == {"p-1", "p-2", "p-3"}
    assert read.value("nimlab_rtt_discovery_errors_total", reason=reason) == 2
    assert read.value("nimlab_rtt_discovery_success_timestamp_seconds") == 1.79e9 + 1000
    assert under_test.exporter.show_readiness().status == 200
    failures = [event for event in under_test.events if event["event"] == "discovery-failed"]
    assert [(event["reason"], event["kept"]) for event in failures] == [(reason, 3)]


def test_a_failure_is_logged_again_after_a_success(tmp_path: Path) -> None:
    zone = a_zone(4)
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path)

        async def fail() -> None:
            for mood in (Mood.FAILING, Mood.FAILING, Mood.HONEST, Mood.FAILING):
                zone.mood = mood
                await under_test.exporter.update_targets()

        asyncio.run(fail())
    assert [event["event"] for event in under_test.events] == [
        "discovery-failed",
        "peers",
        "discovery-failed",
    ]


def test_a_dead_peer_has_losses_until_it_is_removed(tmp_path: Path) -> None:
    zone = a_zone(3)
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path, linger_s=60, window_probes=4)
        dead: set[str] = set()
        under_test.probe_with(lambda address: lost(address) if address in dead else took(address))
        exporter = under_test.exporter

        def loss() -> float | None:
            return under_test.scrape().get("nimlab_rtt_peer_loss_ratio", peer="p-2", method="tcp")

        async def scenario() -> None:
            await exporter.update_targets()
            await exporter.probe()
            assert loss() == 0
            dead.add("127.0.5.3")
            await exporter.probe()
            assert loss() == 0.5
            for _ in range(3):
                await exporter.probe()
            assert loss() == 1
            assert under_test.scrape().get("nimlab_rtt_peer_last_seconds", peer="p-2", method="tcp") is None
            del zone.pods["p-2"]
            await exporter.update_targets()
            before = under_test.scrape().value("nimlab_rtt_probes_total", method="tcp", result="timeout")
            await exporter.probe()
            after = under_test.scrape().value("nimlab_rtt_probes_total", method="tcp", result="timeout")
            assert after == before  # a removed peer is not probed, so there is no loss
            under_test.time.now_s += 59
            assert loss() == 1
            under_test.time.now_s += 1
            assert under_test.peers() == {"p-1"}

        asyncio.run(scenario())


def test_a_peer_whose_address_changes_keeps_its_name(tmp_path: Path) -> None:
    zone = a_zone(2)
    probed: list[str] = []
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path)

        def record(address: str) -> Outcome:
            probed.append(address)
            return took(address)

        under_test.probe_with(record)

        async def move() -> None:
            for address in ("127.0.5.2", "127.0.5.99"):
                zone.pods["p-1"] = (address, 9106)
                await under_test.exporter.update_targets()
                await under_test.exporter.probe()

        asyncio.run(move())
    assert probed == ["127.0.5.2", "127.0.5.99"]
    assert under_test.peers() == {"p-1"}


def test_dns_is_queried_every_20_s_and_more_often_without_peers(tmp_path: Path) -> None:
    zone = a_zone(0)
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path, sleeps=10)
        sleep = under_test.time.sleep

        async def sleep_and_join(duration_s: float) -> None:
            if len(under_test.time.slept) == 4:
                zone.pods = a_zone(3).pods
            await sleep(duration_s)

        under_test.exporter = Exporter(
            under_test.config,
            clock=replace(under_test.time.clock(), sleep=sleep_and_join),
            log=under_test._log,
        )
        with pytest.raises(EnoughError):
            asyncio.run(under_test.exporter.keep_discovering())
    alone, together = under_test.time.slept[:5], under_test.time.slept[5:]
    assert all(4 <= pause_s <= 6 for pause_s in alone)
    assert all(16 <= pause_s <= 24 for pause_s in together)
    assert len(set(together)) == 5


def test_rounds_start_about_one_interval_apart(tmp_path: Path) -> None:
    with serve_dns(a_zone(2)) as server:
        under_test = ExporterUnderTest(server, tmp_path, sleeps=200)
        with pytest.raises(EnoughError):
            asyncio.run(under_test.exporter.keep_probing())
    first, *rest = under_test.time.slept
    assert 0 <= first < 5
    assert all(4 <= pause_s <= 6 for pause_s in rest)
    assert sum(rest) / len(rest) == pytest.approx(5, abs=0.2)
    assert under_test.scrape().value("nimlab_rtt_rounds_total") == 200
    assert under_test.scrape().value("nimlab_rtt_rounds_skipped_total") == 0


def test_exporters_that_start_together_spread_their_rounds(tmp_path: Path) -> None:
    """If all of 1,000 peers probed in one burst, the burst would distort the RTTs."""
    firsts = []
    with serve_dns(a_zone(0)) as server:
        for _ in range(2):
            for n in range(50):
                under_test = ExporterUnderTest(server, tmp_path, sleeps=1, pod_name=f"nimp2p-exp-purple-{n}")
                with pytest.raises(EnoughError):
                    asyncio.run(under_test.exporter.keep_probing())
                firsts.append(under_test.time.slept[0])
    assert all(0 <= pause_s < 5 for pause_s in firsts)
    tenths = [sum(int(pause_s * 2) == n for pause_s in firsts[:50]) for n in range(10)]
    assert max(tenths) <= 12  # about 5 of the 50 exporters are expected in each tenth
    assert len({*firsts[:50]}) == 50
    assert firsts[50:] == firsts[:50]  # the first pause depends only on the pod name


def test_a_long_round_causes_skipped_rounds(tmp_path: Path) -> None:
    with serve_dns(a_zone(2)) as server:
        under_test = ExporterUnderTest(server, tmp_path, sleeps=3, jitter_ratio=0)

        def slow(address: str) -> Outcome:
            under_test.time.now_s += 12  # simulates a process without CPU for 12 s
            return took(address)

        under_test.probe_with(slow)

        async def rounds() -> None:
            await under_test.exporter.update_targets()
            await under_test.exporter.keep_probing()

        with pytest.raises(EnoughError):
            asyncio.run(rounds())
    assert under_test.time.slept[1:] == pytest.approx([3, 3])
    assert under_test.scrape().value("nimlab_rtt_rounds_skipped_total") == 6
    assert under_test.scrape().value("nimlab_rtt_round_duration_seconds") == 12


def test_the_exporter_is_ready_after_the_first_dns_answer(tmp_path: Path) -> None:
    zone = a_zone(1)  # this pod is the only pod, so the answer is valid
    zone.mood = Mood.FAILING
    with serve_dns(zone) as server:
        under_test = ExporterUnderTest(server, tmp_path)
        assert under_test.exporter.show_readiness().body == "peers unknown: not asked yet\n"
        asyncio.run(under_test.exporter.update_targets())
        assert under_test.exporter.show_readiness().body == "peers unknown: server_failure\n"
        assert under_test.exporter.show_readiness().status == 503
        zone.mood = Mood.HONEST
        asyncio.run(under_test.exporter.update_targets())
    assert under_test.exporter.show_readiness().status == 200


def test_the_exporter_is_healthy_while_rounds_continue(tmp_path: Path) -> None:
    with serve_dns(a_zone(1)) as server:
        under_test = ExporterUnderTest(server, tmp_path)
    under_test.time.now_s += 19
    assert under_test.exporter.show_health().status == 200
    under_test.time.now_s += 0.1
    assert (under_test.exporter.show_health().status, under_test.exporter.show_health().body) == (
        503,
        "no round of probes for 19.1 s\n",
    )
    asyncio.run(under_test.exporter.probe())
    assert under_test.exporter.show_health().status == 200


def test_late_short_rounds_do_not_cause_a_restart(tmp_path: Path) -> None:
    with serve_dns(a_zone(1)) as server:
        under_test = ExporterUnderTest(server, tmp_path, interval_s=0.05, timeout_s=0.04)
    under_test.time.now_s += 10
    assert under_test.exporter.show_health().status == 200
    under_test.time.now_s += 0.1
    assert under_test.exporter.show_health().status == 503


def test_an_unusable_method_is_logged_and_not_used(tmp_path: Path) -> None:
    """Whether ICMP is permitted depends on this machine; `test_slow_link.py` tests both cases."""
    with serve_dns(a_zone(1)) as server:
        under_test = ExporterUnderTest(server, tmp_path, probe_methods="tcp,icmp")
    obstacle = why_not_permitted()
    assert (Method.ICMP in under_test.exporter.probers) is (obstacle is None)
    assert under_test.scrape().value("nimlab_rtt_method_usable", method="icmp") == int(obstacle is None)
    assert under_test.scrape().value("nimlab_rtt_method_usable", method="tcp") == 1
    assert [(event["event"], event["why"]) for event in under_test.events] == [
        ("method-not-usable", why) for why in [obstacle] if why
    ]


def test_a_bug_in_one_task_ends_the_exporter(tmp_path: Path) -> None:
    """If the exporter continued without the task, it would expose outdated numbers."""
    with serve_dns(a_zone(2)) as server:
        under_test = ExporterUnderTest(server, tmp_path)

        async def broken(_duration_s: float) -> None:
            raise ZeroDivisionError

        clock = replace(under_test.time.clock(), sleep=broken)

        async def start() -> None:
            await run(under_test.config, clock=clock, log=under_test._log, stop=asyncio.Event())

        with pytest.raises(ExceptionGroup) as caught:
            asyncio.run(asyncio.wait_for(start(), timeout=10))
    assert caught.group_contains(ZeroDivisionError)


def test_only_the_configured_methods_have_probers(tmp_path: Path) -> None:
    with serve_dns(a_zone(1)) as server:
        under_test = ExporterUnderTest(server, tmp_path, probe_methods="udp")
    probers: dict[Method, Prober] = {**under_test.exporter.probers}
    assert [*probers] == [Method.UDP]
