"""How tests look at a running rig: as its administrator would, through the API server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.rig.node import Node
from tests.support.lab import Answer

_SAMPLE: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)(?: (?P<at_ms>\d+))?")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of what a target shows."""

    name: str
    labels: dict[str, str]
    value: float
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rig:
    """A running rig."""

    node: Node

    def kubectl(self, *arguments: str, timeout_s: float = 60) -> str:
        """Return what kubectl says; a failure fails the test."""
        own = Path(sys.executable).parent / "kubectl"  # of the dev extras; PATH may hold any other
        program = str(own) if own.exists() else shutil.which("kubectl")
        assert program is not None, "there is no kubectl beside Python or on PATH"
        done = subprocess.run(
            [program, "--kubeconfig", str(self.node.kubeconfig), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def pods(self, namespace: str, experiment: str) -> list[dict[str, Any]]:
        """Return an experiment's pods, by name."""
        said = self.kubectl("-n", namespace, "get", "pods", "-l", f"experiment={experiment}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(said)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def samples(self, namespace: str, pod: str, port: int) -> list[Sample]:
        """Return the metrics that a pod shows on a port."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics"
        return parse_samples(self.node.get(path).decode())

    def logs(self, namespace: str, pod: str, container: str) -> list[str]:
        """Return the lines of a container."""
        return self.kubectl("-n", namespace, "logs", pod, "-c", container).splitlines()

    def python(self, namespace: str, pod: str, script: str, *, timeout_s: float = 60) -> str:
        """Run a script beside a peer, in its network; return what it prints."""
        where = ("-n", namespace, "exec", pod, "-c", "rtt", "--")
        return self.kubectl(*where, "python3", "-c", script, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class RigLab:
    """A lab's folder, and nimlab as a user runs it against the rig."""

    root: Path
    rig: Rig
    namespace: str = "dst-lab"

    def run(self, *arguments: str) -> Answer:
        """Run a nimlab command."""
        flags = ("--lab", str(self.root), "--kubeconfig", str(self.rig.node.kubeconfig))
        done = subprocess.run(
            [sys.executable, "-m", "nimlab", *arguments, *flags],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def write(self, name: str, spec: str) -> None:
        """Write an experiment's file from its spec, in YAML's flow style."""
        text = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        (self.root / "experiments" / f"{name}.yaml").write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        """Remove an experiment's file."""
        (self.root / "experiments" / f"{name}.yaml").unlink()


def parse_samples(text: str) -> list[Sample]:
    """Return the samples of Prometheus' text format."""
    found = [_SAMPLE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#")]
    return [_sample(match) for match in found if match]


def _sample(match: re.Match[str]) -> Sample:
    at_s = float(match["at_ms"]) / 1000 if match["at_ms"] else None
    return Sample(match["name"], dict(_LABEL.findall(match["labels"] or "")), float(match["value"]), at_s)


def eventually(look: Callable[[], _Value | None], *, within_s: float, what: str) -> _Value:
    """Return the first answer that isn't None; fail the test if there is none in time."""
    ends_s = time.monotonic() + within_s
    while True:
        answer = look()
        if answer is not None:
            return answer
        assert time.monotonic() < ends_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(1)
