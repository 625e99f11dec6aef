"""Two network namespaces that a veth pair connects, like a pod and its node. Both ends are named `eth0`."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.support.paths import REPOSITORY

PEER: Final = "198.18.0.2"  # RFC 2544: addresses for tests of network devices


@dataclass(frozen=True, slots=True)
class Cable:
    """Two connected namespaces: in `near`, the link is shaped; `far` has the address `PEER`."""

    near: str
    far: str

    def run(self, *command: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command in the near namespace."""
        return self._run_in(self.near, *prefix, *command)

    def shape(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run `nimlab.agents.shape` in the near namespace."""
        return self.run(sys.executable, "-m", "nimlab.agents.shape", *arguments, prefix=prefix)

    def set_mtu(self, mtu_bytes: int) -> None:
        """Set the MTU of both ends of the cable."""
        for name in (self.near, self.far):
            _ip("-n", name, "link", "set", "eth0", "mtu", str(mtu_bytes))

    def goodput_bit_per_s(self, *, upwards: bool, seconds: float = 1.5) -> float:
        """Send over TCP for some seconds, and return the received rate.

        The near namespace sends if `upwards` is True, and receives if not.
        """
        listening = [
            "ip",
            "netns",
            "exec",
            self.far,
            sys.executable,
            "-m",
            "tests.agents.shape.traffic",
            "listen",
        ]
        with subprocess.Popen(listening, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as listener:
            assert listener.stdout is not None
            try:
                port = listener.stdout.readline().strip()
                direction = "send" if upwards else "receive"
                talk = self.run(
                    sys.executable, "-m", "tests.agents.shape.traffic", direction, PEER, port, str(seconds)
                )
                output = listener.stdout.readline() if upwards else talk.stdout
                return float(output)
            finally:
                listener.kill()

    @staticmethod
    def _run_in(namespace: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            timeout=60,
        )


@contextmanager
def make_cable() -> Iterator[Cable]:
    """Create and connect the namespaces; remove them at the end of the block."""
    tag = secrets.token_hex(3)
    cable = Cable(near=f"near-{tag}", far=f"far-{tag}")
    try:
        for name in (cable.near, cable.far):
            _ip("netns", "add", name)
        _ip(
            "link",
            "add",
            "eth0",
            "netns",
            cable.near,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            cable.far,
        )
        for name, address in ((cable.near, "198.18.0.1"), (cable.far, PEER)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        yield cable
    finally:
        for name in (cable.near, cable.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
