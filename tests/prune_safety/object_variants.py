"""What can be odd about an object: its marks, and who wrote it; each oddity says whether it must stay.

An object starts as a lab's own, with every proof. `MARKS` change what it says of itself, `AUTHORS` what the
server would say of its making. One oddity of those that `stays` makes it somebody else's, or nobody's to
delete; the others are what an object of ours may well look like after a while, and don't save it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.prune_safety.oracle import MANAGER, MEMBER, PART_OF, PROTECT, Home, Object, applyset_id, self_name


@dataclass(slots=True)
class Draft:
    """An object in the making; `owner` refers to something foreign that lives beside it."""

    item: Object
    home: Home
    rival: Home
    owner: Object
    elsewhere: str

    @property
    def labels(self) -> dict[str, str]:
        """The object's labels."""
        found: dict[str, str] = self.item["metadata"]["labels"]
        return found

    @property
    def annotations(self) -> dict[str, str]:
        """The object's annotations."""
        found: dict[str, str] = self.item["metadata"]["annotations"]
        return found

    def say(self, text: str | None) -> None:
        """Let the object say this of itself, or nothing."""
        self.annotations.pop(MEMBER, None)
        if text is not None:
            self.annotations[MEMBER] = text

    def belong(self, text: str | None) -> None:
        """Let the object belong to this set, or to none."""
        self.labels.pop(PART_OF, None)
        if text is not None:
            self.labels[PART_OF] = text

    def own(self, **given: Any) -> None:
        """Give the object an owner."""
        self.item["metadata"]["ownerReferences"] = [{**self.owner, **given}]

    def move(self, **given: str) -> None:
        """Put it, with all its marks, under another name or into another namespace."""
        self.item["metadata"].update(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One oddity of what an object says. At most one of each `slot` is put on an object.

    `served` is False for what no server would show. `inside` is True for what only namespaced kinds can have.
    """

    slot: str
    stays: bool
    put: Callable[[Draft], object]
    served: bool = True
    inside: bool = False


def _shorter(draft: Draft) -> str:
    return self_name(draft.item)[:-1]


def _metadata(draft: Draft) -> Object:
    found: Object = draft.item["metadata"]
    return found


MARKS: Final[Mapping[str, Mark]] = {
    "no label": Mark(slot="label", stays=True, put=lambda d: d.belong(None)),
    "another lab's label": Mark(slot="label", stays=True, put=lambda d: d.belong(d.rival.id)),
    "the label of a set of another name": Mark(
        slot="label",
        stays=True,
        put=lambda d: d.belong(applyset_id("nimlab-platform", d.home.namespace)),
    ),
    "the label of kubectl's set of the same name": Mark(
        slot="label",
        stays=True,
        put=lambda d: d.belong(applyset_id("nimlab-experiments", d.home.namespace, "Secret")),
    ),
    "the label of the same parent in another group": Mark(
        slot="label",
        stays=True,
        put=lambda d: d.belong(applyset_id("nimlab-experiments", d.home.namespace, group="example.org")),
    ),
    "the label in other letters": Mark(
        slot="label", stays=True, put=lambda d: d.belong(d.home.id.swapcase().replace("APPLYSET", "applyset"))
    ),
    "the label of the set's plain name": Mark(
        slot="label", stays=True, put=lambda d: d.belong("nimlab-experiments")
    ),
    "an empty label": Mark(slot="label", stays=True, put=lambda d: d.belong("")),
    "no annotation": Mark(slot="annotation", stays=True, put=lambda d: d.say(None)),
    "an empty annotation": Mark(slot="annotation", stays=True, put=lambda d: d.say("")),
    "the annotation of its neighbour": Mark(
        slot="annotation", stays=True, put=lambda d: d.say(self_name(d.item) + "-2")
    ),
    "the annotation cut short": Mark(slot="annotation", stays=True, put=lambda d: d.say(_shorter(d))),
    "the annotation of another kind": Mark(
        slot="annotation",
        stays=True,
        put=lambda d: d.say(self_name({**d.item, "apiVersion": "batch/v1", "kind": "Job"})),
    ),
    "the annotation of another namespace": Mark(
        slot="annotation",
        stays=True,
        put=lambda d: d.say(self_name({**d.item, "metadata": {**_metadata(d), "namespace": "x"}})),
    ),
    "the annotation of another set": Mark(
        slot="annotation", stays=True, put=lambda d: d.say(self_name(d.item, set_name="platform"))
    ),
    "the annotation of a renamed set": Mark(
        slot="annotation", stays=True, put=lambda d: d.say(self_name(d.item, set_name="experiment"))
    ),
    "the annotation in other letters": Mark(
        slot="annotation", stays=True, put=lambda d: d.say(self_name(d.item).upper())
    ),
    "the annotation and a space": Mark(
        slot="annotation", stays=True, put=lambda d: d.say(self_name(d.item) + " ")
    ),
    "a copy under another name": Mark(
        slot="place", stays=True, put=lambda d: d.move(name=d.item["metadata"]["name"] + "-copy")
    ),
    "a copy in another namespace": Mark(
        slot="place", stays=True, put=lambda d: d.move(namespace=d.elsewhere), inside=True
    ),
    "a controller": Mark(
        slot="owner", stays=True, put=lambda d: d.own(controller=True, blockOwnerDeletion=True)
    ),
    "an owner": Mark(slot="owner", stays=True, put=lambda d: d.own()),
    "no owners, said in full": Mark(
        slot="owner", stays=False, put=lambda d: _metadata(d).update(ownerReferences=[]), served=False
    ),
    "protection": Mark(slot="protect", stays=True, put=lambda d: d.annotations.update({PROTECT: "true"})),
    "loud protection": Mark(
        slot="protect", stays=True, put=lambda d: d.annotations.update({PROTECT: "TRUE"})
    ),
    "protection taken back": Mark(
        slot="protect", stays=False, put=lambda d: d.annotations.update({PROTECT: "false"})
    ),
    "protection of its own kind": Mark(
        slot="protect",
        stays=False,
        put=lambda d: d.annotations.update(
            {"nimlab.dev/protected": "true", "helm.sh/resource-policy": "keep"}
        ),
    ),
    "a deletion under way": Mark(
        slot="time",
        stays=True,
        put=lambda d: _metadata(d).update(
            deletionTimestamp="2026-11-23T12:00:00Z", finalizers=["example.org/hold"]
        ),
        served=False,
    ),
    "another's labels": Mark(slot="extra", stays=False, put=lambda d: d.labels.update(team="red")),
    "helm's labels": Mark(
        slot="extra",
        stays=False,
        put=lambda d: d.labels.update({"app.kubernetes.io/managed-by": "Helm"}),
    ),
    "kubectl's annotation": Mark(
        slot="extra",
        stays=False,
        put=lambda d: d.annotations.update({"kubectl.kubernetes.io/last-applied-configuration": "{}"}),
    ),
}


def fields_of(item: Object) -> Object:
    """The managedFields tree of an object that one manager wrote whole."""
    metadata = item["metadata"]
    parts: Object = {
        f"f:{part}": {".": {}, **{f"f:{key}": {} for key in metadata[part]}}
        for part in ("labels", "annotations")
        if metadata.get(part)
    }
    rest: Object = {f"f:{name}": {".": {}} for name in ("spec", "data") if name in item}
    return {"f:metadata": parts, **rest}


def without(fields: Object, *path: str) -> Object:
    """A copy of the tree that lacks a branch."""
    kept = copy.deepcopy(fields)
    inner = kept
    for part in path[:-1]:
        inner = inner.get(part, {})
    inner.pop(path[-1], None)
    return kept


def entry(fields: object, manager: str = MANAGER, operation: str = "Apply", **given: str) -> Object:
    """One entry of managedFields."""
    kind = {"apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-11-23T12:00:00Z"}
    return {"manager": manager, "operation": operation, **kind, "fieldsV1": fields, **given}


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who wrote an object, as its managedFields tell; `entries` are made from the tree of all its fields."""

    stays: bool
    entries: Callable[[Object], object]


_LABEL: Final = ("f:metadata", "f:labels", f"f:{PART_OF}")
_LABEL_ONLY: Final[Object] = {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}}
_STATUS: Final[Object] = {"f:status": {"f:replicas": {}}}


