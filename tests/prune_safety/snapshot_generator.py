"""Random states of a lab: files, live objects, the options of a run, and the expected deletions.

For each object, the generator records its relation to the lab (`Part`): a file specifies it, it is left over,
or it is foreign. The expected deletions follow from these relations alone. To compute them, the generator
uses neither the metadata of the objects nor the rules of nimlab.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from nimlab.errors import Rejected
from nimlab.files.git_history import Commit, Relation
from nimlab.files.spec import BrokenFile, OnImmutableChange
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import ObjectKey, key_of
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.plan.sync_policy import PlanInputs, PruneLimit
from tests.plan.test_make_plan import policy as inputs_of
from tests.prune_safety.object_variants import (
    AUTHOR_VARIANTS,
    METADATA_VARIANTS,
    Draft,
    choose_metadata_variants,
    fields_of,
    without,
)
from tests.prune_safety.oracle import (
    INSIDE,
    MEMBER,
    NEVER,
    PROTECT,
    LabScope,
    Object,
    member,
    plain,
    self_name,
)

NAMES: Final = ("red", "red-2", "red-2-a", "re", "blue", "blue-b", "green", "go", "go-1")
HOMES: Final = ("lab", "lab-a", "lab-a-b", "la", "dst-lab")
ELSEWHERE: Final = "elsewhere"
OWNER: Final = {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "uid": "uid-operator"}


class Part(Enum):
    """How an object relates to the files of the lab."""

    WANTED = "a file specifies it"
    LEFT_OVER = "no file specifies it any more"
    UNREADABLE = "its file cannot be read"
    FOREIGN = "it never belonged to the lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One live object. `part` is its relation to the lab, and `oddities` are the names of its variants.

    `stays` is True if a plan must not prune the object. A `doubtful` object is ours, but another client has
    changed its label `experiment`. If a doubtful object is left over, a plan may prune it or keep it.
    """

    item: Object
    part: Part
    experiment: str
    oddities: tuple[str, ...] = ()
    stays: bool = False
    doubtful: bool = False

    @property
    def key(self) -> ObjectKey:
        """Kind, namespace and name."""
        return key_of(self.item)


