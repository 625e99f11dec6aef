"""A lab at one moment, made at random: files, live objects, a run's options, and what must come of them.

Each object's part is known when it is made: wanted by a file, left over, somebody else's. What must be
deleted is counted from these parts alone; no mark is read back, and no rule of nimlab is asked.
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
from tests.prune_safety.object_variants import AUTHORS, MARKS, Draft, choose_marks, fields_of, without
from tests.prune_safety.oracle import INSIDE, MEMBER, NEVER, PROTECT, Home, Object, member, plain, self_name

NAMES: Final = ("red", "red-2", "red-2-a", "re", "blue", "blue-b", "green", "go", "go-1")
HOMES: Final = ("lab", "lab-a", "lab-a-b", "la", "dst-lab")
ELSEWHERE: Final = "elsewhere"
OWNER: Final = {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "uid": "uid-operator"}


class Part(Enum):
    """What an object is to the lab."""

    WANTED = "a file asks for it"
    LEFT_OVER = "no file asks for it any more"
    UNREADABLE = "its file can't be read"
    STRANGE = "it was never the lab's"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One live object and the truth about it; `oddities` tell how it was forged.

    A `doubtful` one is ours, but somebody has changed the label that says of which experiment: it may be
    pruned where the truth allows it, and need not be.
    """

    item: Object
    part: Part
    experiment: str
    oddities: tuple[str, ...] = ()
    stays: bool = False
    doubtful: bool = False

    @property
    def key(self) -> ObjectKey:
        """Its kind, namespace and name."""
        return key_of(self.item)


