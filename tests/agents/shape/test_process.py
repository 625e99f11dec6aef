"""A real link in network namespaces: it is shaped as requested, or a message states the reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nimlab.agents.shape.link import LEAST_BIT_PER_S, MOST_BIT_PER_S
from tests.agents.shape.netns import Cable, make_cable

pytestmark = [pytest.mark.process, pytest.mark.serial]

SIXTEEN = ("--uplink-bit-per-s", "16000000", "--downlink-bit-per-s", "16000000")


@pytest.fixture
def cable(pytestconfig: pytest.Config) -> Iterator[Cable]:
    """Yield two connected namespaces; skip, or fail with `--require-live`, on a machine without support."""
    if os.geteuid() != 0 or shutil.which("tc") is None:
        if pytestconfig.getoption("--require-live"):
            pytest.fail("network namespaces need root, and iproute2")
        pytest.skip("network namespaces need root, and iproute2")
    with make_cable() as new_cable:
        yield new_cable


def test_a_limit_of_16_mbit_applies_in_both_directions(cable: Cable, figure: Callable[[str], None]) -> None:
    free = [cable.goodput_bit_per_s(upwards=upwards) for upwards in (True, False)]
    assert min(free) > 100e6, "this machine is too slow for the test"
    for _ in range(2):  # when a container is restarted, its link is already shaped
        done = cable.shape(*SIXTEEN)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["uplink_bit_per_s"] == 16_000_000
    shaped = [cable.goodput_bit_per_s(upwards=upwards, seconds=3) for upwards in (True, False)]
    assert all(12e6 < rate < 17e6 for rate in shaped), shaped
    assert cable.shape().returncode == 0
    freed = [cable.goodput_bit_per_s(upwards=upwards) for upwards in (True, False)]
    assert min(freed) > 100e6
    up, down = (f"{rate / 1e6:.1f}" for rate in shaped)
    figure(f"shaping: with a limit of 16 Mbit/s, {up} up and {down} down; {min(free) / 1e6:,.0f} without")


def test_large_packets_pass(cable: Cable, figure: Callable[[str], None]) -> None:
    """A bucket smaller than a packet drops every packet, although the kernel reports the requested rate."""
    cable.set_mtu(9000)
    done = cable.shape(*SIXTEEN)
    assert done.returncode == 0, done.stderr
    shaped = [cable.goodput_bit_per_s(upwards=upwards, seconds=3) for upwards in (True, False)]
    assert all(12e6 < rate < 17e6 for rate in shaped), shaped
    up, down = (f"{rate / 1e6:.1f}" for rate in shaped)
    figure(f"shaping: with a limit of 16 Mbit/s and an MTU of 9,000, {up} up and {down} down")


@pytest.mark.parametrize("rate_bit_per_s", [LEAST_BIT_PER_S, MOST_BIT_PER_S])
def test_the_kernel_accepts_the_minimum_and_the_maximum_rate(cable: Cable, rate_bit_per_s: int) -> None:
    cable.set_mtu(9000)
    done = cable.shape(*(f"--{way}-bit-per-s={rate_bit_per_s}" for way in ("uplink", "downlink")))
    assert done.returncode == 0, done.stderr


def test_a_limit_applies_to_its_direction_only(cable: Cable) -> None:
    assert cable.shape("--downlink-bit-per-s", "8000000").returncode == 0
    assert cable.goodput_bit_per_s(upwards=True) > 100e6
    assert 5e6 < cable.goodput_bit_per_s(upwards=False, seconds=3) < 8.5e6


def test_delay_works_or_the_missing_kernel_module_is_reported(cable: Cable) -> None:
    done = cable.shape("--latency-ms", "40", "--jitter-ms", "5", "--loss-ratio", "0.01")
    if done.returncode == 0:  # a kernel with netem
        assert json.loads(done.stdout)["latency_ms"] == 40
    else:
        assert "the node's kernel has no netem: run `modprobe sch_netem` on the node" in done.stderr


def test_a_missing_capability_is_reported(cable: Cable, tmp_path: Path) -> None:
    log = tmp_path / "termination"
    log.touch()
    no_rights = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")
    done = cable.shape(*SIXTEEN, "--termination-log", str(log), prefix=no_rights)
    assert done.returncode == 1
    assert "lacks the capability NET_ADMIN" in done.stderr
    assert log.read_text() == done.stderr.strip()


def test_an_unknown_interface_and_a_missing_program_are_reported(cable: Cable) -> None:
    done = cable.shape("--interface", "eth7", *SIXTEEN)
    assert done.returncode == 1
    assert "the interface does not exist" in done.stderr
    done = cable.shape(*SIXTEEN, prefix=("env", "PATH=/nowhere"))
    assert done.returncode == 1
    assert "the image must contain iproute2" in done.stderr


def test_a_setting_that_the_kernel_changed_is_reported(cable: Cable, tmp_path: Path) -> None:
    """A `tc` that changes a rate simulates such a kernel; reading the settings back detects it."""
    real = shutil.which("tc")
    fake_tc = tmp_path / "tc"
    fake_tc.write_text(
        f'#!/bin/sh\nexec {real} $(echo "$@" | sed s/16000000bit/500Mbit/)\n', encoding="ascii"
    )
    fake_tc.chmod(0o755)
    done = cable.shape(*SIXTEEN, prefix=("env", f"PATH={tmp_path}:{os.environ['PATH']}"))
    assert done.returncode == 1
    assert "the kernel reports other settings: uplink at eth0: rate, bit/s: 5e+08, not 1.6e+07" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("--uplink-bit-per-s", "0"),
        ("--uplink-bit-per-s", "fast"),
        ("--loss-ratio", "2"),
        ("--loss-ratio", "nan"),
        ("--interface", "a;b"),
        ("--interface", ""),
        ("--up", "1000"),
    ],
)
def test_wrong_flags_give_exit_code_2(cable: Cable, wrong: tuple[str, ...]) -> None:
    assert cable.shape(*wrong).returncode == 2