@dataclass(slots=True)
class Situation:
    """One random state of a lab. Its methods return the arguments of `make_plan` and the expected results."""

    rng: random.Random
    scope: LabScope
    rival: LabScope
    pieces: dict[ObjectKey, Piece] = field(default_factory=dict)
    wanted: dict[str, list[Object]] = field(default_factory=dict)
    how: dict[str, OnImmutableChange] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    predicted: dict[ObjectKey, Prediction] = field(default_factory=dict)
    foreign_objects: dict[str, tuple[ObjectKey, ...] | None] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    strange_seats: set[str] = field(default_factory=set)
    replaced: dict[ObjectKey, str] = field(default_factory=dict)
    names: frozenset[str] | None = None
    recorded: str | None = None
    begun: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def chance(self, share: float) -> bool:
        """Return a random bool that is True with the probability `share`."""
        return self.rng.random() < share

    def put(self, piece: Piece) -> None:
        """Add a live object, unless an object with the same key exists."""
        self.pieces.setdefault(piece.key, piece)

    def is_about(self, experiment: str) -> bool:
        """Return whether this run covers the experiment."""
        return self.names is None or experiment in self.names

    def desired(self) -> list[Desired]:
        """Return the desired objects of the experiments that this run covers."""
        return [
            Desired(
                name=name,
                manifests=tuple(items),
                on_immutable_change=self.how[name],
                source=f"experiments/{name}.yaml",
            )
            for name, items in self.wanted.items()
            if self.is_about(name)
        ]

    def snapshot(self) -> Snapshot:
        """Return the snapshot of the cluster."""
        scope = Scope(kinds=frozenset(INSIDE), namespaces=frozenset({self.scope.namespace}))
        return Snapshot(
            apply_set=ApplySet(name="experiments", namespace=self.scope.namespace),
            parent=Parent(scope=scope, commit=self.recorded, begun=self.begun)
            if self.recorded or self.begun or self.chance(0.8)
            else None,
            lease=None,
            namespace_exists=True,
            live={key: piece.item for key, piece in self.pieces.items()},
            predicted=self.predicted,
            foreign_objects=self.foreign_objects,
        )

    def policy(self) -> PlanInputs:
        """Return the inputs of the plan."""
        return inputs_of(
            names=self.names,
            broken=tuple(BrokenFile(name=n, source=f"experiments/{n}.yaml") for n in self.broken),
            file_errors=len(self.broken),
            commit=Commit(sha="b" * 40, branch="main", dirty=False),
            **self.options,
        )

    def deletions(self, *, with_doubtful: bool) -> set[ObjectKey]:
        """Return the keys that a plan must prune: our left-over objects of the experiments of this run.

        Doubtful objects are included only if `with_doubtful` is True.
        """
        if not self.options["prune"]:
            return set()
        going = {
            key
            for key, piece in self.pieces.items()
            if piece.part is Part.LEFT_OVER
            and not piece.stays
            and self.is_about(piece.experiment)
            and (with_doubtful or not piece.doubtful)
        }
        staying = {key.namespace for key in self.pieces if key not in going}
        holding = {name for name, foreign_objects in self.foreign_objects.items() if foreign_objects != ()}
        return {k for k in going if k.kind != "Namespace" or k.name not in staying | holding}

    def ages(self) -> set[Relation]:
        """Return how the files' commit relates to each commit that is recorded for the whole lab.

        The result is empty if an older commit is allowed.
        """
        concerned = {self.recorded, self.begun.get("*")} - {None}
        return set() if self.options["allow_older"] else {self.options["relations"][sha] for sha in concerned}

    def ages_by_name(self) -> dict[str, Relation]:
        """Return, per experiment of this run with a recorded commit, how the files' commit relates to it.

        The result is empty if an older commit is allowed.
        """
        concerned = {n: sha for n, sha in self.begun.items() if n != "*" and self.is_about(n)}
        if self.options["allow_older"]:
            return {}
        return {name: self.options["relations"][sha] for name, sha in concerned.items()}

    def may_be_another_labs(self) -> bool:
        """Return True if older commits are allowed and all recorded commits are unknown.

        Such an apply-set may belong to another lab.
        """
        concerned = {self.recorded, *self.begun.values()} - {None}
        ages = {self.options["relations"][sha] for sha in concerned}
        return bool(self.options["allow_older"]) and ages == {Relation.UNKNOWN}

    def refusals(self) -> set[str]:
        """Return the reasons why the plan must be refused."""
        reasons = set()
        if (
            self.ages() & {Relation.OLDER, Relation.DIVERGED}
            or Relation.OLDER in self.ages_by_name().values()
        ):
            reasons.add("stale")
        if self.names is not None and "nobody" in self.names:
            reasons.add("unknown name")
        return reasons

    def replacements(self) -> set[ObjectKey]:
        """Return the keys of the objects that the plan must replace, as `onImmutableChange` allows."""
        return {
            key
            for key, name in self.replaced.items()
            if self.is_about(name) and self.how[name] is not OnImmutableChange.FAIL
        }

    def stops(self) -> set[str]:
        """Return the reasons why the deletions must be withheld, except the prune limit."""
        reasons = {"broken-files"} if self.broken else set()
        if any(self.is_about(name) for name in self.blocked):
            reasons.add("blocked")
        if not self.options["take_ownership"] and any(self.is_about(name) for name in self.strange_seats):
            reasons.add("blocked")
        if not self.wanted and self.names is None and not self.options["allow_empty"]:
            reasons.add("empty")
        return reasons

    def is_plainly_ours(self, piece: Piece) -> bool:
        """Return whether an object is certainly ours."""
        return not piece.stays and piece.part is not Part.FOREIGN

    def is_over(self, deletions: set[ObjectKey], *, of_ours: bool) -> bool:
        """Return whether the deletions exceed the prune limit.

        A limit in percent is a share of our objects if `of_ours` is True, and a share of all objects if not.
        """
        limit: PruneLimit = self.options["limit"]
        if limit.objects is not None and len(deletions) > limit.objects:
            return True
        if limit.percent is None:
            return False
        if limit.spare_single and len({self.pieces[key].experiment for key in deletions}) == 1:
            return False
        counted = [piece for piece in self.pieces.values() if not of_ours or self.is_plainly_ours(piece)]
        return 100 * len(deletions) > limit.percent * len(counted)


