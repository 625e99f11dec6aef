"""Variants of an object: changes of its metadata or its managed fields, and whether a sync must then keep it.

An object starts as a member of the lab's set, with every proof. `METADATA_VARIANTS` change its metadata.
`AUTHOR_VARIANTS` change its managed fields. A variant with `stays` makes the object foreign or protected, so
that no sync may delete it. All other variants also occur in objects of a lab in normal operation.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.prune_safety.oracle import (
    MANAGER,
    MEMBER,
    PART_OF,
    PROTECT,
    LabScope,
    Object,
    applyset_id,
    self_name,
)


@dataclass(slots=True)
class Draft:
    """An object that a variant changes. `scope` is its lab, and `rival` is another lab.

    `owner` is an owner reference to a foreign object. `elsewhere` is the name of another namespace.
    """

    item: Object
    scope: LabScope
    rival: LabScope
    owner: Object
    elsewhere: str

    @property
    def labels(self) -> dict[str, str]:
        """The object's labels."""
        values: dict[str, str] = self.item["metadata"]["labels"]
        return values

    @property
    def annotations(self) -> dict[str, str]:
        """The object's annotations."""
        values: dict[str, str] = self.item["metadata"]["annotations"]
        return values

    def set_self_name(self, text: str | None) -> None:
        """Set the annotation with the name of the object itself, or remove the annotation."""
        self.annotations.pop(MEMBER, None)
        if text is not None:
            self.annotations[MEMBER] = text

    def set_part_of(self, text: str | None) -> None:
        """Set the label with the ID of the object's apply-set, or remove the label."""
        self.labels.pop(PART_OF, None)
        if text is not None:
            self.labels[PART_OF] = text

    def add_owner(self, **fields: Any) -> None:
        """Make `owner` the only owner reference; `fields` replace its fields."""
        self.item["metadata"]["ownerReferences"] = [{**self.owner, **fields}]

    def move(self, **fields: str) -> None:
        """Change the name or the namespace, but keep all other metadata."""
        self.item["metadata"].update(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataVariant:
    """One change of an object's metadata. An object gets at most one change per `slot`.

    `stays` is True if a sync must keep the changed object. `served` is False if a real server never returns
    such an object. `inside` is True if only an object in a namespace can have this change.
    """

    slot: str
    stays: bool
    put: Callable[[Draft], object]
    served: bool = True
    inside: bool = False


def _shorter(draft: Draft) -> str:
    return self_name(draft.item)[:-1]


def _metadata(draft: Draft) -> Object:
    values: Object = draft.item["metadata"]
    return values


METADATA_VARIANTS: Final[Mapping[str, MetadataVariant]] = {
    "no label": MetadataVariant(slot="label", stays=True, put=lambda d: d.set_part_of(None)),
    "another lab's label": MetadataVariant(slot="label", stays=True, put=lambda d: d.set_part_of(d.rival.id)),
    "the label of a set of another name": MetadataVariant(
        slot="label",
        stays=True,
        put=lambda d: d.set_part_of(applyset_id("nimlab-platform", d.scope.namespace)),
    ),
    "the label of kubectl's set of the same name": MetadataVariant(
        slot="label",
        stays=True,
        put=lambda d: d.set_part_of(applyset_id("nimlab-experiments", d.scope.namespace, "Secret")),
    ),
    "the label of the same parent in another group": MetadataVariant(
        slot="label",
        stays=True,
        put=lambda d: d.set_part_of(
            applyset_id("nimlab-experiments", d.scope.namespace, group="example.org")
        ),
    ),
    "the label in other letters": MetadataVariant(
        slot="label",
        stays=True,
        put=lambda d: d.set_part_of(d.scope.id.swapcase().replace("APPLYSET", "applyset")),
    ),
    "the label of the set's plain name": MetadataVariant(
        slot="label", stays=True, put=lambda d: d.set_part_of("nimlab-experiments")
    ),
    "an empty label": MetadataVariant(slot="label", stays=True, put=lambda d: d.set_part_of("")),
    "no annotation": MetadataVariant(slot="annotation", stays=True, put=lambda d: d.set_self_name(None)),
    "an empty annotation": MetadataVariant(slot="annotation", stays=True, put=lambda d: d.set_self_name("")),
    "the annotation of its neighbour": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(self_name(d.item) + "-2")
    ),
    "the annotation cut short": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(_shorter(d))
    ),
    "the annotation of another kind": MetadataVariant(
        slot="annotation",
        stays=True,
        put=lambda d: d.set_self_name(self_name({**d.item, "apiVersion": "batch/v1", "kind": "Job"})),
    ),
    "the annotation of another namespace": MetadataVariant(
        slot="annotation",
        stays=True,
        put=lambda d: d.set_self_name(self_name({**d.item, "metadata": {**_metadata(d), "namespace": "x"}})),
    ),
    "the annotation of another set": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(self_name(d.item, set_name="platform"))
    ),
    "the annotation of a renamed set": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(self_name(d.item, set_name="experiment"))
    ),
    "the annotation in other letters": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(self_name(d.item).upper())
    ),
    "the annotation and a space": MetadataVariant(
        slot="annotation", stays=True, put=lambda d: d.set_self_name(self_name(d.item) + " ")
    ),
    "a copy under another name": MetadataVariant(
        slot="place", stays=True, put=lambda d: d.move(name=d.item["metadata"]["name"] + "-copy")
    ),
    "a copy in another namespace": MetadataVariant(
        slot="place", stays=True, put=lambda d: d.move(namespace=d.elsewhere), inside=True
    ),
    "a controller": MetadataVariant(
        slot="owner", stays=True, put=lambda d: d.add_owner(controller=True, blockOwnerDeletion=True)
    ),
    "an owner": MetadataVariant(slot="owner", stays=True, put=lambda d: d.add_owner()),
    "no owners, said in full": MetadataVariant(
        slot="owner", stays=False, put=lambda d: _metadata(d).update(ownerReferences=[]), served=False
    ),
    "protection": MetadataVariant(
        slot="protect", stays=True, put=lambda d: d.annotations.update({PROTECT: "true"})
    ),
    "loud protection": MetadataVariant(
        slot="protect", stays=True, put=lambda d: d.annotations.update({PROTECT: "TRUE"})
    ),
    "protection taken back": MetadataVariant(
        slot="protect", stays=False, put=lambda d: d.annotations.update({PROTECT: "false"})
    ),
    "protection of its own kind": MetadataVariant(
        slot="protect",
        stays=False,
        put=lambda d: d.annotations.update(
            {"nimlab.dev/protected": "true", "helm.sh/resource-policy": "keep"}
        ),
    ),
    "a deletion under way": MetadataVariant(
        slot="time",
        stays=True,
        put=lambda d: _metadata(d).update(
            deletionTimestamp="2026-11-23T12:00:00Z", finalizers=["example.org/hold"]
        ),
        served=False,
    ),
    "another's labels": MetadataVariant(slot="extra", stays=False, put=lambda d: d.labels.update(team="red")),
    "helm's labels": MetadataVariant(
        slot="extra",
        stays=False,
        put=lambda d: d.labels.update({"app.kubernetes.io/managed-by": "Helm"}),
    ),
    "kubectl's annotation": MetadataVariant(
        slot="extra",
        stays=False,
        put=lambda d: d.annotations.update({"kubectl.kubernetes.io/last-applied-configuration": "{}"}),
    ),
}