def _deep(fields: Object) -> Object:
    """Our part-of label owned everywhere but among the object's own labels."""
    bare = without(fields, *_LABEL)
    bare["f:metadata"].setdefault("f:annotations", {})[f"f:{PART_OF}"] = {}
    return {**bare, "f:spec": {"f:template": {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}}}}


AUTHORS: Final[Mapping[str, Author]] = {
    "us": Author(stays=False, entries=lambda f: [entry(f)]),
    "us, and a controller's status": Author(
        stays=False,
        entries=lambda f: [
            entry(f),
            entry(_STATUS, "kube-controller-manager", "Update", subresource="status"),
        ],
    ),
    "us, and an editor": Author(
        stays=False, entries=lambda f: [entry(f), entry({"f:data": {"f:c": {}}}, "kubectl-edit", "Update")]
    ),
    "us and helm together": Author(stays=False, entries=lambda f: [entry(f, "helm"), entry(f)]),
    "us in two versions": Author(
        stays=False, entries=lambda f: [entry({}, apiVersion="v1beta1"), entry(f, time="")]
    ),
    "us among rubbish": Author(
        stays=False, entries=lambda f: [None, "x", {}, entry(None), entry("x"), entry(f)]
    ),
    "us, without applying": Author(stays=True, entries=lambda f: [entry(f, operation="Update")]),
    "us, for the status": Author(stays=True, entries=lambda f: [entry(f, subresource="status")]),
    "us, the parent's writer": Author(stays=True, entries=lambda f: [entry(f, "nimlab-applyset")]),
    "one with nearly our name": Author(
        stays=True, entries=lambda f: [entry(f, "Nimlab"), entry(f, "nimlab ")]
    ),
    "one with a longer name": Author(
        stays=True, entries=lambda f: [entry(f, "nimlab2"), entry(f, "xnimlab")]
    ),
    "kubectl apply": Author(stays=True, entries=lambda f: [entry(f, "kubectl")]),
    "kubectl create": Author(stays=True, entries=lambda f: [entry(f, "kubectl-create", "Update")]),
    "us, but the label is another's": Author(
        stays=True,
        entries=lambda f: [entry(without(f, *_LABEL)), entry(_LABEL_ONLY, "kubectl-label", "Update")],
    ),
    "us, but the label is another applier's": Author(
        stays=True, entries=lambda f: [entry(without(f, *_LABEL)), entry(f, "helm")]
    ),
    "us, with the label anywhere else": Author(
        stays=True, entries=lambda f: [entry(_deep(f)), entry(_LABEL_ONLY, "kubectl-label", "Update")]
    ),
    "us, nothing of it": Author(stays=True, entries=lambda f: [entry({})]),
    "nobody": Author(stays=True, entries=lambda f: []),
    "nobody, not even a list": Author(stays=True, entries=lambda f: None),
    "somebody who wiped it": Author(stays=True, entries=lambda f: [{}]),
    "text": Author(stays=True, entries=lambda f: "nimlab Apply"),
    "a map": Author(stays=True, entries=lambda f: entry(f)),
    "a malformed tree": Author(
        stays=True, entries=lambda f: [entry([*_LABEL]), entry({"f:metadata": {"f:labels": [_LABEL[-1]]}})]
    ),
}


def choose_marks(dice: random.Random, kind: str, *, served: bool) -> tuple[str, ...]:
    """Return some oddities that an object of the kind can have together, in the order of their slots."""
    fitting = [
        name
        for name, mark in MARKS.items()
        if (mark.served or not served) and not (mark.inside and kind == "Namespace")
    ]
    chosen: dict[str, str] = {}
    for name in dice.sample(fitting, dice.choice([1, 1, 1, 2, 3])):
        chosen.setdefault(MARKS[name].slot, name)
    return tuple(chosen[slot] for slot in sorted(chosen))
