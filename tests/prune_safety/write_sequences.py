"""How a real server comes to show what the forgeries say: an object written by one hand or several.

Each story leads to managedFields of the server's own making. Beside them, the harm that can come to an
object between the look and the act.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.prune_safety.direct_writes import HOLD, Admin
from tests.prune_safety.oracle import MANAGER, MEMBER, PART_OF, PROTECT, Object, body_of, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """How an object is written; `stays` when that alone makes it not ours to delete."""

    stays: bool
    write: Callable[[Admin, Object], object]


def _label(item: Object) -> str | None:
    found: str | None = item["metadata"]["labels"].get(PART_OF)
    return found


def _unlabelled(item: Object, **labels: str) -> Object:
    """A copy without the set's label, or with another."""
    bare = copy.deepcopy(item)
    bare["metadata"]["labels"].pop(PART_OF, None)
    bare["metadata"]["labels"].update(labels)
    return bare


def _only_labels(item: Object) -> Object:
    """As much of the object as an apply of its labels needs."""
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {k: v for k, v in item["metadata"].items() if k in ("name", "namespace", "labels")},
        **({"spec": {"selector": item["spec"]["selector"]}} if item["kind"] == "StatefulSet" else {}),
    }


def _relabel(admin: Admin, item: Object, manager: str = "kubectl-label") -> None:
    admin.merge(item, {"labels": {PART_OF: _label(item)}}, manager)


def _labelled_later(admin: Admin, item: Object) -> None:
    admin.apply(_unlabelled(item))
    _relabel(admin, item)


def _labelled_by_an_applier(admin: Admin, item: Object) -> None:
    admin.apply(_unlabelled(item))
    admin.apply(_only_labels(item), "helm")


def _labelled_anew(admin: Admin, item: Object) -> None:
    admin.apply(_unlabelled(item, **{PART_OF: "applyset-of-another-lab-v1"}))
    _relabel(admin, item)


def _label_toggled(admin: Admin, item: Object) -> None:
    admin.apply(item)
    admin.merge(item, {"labels": {PART_OF: "mine-now"}}, "kubectl-label")
    _relabel(admin, item)


def _label_elsewhere(admin: Admin, item: Object) -> None:
    bare = _unlabelled(item)
    bare["metadata"]["annotations"][PART_OF] = "x"
    if item["kind"] == "StatefulSet":
        bare["spec"]["template"]["metadata"]["labels"][PART_OF] = "x"
    admin.apply(bare)
    _relabel(admin, item)


def _through_status(admin: Admin, item: Object) -> None:
    admin.create(_unlabelled(item))
    if item["kind"] == "StatefulSet":
        admin.apply(_only_labels(item), MANAGER, "/status")
    _relabel(admin, item)


def _wiped(admin: Admin, item: Object) -> None:
    admin.apply(item)
    admin.wipe(item)


def _edited(admin: Admin, item: Object) -> None:
    admin.apply(item)
    admin.merge(item, {"annotations": {"example.org/note": "x"}})


def _shared(admin: Admin, item: Object) -> None:
    admin.apply(item)
    admin.apply(_only_labels(item), "helm")