def fields_of(item: Object) -> Object:
    """Return the field tree of an object of which one manager has written all fields."""
    metadata = item["metadata"]
    parts: Object = {
        f"f:{part}": {".": {}, **{f"f:{key}": {} for key in metadata[part]}}
        for part in ("labels", "annotations")
        if metadata.get(part)
    }
    top_level: Object = {f"f:{name}": {".": {}} for name in ("spec", "data") if name in item}
    return {"f:metadata": parts, **top_level}


def without(fields: Object, *path: str) -> Object:
    """Return a copy of the field tree without the subtree at a path."""
    kept = copy.deepcopy(fields)
    inner = kept
    for part in path[:-1]:
        inner = inner.get(part, {})
    inner.pop(path[-1], None)
    return kept


def entry(fields: object, manager: str = MANAGER, operation: str = "Apply", **extra: str) -> Object:
    """Return one entry of managedFields."""
    kind = {"apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-11-23T12:00:00Z"}
    return {"manager": manager, "operation": operation, **kind, "fieldsV1": fields, **extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """A variant of managedFields, which depends on the managers that wrote the object.

    `entries` is a function that returns managedFields. Its argument is the tree of all fields of the object.
    `stays` is True if a sync must keep such an object.
    """

    stays: bool
    entries: Callable[[Object], object]


_LABEL: Final = ("f:metadata", "f:labels", f"f:{PART_OF}")
_LABEL_ONLY: Final[Object] = {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}}
_STATUS: Final[Object] = {"f:status": {"f:replicas": {}}}


def _deep(fields: Object) -> Object:
    """Return a field tree that contains our part-of label everywhere except among the object's own labels."""
    bare = without(fields, *_LABEL)
    bare["f:metadata"].setdefault("f:annotations", {})[f"f:{PART_OF}"] = {}
    return {**bare, "f:spec": {"f:template": {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}}}}


AUTHOR_VARIANTS: Final[Mapping[str, Author]] = {
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


def choose_metadata_variants(rng: random.Random, kind: str, *, served: bool) -> tuple[str, ...]:
    """Return random variants that an object of this kind can have together, in the order of their slots."""
    fitting = [
        name
        for name, variant in METADATA_VARIANTS.items()
        if (variant.served or not served) and not (variant.inside and kind == "Namespace")
    ]
    chosen: dict[str, str] = {}
    for name in rng.sample(fitting, rng.choice([1, 1, 1, 2, 3])):
        chosen.setdefault(METADATA_VARIANTS[name].slot, name)
    return tuple(chosen[slot] for slot in sorted(chosen))
