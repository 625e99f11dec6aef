"""Validation of a lab as a whole: every file read, every manifest rendered and guarded, nothing sent.

In: the lab's folder. Out: every problem with file and line, and warnings. What passed before, with the same
files and the same program, is recalled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nimlab.cache import ValueCache
from nimlab.errors import GuardError, Location, NimlabError, Problem, RenderError, SpecError
from nimlab.files.edit import NewExperiment, experiment_text
from nimlab.files.git import read_commit
from nimlab.files.load import load_lab
from nimlab.files.spec import Contract, LabFiles
from nimlab.files.tracked_credentials import tracked_secrets
from nimlab.objects.applyset import PLATFORM, ApplySet
from nimlab.render import EXPERIMENT_FOLDER, find_template, load_sources, load_templates
from nimlab.render.render_platform import (
    FOLDER,
    PLATFORM_FOLDERS,
    PlatformTemplates,
    find_platform_template,
    load_platform_templates,
)
from nimlab.text import to_json_text
from nimlab.timing import stage
from nimlab.workflow.desired import DesiredLab, cache_of, desired_lab, rendered_platform

_PLACE: Final = re.compile(r"(?P<path>[^:]+)(:(?P<line>[0-9]{1,9}))?(:[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]+")
_TEMPLATES: Final = ("experiment", "platform", ".", "README")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedLab:
    """What is wrong in a lab, what is probably a mistake, and how many experiments were read."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    experiments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Violation:
    """One of the things that an error names: `where` is its object, or its template's file and line."""

    error: RenderError | GuardError
    where: str
    what: str


_PROBE: Final = NewExperiment(
    name="nimlab-probe",
    peers=2,
    connections=None,
    msg_size=None,
    msg_rate=None,
    cpu=0.05,
    ram=16,
    downlink_bw=16,
    uplink_bw=16,
)


def check_lab(root: Path) -> ValidatedLab:
    """Return all that is wrong in a lab. Raises NimlabError if Git refuses to read it."""
    with stage("git"):
        commit = read_commit(root)
        secrets = tracked_secrets(root)
    value_cache = cache_of(root)
    try:
        with stage("load"):
            files = load_lab(root, value_cache=value_cache, hidden=commit.hidden if commit else ())
    except SpecError as error:
        paths = {problem.location.path for problem in error.problems}
        return ValidatedLab(problems=error.problems, warnings=secrets, experiments=len(paths))
    found = [*files.problems, *_strays(root), *_render_problems(root, files, value_cache)]
    return ValidatedLab(
        problems=tuple(sorted(found, key=lambda p: (p.location, p.code, p.what))),
        warnings=(*files.warnings, *secrets),
        experiments=len(files.experiments) + len(files.broken),
    )


def _strays(root: Path) -> Iterator[Problem]:
    """Folders that nothing reads: perhaps a misspelt one."""
    try:
        names = sorted(path.name for path in (root / "templates").iterdir())
    except OSError:
        return  # reported where the templates are read
    for name in names:
        if not name.startswith(_TEMPLATES):
            what = "only `templates/experiment` and `templates/platform` are read"
            location = Location(path=f"templates/{name}")
            yield Problem(code="file", what=what, location=location, hint="rename it, or move it away")


def _render_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> list[Problem]:
    """Render and guard everything, unless the same files passed before."""
    digest = None
    with suppress(RenderError):  # reported where the templates are used
        digest = _digest(root, files)
    if value_cache is not None and digest is not None and value_cache.get(digest):
        return []
    found = [*_experiment_problems(root, files, value_cache), *_platform_problems(root, files, value_cache)]
    if value_cache is not None:
        if digest is not None and not found:
            value_cache.put(digest, True)  # noqa: FBT003 -- a value
        value_cache.save(forget=True)
    return found


def _digest(root: Path, files: LabFiles) -> str:
    """Return a digest of all that rendering and guarding depend on. Raises RenderError."""
    texts = [load_sources(root, EXPERIMENT_FOLDER)]
    if (root / FOLDER).is_dir():
        texts += [load_sources(root, folder) for folder in PLATFORM_FOLDERS]
    contracts = [_stable(contract) for _, contract in sorted(files.contracts.items())]
    experiments = [(one.source, one.digest) for one in files.experiments]
    text = to_json_text(["checked", texts, repr(files.lab), contracts, experiments])
    return hashlib.sha256(text.encode()).hexdigest()


def _stable(contract: Contract) -> list[str]:
    """All of a contract as text. The order of a set differs from process to process."""
    rest = replace(contract, fields=frozenset(), required=frozenset())
    return [repr(rest), *sorted(contract.fields), *sorted(contract.required)]


def _experiment_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> list[Problem]:
    """Render and guard all experiments. An error that many of them share is reported once."""
    probed = _with_probes(root, files, value_cache)
    try:
        intent = desired_lab(root, probed, None, value_cache)
    except GuardError as error:  # two experiments make the same object
        sources = [one.source for one in files.experiments if f"`{one.name}`" in error.what]
        return [_problem(error, Location(path=sources[-1]) if sources else None)]
    except RenderError as error:
        return [_problem(error, None)]
    groups: dict[tuple[str, ...], list[_Violation]] = {}
    for found in intent.errors:
        if isinstance(found, RenderError | GuardError):
            for one in _split(found):
                groups.setdefault(_cause(one), []).append(one)
    merged: dict[tuple[Location, str], list[_Violation]] = {}
    for group in groups.values():  # the same line may make objects of different names
        merged.setdefault((_place(root, intent, group[0]), _alike(group[0])), []).extend(group)
    return [_shared(intent, place, group) for (place, _), group in merged.items()]


