"""Files -> specs: everything in the lab's folder read, checked and joined.

In: the lab's folder. Out: `LabFiles`: specs for what is right, and every problem of every file at once for
what isn't, each with file, line and column. Nothing is rendered here. Modules: `text` reads YAML strictly and
remembers places, `check` holds a document against its schema, `known` spares both for what fitted before,
`values` knows the units, `relations` and `contracts` find values that contradict each other, and `build`
makes the specs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from nimlab.cache import ValueCache
from nimlab.errors import Location, Problem, SpecError
from nimlab.files.git_worktree import Hidden
from nimlab.files.load.build_contract import build_contract
from nimlab.files.load.build_experiment import (
    build_experiment,
    experiment_warnings,
    lab_file_problems,
    undeliverable,
)
from nimlab.files.load.build_lab import build_lab
from nimlab.files.load.pod_settings import placement_problems
from nimlab.files.load.schema_cache import Schema
from nimlab.files.load.yaml_strict import Document, file_problem
from nimlab.files.safe_open import check_folder, is_seen, read_file
from nimlab.files.spec import Broken, Contract, Experiment, Lab, LabFiles
from nimlab.timing import stage

__all__ = ["load_lab"]

_READ_LIMIT_BYTES: Final = 300 * 1024
_IGNORED: Final = (".", "README")


@dataclass(slots=True)
class _LoadState:
    """What has been read so far; `misfits` are documents that don't fit their schema."""

    root: Path
    overlay: Mapping[str, str | None]
    value_cache: ValueCache | None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    misfits: list[Document] = field(default_factory=list)
    bad_contracts: dict[str, str] = field(default_factory=dict)  # name -> file