STORIES: Final[Mapping[str, Story]] = {
    "us": Story(stays=False, write=lambda a, i: a.apply(i)),
    "us, and an editor": Story(stays=False, write=_edited),
    "us and helm together": Story(stays=False, write=_shared),
    "us, without applying": Story(stays=True, write=lambda a, i: a.create(i, MANAGER)),
    "us, the parent's writer": Story(stays=True, write=lambda a, i: a.apply(i, "nimlab-applyset")),
    "one with nearly our name": Story(stays=True, write=lambda a, i: a.apply(i, "Nimlab")),
    "one with our name and a space": Story(stays=True, write=lambda a, i: a.apply(i, "nimlab ")),
    "one with a longer name": Story(stays=True, write=lambda a, i: a.apply(i, "nimlab2")),
    "kubectl apply": Story(stays=True, write=lambda a, i: a.apply(i, "kubectl")),
    "kubectl create": Story(stays=True, write=lambda a, i: a.create(i)),
    "us, but the label is another's": Story(stays=True, write=_labelled_later),
    "us, but the label is another applier's": Story(stays=True, write=_labelled_by_an_applier),
    "us, for another lab": Story(stays=True, write=_labelled_anew),
    "us, and the label taken and given back": Story(stays=True, write=_label_toggled),
    "us, with the label anywhere else": Story(stays=True, write=_label_elsewhere),
    "us, for the status": Story(stays=True, write=_through_status),
    "somebody who wiped it": Story(stays=True, write=_wiped),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What happens to an object between the look and the act; `stays` when it must not be deleted then.

    `again` is done before every attempt, not just the first.
    """

    stays: bool
    do: Callable[[Admin, Object], object]
    again: bool = False


def _remake(admin: Admin, item: Object, make: Callable[[], object]) -> None:
    admin.delete(item)
    make()


def _clean(item: Object) -> Object:
    """The object as it was asked for."""
    kept = {k: v for k, v in item["metadata"].items() if k in ("name", "namespace", "labels", "annotations")}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": kept,
        **body_of(item["kind"]),
    }


def _theirs(item: Object) -> Object:
    """Somebody's object of the same name, with no mark of ours."""
    metadata: dict[str, Any] = item["metadata"]
    return plain(item["kind"], metadata["namespace"], metadata["name"])


def _adopt(admin: Admin, item: Object) -> None:
    admin.merge(item, {"ownerReferences": [admin.reference(item["metadata"]["namespace"])]})


def _toggle(admin: Admin, item: Object) -> None:
    mine = _label(item)
    for label in ("x", mine):
        admin.merge(item, {"labels": {PART_OF: label}}, "kubectl-label")


def _touch(admin: Admin, item: Object) -> None:
    admin.merge(item, {"annotations": {"example.org/seen": "x"}})


def _touch_again(admin: Admin, item: Object) -> None:
    live = admin.get(item)
    seen = live["metadata"]["annotations"].get("example.org/seen", "") if live else ""
    admin.merge(item, {"annotations": {"example.org/seen": seen + "x"}})


HARMS: Final[Mapping[str, Harm]] = {
    "nothing": Harm(stays=False, do=lambda a, i: None),
    "made anew by another": Harm(stays=True, do=lambda a, i: _remake(a, i, lambda: a.create(_theirs(i)))),
    "made anew with our marks": Harm(stays=True, do=lambda a, i: _remake(a, i, lambda: a.create(_clean(i)))),
    "made anew with every proof": Harm(stays=True, do=lambda a, i: _remake(a, i, lambda: a.apply(_clean(i)))),
    "protected": Harm(stays=True, do=lambda a, i: a.merge(i, {"annotations": {PROTECT: "true"}})),
    "given an owner": Harm(stays=True, do=_adopt),
    "unlabelled": Harm(stays=True, do=lambda a, i: a.merge(i, {"labels": {PART_OF: None}})),
    "labelled for another set": Harm(stays=True, do=lambda a, i: a.merge(i, {"labels": {PART_OF: "x"}})),
    "labelled for another set and back": Harm(stays=True, do=_toggle),
    "renamed in its annotation": Harm(stays=True, do=lambda a, i: a.merge(i, {"annotations": {MEMBER: "x"}})),
    "without its annotation": Harm(stays=True, do=lambda a, i: a.merge(i, {"annotations": {MEMBER: None}})),
    "wiped": Harm(stays=True, do=lambda a, i: a.wipe(i)),
    "touched": Harm(stays=False, do=_touch),
    "touched without end": Harm(stays=True, do=_touch_again, again=True),
    "deleted by another": Harm(stays=False, do=lambda a, i: a.delete(i)),
}


def hold(admin: Admin, item: Object) -> None:
    """Put an object on its way out, where it stays."""
    admin.merge(item, {"finalizers": [HOLD]})
    admin.delete(item)


def release(admin: Admin, item: Object) -> None:
    """Let it go at last."""
    if item["metadata"].get("finalizers"):
        admin.merge(item, {"finalizers": None})
