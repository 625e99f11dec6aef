"""The benchmark's input: random experiments, a lab folder with commits, and the rendered objects.

In: a size and a seed. Out: the desired experiments at each step of a round. The rendered objects have no
ownership labels of nimlab, because every tool adds its own. The lab is a copy of the shipped lab with
`replicas: 0`. With running peers, the benchmark would measure the nodes instead of the tools.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from nimlab.objects.applyset import MEMBER, PART_OF

REPOSITORY: Final = Path(__file__).parent.parent

_FOLDERS: Final = ("contracts", "schema", "templates")
_REPLICAS: Final = "replicas: {{ peers | json }}"
_NAMESPACE: Final = "namespace-of-the-bench"  # in rendered objects; replaced by the tool's namespace
_OWNERSHIP: Final = {"labels": (PART_OF, "app.kubernetes.io/managed-by"), "annotations": (MEMBER,)}
_TEMPLATE: Final = """\
apiVersion: nimlab.dev/v1
kind: Experiment
metadata: {{name: {name}, owner: bench, description: one of many}}
spec:
  contract: nimp2p
  peers: {peers}
  connectTo: 2
  message: {{size: {size_bytes}B, interval: {interval_ms}ms}}
  resources: {{cpu: 50m, memory: 16Mi}}
  network: {{downlink: 16Mbit, uplink: 16Mbit}}
  rtt: {{enabled: true, interval: 5s, fanout: 8}}
"""

Object = dict[str, Any]


class LabError(Exception):
    """The lab cannot be created or rendered; the message states the reason."""


class Step(Enum):
    """The steps of a round, in order."""

    FIRST = "first apply"
    DRY_RUN = "nothing to do, dry run"
    NOOP = "nothing to do"
    COLD = "nothing to do, empty cache"
    CHECK = "validate (no cluster)"
    HELP = "--help (no cluster)"
    ONE = "one experiment changed"
    REMOVED = "one experiment removed"
    ALL = "all experiments changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The values in the file of one experiment."""

    name: str
    peers: int
    size_bytes: int
    interval_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """The desired experiments at a step, and their objects as JSON with a placeholder for the namespace."""

    experiments: tuple[Experiment, ...]
    json_text: str

    def objects(self, namespace: str) -> list[Object]:
        """Return the objects for a namespace."""
        objects: list[Object] = json.loads(self.json_text.replace(_NAMESPACE, namespace))
        return objects


def plan_steps(size: int, seed: int) -> Mapping[Step, tuple[Experiment, ...]]:
    """Return the desired experiments at each step; they depend only on the size and the seed. Pure."""
    rng = random.Random(f"{seed}/{size}")  # noqa: S311 -- repeatable, not secret
    first = tuple(make_experiment(f"bench-{index:05d}", rng) for index in range(size))
    changed, removed = rng.sample(range(size), 2)
    one_changed = tuple(
        change(experiment) if i == changed else experiment for i, experiment in enumerate(first)
    )
    one_removed = tuple(experiment for i, experiment in enumerate(one_changed) if i != removed)
    return {
        Step.FIRST: first,
        Step.DRY_RUN: first,
        Step.NOOP: first,
        Step.COLD: first,
        Step.CHECK: first,
        Step.HELP: first,
        Step.ONE: one_changed,
        Step.REMOVED: one_removed,
        Step.ALL: tuple(change(experiment) for experiment in one_removed),
    }


def make_experiment(name: str, rng: random.Random) -> Experiment:
    """Return a random experiment with this name."""
    return Experiment(
        name=name,
        peers=rng.randint(2, 20),
        size_bytes=rng.randrange(100, 5000),
        interval_ms=rng.randrange(500, 5000),
    )


def render_steps(steps: Mapping[Step, tuple[Experiment, ...]], folder: Path) -> Mapping[Step, DesiredState]:
    """Render the experiments of each step with nimlab. Raises LabError.

    If several steps have the same experiments, these are rendered only once.
    """
    rendered = {experiments: render(experiments, folder) for experiments in dict.fromkeys(steps.values())}
    return {step: rendered[experiments] for step, experiments in steps.items()}