def load_lab(
    root: Path,
    overlay: Mapping[str, str | None] | None = None,
    value_cache: ValueCache | None = None,
    hidden: Sequence[Hidden] = (),
) -> LabFiles:
    """Read `lab.yaml`, `contracts/` and `experiments/` and return specs and problems.

    `overlay` replaces files by text that isn't written yet, by path relative to the root; None stands for
    a file that will be removed. What `recall` knows to fit its schema isn't checked again. `hidden` files
    are problems: whether they were deleted is in doubt. Raises SpecError, with every problem, only when
    `lab.yaml` itself can't be used.
    """
    gathered = _LoadState(root, overlay or {}, value_cache)
    _add_hidden(gathered, hidden)
    lab = _read_lab(gathered)
    contracts = {c.name: c for c in _read_contracts(gathered)}
    documents = list(_checked(gathered, "experiments", "experiment", gathered.broken))
    if lab is None:
        raise SpecError(tuple(gathered.problems))
    for document in gathered.misfits:
        gathered.problems.extend(undeliverable(document, contracts))
    with stage("validate"):
        experiments = _build_all(gathered, documents, lab, contracts)
        experiments = _without_duplicates(gathered, documents, experiments)
        _check_totals(gathered, documents, experiments, lab)
    return LabFiles(
        lab=lab,
        contracts=contracts,
        experiments=tuple(sorted(experiments, key=lambda one: one.name)),
        broken=tuple(sorted(gathered.broken, key=lambda one: (one.name, one.source))),
        problems=_sorted(gathered.problems),
        warnings=_sorted(gathered.warnings),
    )


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    """Sort by place; the same problem, found in two ways, is reported once."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.location, p.code, p.what)))


def _add_hidden(gathered: _LoadState, hidden: Sequence[Hidden]) -> None:
    """Report the files that Git hides; an experiment's file counts as one that can't be used."""
    for one in hidden:
        shown = one.path if is_seen(one.path) else ascii(one.path)[1:-1]
        problem = Problem(code="hidden", what=one.what, location=Location(path=shown), hint=one.hint)
        gathered.problems.append(problem)
        if one.path.startswith("experiments/"):
            gathered.broken.append(Broken(name=PurePosixPath(shown).stem, source=shown))


def _read_lab(gathered: _LoadState) -> Lab | None:
    data = _read(gathered, "lab.yaml")
    if data is None:
        return None
    document, problems = Schema(gathered.root, "lab", gathered.value_cache).read("lab.yaml", data)
    if document is not None and not problems:
        problems = tuple(placement_problems(document, ("spec", "defaults")))
    gathered.problems.extend(problems)
    if problems or document is None:
        return None
    found = lab_file_problems(document)
    gathered.warnings.extend(one for one in found if one.is_warning)
    wrong = [one for one in found if not one.is_warning]
    gathered.problems.extend(wrong)
    return None if wrong else build_lab(document)


def _read_contracts(gathered: _LoadState) -> Iterator[Contract]:
    seen: dict[str, str] = {}
    misfits: list[Broken] = []
    for document in _checked(gathered, "contracts", "contract", misfits):
        name = document.data["metadata"]["name"]
        if name in seen:
            what = f"the contract `{name}` is in {seen[name]} as well"
            gathered.problems.append(
                document.problem("duplicate-name", what, ("metadata", "name"), hint="rename one of them")
            )
            continue
        seen[name] = document.path
        built = build_contract(document)
        if isinstance(built, Contract):
            yield built
        else:
            gathered.problems.extend(built)
            misfits.append(Broken(name=name, source=document.path))
    for one in misfits:
        gathered.bad_contracts |= {one.name: one.source, Path(one.source).stem: one.source}


def _build_all(
    gathered: _LoadState, documents: list[Document], lab: Lab, contracts: Mapping[str, Contract]
) -> list[Experiment]:
    found = []
    if documents and not contracts and not (gathered.root / "contracts").exists():
        what = "the folder `contracts` is missing, and experiments need a contract"
        hint = "`git status` shows whether it was deleted; copy the contracts that nimlab ships"
        gathered.problems.append(file_problem("contracts", what, hint))
    for document in documents:
        cause = _contract_at_fault(gathered, document, contracts)
        if cause is not None:
            gathered.broken.append(Broken(name=_name_in(document), source=document.path, cause=cause))
            continue
        built = build_experiment(document, lab, contracts)
        if isinstance(built, Experiment):
            found.append(built)
            gathered.warnings.extend(experiment_warnings(document, lab, contracts))
        else:
            gathered.problems.extend(built)
            gathered.broken.append(Broken(name=_name_in(document), source=document.path))
    return found


def _contract_at_fault(
    gathered: _LoadState, document: Document, contracts: Mapping[str, Contract]
) -> str | None:
    """Return the file or folder whose problem leaves the experiment without its contract; None if none does.

    That problem is reported once, and not again for each experiment.
    """
    name = document.data["spec"]["contract"]
    if name in contracts:
        return None
    is_folder_bad = any(problem.location.path == "contracts" for problem in gathered.problems)
    return gathered.bad_contracts.get(name, "contracts" if is_folder_bad else None)


def _without_duplicates(
    gathered: _LoadState, documents: list[Document], experiments: list[Experiment]
) -> list[Experiment]:
    """Leave out experiments whose name several files claim: none of them has the better right."""
    sources: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        sources[_name_in(document)].append(document)
    twice = {name: found for name, found in sources.items() if len(found) > 1}
    for name, found in twice.items():
        for document in found:
            others = ", ".join(other.path for other in found if other is not document)
            what = f"the experiment `{name}` is in {others} as well"
            gathered.problems.append(
                document.problem("duplicate-name", what, ("metadata", "name"), hint="rename one of them")
            )
            if document.path not in {one.source for one in gathered.broken}:
                gathered.broken.append(Broken(name=name, source=document.path))
    return [one for one in experiments if one.name not in twice]


def _check_totals(
    gathered: _LoadState, documents: list[Document], experiments: list[Experiment], lab: Lab
) -> None:
    """Hold all experiments together against the lab's limits; told at the largest of them.

    Which one is too much is the lab's decision, so no experiment is left out for it.
    """
    limits = lab.limits
    costs: tuple[tuple[str, int | None, list[int]], ...] = (
        ("peers", limits.peers_total, [one.peers for one in experiments]),
        (
            "thousandths of a core",
            limits.cpu_m_total,
            [sum(g.peers * g.cpu_m for g in e.groups) for e in experiments],
        ),
        (
            "bytes of memory",
            limits.memory_bytes_total,
            [sum(g.peers * g.memory_bytes for g in e.groups) for e in experiments],
        ),
    )
    for what, limit, parts in costs:
        total = sum(parts)
        if limit is None or total <= limit:
            continue
        largest = experiments[parts.index(max(parts))]
        document = next(d for d in documents if d.path == largest.source)
        said = f"all experiments together ask for {total} {what}, more than the lab allows, {limit}"
        hint = f"this one asks for most; the limits are in {lab.source}"
        path = ("spec", "roles" if "roles" in document.data["spec"] else "peers")
        gathered.problems.append(document.problem("limit", said, path, hint=hint))


def _checked(gathered: _LoadState, folder: str, kind: str, broken: list[Broken]) -> Iterator[Document]:
    """Documents of a folder that can be read and fit their schema."""
    schema = Schema(gathered.root, kind, gathered.value_cache)
    for path in _files(gathered, folder):
        data = _read(gathered, path)
        document, problems = (None, ()) if data is None else schema.read(path, data)
        if document is not None and not problems:
            yield document
            continue
        if document is not None:
            gathered.misfits.append(document)
        gathered.problems.extend(problems)
        name = Path(path).stem if document is None else _name_in(document)
        broken.append(Broken(name=name, source=path))


def _files(gathered: _LoadState, folder: str) -> list[str]:
    """Paths of the YAML files in a folder, sorted; what else lies there is a problem, or ignored."""
    found = {
        path for path, text in gathered.overlay.items() if text is not None and path.startswith(folder + "/")
    }
    try:
        check_folder(gathered.root, folder)
        entries = sorted(os.scandir(gathered.root / folder), key=lambda entry: entry.name)
    except FileNotFoundError:  # Git keeps no empty folder: removing the last file removes it
        return sorted(found)
    except OSError as error:
        what = f"the folder `{folder}` can't be read: {error.strerror}"
        gathered.problems.append(file_problem(folder, what, f"make it a folder: `mkdir {folder}`"))
        return sorted(found)
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.name.startswith(_IGNORED) or path in gathered.overlay:
            continue
        if not is_seen(entry.name):
            what = "the file's name holds characters that can't be seen"
            gathered.problems.append(file_problem(ascii(path)[1:-1], what, "rename it"))
        elif entry.is_symlink() or not entry.is_file():
            what = "this is a link or a folder, and only files are read"
            gathered.problems.append(file_problem(path, what, "put the file itself here"))
        elif not entry.name.endswith(".yaml"):
            what = "only files that end in `.yaml` are read"
            gathered.problems.append(file_problem(path, what, "rename it, or move it away"))
        else:
            found.add(path)
    return sorted(found)


def _read(gathered: _LoadState, path: str) -> bytes | None:
    """The bytes of a file, a little more than may be; None, and a problem, when it can't be read."""
    text = gathered.overlay.get(path)
    if text is not None:
        return text.encode()
    try:
        return read_file(gathered.root, path, _READ_LIMIT_BYTES)
    except OSError as error:
        what = f"the file can't be read: {error.strerror}"
        gathered.problems.append(file_problem(path, what, None))
        return None


def _name_in(document: Document) -> str:
    """The name that a file gives itself, as far as it does; else the file's own."""
    data = document.data
    metadata = data.get("metadata") if isinstance(data, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else Path(document.path).stem