def make_situation(rng: random.Random) -> Situation:
    """Return a random state of a lab."""
    scope, rival = (LabScope(name) for name in rng.sample(HOMES, 2))
    situation = Situation(rng, scope, rival)
    for name in rng.sample(NAMES, rng.randint(1, 4)):
        roll = rng.random()
        if roll < 0.35:
            _add_wanted(situation, name)
        elif roll < 0.92:
            _add_left_over(situation, name, Part.LEFT_OVER)
        else:
            situation.broken.append(name)
            _add_left_over(situation, name, Part.UNREADABLE)
    for _ in range(rng.randint(0, 2)):
        _add_foreign(situation)
    _choose_options(situation)
    return situation


def _choose_options(situation: Situation) -> None:
    rng = situation.rng
    known = sorted({*situation.wanted, *situation.broken, *(p.experiment for p in situation.pieces.values())})
    if known and situation.chance(0.3):
        situation.names = frozenset(rng.sample(known, rng.randint(1, len(known))))
        if situation.chance(0.1):
            situation.names |= {"nobody"}
    situation.recorded = "a" * 40 if situation.chance(0.5) else None
    if situation.chance(0.2):
        situation.begun = {name: rng.choice("acd") * 40 for name in rng.sample(["*", *known], 1)}
    ages = [Relation.NEWER] * 9 + [Relation.SAME] * 5 + list(Relation)
    situation.options = {
        "prune": situation.chance(0.94),
        "allow_empty": situation.chance(0.6),
        "allow_older": situation.chance(0.3),
        "take_ownership": situation.chance(0.2),
        "relations": {letter * 40: rng.choice(ages) for letter in "acd"},
        "limit": PruneLimit(
            objects=rng.choice([None, None, 100, 100, rng.randint(0, 6)]),
            percent=rng.choice([None, None, None, 100, rng.randint(0, 100)]),
            spare_single=situation.chance(0.5),
        ),
    }


def _place(situation: Situation, name: str) -> tuple[str, bool]:
    """Return a namespace for an experiment's objects; the bool is True if no other experiment uses it."""
    isolated = situation.chance(0.3)
    return (situation.scope.prefix + name if isolated else situation.scope.namespace), isolated


def _add_wanted(situation: Situation, name: str) -> None:
    """Add an experiment that has a file, with desired objects, live objects and left-over objects."""
    rng = situation.rng
    space, isolated = _place(situation, name)
    situation.wanted[name] = []
    situation.how[name] = rng.choice(list(OnImmutableChange))
    full = situation.scope.prefix + name
    kinds = rng.sample(INSIDE, rng.randint(1, 4)) + (["Namespace"] if isolated else [])
    for kind in kinds:
        item = member(situation.scope, kind, space, full, name)
        situation.wanted[name].append(item)
        _add_live_object(situation, name, item)
    for kind in rng.sample(INSIDE, rng.randint(0, 2)):
        situation.put(
            _odd(situation, member(situation.scope, kind, space, full + "-old", name), name, Part.LEFT_OVER)
        )
    if not isolated and situation.chance(0.1):  # the experiment had its own namespace earlier
        _add_left_over_namespace(situation, name, Part.LEFT_OVER)