def render(experiments: tuple[Experiment, ...], folder: Path) -> DesiredState:
    """Render the experiments with nimlab. Raises LabError."""
    root = folder / "render"
    make_lab(root, _NAMESPACE)
    write_experiments(root, experiments)
    desired = DesiredState(experiments=experiments, json_text=json.dumps(_render(root)))
    shutil.rmtree(root)
    return desired


def make_lab(root: Path, namespace: str, *, peers_run: bool = False) -> None:
    """Copy the shipped lab without its experiments. Unless `peers_run` is set, it gets `replicas: 0`."""
    root.mkdir(parents=True)
    for name in _FOLDERS:
        shutil.copytree(REPOSITORY / name, root / name)
    (root / "experiments").mkdir()
    _edit(REPOSITORY / "lab.yaml", root / "lab.yaml", "namespace: dst-lab", f"namespace: {namespace}")
    workload = root / "templates" / "experiment" / "statefulset.yaml.j2"
    if not peers_run:
        _edit(workload, workload, _REPLICAS, "replicas: 0")
    git(root, "init", "--quiet", "--initial-branch=main")


def write_experiments(root: Path, experiments: Sequence[Experiment]) -> None:
    """Replace the lab's experiments and commit the changes; unchanged files are not written."""
    folder = root / "experiments"
    desired = {f"{experiment.name}.yaml": _format(experiment) for experiment in experiments}
    for path in folder.iterdir():
        if path.name not in desired:
            path.unlink()
    for name, text in desired.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    git(root, "add", "--all")
    if git(root, "status", "--porcelain"):
        git(root, "commit", "--quiet", "--message=next")


def nimlab_command(*arguments: str) -> tuple[str, ...]:
    """Return a command that runs nimlab from this repository."""
    return (sys.executable, "-m", "nimlab", *arguments)


def git(root: Path, *arguments: str) -> str:
    """Run git with a fixed identity and without the machine's settings. Raises LabError."""
    identity = {
        f"GIT_{role}_{field}": "bench@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for field in ("NAME", "EMAIL")
    }
    no_settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return _output(["git", "-C", str(root), *arguments], {**os.environ, **identity, **no_settings})


def _render(root: Path) -> list[Object]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    text = _output([*nimlab_command("render", "--output", "json", "--lab", str(root))], environment)
    document = json.loads(text)
    objects: list[Object] = document["items"] if isinstance(document, dict) else document
    return [_without_ownership(rendered) for rendered in objects]


def _without_ownership(rendered: Object) -> Object:
    metadata = dict(rendered["metadata"])
    for field, names in _OWNERSHIP.items():
        kept = {key: value for key, value in metadata.pop(field, {}).items() if key not in names}
        if kept:
            metadata[field] = kept
    return {**rendered, "metadata": metadata}


def _format(experiment: Experiment) -> str:
    return _TEMPLATE.format(
        name=experiment.name,
        peers=experiment.peers,
        size_bytes=experiment.size_bytes,
        interval_ms=experiment.interval_ms,
    )


def change(experiment: Experiment) -> Experiment:
    """Return the experiment with a different message interval."""
    return replace(experiment, interval_ms=experiment.interval_ms + 1)


def _edit(source: Path, target: Path, old: str, new: str) -> None:
    text = source.read_text(encoding="utf-8")
    if old not in text:
        raise LabError(f"{source} does not contain `{old}`: adapt bench/lab.py to the change")
    target.write_text(text.replace(old, new), encoding="utf-8")


def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        result = subprocess.run(  # noqa: S603 -- our own arguments
            command,
            env=dict(environment),
            capture_output=True,
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise LabError(f"`{' '.join(command[:4])} …` failed: {error.stderr.strip()[-400:]}") from error
    return result.stdout
