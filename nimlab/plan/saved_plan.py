"""A saved plan: a plan with a record of the state for which it was made.

A later sync executes the plan exactly as it was saved, or not at all.

In: a plan and its policy. Out: a `SavedPlan` with the version of nimlab, the commit, the policy and a digest
of every object; or the differences between two saved plans. Pure.

Objects are recorded as digests. Secret values are masked before hashing, so a published plan file does not
reveal them. One further digest covers all objects that contain masked values, and detects changes of these
values. It is salted and slow to compute (scrypt: about a tenth of a second and 32 MiB). An attacker who has
the file can test guesses against this digest, but must guess all masked values at once. Random secrets are
safe; weak passwords are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

from nimlab.errors import PlanError
from nimlab.objects.manifest import Manifest
from nimlab.objects.mask_secrets import mask
from nimlab.plan.change import Change
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_policy import SyncPolicy
from nimlab.yaml_and_json import to_json_text

_VOLATILE: Final = frozenset({"managedFields", "resourceVersion"})
_SCRYPT: Final[Mapping[str, int]] = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26, "dklen": 32}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterIdentity:
    """Identity of a cluster: `object` names an object that every cluster creates itself; `id` is its uid.

    If no such object could be read, `object` is None and `id` is the server's address. A cluster that was
    restored from an etcd backup has the same identity as the original cluster.
    """

    object: str | None
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedObject:
    """One object of a plan. `live` and `desired` are digests of manifests; None if there is no manifest."""

    action: str
    restarts: int
    uid: str | None
    live: str | None
    desired: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """The facts that must be unchanged when the plan is executed.

    `tool` is the version of nimlab. `withheld` contains the codes of the reasons that block pruning.
    `objects` maps the key of each object to its record. `hidden` is the digest that covers all masked values.
    It is computed with the random `salt`, and is None if nothing is masked. `source` is the file from which
    the plan was read.
    """

    tool: str
    apply_set: str
    commit: str | None
    recorded_commit: str | None
    withheld: tuple[str, ...]
    policy: SyncPolicy
    objects: Mapping[str, SavedObject]
    cluster: ClusterIdentity
    salt: str
    hidden: str | None
    source: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the saved plan as JSON values."""
        return {
            "tool": self.tool,
            "applySet": self.apply_set,
            "cluster": asdict(self.cluster),
            "commit": self.commit,
            "recordedCommit": self.recorded_commit,
            "withheld": list(self.withheld),
            "options": _policy_to_json(self.policy),
            "objects": {key: asdict(self.objects[key]) for key in sorted(self.objects)},
            "salt": self.salt,
            "hidden": self.hidden,
        }

    @classmethod
    def from_json(cls, document: Any, source: str) -> Self:  # noqa: ANN401 -- any JSON value
        """Return the saved plan from a dry run's JSON. Raises PlanError if the JSON is not a saved plan."""
        try:
            binding = document["binding"]
            return cls(
                tool=binding["tool"],
                apply_set=binding["applySet"],
                commit=binding["commit"],
                recorded_commit=binding["recordedCommit"],
                withheld=tuple(binding["withheld"]),
                policy=_policy_from_json(binding["options"]),
                objects={key: SavedObject(**value) for key, value in binding["objects"].items()},
                cluster=ClusterIdentity(**binding["cluster"]),
                salt=str(binding["salt"]),
                hidden=binding["hidden"],
                source=source,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanError(
                f"this is not a saved plan, or another version of nimlab saved it: {error}",
                where=source,
                hint="create one with `nimlab sync --dry-run --out FILE`",
            ) from error


def _policy_to_json(policy: SyncPolicy) -> dict[str, Any]:
    names = None if policy.names is None else sorted(policy.names)
    return {**asdict(policy), "names": names}


def _policy_from_json(options: Mapping[str, Any]) -> SyncPolicy:
    """Return the policy of a saved plan. Raises KeyError, TypeError or ValueError."""
    names = options["names"]
    missing = asdict(SyncPolicy()).keys() - options.keys()
    if missing:
        raise KeyError(min(missing))
    return SyncPolicy(**{**options, "names": None if names is None else frozenset(names)})


def saved_plan_of(
    plan: Plan, policy: SyncPolicy, tool: str, *, cluster: ClusterIdentity, salt: str
) -> SavedPlan:
    """Return the record of the facts that must be unchanged when the plan is executed.

    To save the plan, pass a random `salt`. To compare the plan with a saved plan, pass the saved plan's salt.
    """
    return SavedPlan(
        tool=tool,
        apply_set=plan.apply_set.id,
        commit=plan.commit.sha if plan.commit else None,
        recorded_commit=plan.recorded_commit,
        withheld=tuple(stop.code for stop in plan.stops),
        policy=policy,
        objects={str(change.key): _saved_object(change) for change in plan.changes},
        cluster=cluster,
        salt=salt,
        hidden=_hidden_digest(plan.changes, salt),
    )


def differences_since(saved: SavedPlan, current: SavedPlan) -> tuple[str, ...]:
    """Return what has changed since the plan was saved, as text; empty if the plan is still valid."""
    differences = tuple(_differences(saved, current))
    if not differences and saved.hidden != current.hidden:
        return ("a masked value has changed, in a Secret or in an env variable whose name suggests a secret",)
    return differences


def _differences(saved: SavedPlan, current: SavedPlan) -> Iterator[str]:
    if saved.tool != current.tool:
        yield f"it was made by {saved.tool}, and this is {current.tool}"
    if saved.apply_set != current.apply_set:
        yield "it was made for another lab"
    if saved.cluster != current.cluster:
        yield (
            f"it was made for another cluster: in that cluster, {_cluster_text(saved.cluster)}; "
            f"in this cluster, {_cluster_text(current.cluster)}"
        )
    if saved.commit != current.commit:
        yield f"it was made at commit {_short(saved.commit)}, and this is commit {_short(current.commit)}"
    if saved.recorded_commit != current.recorded_commit:
        yield f"commit {_short(current.recorded_commit)} has been synced since"
    for key in sorted({*saved.objects, *current.objects}):
        yield from _object_differences(key, saved.objects.get(key), current.objects.get(key))
    if saved.withheld != current.withheld:
        yield "the reasons that block pruning have changed"


def _object_differences(key: str, saved: SavedObject | None, current: SavedObject | None) -> Iterator[str]:
    if saved is None:
        yield f"{key} is new"
    elif current is None:
        yield f"{key} no longer exists"
    elif saved.desired != current.desired:
        yield f"{key} has changed in the files"
    elif saved != replace(current, restarts=saved.restarts):
        yield f"{key} has changed in the cluster"
    elif current.restarts > saved.restarts:  # fewer restarts only mean that fewer peers run
        yield f"{key}: {current.restarts} peers would restart, not {saved.restarts}"


def _saved_object(change: Change) -> SavedObject:
    live = change.live
    return SavedObject(
        action=change.action.value,
        restarts=change.restarts,
        uid=None if live is None else live["metadata"]["uid"],
        live=None if live is None else _digest(_stable_part(live)),
        desired=None if change.desired is None else _digest(change.desired),
    )


def _stable_part(live: Manifest) -> Manifest:
    """Return the object without the fields that its controller updates frequently.

    An object without a status has no such controller, so the result contains its resourceVersion.
    """
    metadata = {k: v for k, v in live["metadata"].items() if k not in _VOLATILE}
    if "status" not in live:
        metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
    return {k: v for k, v in {**live, "metadata": metadata}.items() if k != "status"}


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(to_json_text(_masked(manifest)).encode()).hexdigest()


def _masked(manifest: Manifest) -> Manifest:
    hidden_fields = {"data": None, "stringData": None} if manifest["kind"] == "Secret" else {}
    masked: Manifest = mask({**manifest, **hidden_fields})
    return masked


def _hidden_digest(changes: Iterable[Change], salt: str) -> str | None:
    """Return one digest of all objects that contain masked values; None if no object contains any."""
    objects = [
        manifest
        for change in changes
        for manifest in (change.desired, change.live and _stable_part(change.live))
        if manifest is not None
    ]
    texts = [to_json_text(manifest) for manifest in objects if _masked(manifest) != manifest]
    if not texts:
        return None
    return hashlib.scrypt("\n".join(texts).encode(), salt=salt.encode(), **_SCRYPT).hex()


def _cluster_text(cluster: ClusterIdentity) -> str:
    if cluster.object is None:
        return f"the server's address is {cluster.id}"
    return f"{cluster.object} has the uid {cluster.id}"


def _short(commit: str | None) -> str:
    return "none" if commit is None else commit[:7]