def _add_live_object(situation: Situation, name: str, item: Object) -> None:
    """Add a live object with the key of a desired object, or add nothing.

    Usually, the live object is our object with the desired content.
    """
    roll, key = situation.rng.random(), key_of(item)
    live = _live(situation, member(situation.scope, key.kind, key.namespace, key.name, name))
    stays = True
    if roll < 0.12:
        return
    if roll < 0.15:
        stays = False
        situation.predicted[key] = Prediction(error=Rejected("spec: Forbidden"))
        situation.blocked.add(name)
    elif roll < 0.18:
        live = _live(situation, member(situation.rival, key.kind, key.namespace, key.name, name))
        situation.blocked.add(name)
    elif roll < 0.21:
        live = _live(situation, plain(key.kind, key.namespace, key.name))
        situation.strange_seats.add(name)
    elif roll < 0.24:
        live["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    elif roll < 0.27:
        live = _live(situation, _labelled_only(item), "kubectl create")
        situation.strange_seats.add(name)
    elif roll < 0.35 and key.kind == "StatefulSet":
        live["spec"]["serviceName"] = "former"
        _protect_or_own(situation, live)
        situation.predicted[key] = Prediction()
        situation.blocked.add(name)
    elif roll < 0.5 and key.kind == "StatefulSet":
        stays = False
        live["spec"]["serviceName"] = "former"
        situation.predicted[key] = Prediction()  # the server would accept the new object
        situation.replaced[key] = name
        if situation.how[name] is OnImmutableChange.FAIL:
            situation.blocked.add(name)
    else:
        stays = False
    situation.put(_relabelled(situation, Piece(item=live, part=Part.WANTED, experiment=name, stays=stays)))


def _labelled_only(item: Object) -> Object:
    """Return a foreign object that has the labels of our object, but no other metadata of nimlab."""
    labelled = plain(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
    labelled["metadata"]["labels"] = dict(item["metadata"]["labels"])
    return labelled


def _protect_or_own(situation: Situation, live: Object) -> None:
    """Protect a live object from deletion, or add an owner reference to it."""
    if situation.chance(0.5):
        live["metadata"]["annotations"][PROTECT] = "true"
    else:
        live["metadata"]["ownerReferences"] = [OWNER]


def _relabelled(situation: Situation, piece: Piece) -> Piece:
    """In rare cases, change or remove the label `experiment`, as any user with write access can do."""
    labels = piece.item["metadata"]["labels"]
    if piece.stays or "experiment" not in labels or not situation.chance(0.06):
        return piece
    roll = situation.rng.random()
    if roll < 0.8:
        labels["experiment"] = situation.rng.choice(NAMES)
    else:
        del labels["experiment"]
    for managed in piece.item["metadata"]["managedFields"]:
        if isinstance(managed, dict) and isinstance(managed.get("fieldsV1"), dict):
            managed["fieldsV1"] = without(managed["fieldsV1"], "f:metadata", "f:labels", "f:experiment")
    return replace(piece, doubtful=True, oddities=(*piece.oddities, "relabelled"))


def _add_left_over(situation: Situation, name: str, part: Part) -> None:
    """Add the live objects of an experiment whose file is missing or unreadable."""
    space, isolated = _place(situation, name)
    if isolated:
        _add_left_over_namespace(situation, name, part)
        return
    full = situation.scope.prefix + name
    for kind in situation.rng.sample(INSIDE, situation.rng.randint(1, 5)):
        situation.put(_odd(situation, member(situation.scope, kind, space, full, name), name, part))


def _add_left_over_namespace(situation: Situation, name: str, part: Part) -> None:
    """Add a left-over namespace that an experiment had for itself, and the objects in this namespace."""
    space = situation.scope.prefix + name
    is_complete = situation.chance(0.5)
    scope = member(situation.scope, "Namespace", "", space, name)
    situation.put(_own(situation, scope, name, part) if is_complete else _odd(situation, scope, name, part))
    for kind in situation.rng.sample(INSIDE, situation.rng.randint(0, 3)):
        item = member(situation.scope, kind, space, "pod", name)
        situation.put(_own(situation, item, name, part) if is_complete else _odd(situation, item, name, part))
    if situation.chance(0.2):
        item = member(situation.scope, "ConfigMap", space, "other", "zeta")
        situation.put(_odd(situation, item, "zeta", Part.LEFT_OVER))
    situation.foreign_objects[space] = ()
    if situation.chance(0.25):
        secret = ObjectKey("Secret", space, "theirs")
        situation.foreign_objects[space] = situation.rng.choice([(secret,), (secret,) * 5, None])


def _add_foreign(situation: Situation) -> None:
    """Add an object that never belonged to the lab, although its metadata may suggest that it did."""
    rng, name = situation.rng, situation.rng.choice(NAMES)
    roll = rng.random()
    if roll < 0.4:  # a member of another lab that has the same experiments
        space = rng.choice([situation.scope.namespace, situation.rival.namespace])
        item = member(situation.rival, rng.choice(INSIDE), space, situation.rival.prefix + name + "-r", name)
        situation.put(
            Piece(item=_live(situation, item), part=Part.FOREIGN, experiment=name, oddities=("a rival",))
        )
        return
    if roll < 0.8:  # an object of a kind that is never pruned, with all metadata of a member
        item = member(situation.scope, rng.choice(list(NEVER)), situation.scope.namespace, "n" + name, name)
        oddity = "a kind never pruned"
    else:  # an object of a kind with the same name in another API group
        item = member(situation.scope, rng.choice(INSIDE), situation.scope.namespace, "g" + name, name)
        item["apiVersion"] = rng.choice(["serving.example.org/v1", "example.org/v1beta1"])
        if situation.chance(0.5):  # otherwise, keep the annotation of our object
            item["metadata"]["annotations"][MEMBER] = self_name(item)
        oddity = "a kind of another group"
    situation.put(Piece(item=_live(situation, item), part=Part.FOREIGN, experiment=name, oddities=(oddity,)))


def _own(situation: Situation, item: Object, name: str, part: Part) -> Piece:
    """Return our object, without variants."""
    return _relabelled(situation, Piece(item=_live(situation, item), part=part, experiment=name))


def _odd(situation: Situation, item: Object, name: str, part: Part) -> Piece:
    """Return our object; in most cases, apply random variants to it."""
    rng = situation.rng
    if situation.chance(0.35):
        return _own(situation, item, name, part)
    draft = Draft(item, situation.scope, situation.rival, OWNER, ELSEWHERE)
    variants = choose_metadata_variants(rng, item["kind"], served=False)
    for oddity in variants:
        METADATA_VARIANTS[oddity].put(draft)
    author = rng.choice(sorted(AUTHOR_VARIANTS)) if situation.chance(0.5) else "us"
    oddities = (*variants, *(() if author == "us" else (author,)))
    stays = AUTHOR_VARIANTS[author].stays or any(METADATA_VARIANTS[oddity].stays for oddity in variants)
    live = _live(situation, item, author)
    piece = Piece(item=live, part=part, experiment=name, oddities=oddities, stays=stays)
    return _relabelled(situation, piece)


def _live(situation: Situation, item: Object, author: str = "us") -> Object:
    """Add the fields that a server sets to the object, and return the object."""
    number = situation.rng.randrange(10**9)
    item["metadata"].update(
        uid=f"uid-{number}",
        resourceVersion=str(number),
        generation=1,
        creationTimestamp="2026-11-23T11:00:00Z",
    )
    entries = AUTHOR_VARIANTS[author].entries(fields_of(item))
    if entries is not None:
        item["metadata"]["managedFields"] = entries
    return item
