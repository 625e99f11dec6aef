"""The compared tools: each tool's input and commands at each step. All tools apply the same objects.

`prepare` writes the tool's input and is not measured. `commands` returns the commands that are run and
measured one after another. Each tool has its own folder, namespace and home, which contains its discovery
cache. No tool waits for the peers of an experiment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import yaml

from bench.lab import (
    REPOSITORY,
    DesiredState,
    Object,
    Step,
    make_lab,
    nimlab_command,
    write_experiments,
)
from bench.measure import Command
from bench.tool_programs import SOURCES, Program, provide

_NIMLAB_ONLY: Final = (Step.COLD, Step.CHECK, Step.HELP)  # the other tools have no equivalent of these steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A tool's folder, its namespace, and the kubeconfig of the server."""

    folder: Path
    namespace: str
    kubeconfig: Path

    def environment(self) -> dict[str, str]:
        """Return the complete environment of the tool's processes."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(REPOSITORY),
            "KUBECTL_APPLYSET": "true",  # enables an alpha feature, which only --applyset uses
        }


class Tool(Protocol):
    """A tool with its workspace."""

    workspace: Workspace

    def prepare(self, desired: DesiredState) -> None:
        """Write the tool's input files."""

    def commands(self, step: Step) -> Sequence[Command]:
        """Return the commands to measure; none if the tool does not support the step."""


class Nimlab:
    """nimlab on lab files. Its cost includes loading, validating and rendering."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._root = workspace.folder / "lab"
        make_lab(self._root, workspace.namespace)

    def prepare(self, desired: DesiredState) -> None:
        """Write the experiments' files and commit them."""
        write_experiments(self._root, desired.experiments)

    def commands(self, step: Step) -> Sequence[Command]:
        """Return `nimlab sync`, its dry run, or a command without a cluster."""
        lab = ("--lab", str(self._root))
        if step is Step.HELP:
            return [Command(argv=nimlab_command("--help"))]
        if step is Step.CHECK:
            return [Command(argv=nimlab_command("validate", *lab))]
        mode = "--dry-run" if step is Step.DRY_RUN else "--no-wait"
        no_cache = ("env", f"XDG_CACHE_HOME={os.devnull}") if step is Step.COLD else ()
        sync = nimlab_command("sync", mode, *lab, "--kubeconfig", str(self.workspace.kubeconfig))
        return [Command(argv=(*no_cache, *sync))]


class Kubectl:
    """kubectl with a file of rendered objects and, without an apply-set, a file of objects to delete."""

    def __init__(self, workspace: Workspace, program: Program, *, applyset: bool) -> None:
        self.workspace = workspace
        self._program = program
        self._applyset = applyset
        self._file = workspace.folder / "objects.yaml"
        self._removed_file = workspace.folder / "removed.yaml"
        self._previous: list[Object] = []

    def prepare(self, desired: DesiredState) -> None:
        """Write the desired objects, and the objects that are no longer desired."""
        objects = desired.objects(self.workspace.namespace)
        kept = {_key(item) for item in objects}
        _write(self._file, objects)
        _write(self._removed_file, [item for item in self._previous if _key(item) not in kept])
        self._previous = objects

    def commands(self, step: Step) -> Sequence[Command]:
        """Return `diff` for the dry run, otherwise `apply --server-side`.

        Without an apply-set, `delete` follows if an experiment was removed.
        """
        if step in _NIMLAB_ONLY or (step is Step.DRY_RUN and self._applyset):
            return []
        if step is Step.DRY_RUN:
            return [self._command("diff", "--server-side", "-f", str(self._file))]
        if self._applyset:
            prune = ("--prune", "--applyset=configmaps/bench")
            return [self._command("apply", "--server-side", *prune, "-f", str(self._file))]
        apply = self._command("apply", "--server-side", "-f", str(self._file))
        delete = self._command("delete", "--wait=false", "-f", str(self._removed_file))
        return [apply, delete] if step is Step.REMOVED else [apply]

    def _command(self, *arguments: str) -> Command:
        return Command(argv=(str(self._program.path), "--namespace", self.workspace.namespace, *arguments))


