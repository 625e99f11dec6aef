"""The first half of the program's sentence: files -> specs -> manifests, stamped and guarded.

In: the lab's folder and the experiments that this run is about. Out: what is desired, and what can't be.
One experiment's error doesn't hide the others, and all are reported.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nimlab.errors import GuardError, NimlabError, RenderError, SpecError
from nimlab.guard import check_manifests, check_unique, check_unmarked
from nimlab.load import load_lab
from nimlab.manifest import Manifest
from nimlab.owned import ApplySet, stamp
from nimlab.recall import Recall
from nimlab.render import load_templates, render_experiment
from nimlab.snapshot import Desired
from nimlab.spec import Broken, Experiment, LabFiles
from nimlab.timing import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the files ask for. `errors` are all that is wrong; `broken` names what can't be synced for it."""

    files: LabFiles
    apply_set: ApplySet
    desired: tuple[Desired, ...]
    broken: tuple[Broken, ...]
    errors: tuple[NimlabError, ...]


def read_intent(root: Path, names: Collection[str] | None, recall: Recall | None = None) -> Intent:
    """Load everything, render and guard what the run is about; all of it where `names` is None.

    What `recall` knows isn't checked by schema or rendered again; it is guarded all the same.

    Raises SpecError when `lab.yaml` can't be used, RenderError when no template can.
    """
    with stage("load"):
        files = load_lab(root, recall=recall)
    apply_set = ApplySet(name="experiments", namespace=files.lab.namespace)
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
        desired=tuple(_desired(one, rendered[one.name]) for one in files.experiments if one.name in rendered),
        broken=tuple(broken),
        errors=tuple(errors),
    )


def _desired(one: Experiment, manifests: tuple[Manifest, ...]) -> Desired:
    return Desired(
        name=one.name,
        manifests=manifests,
        on_immutable_change=one.on_immutable_change,
        source=one.source,
    )
