"""Files -> manifests: load the lab, render its experiments or monitoring stack, add labels, run the guards.

In: the lab's folder and the names of the experiments. Out: the desired objects, and all errors. An error of
one experiment does not hide the errors of others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nimlab.errors import GuardError, NimlabError, RenderError, SpecError
from nimlab.files.git_worktree import HiddenFile
from nimlab.files.load import load_lab
from nimlab.files.spec import BrokenFile, Experiment, Lab, LabFiles, OnImmutableChange
from nimlab.objects.applyset import EXPERIMENTS, PLATFORM, ApplySet, stamp
from nimlab.objects.manifest import Manifest, key_of
from nimlab.plan.snapshot import Desired
from nimlab.render import EXPERIMENT_FOLDER, Templates, load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests, check_unique, check_unstamped
from nimlab.stopwatch import stage
from nimlab.value_cache import ValueCache, code_stamp, default_cache

if TYPE_CHECKING:
    from nimlab.render.render_platform import PlatformTemplates


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredLab:
    """The desired objects, as the files describe them.

    `errors` are all errors of files, templates and guards. `broken` are the experiments that cannot be synced
    because of such an error. `names` are the requested experiments; None means all experiments, or the whole
    platform.
    """

    files: LabFiles
    apply_set: ApplySet
    names: frozenset[str] | None
    desired: tuple[Desired, ...]
    broken: tuple[BrokenFile, ...]
    errors: tuple[NimlabError, ...]


def read_desired_lab(
    root: Path,
    names: frozenset[str] | None,
    value_cache: ValueCache | None = None,
    hidden: Sequence[HiddenFile] = (),
) -> DesiredLab:
    """Load all files, render the experiments in `names` (None: all experiments), and run the guards.

    The name `platform` stands for the monitoring stack, which is an apply-set of its own. Cached values are
    not checked against the schema and not rendered again, but the guards check them. Git does not show
    changes of the files in `hidden`, so each of these files is an error. Raises SpecError if `lab.yaml`
    cannot be used. Raises RenderError if the templates cannot be read.
    """
    with stage("load"):
        files = load_lab(root, value_cache=value_cache, hidden=hidden)
    if names is not None and PLATFORM in names:
        return _read_platform(root, files, names, value_cache)
    return desired_lab(root, files, names, value_cache)


def desired_lab(
    root: Path, files: LabFiles, names: frozenset[str] | None, value_cache: ValueCache | None = None
) -> DesiredLab:
    """Render the experiments of files that are already loaded, and check them with the guards.

    Raises RenderError if the templates cannot be read. The result contains the errors of single experiments.
    """
    apply_set = ApplySet(name=EXPERIMENTS, namespace=files.lab.namespace)
    with stage("render"):
        templates = load_templates(root, EXPERIMENT_FOLDER, value_cache)
    errors: list[NimlabError] = [SpecError(files.problems)] if files.problems else []
    chosen = [e for e in files.experiments if names is None or e.name in names]
    rendered: dict[str, tuple[Manifest, ...]] = {}
    for experiment in chosen:
        try:
            rendered[experiment.name] = _rendered(templates, experiment, files.lab, apply_set)
        except (RenderError, GuardError) as error:
            error.experiment = experiment.name
            errors.append(error)
    with stage("guard"):
        errors += _remove_clashes(rendered)
    broken = [BrokenFile(name=e.name, source=e.source) for e in chosen if e.name not in rendered]
    return DesiredLab(
        files=files,
        apply_set=apply_set,
        names=names,
        desired=tuple(_desired(e, rendered[e.name]) for e in chosen if e.name in rendered),
        broken=(*files.broken, *broken),
        errors=tuple(errors),
    )


def _rendered(
    templates: Templates, experiment: Experiment, lab: Lab, apply_set: ApplySet
) -> tuple[Manifest, ...]:
    """Render one experiment, add its labels, and run the guards. Raises RenderError or GuardError."""
    with stage("render"):
        plain = render_experiment(templates, experiment, lab)
        check_unstamped(plain, experiment)
        stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    with stage("guard"):
        check_manifests(stamped, experiment, lab, apply_set)
        _check_complete(stamped, experiment)
    return stamped


def _check_complete(manifests: Sequence[Manifest], experiment: Experiment) -> None:
    """Raise RenderError if an object that every experiment must have is missing.

    If a template is lost, the next sync would otherwise prune the objects of this template in all
    experiments.
    """
    rendered = {(key.kind, key.name) for key in map(key_of, manifests)}
    workloads = [("StatefulSet", experiment.workload_of(group)) for group in experiment.groups]
    for kind, name in (*workloads, ("Service", experiment.service)):
        if (kind, name) not in rendered:
            raise RenderError(
                f"no template makes {kind} `{name}` (for experiment `{experiment.name}`)",
                where=EXPERIMENT_FOLDER,
                hint="is a template missing, or is its name misspelt? Names of templates end in `.yaml.j2`",
            )


def _remove_clashes(rendered: dict[str, tuple[Manifest, ...]]) -> Iterator[GuardError]:
    """Remove all experiments that render the same object; yield one error per such object.

    All these experiments are removed, because the object cannot be assigned to one of them.
    """
    while True:
        try:
            check_unique(rendered)
        except GuardError as error:
            owners = _owners_of(error.where, rendered)
            for name in owners:
                del rendered[name]
            yield error
        else:
            return


def _owners_of(key: str | None, rendered: Mapping[str, Sequence[Manifest]]) -> list[str]:
    """Return the experiments that render the object with this key."""
    return [
        name
        for name, manifests in rendered.items()
        if any(str(key_of(manifest)) == key for manifest in manifests)
    ]


def _read_platform(
    root: Path, files: LabFiles, names: frozenset[str], value_cache: ValueCache | None
) -> DesiredLab:
    """Render the monitoring stack and check it with the guards; each component is one group.

    Raises SpecError if any file has an error. If the file of an experiment cannot be read, its namespace is
    unknown, and Prometheus would stop scraping its peers.
    """
    from nimlab.render.render_platform import FOLDER, load_platform_templates  # only needed here

    if files.problems:
        raise SpecError(files.problems)
    if len(names) > 1:
        raise NimlabError(
            f"`{PLATFORM}` is an apply-set of its own, and cannot be synced together with experiments",
            hint=f"sync it alone: `nimlab sync {PLATFORM}`",
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
    """Render the monitoring stack, add labels, and run the guards. Raises RenderError or GuardError."""
    from nimlab.render.guard.platform_guard import check_platform  # only needed here
    from nimlab.render.render_platform import render_platform

    with stage("render"):
        plain = render_platform(templates, files)
        stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    with stage("guard"):
        namespaces = {experiment.namespace for experiment in files.experiments} | {files.lab.namespace}
        check_platform(stamped, files.lab, namespaces, apply_set)
    return stamped


def cache_of(root: Path) -> ValueCache | None:
    """Return the cache of loaded and rendered values of this lab; None if it would lie inside the lab.

    A cache inside the lab cannot be trusted: in a pipeline, everybody with push access could write to it.
    """
    try:
        folder = default_cache().resolve() / "rendered"
    except RuntimeError:  # no home directory, as in some containers
        return None
    if folder.is_relative_to(root):
        return None
    return ValueCache(folder / hashlib.sha256(bytes(root)).hexdigest()[:32], code_stamp())


def _desired(experiment: Experiment, manifests: tuple[Manifest, ...]) -> Desired:
    return Desired(
        name=experiment.name,
        manifests=manifests,
        on_immutable_change=experiment.on_immutable_change,
        source=experiment.source,
    )
