"""Entry point of the process: parse flags, shape the link and verify it.

Exit codes: 0 if the link is shaped and verified, 1 after an error, 2 for wrong flags. The error message is
also written to the container's termination log, which Kubernetes shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nimlab.agents.shape.explain import explain
from nimlab.agents.shape.kernel import differences
from nimlab.agents.shape.link import (
    LEAST_BIT_PER_S,
    MOST_BIT_PER_S,
    MOST_DELAY_MS,
    Command,
    Link,
    clearing,
    shaping,
)


class ShapeError(Exception):
    """The link could not be shaped as requested; the text states why, and how to fix it."""


def main(argv: Sequence[str]) -> int:
    """Shape the link and return the exit code."""
    link, log = parse_link(argv)
    try:
        shape(link)
    except ShapeError as error:
        message = f"cannot shape the link of this peer: {error}"
        sys.stderr.write(message + "\n")
        with suppress(OSError):
            log.write_text(message, encoding="utf-8")
        return 1
    sys.stdout.write(json.dumps({"event": "shaped", **asdict(link)}) + "\n")
    return 0


def parse_link(argv: Sequence[str]) -> tuple[Link, Path]:
    """Return the requested link and the path of the termination log. Exits with code 2 for wrong flags."""
    arguments = vars(_parser().parse_args(argv))
    log = arguments.pop("termination_log")
    return Link(**arguments), log


def shape(link: Link) -> None:
    """Remove earlier shaping, shape the link and verify it. Raises ShapeError."""
    mtu_bytes = _mtu_bytes(link)
    for command in clearing(link):
        _run(command)
    for command in shaping(link, mtu_bytes=mtu_bytes):
        done = _run(command)
        if done.returncode != 0:
            raise ShapeError(explain(command, done.stderr))
    qdiscs = _read(("tc", "-json", "qdisc", "show"))
    filters = _read(("tc", "-json", "filter", "show", "dev", link.interface, "parent", "ffff:"))
    wrong = [*differences(link, qdiscs, filters, mtu_bytes=mtu_bytes)]
    if wrong:
        raise ShapeError(f"the kernel reports other settings: {'; '.join(wrong)}")


def _mtu_bytes(link: Link) -> int:
    (interface,) = _read(("ip", "-json", "link", "show", "dev", link.interface))
    return int(interface["mtu"])


def _read(command: Command) -> list[dict[str, Any]]:
    done = _run(command)
    if done.returncode != 0:
        raise ShapeError(explain(command, done.stderr))
    entries: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return entries


def _run(command: Command) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 -- all arguments are validated
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
        )
    except OSError as error:
        hint = "the image must contain iproute2"
        raise ShapeError(f"cannot run `{command[0]}`: {error.strerror}; {hint}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nimlab.agents.shape",
        description="Shapes the link of this network namespace and verifies the result.",
        allow_abbrev=False,
    )
    parser.add_argument("--interface", type=_interface, default="eth0", metavar="NAME")
    for name in ("uplink", "downlink"):
        parser.add_argument(
            f"--{name}-bit-per-s", type=_number(int, LEAST_BIT_PER_S, MOST_BIT_PER_S), metavar="N"
        )
    for name in ("latency", "jitter"):
        parser.add_argument(
            f"--{name}-ms", type=_number(int, 0, MOST_DELAY_MS), metavar="N", help="of outgoing traffic"
        )
    parser.add_argument(
        "--loss-ratio", type=_number(float, 0, 1), metavar="X", help="of outgoing traffic, 0 to 1"
    )
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"), metavar="FILE")
    return parser


def _interface(text: str) -> str:
    if not (
        text.isascii()
        and text.replace("-", "").replace(".", "").isalnum()
        and text[0] != "-"
        and len(text) < 16
    ):
        raise argparse.ArgumentTypeError(f"`{text}` is not a valid interface name")
    return text


def _number(kind: type[int] | type[float], least: float, most: float) -> Any:  # noqa: ANN401 -- argparse's
    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"`{text}` is not from {least:g} to {most:g}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
