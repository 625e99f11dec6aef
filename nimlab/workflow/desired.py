"""The first half of the program's sentence: files -> specs -> manifests, stamped and guarded.

In: the lab's folder and the experiments that this run is about. Out: what is desired, and what can't be.
One experiment's error doesn't hide the others, and all are reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nimlab.cache import ValueCache, code_stamp, default_cache
from nimlab.errors import GuardError, NimlabError, RenderError, SpecError
from nimlab.files.git_worktree import Hidden
from nimlab.files.load import load_lab
from nimlab.files.spec import Broken, Experiment, Lab, LabFiles, OnImmutableChange
from nimlab.objects.applyset import EXPERIMENTS, PLATFORM, ApplySet, stamp
from nimlab.objects.manifest import Manifest, key_of
from nimlab.plan.snapshot import Desired
from nimlab.render import EXPERIMENT_FOLDER, Templates, load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests, check_unique, check_unmarked
from nimlab.timing import stage

if TYPE_CHECKING:
    from nimlab.render.render_platform import PlatformTemplates


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredLab:
    """What the files ask for. `errors` are all that is wrong; `broken` names what can't be synced for it.

    `names` are the groups of the set that this run is about; None for all.
    """

    files: LabFiles
    apply_set: ApplySet
    names: frozenset[str] | None
    desired: tuple[Desired, ...]
    broken: tuple[Broken, ...]
    errors: tuple[NimlabError, ...]


def read_desired_lab(
    root: Path,
    names: frozenset[str] | None,
    value_cache: ValueCache | None = None,
    hidden: Sequence[Hidden] = (),
) -> DesiredLab:
    """Load everything, render and guard what the run is about; all experiments where `names` is None.

    The name `platform` stands for the monitoring stack, which is a set of its own.
    What `recall` knows isn't checked by schema or rendered again; it is guarded all the same. Files that Git
    has `hidden` are errors.

    Raises SpecError when `lab.yaml` can't be used, RenderError when no template can.
    """
    with stage("load"):
        files = load_lab(root, value_cache=value_cache, hidden=hidden)
    if names is not None and PLATFORM in names:
        return _read_platform(root, files, names, value_cache)
    return desired_lab(root, files, names, value_cache)


def desired_lab(
    root: Path, files: LabFiles, names: frozenset[str] | None, value_cache: ValueCache | None = None
) -> DesiredLab:
    """Render and guard the experiments of files that have been read. Raises RenderError, GuardError."""
    apply_set = ApplySet(name=EXPERIMENTS, namespace=files.lab.namespace)
    with stage("render"):
        templates = load_templates(root, EXPERIMENT_FOLDER, value_cache)
    errors: list[NimlabError] = [SpecError(files.problems)] if files.problems else []
    broken = list(files.broken)
    rendered: dict[str, tuple[Manifest, ...]] = {}
    for one in files.experiments:
        if names is not None and one.name not in names:
            continue
        try:
            rendered[one.name] = _rendered(templates, one, files.lab, apply_set)
        except (RenderError, GuardError) as error:
            error.experiment = one.name
            errors.append(error)
            broken.append(Broken(name=one.name, source=one.source))
    with stage("guard"):
        check_unique(rendered)
    return DesiredLab(
        files=files,
        apply_set=apply_set,
        names=names,
        desired=tuple(_desired(one, rendered[one.name]) for one in files.experiments if one.name in rendered),
        broken=tuple(broken),
        errors=tuple(errors),
    )


def _rendered(templates: Templates, one: Experiment, lab: Lab, apply_set: ApplySet) -> tuple[Manifest, ...]:
    """Render, stamp and guard one experiment. Raises RenderError, GuardError."""
    with stage("render"):
        plain = render_experiment(templates, one, lab)
        check_unmarked(plain, one)
        stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    with stage("guard"):
        check_manifests(stamped, one, lab, apply_set)
        _check_whole(stamped, one)
    return stamped


def _check_whole(manifests: Sequence[Manifest], one: Experiment) -> None:
    """Raise RenderError if no template makes what every experiment has.

    A template that was renamed or lost would otherwise prune these objects of all experiments.
    """
    made = {(key.kind, key.name) for key in map(key_of, manifests)}
    workloads = [("StatefulSet", one.workload_of(group)) for group in one.groups]
    for kind, name in (*workloads, ("Service", one.service)):
        if (kind, name) not in made:
            raise RenderError(
                f"no template makes {kind} `{name}` (for experiment `{one.name}`)",
                where=EXPERIMENT_FOLDER,
                hint="is a template missing, or is its name misspelt? They end in `.yaml.j2`",
            )


def _read_platform(
    root: Path, files: LabFiles, names: frozenset[str], value_cache: ValueCache | None
) -> DesiredLab:
    """Render and guard the platform, a group a component.

    Raises SpecError for any error in any file: where an unreadable experiment has its peers can't be told,
    and they would be scraped no more.
    """
    from nimlab.render.render_platform import (
        FOLDER,
        load_platform_templates,
    )  # a sync of experiments doesn't need it

    if files.problems:
        raise SpecError(files.problems)
    if len(names) > 1:
        raise NimlabError(
            f"`{PLATFORM}` is a set of its own", hint=f"sync it alone: `nimlab sync {PLATFORM}`"
        )
    apply_set = ApplySet(name=PLATFORM, namespace=files.lab.namespace)
    stamped = rendered_platform(load_platform_templates(root, value_cache), files, apply_set)
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
    return DesiredLab(files=files, apply_set=apply_set, names=None, desired=desired, broken=(), errors=())


def rendered_platform(
    templates: PlatformTemplates, files: LabFiles, apply_set: ApplySet
) -> tuple[Manifest, ...]:
    """Render, stamp and guard the platform. Raises RenderError, GuardError."""
    from nimlab.render.guard.platform_guard import check_platform  # as above
    from nimlab.render.render_platform import render_platform

    with stage("render"):
        plain = render_platform(templates, files)
        stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    with stage("guard"):
        namespaces = {one.namespace for one in files.experiments} | {files.lab.namespace}
        check_platform(stamped, files.lab, namespaces, apply_set)
    return stamped


def cache_of(root: Path) -> ValueCache | None:
    """Return what was rendered for this lab before; None if it can't be kept outside the lab."""
    try:
        folder = default_cache().resolve() / "rendered"
    except RuntimeError:  # nobody's home, as in some containers
        return None
    if folder.is_relative_to(root):  # a pipeline's cache: whoever writes the repository writes that, too
        return None
    return ValueCache(folder / hashlib.sha256(bytes(root)).hexdigest()[:32], code_stamp())


def _desired(one: Experiment, manifests: tuple[Manifest, ...]) -> Desired:
    return Desired(
        name=one.name,
        manifests=manifests,
        on_immutable_change=one.on_immutable_change,
        source=one.source,
    )
