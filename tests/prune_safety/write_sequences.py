"""Late changes, and sequences of writes that produce the variants of managedFields on a real server.

A late change is a change that another client makes to an object between the plan and its execution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.prune_safety.direct_writes import HOLD, DirectAccess
from tests.prune_safety.oracle import MANAGER, MEMBER, PART_OF, PROTECT, Object, body_of, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSequence:
    """A sequence of writes; `stays` is True if a sync must keep an object that was written in this way."""

    stays: bool
    write: Callable[[DirectAccess, Object], object]


def _label(item: Object) -> str | None:
    label: str | None = item["metadata"]["labels"].get(PART_OF)
    return label


def _unlabelled(item: Object, **labels: str) -> Object:
    """Return a copy without the label of the apply-set. `labels` are added to the copy."""
    bare = copy.deepcopy(item)
    bare["metadata"]["labels"].pop(PART_OF, None)
    bare["metadata"]["labels"].update(labels)
    return bare


def _only_labels(item: Object) -> Object:
    """Return the part of the object that a client must send to apply only its labels."""
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {k: v for k, v in item["metadata"].items() if k in ("name", "namespace", "labels")},
        **({"spec": {"selector": item["spec"]["selector"]}} if item["kind"] == "StatefulSet" else {}),
    }


def _relabel(direct: DirectAccess, item: Object, manager: str = "kubectl-label") -> None:
    direct.merge(item, {"labels": {PART_OF: _label(item)}}, manager)


def _labelled_later(direct: DirectAccess, item: Object) -> None:
    direct.apply(_unlabelled(item))
    _relabel(direct, item)


def _labelled_by_an_applier(direct: DirectAccess, item: Object) -> None:
    direct.apply(_unlabelled(item))
    direct.apply(_only_labels(item), "helm")


def _labelled_anew(direct: DirectAccess, item: Object) -> None:
    direct.apply(_unlabelled(item, **{PART_OF: "applyset-of-another-lab-v1"}))
    _relabel(direct, item)


def _label_toggled(direct: DirectAccess, item: Object) -> None:
    direct.apply(item)
    direct.merge(item, {"labels": {PART_OF: "mine-now"}}, "kubectl-label")
    _relabel(direct, item)


def _label_elsewhere(direct: DirectAccess, item: Object) -> None:
    bare = _unlabelled(item)
    bare["metadata"]["annotations"][PART_OF] = "x"
    if item["kind"] == "StatefulSet":
        bare["spec"]["template"]["metadata"]["labels"][PART_OF] = "x"
    direct.apply(bare)
    _relabel(direct, item)


def _through_status(direct: DirectAccess, item: Object) -> None:
    direct.create(_unlabelled(item))
    if item["kind"] == "StatefulSet":
        direct.apply(_only_labels(item), MANAGER, "/status")
    _relabel(direct, item)


def _wiped(direct: DirectAccess, item: Object) -> None:
    direct.apply(item)
    direct.wipe(item)


def _edited(direct: DirectAccess, item: Object) -> None:
    direct.apply(item)
    direct.merge(item, {"annotations": {"example.org/note": "x"}})


def _shared(direct: DirectAccess, item: Object) -> None:
    direct.apply(item)
    direct.apply(_only_labels(item), "helm")


WRITE_SEQUENCES: Final[Mapping[str, WriteSequence]] = {
    "us": WriteSequence(stays=False, write=lambda a, i: a.apply(i)),
    "us, and an editor": WriteSequence(stays=False, write=_edited),
    "us and helm together": WriteSequence(stays=False, write=_shared),
    "us, without applying": WriteSequence(stays=True, write=lambda a, i: a.create(i, MANAGER)),
    "us, the parent's writer": WriteSequence(stays=True, write=lambda a, i: a.apply(i, "nimlab-applyset")),
    "one with nearly our name": WriteSequence(stays=True, write=lambda a, i: a.apply(i, "Nimlab")),
    "one with our name and a space": WriteSequence(stays=True, write=lambda a, i: a.apply(i, "nimlab ")),
    "one with a longer name": WriteSequence(stays=True, write=lambda a, i: a.apply(i, "nimlab2")),
    "kubectl apply": WriteSequence(stays=True, write=lambda a, i: a.apply(i, "kubectl")),
    "kubectl create": WriteSequence(stays=True, write=lambda a, i: a.create(i)),
    "us, but the label is another's": WriteSequence(stays=True, write=_labelled_later),
    "us, but the label is another applier's": WriteSequence(stays=True, write=_labelled_by_an_applier),
    "us, for another lab": WriteSequence(stays=True, write=_labelled_anew),
    "us, and the label taken and given back": WriteSequence(stays=True, write=_label_toggled),
    "us, with the label anywhere else": WriteSequence(stays=True, write=_label_elsewhere),
    "us, for the status": WriteSequence(stays=True, write=_through_status),
    "somebody who wiped it": WriteSequence(stays=True, write=_wiped),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LateChange:
    """A change between plan and execution; `stays` is True if the changed object must not be deleted.

    If `again` is True, the change is repeated before every attempt to delete the object.
    """

    stays: bool
    do: Callable[[DirectAccess, Object], object]
    again: bool = False


def _remake(direct: DirectAccess, item: Object, make: Callable[[], object]) -> None:
    direct.delete(item)
    make()


def _clean(item: Object) -> Object:
    """Return the object without the fields that the server sets."""
    kept = {k: v for k, v in item["metadata"].items() if k in ("name", "namespace", "labels", "annotations")}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": kept,
        **body_of(item["kind"]),
    }


def _theirs(item: Object) -> Object:
    """Return a foreign object with the same name, without our metadata."""
    metadata: dict[str, Any] = item["metadata"]
    return plain(item["kind"], metadata["namespace"], metadata["name"])


def _adopt(direct: DirectAccess, item: Object) -> None:
    direct.merge(item, {"ownerReferences": [direct.reference(item["metadata"]["namespace"])]})


def _toggle(direct: DirectAccess, item: Object) -> None:
    mine = _label(item)
    for label in ("x", mine):
        direct.merge(item, {"labels": {PART_OF: label}}, "kubectl-label")


def _touch(direct: DirectAccess, item: Object) -> None:
    direct.merge(item, {"annotations": {"example.org/seen": "x"}})


def _touch_again(direct: DirectAccess, item: Object) -> None:
    live = direct.get(item)
    seen = live["metadata"]["annotations"].get("example.org/seen", "") if live else ""
    direct.merge(item, {"annotations": {"example.org/seen": seen + "x"}})


LATE_CHANGES: Final[Mapping[str, LateChange]] = {
    "nothing": LateChange(stays=False, do=lambda a, i: None),
    "recreated by another client": LateChange(
        stays=True, do=lambda a, i: _remake(a, i, lambda: a.create(_theirs(i)))
    ),
    "recreated with our label and annotation": LateChange(
        stays=True, do=lambda a, i: _remake(a, i, lambda: a.create(_clean(i)))
    ),
    "recreated with every proof": LateChange(
        stays=True, do=lambda a, i: _remake(a, i, lambda: a.apply(_clean(i)))
    ),
    "protected": LateChange(stays=True, do=lambda a, i: a.merge(i, {"annotations": {PROTECT: "true"}})),
    "given an owner": LateChange(stays=True, do=_adopt),
    "unlabelled": LateChange(stays=True, do=lambda a, i: a.merge(i, {"labels": {PART_OF: None}})),
    "labelled for another set": LateChange(
        stays=True, do=lambda a, i: a.merge(i, {"labels": {PART_OF: "x"}})
    ),
    "labelled for another set and back": LateChange(stays=True, do=_toggle),
    "its member annotation changed": LateChange(
        stays=True, do=lambda a, i: a.merge(i, {"annotations": {MEMBER: "x"}})
    ),
    "without its annotation": LateChange(
        stays=True, do=lambda a, i: a.merge(i, {"annotations": {MEMBER: None}})
    ),
    "managed fields removed": LateChange(stays=True, do=lambda a, i: a.wipe(i)),
    "another annotation added": LateChange(stays=False, do=_touch),
    "another annotation changed before every attempt": LateChange(stays=True, do=_touch_again, again=True),
    "deleted by another": LateChange(stays=False, do=lambda a, i: a.delete(i)),
}


def hold(direct: DirectAccess, item: Object) -> None:
    """Start the deletion of an object, and block it with a finalizer."""
    direct.merge(item, {"finalizers": [HOLD]})
    direct.delete(item)


def release(direct: DirectAccess, item: Object) -> None:
    """Remove the finalizer, so that the object can be deleted."""
    if item["metadata"].get("finalizers"):
        direct.merge(item, {"finalizers": None})
