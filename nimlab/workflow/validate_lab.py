"""Validate a whole lab without a cluster: load all files, render all manifests, check them with the guards.

In: the lab's folder. Out: every problem, with its file and line, and warnings. If the manifests have no
problem, this result is cached for these files and this version of nimlab.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nimlab.errors import GuardError, Location, NimlabError, Problem, RenderError, SpecError
from nimlab.files.credentials_in_git import tracked_secrets
from nimlab.files.edit_experiment_file import NewExperiment, experiment_text
from nimlab.files.git_history import read_commit
from nimlab.files.load import load_lab
from nimlab.files.spec import Contract, LabFiles
from nimlab.objects.applyset import PLATFORM, ApplySet
from nimlab.render import EXPERIMENT_FOLDER, find_template, load_sources, load_templates
from nimlab.render.render_platform import (
    FOLDER,
    PLATFORM_FOLDERS,
    PlatformTemplates,
    find_platform_template,
    load_platform_templates,
)
from nimlab.stopwatch import stage
from nimlab.value_cache import ValueCache
from nimlab.workflow.desired_lab import DesiredLab, cache_of, desired_lab, rendered_platform
from nimlab.yaml_and_json import to_json_text

_LOCATION: Final = re.compile(r"(?P<path>[^:]+)(:(?P<line>[0-9]{1,9}))?(:[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]+")
_TEMPLATES: Final = ("experiment", "platform", ".", "README")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedLab:
    """The problems of a lab, its warnings (probable mistakes), and the number of experiments."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    experiments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Violation:
    """One violation in an error; `where` is the key of the object, or the template's file and line."""

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
    """Return all problems and warnings of a lab. Raises NimlabError if Git refuses to read it."""
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
    problems = [*files.problems, *_unused_folders(root), *_render_problems(root, files, value_cache)]
    return ValidatedLab(
        problems=tuple(sorted(problems, key=lambda p: (p.location, p.code, p.what))),
        warnings=(*files.warnings, *secrets),
        experiments=len(files.experiments) + len(files.broken),
    )


def _unused_folders(root: Path) -> Iterator[Problem]:
    """Yield a problem for each unused file or folder in `templates/`; its name may be misspelt."""
    try:
        names = sorted(path.name for path in (root / "templates").iterdir())
    except OSError:
        return  # the code that reads the templates reports this error
    for name in names:
        if not name.startswith(_TEMPLATES):
            what = "only `templates/experiment` and `templates/platform` are read"
            location = Location(path=f"templates/{name}")
            yield Problem(
                code="file", what=what, location=location, hint="rename it, or move it out of `templates`"
            )


def _render_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> list[Problem]:
    """Render all manifests and check them, unless the same files passed before; return the problems."""
    digest = None
    with suppress(RenderError):  # the code that uses the templates reports this error
        digest = _digest(root, files)
    if value_cache is not None and digest is not None and value_cache.get(digest):
        return []
    problems = [
        *_experiment_problems(root, files, value_cache),
        *_platform_problems(root, files, value_cache),
    ]
    if value_cache is not None:
        if digest is not None and not problems:
            value_cache.put(digest, True)  # noqa: FBT003 -- a value
        value_cache.save(forget=True)
    return problems


def _digest(root: Path, files: LabFiles) -> str:
    """Return a digest of everything on which rendering and the guards depend. Raises RenderError."""
    texts = [load_sources(root, EXPERIMENT_FOLDER)]
    if (root / FOLDER).is_dir():
        texts += [load_sources(root, folder) for folder in PLATFORM_FOLDERS]
    contracts = [_contract_texts(contract) for _, contract in sorted(files.contracts.items())]
    experiments = [(experiment.source, experiment.digest) for experiment in files.experiments]
    text = to_json_text(["checked", texts, repr(files.lab), contracts, experiments])
    return hashlib.sha256(text.encode()).hexdigest()


def _contract_texts(contract: Contract) -> list[str]:
    """Return a contract as texts; sets are sorted, because their order differs between processes."""
    rest = replace(contract, fields=frozenset(), required=frozenset())
    return [repr(rest), *sorted(contract.fields), *sorted(contract.required)]


def _experiment_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> list[Problem]:
    """Render and check all experiments. An error that several of them share is reported once."""
    with_probes = _with_probes(root, files, value_cache)
    try:
        lab = desired_lab(root, with_probes, None, value_cache)
    except RenderError as unreadable:
        return [_problem(unreadable, None)]
    errors = [error for error in lab.errors if isinstance(error, RenderError | GuardError)]
    groups: dict[tuple[str, ...], list[_Violation]] = {}
    for violation in (v for error in errors if error.experiment is not None for v in _violations(error)):
        groups.setdefault(_cause(violation), []).append(violation)
    merged: dict[tuple[Location, str], list[_Violation]] = {}
    for group in groups.values():  # one line of a template may produce objects with different names
        key = (_location_of(root, lab, group[0]), _without_names(group[0]))
        merged.setdefault(key, []).extend(group)
    shared = [_shared_problem(lab, location, group) for (location, _), group in merged.items()]
    return [*shared, *(_clash_problem(error, files) for error in errors if error.experiment is None)]


