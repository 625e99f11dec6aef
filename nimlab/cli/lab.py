"""The first half of the program's sentence: files -> specs -> manifests, stamped and guarded.

In: the lab's folder and the experiments that this run is about. Out: what is desired, and what can't be.
One experiment's error doesn't hide the others, and all are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nimlab.errors import GuardError, NimlabError, RenderError, SpecError
from nimlab.guard import check_manifests, check_unique, check_unmarked
from nimlab.load import load_lab
from nimlab.manifest import Manifest
from nimlab.owned import EXPERIMENTS, PLATFORM, ApplySet, stamp
from nimlab.recall import Recall
from nimlab.render import load_templates, render_experiment
from nimlab.snapshot import Desired
from nimlab.spec import Broken, Experiment, LabFiles, OnImmutableChange
from nimlab.timing import stage
from nimlab.worktree import Hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the files ask for. `errors` are all that is wrong; `broken` names what can't be synced for it.

    `names` are the groups of the set that this run is about; None for all.
    """

    files: LabFiles
    apply_set: ApplySet
    names: frozenset[str] | None
    desired: tuple[Desired, ...]
    broken: tuple[Broken, ...]
    errors: tuple[NimlabError, ...]


def read_intent(
    root: Path,
    names: frozenset[str] | None,
    recall: Recall | None = None,
    hidden: Sequence[Hidden] = (),
) -> Intent:
    """Load everything, render and guard what the run is about; all experiments where `names` is None.

    The name `platform` stands for the monitoring stack, which is a set of its own.
    What `recall` knows isn't checked by schema or rendered again; it is guarded all the same. Files that Git
    has `hidden` are errors.

    Raises SpecError when `lab.yaml` can't be used, RenderError when no template can.
    """
    with stage("load"):
        files = load_lab(root, recall=recall, hidden=hidden)
    if names is not None and PLATFORM in names:
        return _read_platform(root, files, names, recall)
    apply_set = ApplySet(name=EXPERIMENTS, namespace=files.lab.namespace)
    with stage("render"):
        templates = load_templates(root, "templates/experiment", recall)
    errors: list[NimlabError] = [SpecError(files.problems)] if files.problems else []
    broken = list(files.broken)
    rendered: dict[str, tuple[Manifest, ...]] = {}
    for one in files.experiments:
        if names is not None and one.name not in names:
            continue
        try:
            with stage("render"):
                plain = render_experiment(templates, one, files.lab)
                check_unmarked(plain, one)
                stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
            with stage("guard"):
                check_manifests(stamped, one, files.lab, apply_set)
        except (RenderError, GuardError) as error:
            errors.append(error)
            broken.append(Broken(name=one.name, source=one.source))
        else:
            rendered[one.name] = stamped
    with stage("guard"):
        check_unique(rendered)
    return Intent(
        files=files,
        apply_set=apply_set,
        names=names,
        desired=tuple(_desired(one, rendered[one.name]) for one in files.experiments if one.name in rendered),
        broken=tuple(broken),
        errors=tuple(errors),
    )


def _read_platform(root: Path, files: LabFiles, names: frozenset[str], recall: Recall | None) -> Intent:
    """Render and guard the platform, a group a component.

    Raises SpecError for any error in any file: where an unreadable experiment has its peers can't be told,
    and they would be scraped no more.
    """
    from nimlab.guard_platform import check_platform  # what a sync of experiments doesn't need
    from nimlab.render.platform import FOLDER, load_platform_templates, render_platform

    if files.problems:
        raise SpecError(files.problems)
    if len(names) > 1:
        raise NimlabError(
            f"`{PLATFORM}` is a set of its own", hint=f"sync it alone: `nimlab sync {PLATFORM}`"
        )
    apply_set = ApplySet(name=PLATFORM, namespace=files.lab.namespace)
    with stage("render"):
        templates = load_platform_templates(root, recall)
        plain = render_platform(templates, files)
        stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    with stage("guard"):
        namespaces = {one.namespace for one in files.experiments} | {files.lab.namespace}
        check_platform(stamped, files.lab, namespaces, apply_set)
    groups: dict[str, list[Manifest]] = {}
    for manifest in stamped:
        groups.setdefault(apply_set.group_of(manifest), []).append(manifest)
    desired = tuple(
        Desired(
            name=name,
            manifests=tuple(manifests),
            on_immutable_change=OnImmutableChange.FAIL,
            source=FOLDER,
        )
        for name, manifests in sorted(groups.items())
    )
    return Intent(files=files, apply_set=apply_set, names=None, desired=desired, broken=(), errors=())


def _desired(one: Experiment, manifests: tuple[Manifest, ...]) -> Desired:
    return Desired(
        name=one.name,
        manifests=manifests,
        on_immutable_change=one.on_immutable_change,
        source=one.source,
    )