class Helm:
    """Helm on a chart whose templates are the rendered objects, with one file per experiment."""

    def __init__(self, workspace: Workspace, program: Program) -> None:
        self.workspace = workspace
        self._program = program
        self._chart = workspace.folder / "chart"

    def prepare(self, desired: DesiredState) -> None:
        """Write the chart."""
        templates = self._chart / "templates"
        templates.mkdir(parents=True, exist_ok=True)
        (self._chart / "Chart.yaml").write_text(
            "{apiVersion: v2, name: bench, version: 0.1.0}\n", encoding="utf-8"
        )
        for path in templates.iterdir():
            path.unlink()
        files: dict[str, list[Object]] = {}
        for item in desired.objects(self.workspace.namespace):
            files.setdefault(item["metadata"]["labels"]["experiment"], []).append(item)
        for name, objects in files.items():
            _write(templates / f"{name}.yaml", objects, escape=lambda text: text.replace("{{", '{{ "{{" }}'))

    def commands(self, step: Step) -> Sequence[Command]:
        """Return `helm upgrade --install`.

        Return no command for the dry run, because Helm's dry run does not report differences.
        """
        if step is Step.DRY_RUN or step in _NIMLAB_ONLY:
            return []
        namespace = ("--namespace", self.workspace.namespace)
        upgrade = (str(self._program.path), "upgrade", "--install", "bench", str(self._chart), *namespace)
        return [Command(argv=upgrade)]


class Flux:
    """Flux's engine, used as in kustomize-controller, on rendered objects."""

    def __init__(self, workspace: Workspace, program: Program) -> None:
        self.workspace = workspace
        self._program = program
        self._file = workspace.folder / "objects.yaml"

    def prepare(self, desired: DesiredState) -> None:
        """Write the objects."""
        _write(self._file, desired.objects(self.workspace.namespace))

    def commands(self, step: Step) -> Sequence[Command]:
        """Return one reconciliation; it begins with dry runs, so there is no separate dry run."""
        if step is Step.DRY_RUN or step in _NIMLAB_ONLY:
            return []
        flags = {
            "objects": self._file,
            "inventory": self.workspace.folder / "inventory.json",
            "kubeconfig": self.workspace.kubeconfig,
            "namespace": self.workspace.namespace,
        }
        arguments = (f"-{name}={value}" for name, value in flags.items())
        return [Command(argv=(str(self._program.path), *arguments))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToolKind:
    """A compared tool: its title in tables, the source of its program, and its constructor."""

    title: str
    source: str
    make: Callable[[Workspace, Program], Tool]


_OTHER_TOOLS: Final[Mapping[str, _ToolKind]] = {
    "flux": _ToolKind(title="Flux's engine", source="flux", make=Flux),
    "kubectl": _ToolKind(
        title="kubectl apply",
        source="kubectl",
        make=lambda workspace, program: Kubectl(workspace, program, applyset=False),
    ),
    "applyset": _ToolKind(
        title="kubectl apply --prune --applyset",
        source="kubectl",
        make=lambda workspace, program: Kubectl(workspace, program, applyset=True),
    ),
    "helm": _ToolKind(title="Helm", source="helm", make=Helm),
}

NIMLAB: Final = "nimlab"
NAMES: Final = (NIMLAB, *_OTHER_TOOLS)
TITLES: Final[Mapping[str, str]] = {
    NIMLAB: NIMLAB,
    **{name: kind.title for name, kind in _OTHER_TOOLS.items()},
}


def provide_all(names: Sequence[str], cache: Path, note: Callable[[str], None]) -> Mapping[str, Program]:
    """Return the programs that these tools need, by source. Raises ProgramError."""
    sources = dict.fromkeys(_OTHER_TOOLS[name].source for name in names if name != NIMLAB)
    return {source: provide(SOURCES[source], cache, note) for source in sources}


def make_tool(name: str, workspace: Workspace, programs: Mapping[str, Program]) -> Tool:
    """Create the workspace's folder and return the tool."""
    workspace.folder.mkdir(parents=True)
    if name == NIMLAB:
        return Nimlab(workspace)
    kind = _OTHER_TOOLS[name]
    return kind.make(workspace, programs[kind.source])


def _key(item: Object) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def _write(path: Path, objects: Sequence[Object], *, escape: Callable[[str], str] = str) -> None:
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=False)
    path.write_text(escape(text), encoding="utf-8")
