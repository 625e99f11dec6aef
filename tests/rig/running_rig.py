"""Access to a running rig for tests, as its administrator: kubectl, nimlab, metrics and logs."""

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

from tests.rig.real_node import Node
from tests.support.lab import Answer

_SAMPLE: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)(?: (?P<at_ms>\d+))?")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample in Prometheus' text format."""

    name: str
    labels: dict[str, str]
    value: float
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rig:
    """A running rig."""

    node: Node

    def kubectl(self, *arguments: str, timeout_s: float = 60) -> str:
        """Return the output of kubectl; fail the test if kubectl fails."""
        pinned = Path(sys.executable).parent / "kubectl"  # from the dev extras; PATH may have another version
        program = str(pinned) if pinned.exists() else shutil.which("kubectl")
        assert program is not None, "kubectl is neither in the virtual environment nor on PATH"
        result = subprocess.run(
            [program, "--kubeconfig", str(self.node.kubeconfig), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def pods(self, namespace: str, experiment: str) -> list[dict[str, Any]]:
        """Return an experiment's pods, sorted by name."""
        output = self.kubectl("-n", namespace, "get", "pods", "-l", f"experiment={experiment}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(output)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def samples(self, namespace: str, pod: str, port: int) -> list[Sample]:
        """Return the metrics that a pod exposes on a port."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics"
        return parse_samples(self.node.get(path).decode())

    def logs(self, namespace: str, pod: str, container: str) -> list[str]:
        """Return the log lines of a container."""
        return self.kubectl("-n", namespace, "logs", pod, "-c", container).splitlines()

    def python(self, namespace: str, pod: str, script: str, *, timeout_s: float = 60) -> str:
        """Run a Python script in the container `rtt` of a pod, on the peer's network; return its output."""
        container = ("-n", namespace, "exec", pod, "-c", "rtt", "--")
        return self.kubectl(*container, "python3", "-c", script, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class RigLab:
    """A lab folder, and the nimlab command line against the rig."""

    root: Path
    rig: Rig
    namespace: str = "dst-lab"

    def run(self, *arguments: str) -> Answer:
        """Run a nimlab command in a process of its own."""
        flags = ("--lab", str(self.root), "--kubeconfig", str(self.rig.node.kubeconfig))
        result = subprocess.run(
            [sys.executable, "-m", "nimlab", *arguments, *flags],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Answer(code=result.returncode, out=result.stdout, err=result.stderr)

    def write(self, name: str, spec: str) -> None:
        """Write an experiment's file; `spec` is its spec in YAML's flow style."""
        text = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        (self.root / "experiments" / f"{name}.yaml").write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        """Remove an experiment's file."""
        (self.root / "experiments" / f"{name}.yaml").unlink()


def parse_samples(text: str) -> list[Sample]:
    """Parse Prometheus' text format; return the samples."""
    matches = [_SAMPLE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#")]
    return [_sample(match) for match in matches if match]


def _sample(match: re.Match[str]) -> Sample:
    at_s = float(match["at_ms"]) / 1000 if match["at_ms"] else None
    return Sample(match["name"], dict(_LABEL.findall(match["labels"] or "")), float(match["value"]), at_s)


def eventually(poll: Callable[[], _Value | None], *, within_s: float, what: str) -> _Value:
    """Poll until the result is not None, and return it; fail the test when the timeout expires."""
    deadline_s = time.monotonic() + within_s
    while True:
        value = poll()
        if value is not None:
            return value
        assert time.monotonic() < deadline_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(1)
