"""Parse flags and environment variables into a checked `Config`.

Flags take precedence over variables. All problems are reported together. `SETTINGS` lists every setting; the
setting `interval_s`, for example, is the flag `--interval-s` and the variable `INTERVAL_S`. Pure.
"""

from __future__ import annotations

import argparse
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nimlab.agents.rtt.dns import is_name
from nimlab.agents.rtt.outcome import Method


class ConfigError(Exception):
    """Some settings are invalid. `problems` lists each of them with the accepted values."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; see `SETTINGS`."""

    service: str
    pod_name: str
    pod_ip: str
    probe_methods: tuple[Method, ...]
    interval_s: float
    timeout_s: float
    jitter_ratio: float
    fanout: int
    window_probes: int
    linger_s: float
    max_peer_series: int
    discovery_interval_s: float
    metrics_address: str
    metrics_port: int
    echo_port: int
    resolv_conf: Path
    dns_port: int
    dns_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `default` is text as a user would write it; None means that the setting is required."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    meaning: str

    @property
    def flag(self) -> str:
        """Return the name of the flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return self.name.upper()


def parse_config(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Return the settings. Raises ConfigError. Exits the process for `--help` and unknown flags."""
    given = vars(_parser().parse_args(argv))
    values: dict[str, Any] = {}
    problems = []
    for setting in SETTINGS:
        text = given[setting.name] or environ.get(setting.variable) or setting.default
        if text is None:
            problems.append(f"{setting.variable} is not set: {setting.meaning}")
            continue
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            problems.append(f"{setting.variable} is `{text[:80]}`: {error}")
    if not problems:
        shortest_s = values["interval_s"] * (1 - values["jitter_ratio"])
        if not given["timeout_s"] and not environ.get("TIMEOUT_S"):
            values["timeout_s"] = min(values["timeout_s"], shortest_s)
        problems += _contradictions(values, shortest_s)
    if problems:
        raise ConfigError(problems)
    return Config(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nimlab.agents.rtt",
        description="Measures round-trip times to other peers of an experiment. "
        "Each flag is an environment variable too: --interval-s is INTERVAL_S.",
        allow_abbrev=False,
    )
    for setting in SETTINGS:
        default = "required" if setting.default is None else f"default {setting.default}"
        parser.add_argument(setting.flag, metavar="X", help=f"{setting.meaning} ({default})")
    return parser


def _contradictions(values: Mapping[str, Any], shortest_s: float) -> list[str]:
    problems = []
    if values["timeout_s"] > shortest_s:
        problems.append(
            f"TIMEOUT_S is {values['timeout_s']:g}: longer than the shortest round of {shortest_s:g} s"
        )
    if values["max_peer_series"] < values["fanout"]:
        problems.append(
            f"MAX_PEER_SERIES is {values['max_peer_series']}: less than FANOUT, {values['fanout']}"
        )
    if values["metrics_port"] == values["echo_port"] != 0:
        problems.append(f"METRICS_PORT and ECHO_PORT are both {values['echo_port']}")
    return problems


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"write a number from {low:g} to {high:g}")
        return value

    return parse


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def _name(text: str) -> str:
    if not is_name(text.removesuffix(".")):
        raise ValueError("write a DNS name")
    return text


def _address(text: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError) as error:
        raise ValueError("write an IPv4 address") from error
    return text


def _methods(text: str) -> tuple[Method, ...]:
    try:
        return tuple(dict.fromkeys(Method(word.strip()) for word in text.split(",")))
    except ValueError as error:
        raise ValueError("write one or more of tcp, udp, icmp with commas between them") from error


SETTINGS: Final = (
    Setting(
        name="service",
        parse=_name,
        default=None,
        meaning="the experiment's headless Service: its name in this namespace, or a fully qualified name",
    ),
    Setting(name="pod_name", parse=_name, default=None, meaning="this pod's name (metadata.name)"),
    Setting(name="pod_ip", parse=_address, default=None, meaning="this pod's IPv4 address (status.podIP)"),
    Setting(
        name="probe_methods",
        parse=_methods,
        default="tcp",
        meaning="probe methods: tcp, udp, icmp, or several separated by commas",
    ),
    Setting(
        name="interval_s",
        parse=_number(0.05, 3600),
        default="5",
        meaning="average seconds between two rounds of probes",
    ),
    Setting(
        name="timeout_s",
        parse=_number(0.001, 10),
        default="1",
        meaning="seconds until a probe counts as lost; by default at most the shortest interval",
    ),
    Setting(
        name="jitter_ratio",
        parse=_number(0, 0.5),
        default="0.2",
        meaning="largest random change of an interval, as a share of it",
    ),
    Setting(name="fanout", parse=_whole_number(1, 64), default="8", meaning="number of other peers to probe"),
    Setting(
        name="window_probes",
        parse=_whole_number(1, 1000),
        default="12",
        meaning="number of latest probes per peer that its gauges cover",
    ),
    Setting(
        name="linger_s",
        parse=_number(0, 3600),
        default="60",
        meaning="seconds that the gauges of a peer stay after it stops being a target",
    ),
    Setting(
        name="max_peer_series",
        parse=_whole_number(1, 256),
        default="16",
        meaning="maximum number of peers that have gauges, including peers that are no longer targets",
    ),
    Setting(
        name="discovery_interval_s",
        parse=_number(0.05, 3600),
        default="20",
        meaning="average seconds between two DNS queries",
    ),
    Setting(
        name="metrics_address",
        parse=_address,
        default="0.0.0.0",  # noqa: S104 -- Prometheus, the kubelet and port-forward use different interfaces
        meaning="the IPv4 address of /metrics, /healthz and /readyz",
    ),
    Setting(
        name="metrics_port",
        parse=_whole_number(0, 65535),
        default="9105",
        meaning="the TCP port of these pages; 0 selects a free port",
    ),
    Setting(
        name="echo_port",
        parse=_whole_number(1, 65535),
        default="9106",
        meaning="the TCP and UDP port that other peers probe, at the pod's address",
    ),
    Setting(
        name="resolv_conf",
        parse=Path,
        default="/etc/resolv.conf",
        meaning="the file that names the DNS servers",
    ),
    Setting(
        name="dns_port", parse=_whole_number(1, 65535), default="53", meaning="the port of the DNS servers"
    ),
    Setting(
        name="dns_timeout_s",
        parse=_number(0.01, 30),
        default="2",
        meaning="seconds to wait for the answer of a DNS server",
    ),
)
