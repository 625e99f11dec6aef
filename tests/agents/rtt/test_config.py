from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.config import SETTINGS, Config, ConfigError, parse_config
from nimlab.agents.rtt.outcome import Method
from tests.agents.rtt.world import bare_environment

REQUIRED = {"SERVICE": "nimp2p-exp-purple", "POD_NAME": "nimp2p-exp-purple-0", "POD_IP": "10.42.0.7"}
NAMES = [setting.variable for setting in SETTINGS]


def problems_of(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config([], {**REQUIRED, **environ})
    return caught.value.problems


def test_optional_settings_have_their_defaults() -> None:
    assert parse_config([], REQUIRED) == Config(
        service="nimp2p-exp-purple",
        pod_name="nimp2p-exp-purple-0",
        pod_ip="10.42.0.7",
        probe_methods=(Method.TCP,),
        interval_s=5,
        timeout_s=1,
        jitter_ratio=0.2,
        fanout=8,
        window_probes=12,
        linger_s=60,
        max_peer_series=16,
        discovery_interval_s=20,
        metrics_address="0.0.0.0",  # noqa: S104 -- the tested default
        metrics_port=9105,
        echo_port=9106,
        resolv_conf=Path("/etc/resolv.conf"),
        dns_port=53,
        dns_timeout_s=2,
    )


def test_every_setting_is_a_flag_and_a_variable_and_the_flag_takes_precedence() -> None:
    by_flag = parse_config(
        ["--fanout", "3", "--probe-methods=icmp,udp"], {**REQUIRED, "FANOUT": "4", "ECHO_PORT": "7"}
    )
    assert (by_flag.fanout, by_flag.echo_port) == (3, 7)
    assert by_flag.probe_methods == (Method.ICMP, Method.UDP)


def test_an_empty_variable_is_ignored() -> None:
    assert parse_config([], {**REQUIRED, "FANOUT": ""}).fanout == 8


def test_missing_required_settings_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([], {})
    assert [problem.split()[0] for problem in caught.value.problems] == ["SERVICE", "POD_NAME", "POD_IP"]


@pytest.mark.parametrize(
    ("variable", "text", "hint"),
    [
        ("INTERVAL_S", "5s", "write a number from 0.05 to 3600"),
        ("INTERVAL_S", "nan", "write a number from 0.05 to 3600"),
        ("INTERVAL_S", "inf", "write a number from 0.05 to 3600"),
        ("TIMEOUT_S", "0", "write a number from 0.001 to 10"),
        ("FANOUT", "0", "write a whole number from 1 to 64"),
        ("FANOUT", "8.0", "write a whole number from 1 to 64"),
        ("FANOUT", "٣", "write a whole number from 1 to 64"),
        ("METRICS_PORT", "65536", "write a whole number from 0 to 65535"),
        ("POD_IP", "10.42.0", "write an IPv4 address"),
        ("POD_IP", "fd00::1", "write an IPv4 address"),
        ("SERVICE", "a..b", "write a DNS name"),
        ("PROBE_METHODS", "tcp,libp2p", "write one or more of tcp, udp, icmp with commas between them"),
    ],
)
def test_an_invalid_value_is_reported_with_a_hint(variable: str, text: str, hint: str) -> None:
    assert problems_of(**{variable: text}) == (f"{variable} is `{text}`: {hint}",)


def test_all_problems_are_reported_together() -> None:
    assert len(problems_of(FANOUT="x", POD_IP="y", INTERVAL_S="z")) == 3


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"TIMEOUT_S": "1", "INTERVAL_S": "1"},
            "TIMEOUT_S is 1: longer than the shortest round of 0.8 s",
        ),
        ({"FANOUT": "20"}, "MAX_PEER_SERIES is 16: less than FANOUT, 20"),
        ({"ECHO_PORT": "9105"}, "METRICS_PORT and ECHO_PORT are both 9105"),
    ],
)
def test_contradictory_values_are_reported(environ: dict[str, str], problem: str) -> None:
    assert problems_of(**environ) == (problem,)


def test_a_short_interval_shortens_the_timeout_unless_the_timeout_is_set() -> None:
    assert parse_config([], {**REQUIRED, "INTERVAL_S": "1"}).timeout_s == 0.8
    assert parse_config([], {**REQUIRED, "INTERVAL_S": "1", "TIMEOUT_S": "0.5"}).timeout_s == 0.5


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=20)))
def test_any_settings_give_a_config_or_a_list_of_problems(environ: dict[str, str]) -> None:
    try:
        parse_config([], environ)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ("fine",)
    assert problems


@pytest.mark.process
def test_the_help_names_every_flag() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "nimlab.agents.rtt", "--help"],
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for setting in SETTINGS:
        assert setting.flag in result.stdout


def test_an_unknown_flag_gives_exit_code_2() -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(["--interval", "5"], REQUIRED)
    assert caught.value.code == 2
