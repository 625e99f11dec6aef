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

from nimlab.cli.lab import Intent, intent_of, recall_of, rendered_platform
from nimlab.errors import GuardError, Location, NimlabError, Problem, RenderError, SpecError
from nimlab.exposed import tracked_secrets
from nimlab.git import read_commit
from nimlab.load import load_lab
from nimlab.manifest import to_json_text
from nimlab.owned import PLATFORM, ApplySet
from nimlab.recall import Recall
from nimlab.render import EXPERIMENT_FOLDER, find_template, load_sources, load_templates
from nimlab.render.platform import (
    FOLDER,
    PLATFORM_FOLDERS,
    find_platform_template,
    load_platform_templates,
)
from nimlab.spec import Contract, LabFiles
from nimlab.timing import stage

_PLACE: Final = re.compile(r"(?P<path>[^:]+)(:(?P<line>[0-9]{1,9}))?(:[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]+")
_TEMPLATES: Final = ("experiment", "platform", ".", "README")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is wrong in a lab, what is probably a mistake, and how many experiments were read."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    experiments: int


def check_lab(root: Path) -> Checked:
    """Return all that is wrong in a lab. Raises NimlabError if Git refuses to read it."""
    with stage("git"):
        commit = read_commit(root)
        secrets = tracked_secrets(root)
    recall = recall_of(root)
    try:
        with stage("load"):
            files = load_lab(root, recall=recall, hidden=commit.hidden if commit else ())
    except SpecError as error:
        paths = {problem.location.path for problem in error.problems}
        return Checked(problems=error.problems, warnings=secrets, experiments=len(paths))
    found = [*files.problems, *_strays(root), *_render_problems(root, files, recall)]
    return Checked(
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


def _render_problems(root: Path, files: LabFiles, recall: Recall | None) -> list[Problem]:
    """Render and guard everything, unless the same files passed before."""
    digest = None
    with suppress(RenderError):  # reported where the templates are used
        digest = _digest(root, files)
    if recall is not None and digest is not None and recall.get(digest):
        return []
    found = [*_experiment_problems(root, files, recall), *_platform_problems(root, files, recall)]
    if recall is not None:
        if digest is not None and not found:
            recall.put(digest, True)  # noqa: FBT003 -- a value
        recall.save(forget=True)
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


def _experiment_problems(root: Path, files: LabFiles, recall: Recall | None) -> list[Problem]:
    """Render and guard all experiments. An error that many of them share is reported once."""
    try:
        intent = intent_of(root, files, None, recall)
    except (RenderError, GuardError) as error:
        return [_problem(error, None)]
    errors = [one for one in intent.errors if isinstance(one, RenderError | GuardError)]
    groups: dict[tuple[str, str], list[RenderError | GuardError]] = {}
    for one in errors:
        groups.setdefault(_cause(one), []).append(one)
    return [_shared(root, intent, group) for group in groups.values()]


def _cause(error: RenderError | GuardError) -> tuple[str, str]:
    """What is the same in the errors of several experiments with one cause."""
    name = error.experiment or ""
    return re.sub(re.escape(name) + r"\b", "", error.where or ""), re.sub(
        re.escape(name) + r"\b", "", error.what
    )


def _shared(root: Path, intent: Intent, group: list[RenderError | GuardError]) -> Problem:
    first = group[0]
    problem = _problem(first, _place(root, intent, first) if isinstance(first, GuardError) else None)
    if len(group) == 1:
        return problem
    return replace(problem, what=f"{problem.what}; the same for {len(group) - 1} more experiments")


def _place(root: Path, intent: Intent, error: GuardError) -> Location | None:
    """Return where the object that may not be sent is made: its template, and the line of the field."""
    one = next((e for e in intent.files.experiments if e.name == error.experiment), None)
    if one is None or error.where is None:
        return None
    kind, name = _kind_and_name(error.where)
    found = find_template(load_templates(root, EXPERIMENT_FOLDER), one, intent.files.lab, kind, name)
    return Location(path=one.source) if found is None else _line_of(*found, error)


def _kind_and_name(where: str) -> tuple[str, str]:
    kind, *_, name = where.split("/")
    return kind, name


def _line_of(path: str, text: str, error: GuardError) -> Location:
    """The first line that sets the last of the keys that a violation names; the first line if none does."""
    lines = text.splitlines()
    for word in reversed(_WORD.findall(error.what.splitlines()[0])):
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


def _platform_problems(root: Path, files: LabFiles, recall: Recall | None) -> Iterable[Problem]:
    """Render and guard the platform, where the lab has templates for one."""
    if not (root / FOLDER).is_dir():
        return ()
    try:
        with stage("render"):
            templates = load_platform_templates(root, recall)
    except RenderError as error:
        return (_problem(error, None),)
    try:
        rendered_platform(templates, files, ApplySet(name=PLATFORM, namespace=files.lab.namespace))
    except RenderError as error:
        return (_problem(error, None),)
    except GuardError as error:
        found = find_platform_template(templates, files, *_kind_and_name(error.where or ""))
        return (_problem(error, _line_of(*found, error) if found else Location(path=FOLDER)),)
    return ()
