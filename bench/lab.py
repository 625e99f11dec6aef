"""Experiments of a seed, the lab that they are written into, and the objects that templates make of them.

In: a size and a seed. Out: what is desired at each step of a round, as recipes; a lab's folder with commits;
rendered objects, without nimlab's marks of ownership, which every tool replaces by its own. The lab is the
shipped one but for its limits and for `replicas: 0`: peers that run would measure the nodes.
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
_NAMESPACE: Final = "namespace-of-the-bench"  # of the rendered objects, until a peer's own takes its place
_MARKS: Final = {"labels": (PART_OF, "app.kubernetes.io/managed-by"), "annotations": (MEMBER,)}
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
    """The lab can't be made or rendered; says why."""


class Step(Enum):
    """What is asked of each tool, in the order of a round."""

    FIRST = "first apply"
    LOOK = "nothing to do, dry run"
    NOOP = "nothing to do"
    COLD = "nothing to do, nothing recalled"
    CHECK = "validate (no cluster)"
    HELP = "--help (no cluster)"
    ONE = "one experiment changed"
    GONE = "one experiment removed"
    ALL = "all experiments changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One experiment: what its file says."""

    name: str
    peers: int
    size_bytes: int
    interval_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is desired at a step: recipes, and the objects of them in no namespace yet."""

    recipes: tuple[Recipe, ...]
    text: str

    def objects(self, namespace: str) -> list[Object]:
        """Return the objects for a namespace."""
        found: list[Object] = json.loads(self.text.replace(_NAMESPACE, namespace))
        return found


def plan_steps(size: int, seed: int) -> Mapping[Step, tuple[Recipe, ...]]:
    """Return what is desired at each step. Pure; the same for the same size and seed."""
    chance = random.Random(f"{seed}/{size}")  # noqa: S311 -- repeatable, not secret
    first = tuple(make_recipe(f"bench-{index:05d}", chance) for index in range(size))
    changed, removed = chance.sample(range(size), 2)
    one = tuple(change(recipe) if i == changed else recipe for i, recipe in enumerate(first))
    gone = tuple(recipe for i, recipe in enumerate(one) if i != removed)
    return {
        Step.FIRST: first,
        Step.LOOK: first,
        Step.NOOP: first,
        Step.COLD: first,
        Step.CHECK: first,
        Step.HELP: first,
        Step.ONE: one,
        Step.GONE: gone,
        Step.ALL: tuple(change(recipe) for recipe in gone),
    }


def make_recipe(name: str, chance: random.Random) -> Recipe:
    """Return an experiment of this name."""
    return Recipe(
        name=name,
        peers=chance.randint(2, 20),
        size_bytes=chance.randrange(100, 5000),
        interval_ms=chance.randrange(500, 5000),
    )


def render_steps(steps: Mapping[Step, tuple[Recipe, ...]], folder: Path) -> Mapping[Step, Wanted]:
    """Render each step once, with nimlab itself. Raises LabError."""
    rendered = {recipes: render(recipes, folder) for recipes in dict.fromkeys(steps.values())}
    return {step: rendered[recipes] for step, recipes in steps.items()}


def render(recipes: tuple[Recipe, ...], folder: Path) -> Wanted:
    """Render these experiments with nimlab itself. Raises LabError."""
    root = folder / "render"
    make_lab(root, _NAMESPACE)
    write_experiments(root, recipes)
    wanted = Wanted(recipes=recipes, text=json.dumps(_render(root)))
    shutil.rmtree(root)
    return wanted


def make_lab(root: Path, namespace: str, *, peers_run: bool = False) -> None:
    """Make a lab's folder without experiments, from the shipped one; its peers run only where asked."""
    root.mkdir(parents=True)
    for name in _FOLDERS:
        shutil.copytree(REPOSITORY / name, root / name)
    (root / "experiments").mkdir()
    _edit(REPOSITORY / "lab.yaml", root / "lab.yaml", "namespace: dst-lab", f"namespace: {namespace}")
    workload = root / "templates" / "experiment" / "statefulset.yaml.j2"
    if not peers_run:
        _edit(workload, workload, _REPLICAS, "replicas: 0")
    git(root, "init", "--quiet", "--initial-branch=main")


def write_experiments(root: Path, recipes: Sequence[Recipe]) -> None:
    """Make the lab's experiments these, touching only files that differ, and commit what differs."""
    folder = root / "experiments"
    wanted = {f"{one.name}.yaml": _text(one) for one in recipes}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    git(root, "add", "--all")
    if git(root, "status", "--porcelain"):
        git(root, "commit", "--quiet", "--message=next")


def nimlab_command(*arguments: str) -> tuple[str, ...]:
    """Return the command of nimlab as it is in this repository."""
    return (sys.executable, "-m", "nimlab", *arguments)


def git(root: Path, *arguments: str) -> str:
    """Run git with an identity of its own and none of the machine's settings. Raises LabError."""
    who = {
        f"GIT_{role}_{what}": "bench@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return _output(["git", "-C", str(root), *arguments], {**os.environ, **who, **quiet})


def _render(root: Path) -> list[Object]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    text = _output([*nimlab_command("render", "--output", "json", "--lab", str(root))], environment)
    found = json.loads(text)
    objects: list[Object] = found["items"] if isinstance(found, dict) else found
    return [_without_marks(one) for one in objects]


def _without_marks(one: Object) -> Object:
    metadata = dict(one["metadata"])
    for field, marks in _MARKS.items():
        kept = {key: value for key, value in metadata.pop(field, {}).items() if key not in marks}
        if kept:
            metadata[field] = kept
    return {**one, "metadata": metadata}


def _text(one: Recipe) -> str:
    return _TEMPLATE.format(
        name=one.name, peers=one.peers, size_bytes=one.size_bytes, interval_ms=one.interval_ms
    )


def change(one: Recipe) -> Recipe:
    """Return another version of it."""
    return replace(one, interval_ms=one.interval_ms + 1)


def _edit(source: Path, target: Path, old: str, new: str) -> None:
    text = source.read_text(encoding="utf-8")
    if old not in text:
        raise LabError(f"{source} has no `{old}` any more: the bench has to follow")
    target.write_text(text.replace(old, new), encoding="utf-8")


def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 -- our own arguments
            command,
            env=dict(environment),
            capture_output=True,
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise LabError(f"`{' '.join(command[:4])} …` failed: {error.stderr.strip()[-400:]}") from error
    return done.stdout
