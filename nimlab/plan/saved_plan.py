"""What a saved plan is bound to: carried out later, it does exactly what it said, or nothing.

In: a plan and the options it was made with. Out: a `Binding` that names tool, commit, options and every
object as it was seen, and what of it has moved since. Pure.

Objects are named by digests, of values that are masked first: a file that lies about as an artifact must not
help anybody to guess a secret. All that is masked has one digest of its own, salted and slow (scrypt).
Who has the file can still try guesses against it, each for a tenth of a second and 32 MiB, and has to guess
every hidden value of the plan at once: nobody does that to random ones, but a password of one word is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from nimlab.errors import PlanError
from nimlab.objects.manifest import Manifest
from nimlab.objects.masking import mask
from nimlab.plan.change import Change
from nimlab.plan.make_plan import Plan
from nimlab.text import to_json_text

_UNSTEADY = frozenset({"managedFields", "resourceVersion"})
_SLOW: Final[Mapping[str, int]] = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26, "dklen": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options that decide what a plan says; `names` is None for the whole lab."""

    names: tuple[str, ...] | None
    prune: bool
    max_prune: str | None
    allow_empty: bool
    allow_older: bool
    take_ownership: bool
    remove_foreign: bool
    move: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterIdentity:
    """What tells one cluster from others: the uid of an object that each has its own of.

    Where none could be read, `object` is None and `id` the server's address. A cluster that is restored from
    a copy of another's etcd is that one to the last uid.
    """

    object: str | None
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedObject:
    """One object of a plan. `live` and `desired` are digests, None where there is none."""

    action: str
    restarts: int
    uid: str | None
    live: str | None
    desired: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """Everything that has to be the same when the plan is carried out; `objects` by their keys.

    `hidden` is the digest of all that is masked, made with the random `salt`; None where nothing is.
    """

    tool: str
    apply_set: str
    commit: str | None
    recorded_commit: str | None
    withheld: tuple[str, ...]
    options: PlanOptions
    objects: Mapping[str, SavedObject]
    cluster: ClusterIdentity
    salt: str
    hidden: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the binding as JSON values."""
        return {
            "tool": self.tool,
            "applySet": self.apply_set,
            "cluster": asdict(self.cluster),
            "commit": self.commit,
            "recordedCommit": self.recorded_commit,
            "withheld": list(self.withheld),
            "options": asdict(self.options),
            "objects": {key: asdict(self.objects[key]) for key in sorted(self.objects)},
            "salt": self.salt,
            "hidden": self.hidden,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> Self:  # noqa: ANN401 -- whatever a file holds
        """Return the binding in a saved plan. Raises PlanError when there is none that can be read."""
        try:
            found = document["binding"]
            options = dict(found["options"])
            names = options.pop("names")
            return cls(
                tool=found["tool"],
                apply_set=found["applySet"],
                commit=found["commit"],
                recorded_commit=found["recordedCommit"],
                withheld=tuple(found["withheld"]),
                options=PlanOptions(names=None if names is None else tuple(names), **options),
                objects={key: SavedObject(**value) for key, value in found["objects"].items()},
                cluster=ClusterIdentity(**found["cluster"]),
                salt=str(found["salt"]),
                hidden=found["hidden"],
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanError(
                f"this is no saved plan, or one of another version: {error}",
                where=where,
                hint="make one with `nimlab sync --dry-run --out FILE`",
            ) from error


def saved_plan_of(
    plan: Plan, options: PlanOptions, tool: str, *, cluster: ClusterIdentity, salt: str
) -> SavedPlan:
    """Return what a plan is bound to. `salt` is random for a new binding, and the saved one's to compare."""
    return SavedPlan(
        tool=tool,
        apply_set=plan.apply_set.id,
        commit=plan.commit.sha if plan.commit else None,
        recorded_commit=plan.recorded_commit,
        withheld=tuple(stop.code for stop in plan.stops),
        options=options,
        objects={str(change.key): _bound(change) for change in plan.changes},
        cluster=cluster,
        salt=salt,
        hidden=_hidden(plan.changes, salt),
    )


def differences_since(saved: SavedPlan, now: SavedPlan) -> tuple[str, ...]:
    """Return what is no longer as it was saved, in words; empty when the plan still holds."""
    moved = tuple(_moved(saved, now))
    if not moved and saved.hidden != now.hidden:
        return (
            "a value that isn't shown has changed: of a Secret, or an env variable whose name looks secret",
        )
    return moved


def _moved(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    if saved.tool != now.tool:
        yield f"it was made by {saved.tool}, this is {now.tool}"
    if saved.apply_set != now.apply_set:
        yield "it was made for another lab"
    if saved.cluster != now.cluster:
        yield f"it was made for another cluster: {_told(saved.cluster)}, here {_told(now.cluster)}"
    if saved.commit != now.commit:
        yield f"it was made at commit {_short(saved.commit)}, this is {_short(now.commit)}"
    if saved.recorded_commit != now.recorded_commit:
        yield f"commit {_short(now.recorded_commit)} has been synced since"
    for key in sorted({*saved.objects, *now.objects}):
        yield from _moved_object(key, saved.objects.get(key), now.objects.get(key))
    if saved.withheld != now.withheld:
        yield "other reasons than then keep it from pruning"


def _moved_object(key: str, saved: SavedObject | None, now: SavedObject | None) -> Iterator[str]:
    if saved is None:
        yield f"{key} is new"
    elif now is None:
        yield f"{key} is gone"
    elif saved.desired != now.desired:
        yield f"{key} is asked for differently"
    elif saved != replace(now, restarts=saved.restarts):
        yield f"{key} has changed in the cluster"
    elif now.restarts > saved.restarts:  # fewer only means that some don't run: nothing that wasn't told
        yield f"{key}: {now.restarts} peers would restart, not {saved.restarts}"


def _bound(change: Change) -> SavedObject:
    live = change.live
    return SavedObject(
        action=change.action.value,
        restarts=change.restarts,
        uid=None if live is None else live["metadata"]["uid"],
        live=None if live is None else _digest(_steady(live)),
        desired=None if change.desired is None else _digest(change.desired),
    )


def _steady(live: Manifest) -> Manifest:
    """The object without what its controller moves all the time; where nothing does, with its version."""
    metadata = {k: v for k, v in live["metadata"].items() if k not in _UNSTEADY}
    if "status" not in live:
        metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
    return {k: v for k, v in {**live, "metadata": metadata}.items() if k != "status"}


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(to_json_text(_masked(manifest)).encode()).hexdigest()


def _masked(manifest: Manifest) -> Manifest:
    secret = {"data": None, "stringData": None} if manifest["kind"] == "Secret" else {}
    masked: Manifest = mask({**manifest, **secret})
    return masked


def _hidden(changes: Iterable[Change], salt: str) -> str | None:
    """One digest of every object of which something is masked, in full."""
    objects = [one for c in changes for one in (c.desired, c.live and _steady(c.live)) if one is not None]
    texts = [to_json_text(one) for one in objects if _masked(one) != one]
    if not texts:
        return None
    return hashlib.scrypt("\n".join(texts).encode(), salt=salt.encode(), **_SLOW).hex()


def _told(cluster: ClusterIdentity) -> str:
    return cluster.id if cluster.object is None else f"{cluster.object} is {cluster.id}"


def _short(commit: str | None) -> str:
    return "none" if commit is None else commit[:7]
