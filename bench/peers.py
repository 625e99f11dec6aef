"""The peers: what each tool is asked to do at each step, in its own way, on the same objects.

`prepare` writes the tool's input and isn't measured; `commands` are what is measured, one after another. Each
tool has a folder, a home (for its caches of discovery) and a namespace of its own. No tool waits for peers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import yaml

from bench.lab import REPOSITORY, Object, Step, Wanted, make_lab, nimlab_command, write_experiments
from bench.measure import Command
from bench.programs import SOURCES, Program, provide

_OURS: Final = (Step.COLD, Step.CHECK, Step.HELP)  # the others read no files, and their help says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tool works: its folder, its namespace, and how it gets at the server."""

    folder: Path
    namespace: str
    kubeconfig: Path

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the tool."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(REPOSITORY),
            "KUBECTL_APPLYSET": "true",  # the feature is alpha; only --applyset asks for it
        }


class Peer(Protocol):
    """A tool in its place."""

    place: Place

    def prepare(self, wanted: Wanted) -> None:
        """Write what the tool reads."""

    def commands(self, step: Step) -> Sequence[Command]:
        """Return what is measured; nothing if the tool has no such thing."""


class Nimlab:
    """From files: loading, checking and rendering are measured too."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._root = place.folder / "lab"
        make_lab(self._root, place.namespace)

    def prepare(self, wanted: Wanted) -> None:
        """Write the experiments' files and commit them."""
        write_experiments(self._root, wanted.recipes)

    def commands(self, step: Step) -> Sequence[Command]:
        """`nimlab sync`, its dry run, or what needs no cluster."""
        lab = ("--lab", str(self._root))
        if step is Step.HELP:
            return [Command(argv=nimlab_command("--help"))]
        if step is Step.CHECK:
            return [Command(argv=nimlab_command("validate", *lab))]
        how = "--dry-run" if step is Step.LOOK else "--no-wait"
        nowhere = ("env", f"XDG_CACHE_HOME={os.devnull}") if step is Step.COLD else ()
        sync = nimlab_command("sync", how, *lab, "--kubeconfig", str(self.place.kubeconfig))
        return [Command(argv=(*nowhere, *sync))]


class Kubectl:
    """One rendered file; what is gone has to be named by whoever runs it, hence is given to it."""

    def __init__(self, place: Place, program: Program, *, applyset: bool) -> None:
        self.place = place
        self._program = program
        self._applyset = applyset
        self._file = place.folder / "objects.yaml"
        self._gone_file = place.folder / "gone.yaml"
        self._before: list[Object] = []

    def prepare(self, wanted: Wanted) -> None:
        """Write the objects, and those that are gone."""
        objects = wanted.objects(self.place.namespace)
        kept = {_key(one) for one in objects}
        _write(self._file, objects)
        _write(self._gone_file, [one for one in self._before if _key(one) not in kept])
        self._before = objects

    def commands(self, step: Step) -> Sequence[Command]:
        """`apply --server-side`, with an apply-set that prunes or a delete after it; or `diff`."""
        if step in _OURS or (step is Step.LOOK and self._applyset):
            return []
        if step is Step.LOOK:
            return [self._command("diff", "--server-side", "-f", str(self._file))]
        if self._applyset:
            prune = ("--prune", "--applyset=configmaps/bench")
            return [self._command("apply", "--server-side", *prune, "-f", str(self._file))]
        apply = self._command("apply", "--server-side", "-f", str(self._file))
        delete = self._command("delete", "--wait=false", "-f", str(self._gone_file))
        return [apply, delete] if step is Step.GONE else [apply]

    def _command(self, *arguments: str) -> Command:
        return Command(argv=(str(self._program.path), "--namespace", self.place.namespace, *arguments))


class Helm:
    """A chart whose templates are the rendered objects, a file an experiment."""

    def __init__(self, place: Place, program: Program) -> None:
        self.place = place
        self._program = program
        self._chart = place.folder / "chart"

    def prepare(self, wanted: Wanted) -> None:
        """Write the chart."""
        templates = self._chart / "templates"
        templates.mkdir(parents=True, exist_ok=True)
        (self._chart / "Chart.yaml").write_text(
            "{apiVersion: v2, name: bench, version: 0.1.0}\n", encoding="utf-8"
        )
        for path in templates.iterdir():
            path.unlink()
        files: dict[str, list[Object]] = {}
        for one in wanted.objects(self.place.namespace):
            files.setdefault(one["metadata"]["labels"]["experiment"], []).append(one)
        for name, objects in files.items():
            _write(templates / f"{name}.yaml", objects, change=lambda text: text.replace("{{", '{{ "{{" }}'))

    def commands(self, step: Step) -> Sequence[Command]:
        """`helm upgrade --install`; it has no dry run that says what would change."""
        if step is Step.LOOK or step in _OURS:
            return []
        where = ("--namespace", self.place.namespace)
        return [
            Command(argv=(str(self._program.path), "upgrade", "--install", "bench", str(self._chart), *where))
        ]


class Flux:
    """Flux's engine as kustomize-controller uses it, on objects that are rendered already."""

    def __init__(self, place: Place, program: Program) -> None:
        self.place = place
        self._program = program
        self._file = place.folder / "objects.yaml"

    def prepare(self, wanted: Wanted) -> None:
        """Write the objects."""
        _write(self._file, wanted.objects(self.place.namespace))

    def commands(self, step: Step) -> Sequence[Command]:
        """One reconciliation; a dry run is the half of each anyway."""
        if step is Step.LOOK or step in _OURS:
            return []
        flags = {
            "objects": self._file,
            "inventory": self.place.folder / "inventory.json",
            "kubeconfig": self.place.kubeconfig,
            "namespace": self.place.namespace,
        }
        arguments = (f"-{name}={value}" for name, value in flags.items())
        return [Command(argv=(str(self._program.path), *arguments))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A peer by name: how it is called in tables, what it needs, and how it is put in its place."""

    title: str
    source: str
    make: Callable[[Place, Program], Peer]


_PEERS: Final[Mapping[str, Tool]] = {
    "flux": Tool(title="Flux's engine", source="flux", make=Flux),
    "kubectl": Tool(
        title="kubectl apply", source="kubectl", make=lambda place, it: Kubectl(place, it, applyset=False)
    ),
    "applyset": Tool(
        title="kubectl apply --prune --applyset",
        source="kubectl",
        make=lambda place, it: Kubectl(place, it, applyset=True),
    ),
    "helm": Tool(title="Helm", source="helm", make=Helm),
}

NIMLAB: Final = "nimlab"
NAMES: Final = (NIMLAB, *_PEERS)
TITLES: Final[Mapping[str, str]] = {NIMLAB: NIMLAB, **{name: tool.title for name, tool in _PEERS.items()}}


def provide_all(names: Sequence[str], cache: Path, note: Callable[[str], None]) -> Mapping[str, Program]:
    """Return the programs that these peers need, by source. Raises ProgramError."""
    needed = dict.fromkeys(_PEERS[name].source for name in names if name != NIMLAB)
    return {source: provide(SOURCES[source], cache, note) for source in needed}


def make_peer(name: str, place: Place, programs: Mapping[str, Program]) -> Peer:
    """Put a tool in its place."""
    place.folder.mkdir(parents=True)
    if name == NIMLAB:
        return Nimlab(place)
    tool = _PEERS[name]
    return tool.make(place, programs[tool.source])


def _key(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


def _write(path: Path, objects: Sequence[Object], *, change: Callable[[str], str] = str) -> None:
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=False)
    path.write_text(change(text), encoding="utf-8")