@dataclass(slots=True)
class Scene:
    """What is known by construction; the plan's arguments are made from it."""

    dice: random.Random
    home: Home
    rival: Home
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
        """True in that share of the cases."""
        return self.dice.random() < share

    def put(self, piece: Piece) -> None:
        """Add a live object; of two in one place the first stays."""
        self.pieces.setdefault(piece.key, piece)

    def is_about(self, experiment: str) -> bool:
        """True when this run is about the experiment."""
        return self.names is None or experiment in self.names

    def desired(self) -> list[Desired]:
        """What the files that this run is about ask for."""
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
        """The cluster as it was read."""
        scope = Scope(kinds=frozenset(INSIDE), namespaces=frozenset({self.home.namespace}))
        return Snapshot(
            apply_set=ApplySet(name="experiments", namespace=self.home.namespace),
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
        """What the run may do."""
        return inputs_of(
            names=self.names,
            broken=tuple(BrokenFile(name=n, source=f"experiments/{n}.yaml") for n in self.broken),
            file_errors=len(self.broken),
            commit=Commit(sha="b" * 40, branch="main", dirty=False),
            **self.options,
        )

    def deletions(self, *, with_doubtful: bool) -> set[ObjectKey]:
        """What a plan has to prune, or may: what is left over, is ours, and is what the run is about."""
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
        """How the files stand to what was synced of the whole lab, where that matters."""
        concerned = {self.recorded, self.begun.get("*")} - {None}
        return set() if self.options["allow_older"] else {self.options["relations"][sha] for sha in concerned}

    def ages_by_name(self) -> dict[str, Relation]:
        """How they stand to what was synced by name, of what this run is about."""
        concerned = {n: sha for n, sha in self.begun.items() if n != "*" and self.is_about(n)}
        if self.options["allow_older"]:
            return {}
        return {name: self.options["relations"][sha] for name, sha in concerned.items()}

    def may_be_another_labs(self) -> bool:
        """True if a flag is all that speaks for this lab: no commit that was synced is known here."""
        concerned = {self.recorded, *self.begun.values()} - {None}
        ages = {self.options["relations"][sha] for sha in concerned}
        return bool(self.options["allow_older"]) and ages == {Relation.UNKNOWN}

    def refusals(self) -> set[str]:
        """Why the whole run is refused."""
        found = set()
        if (
            self.ages() & {Relation.OLDER, Relation.DIVERGED}
            or Relation.OLDER in self.ages_by_name().values()
        ):
            found.add("stale")
        if self.names is not None and "nobody" in self.names:
            found.add("unknown name")
        return found

    def replacements(self) -> set[ObjectKey]:
        """What is deleted and made anew, since its experiment allows that."""
        return {
            key
            for key, name in self.replaced.items()
            if self.is_about(name) and self.how[name] is not OnImmutableChange.FAIL
        }

    def stops(self) -> set[str]:
        """Why the deletions are withheld, but for the limit."""
        found = {"broken-files"} if self.broken else set()
        if any(self.is_about(name) for name in self.blocked):
            found.add("blocked")
        if not self.options["take_ownership"] and any(self.is_about(name) for name in self.strange_seats):
            found.add("blocked")
        if not self.wanted and self.names is None and not self.options["allow_empty"]:
            found.add("empty")
        return found

    def is_plainly_ours(self, piece: Piece) -> bool:
        """True for what nobody could take for somebody else's."""
        return not piece.stays and piece.part is not Part.STRANGE

    def is_over(self, deletions: set[ObjectKey], *, of_ours: bool) -> bool:
        """True when the deletions are beyond the limit; the percentage is of what is ours, or of all."""
        limit: PruneLimit = self.options["limit"]
        if limit.objects is not None and len(deletions) > limit.objects:
            return True
        if limit.percent is None:
            return False
        if limit.spare_single and len({self.pieces[key].experiment for key in deletions}) == 1:
            return False
        counted = [piece for piece in self.pieces.values() if not of_ours or self.is_plainly_ours(piece)]
        return 100 * len(deletions) > limit.percent * len(counted)


def make_scene(dice: random.Random) -> Scene:
    """Return a lab at one moment."""
    home, rival = (Home(name) for name in dice.sample(HOMES, 2))
    scene = Scene(dice, home, rival)
    for name in dice.sample(NAMES, dice.randint(1, 4)):
        roll = dice.random()
        if roll < 0.35:
            _want(scene, name)
        elif roll < 0.92:
            _leave(scene, name, Part.LEFT_OVER)
        else:
            scene.broken.append(name)
            _leave(scene, name, Part.UNREADABLE)
    for _ in range(dice.randint(0, 2)):
        _add_stranger(scene)
    _choose_options(scene)
    return scene


def _choose_options(scene: Scene) -> None:
    dice = scene.dice
    known = sorted({*scene.wanted, *scene.broken, *(p.experiment for p in scene.pieces.values())})
    if known and scene.chance(0.3):
        scene.names = frozenset(dice.sample(known, dice.randint(1, len(known))))
        if scene.chance(0.1):
            scene.names |= {"nobody"}
    scene.recorded = "a" * 40 if scene.chance(0.5) else None
    if scene.chance(0.2):
        scene.begun = {name: dice.choice("acd") * 40 for name in dice.sample(["*", *known], 1)}
    ages = [Relation.NEWER] * 9 + [Relation.SAME] * 5 + list(Relation)
    scene.options = {
        "prune": scene.chance(0.94),
        "allow_empty": scene.chance(0.6),
        "allow_older": scene.chance(0.3),
        "take_ownership": scene.chance(0.2),
        "relations": {letter * 40: dice.choice(ages) for letter in "acd"},
        "limit": PruneLimit(
            objects=dice.choice([None, None, 100, 100, dice.randint(0, 6)]),
            percent=dice.choice([None, None, None, 100, dice.randint(0, 100)]),
            spare_single=scene.chance(0.5),
        ),
    }


def _place(scene: Scene, name: str) -> tuple[str, bool]:
    """The namespace of an experiment's objects, and whether it is its own."""
    isolated = scene.chance(0.3)
    return (scene.home.prefix + name if isolated else scene.home.namespace), isolated


def _want(scene: Scene, name: str) -> None:
    """An experiment with a file: what it asks for, what is there of it, and what was left behind."""
    dice = scene.dice
    space, isolated = _place(scene, name)
    scene.wanted[name] = []
    scene.how[name] = dice.choice(list(OnImmutableChange))
    full = scene.home.prefix + name
    kinds = dice.sample(INSIDE, dice.randint(1, 4)) + (["Namespace"] if isolated else [])
    for kind in kinds:
        item = member(scene.home, kind, space, full, name)
        scene.wanted[name].append(item)
        _take_seat(scene, name, item)
    for kind in dice.sample(INSIDE, dice.randint(0, 2)):
        scene.put(_odd(scene, member(scene.home, kind, space, full + "-old", name), name, Part.LEFT_OVER))
    if not isolated and scene.chance(0.1):  # it had a namespace of its own once
        _leave_namespace(scene, name, Part.LEFT_OVER)


def _take_seat(scene: Scene, name: str, item: Object) -> None:
    """What is there where an experiment wants an object: mostly the object."""
    roll, key = scene.dice.random(), key_of(item)
    live = _live(scene, member(scene.home, key.kind, key.namespace, key.name, name))
    stays = True
    if roll < 0.12:
        return
    if roll < 0.15:
        stays = False
        scene.predicted[key] = Prediction(error=Rejected("spec: Forbidden"))
        scene.blocked.add(name)
    elif roll < 0.18:
        live = _live(scene, member(scene.rival, key.kind, key.namespace, key.name, name))
        scene.blocked.add(name)
    elif roll < 0.21:
        live = _live(scene, plain(key.kind, key.namespace, key.name))
        scene.strange_seats.add(name)
    elif roll < 0.24:
        live["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    elif roll < 0.27:
        live = _live(scene, _labelled_only(item), "kubectl create")
        scene.strange_seats.add(name)
    elif roll < 0.35 and key.kind == "StatefulSet":
        live["spec"]["serviceName"] = "former"
        _protect_or_own(scene, live)
        scene.predicted[key] = Prediction()
        scene.blocked.add(name)
    elif roll < 0.5 and key.kind == "StatefulSet":
        stays = False
        live["spec"]["serviceName"] = "former"
        scene.predicted[key] = Prediction()  # the server would have the new one
        scene.replaced[key] = name
        if scene.how[name] is OnImmutableChange.FAIL:
            scene.blocked.add(name)
    else:
        stays = False
    scene.put(_relabelled(scene, Piece(item=live, part=Part.WANTED, experiment=name, stays=stays)))


def _labelled_only(item: Object) -> Object:
    """Somebody's object that was made with our labels."""
    made = plain(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
    made["metadata"]["labels"] = dict(item["metadata"]["labels"])
    return made


def _protect_or_own(scene: Scene, live: Object) -> None:
    """Let something speak against deleting an object that is wanted."""
    if scene.chance(0.5):
        live["metadata"]["annotations"][PROTECT] = "true"
    else:
        live["metadata"]["ownerReferences"] = [OWNER]


def _relabelled(scene: Scene, piece: Piece) -> Piece:
    """Perhaps say that it belongs to another experiment, as anybody can who may set labels."""
    labels = piece.item["metadata"]["labels"]
    if piece.stays or "experiment" not in labels or not scene.chance(0.06):
        return piece
    roll = scene.dice.random()
    if roll < 0.8:
        labels["experiment"] = scene.dice.choice(NAMES)
    else:
        del labels["experiment"]
    for one in piece.item["metadata"]["managedFields"]:
        if isinstance(one, dict) and isinstance(one.get("fieldsV1"), dict):
            one["fieldsV1"] = without(one["fieldsV1"], "f:metadata", "f:labels", "f:experiment")
    return replace(piece, doubtful=True, oddities=(*piece.oddities, "relabelled"))


def _leave(scene: Scene, name: str, part: Part) -> None:
    """An experiment without a file, or with one that can't be read: what is still there of it."""
    space, isolated = _place(scene, name)
    if isolated:
        _leave_namespace(scene, name, part)
        return
    full = scene.home.prefix + name
    for kind in scene.dice.sample(INSIDE, scene.dice.randint(1, 5)):
        scene.put(_odd(scene, member(scene.home, kind, space, full, name), name, part))


def _leave_namespace(scene: Scene, name: str, part: Part) -> None:
    """A namespace of an experiment's own, with what is in it."""
    space = scene.home.prefix + name
    whole = scene.chance(0.5)
    home = member(scene.home, "Namespace", "", space, name)
    scene.put(_own(scene, home, name, part) if whole else _odd(scene, home, name, part))
    for kind in scene.dice.sample(INSIDE, scene.dice.randint(0, 3)):
        item = member(scene.home, kind, space, "pod", name)
        scene.put(_own(scene, item, name, part) if whole else _odd(scene, item, name, part))
    if scene.chance(0.2):
        item = member(scene.home, "ConfigMap", space, "other", "zeta")
        scene.put(_odd(scene, item, "zeta", Part.LEFT_OVER))
    scene.foreign_objects[space] = ()
    if scene.chance(0.25):
        secret = ObjectKey("Secret", space, "theirs")
        scene.foreign_objects[space] = scene.dice.choice([(secret,), (secret,) * 5, None])


def _add_stranger(scene: Scene) -> None:
    """Something that was never the lab's, whatever it carries."""
    dice, name = scene.dice, scene.dice.choice(NAMES)
    roll = dice.random()
    if roll < 0.4:  # another lab's, with the same experiments, and every proof towards that lab
        space = dice.choice([scene.home.namespace, scene.rival.namespace])
        item = member(scene.rival, dice.choice(INSIDE), space, scene.rival.prefix + name + "-r", name)
        scene.put(Piece(item=_live(scene, item), part=Part.STRANGE, experiment=name, oddities=("a rival",)))
        return
    if roll < 0.8:  # a kind that is never pruned, with every mark
        item = member(scene.home, dice.choice(list(NEVER)), scene.home.namespace, "n" + name, name)
        oddity = "a kind never pruned"
    else:  # a kind of that name in another group
        item = member(scene.home, dice.choice(INSIDE), scene.home.namespace, "g" + name, name)
        item["apiVersion"] = dice.choice(["serving.example.org/v1", "example.org/v1beta1"])
        if scene.chance(0.5):  # else it says what ours of that name would say
            item["metadata"]["annotations"][MEMBER] = self_name(item)
        oddity = "a kind of another group"
    scene.put(Piece(item=_live(scene, item), part=Part.STRANGE, experiment=name, oddities=(oddity,)))


def _own(scene: Scene, item: Object, name: str, part: Part) -> Piece:
    """An object of ours without anything odd."""
    return _relabelled(scene, Piece(item=_live(scene, item), part=part, experiment=name))


def _odd(scene: Scene, item: Object, name: str, part: Part) -> Piece:
    """An object of ours, perhaps made odd in one way or several."""
    dice = scene.dice
    if scene.chance(0.35):
        return _own(scene, item, name, part)
    draft = Draft(item, scene.home, scene.rival, OWNER, ELSEWHERE)
    marks = choose_marks(dice, item["kind"], served=False)
    for oddity in marks:
        MARKS[oddity].put(draft)
    author = dice.choice(sorted(AUTHORS)) if scene.chance(0.5) else "us"
    oddities = (*marks, *(() if author == "us" else (author,)))
    stays = AUTHORS[author].stays or any(MARKS[oddity].stays for oddity in marks)
    live = _live(scene, item, author)
    piece = Piece(item=live, part=part, experiment=name, oddities=oddities, stays=stays)
    return _relabelled(scene, piece)


def _live(scene: Scene, item: Object, author: str = "us") -> Object:
    """The object as a server shows it."""
    number = scene.dice.randrange(10**9)
    item["metadata"].update(
        uid=f"uid-{number}",
        resourceVersion=str(number),
        generation=1,
        creationTimestamp="2026-11-23T11:00:00Z",
    )
    entries = AUTHORS[author].entries(fields_of(item))
    if entries is not None:
        item["metadata"]["managedFields"] = entries
    return item