def _with_probes(root: Path, files: LabFiles, value_cache: ValueCache | None) -> LabFiles:
    """Add a minimal experiment for each contract that no experiment uses, so that it is rendered as well."""
    used = {one.contract.name for one in files.experiments}
    overlay = {}
    for number, name in enumerate(sorted(files.contracts.keys() - used)):
        contract = files.contracts[name]
        new = replace(_PROBE, name=f"{_PROBE.name}-{number}", contract=name)
        text = experiment_text(new, contract, files.lab.defaults)
        overlay[f"experiments/{new.name}.yaml"] = text
    if not overlay:
        return files
    with stage("load"):
        probes = [one for one in load_lab(root, overlay, value_cache).experiments if one.source in overlay]
    return replace(files, experiments=(*files.experiments, *probes))


def _split(error: RenderError | GuardError) -> Iterator[_Violation]:
    """Each violation that an error names, at its own object."""
    first, *more = error.what.split("\n  ") if isinstance(error, GuardError) else [error.what]
    yield _Violation(error=error, where=error.where or "", what=first)
    for line in more:
        where, _, what = line.partition(": ")
        yield _Violation(error=error, where=where, what=what)


def _cause(one: _Violation) -> tuple[str, ...]:
    """What is the same in the errors of several experiments with one cause."""
    name = one.error.experiment or ""
    kind, last = _kind_and_name(one.where)
    where = (kind, last.partition(name)[2]) if isinstance(one.error, GuardError) else (one.where,)
    return (*where, _alike(one))


def _alike(one: _Violation) -> str:
    """The text without the names in it."""
    return re.sub(r"`[^`]*`", "", one.what)


def _shared(intent: DesiredLab, place: Location, group: list[_Violation]) -> Problem:
    """The problem of a line in a template, reported for the first experiment that has it."""
    real = {one.error.experiment for one in group if not (one.error.experiment or "").startswith(_PROBE.name)}
    first = next((one for one in group if one.error.experiment in real), group[0])
    about = f"{first.where}: " if isinstance(first.error, GuardError) else ""
    what = about + first.what
    if len(real) > 1:
        what += f"; the same for {len(real) - 1} more " + (
            "experiment" if len(real) - 1 == 1 else "experiments"
        )
    problem = replace(_problem(first.error, place), what=what)
    probe = next(e for e in intent.files.experiments if e.name == first.error.experiment)
    if first.error.experiment in real:
        return problem
    shown = f"a new experiment under contract `{probe.contract.name}`"
    hint = (problem.hint or "").replace(f"`{probe.source}`", f"`{probe.contract.source}`") or None
    return replace(problem, what=what.replace(f"experiment `{probe.name}`", shown), hint=hint)


def _place(root: Path, intent: DesiredLab, violation: _Violation) -> Location:
    """Return the template that makes the object which may not be sent, and the line of the field."""
    if isinstance(violation.error, RenderError):
        return _problem(violation.error, None).location
    one = next(e for e in intent.files.experiments if e.name == violation.error.experiment)
    kind, name = _kind_and_name(violation.where)
    found = find_template(load_templates(root, EXPERIMENT_FOLDER), one, intent.files.lab, kind, name)
    return Location(path=one.source) if found is None else _line_of(*found, violation.what)


def _kind_and_name(where: str) -> tuple[str, str]:
    return where.partition("/")[0], where.rpartition("/")[2]


def _line_of(path: str, text: str, what: str) -> Location:
    """The first line that sets the last of the keys that a violation names; the first line if none does."""
    lines = text.splitlines()
    for word in reversed(_WORD.findall(what)):
        for number, line in enumerate(lines, 1):
            if re.match(rf"[-\s]*{word}\s*:", line):
                return Location(path=path, line=number)
    return Location(path=path)


def _problem(error: NimlabError, place: Location | None) -> Problem:
    found = _PLACE.fullmatch(error.where or "") if isinstance(error, RenderError) else None
    if place is None and found is not None:
        place = Location(path=found["path"], line=int(found["line"] or 1))
    about = "" if found or error.where is None else f"{error.where}: "
    return Problem(
        code=error.code,
        what=about + error.what,
        location=place or Location(path="lab.yaml"),
        hint=error.hint,
    )


def _platform_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> Iterable[Problem]:
    """Render and guard the platform, where the lab has templates for one."""
    if not (root / FOLDER).is_dir():
        return ()
    try:
        with stage("render"):
            templates = load_platform_templates(root, value_cache)
    except RenderError as error:
        return (_problem(error, None),)
    try:
        rendered_platform(templates, files, ApplySet(name=PLATFORM, namespace=files.lab.namespace))
    except RenderError as error:
        return (_problem(error, None),)
    except GuardError as error:
        return [_of_platform(templates, files, one) for one in _split(error)]
    return ()


def _of_platform(templates: PlatformTemplates, files: LabFiles, violation: _Violation) -> Problem:
    found = find_platform_template(templates, files, *_kind_and_name(violation.where))
    place = _line_of(*found, violation.what) if found else Location(path=FOLDER)
    return replace(_problem(violation.error, place), what=f"{violation.where}: {violation.what}")