def _clash_problem(error: RenderError | GuardError, files: LabFiles) -> Problem:
    """Return the problem of an object that two experiments render, with the file of the later experiment."""
    sources = [e.source for e in files.experiments if f"`{e.name}`" in error.what]
    return _problem(error, Location(path=sources[-1]) if sources else None)


def _with_probes(root: Path, files: LabFiles, value_cache: ValueCache | None) -> LabFiles:
    """Add a minimal experiment for each unused contract, so that the contract is rendered as well."""
    used = {experiment.contract.name for experiment in files.experiments}
    overlay = {}
    for number, name in enumerate(sorted(files.contracts.keys() - used)):
        contract = files.contracts[name]
        new = replace(_PROBE, name=f"{_PROBE.name}-{number}", contract=name)
        text = experiment_text(new, contract, files.lab.defaults)
        overlay[f"experiments/{new.name}.yaml"] = text
    if not overlay:
        return files
    with stage("load"):
        probes = [e for e in load_lab(root, overlay, value_cache).experiments if e.source in overlay]
    return replace(files, experiments=(*files.experiments, *probes))


def _violations(error: RenderError | GuardError) -> Iterator[_Violation]:
    """Yield each violation in an error, with the object that it concerns."""
    first, *more = error.what.split("\n  ") if isinstance(error, GuardError) else [error.what]
    yield _Violation(error=error, where=error.where or "", what=first)
    for line in more:
        where, _, what = line.partition(": ")
        yield _Violation(error=error, where=where, what=what)


def _cause(violation: _Violation) -> tuple[str, ...]:
    """Return a key that is equal for violations of several experiments with the same cause."""
    name = violation.error.experiment or ""
    kind, last = _kind_and_name(violation.where)
    is_of_object = isinstance(violation.error, GuardError)
    where = (kind, last.partition(name)[2]) if is_of_object else (violation.where,)
    return (*where, _without_names(violation))


def _without_names(violation: _Violation) -> str:
    """Return the text of a violation without the names that it contains."""
    return re.sub(r"`[^`]*`", "", violation.what)


def _shared_problem(lab: DesiredLab, location: Location, group: list[_Violation]) -> Problem:
    """Return one problem for all violations with the same cause; it names the first experiment."""
    names = {violation.error.experiment for violation in group}
    real = {name for name in names if not (name or "").startswith(_PROBE.name)}
    first = next((violation for violation in group if violation.error.experiment in real), group[0])
    prefix = f"{first.where}: " if isinstance(first.error, GuardError) else ""
    what = prefix + first.what
    if len(real) > 1:
        what += f"; the same for {len(real) - 1} more " + (
            "experiment" if len(real) - 1 == 1 else "experiments"
        )
    problem = replace(_problem(first.error, location), what=what)
    probe = next(e for e in lab.files.experiments if e.name == first.error.experiment)
    if first.error.experiment in real:
        return problem
    shown = f"a new experiment under contract `{probe.contract.name}`"
    hint = (problem.hint or "").replace(f"`{probe.source}`", f"`{probe.contract.source}`") or None
    return replace(problem, what=what.replace(f"experiment `{probe.name}`", shown), hint=hint)


def _location_of(root: Path, lab: DesiredLab, violation: _Violation) -> Location:
    """Return the location of a violation: the template of the object, and the line of the field."""
    if isinstance(violation.error, RenderError):
        return _problem(violation.error, None).location
    experiment = next(e for e in lab.files.experiments if e.name == violation.error.experiment)
    kind, name = _kind_and_name(violation.where)
    templates = load_templates(root, EXPERIMENT_FOLDER)
    template = find_template(templates, experiment, lab.files.lab, kind, name)
    return Location(path=experiment.source) if template is None else _line_of(*template, violation.what)


def _kind_and_name(where: str) -> tuple[str, str]:
    return where.partition("/")[0], where.rpartition("/")[2]


def _line_of(path: str, text: str, what: str) -> Location:
    """Return the template line that sets a field named in the violation; if there is none, the first line.

    Of several such fields, the last one in the text of the violation is used.
    """
    lines = text.splitlines()
    for word in reversed(_WORD.findall(what)):
        for number, line in enumerate(lines, 1):
            if re.match(rf"[-\s]*{word}\s*:", line):
                return Location(path=path, line=number)
    return Location(path=path)


def _problem(error: NimlabError, location: Location | None) -> Problem:
    match = _LOCATION.fullmatch(error.where or "") if isinstance(error, RenderError) else None
    if location is None and match is not None:
        location = Location(path=match["path"], line=int(match["line"] or 1))
    prefix = "" if match or error.where is None else f"{error.where}: "
    return Problem(
        code=error.code,
        what=prefix + error.what,
        location=location or Location(path="lab.yaml"),
        hint=error.hint,
    )


def _platform_problems(root: Path, files: LabFiles, value_cache: ValueCache | None) -> Iterable[Problem]:
    """Render and check the monitoring stack, if the lab has templates for it."""
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
        return [_platform_problem(templates, files, violation) for violation in _violations(error)]
    return ()


def _platform_problem(templates: PlatformTemplates, files: LabFiles, violation: _Violation) -> Problem:
    template = find_platform_template(templates, files, *_kind_and_name(violation.where))
    location = _line_of(*template, violation.what) if template else Location(path=FOLDER)
    return replace(_problem(violation.error, location), what=f"{violation.where}: {violation.what}")
