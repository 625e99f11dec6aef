"""Fixtures for prune safety on a server: namespaces, labs in them, and the objects before and after a sync.

The tests compare UIDs. Each object that existed before the sync must still exist after it, unless the sync
had to delete the object.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.prune_safety.counters import Counters
from tests.prune_safety.direct_writes import HOLD, DirectAccess
from tests.prune_safety.object_variants import METADATA_VARIANTS, Draft, choose_metadata_variants
from tests.prune_safety.oracle import FACTS, INSIDE, PRUNABLE, LabScope, Object, member
from tests.prune_safety.write_sequences import WRITE_SEQUENCES, hold, release
from tests.support.lab import Answer, Lab, Sandbox, make_lab

Key = tuple[str, str, str]


class Identity(NamedTuple):
    """The UID of an object, and the UIDs of its owners."""

    uid: str
    owners: frozenset[str] = frozenset()


EXPERIMENT: Final = """\
apiVersion: nimlab.dev/v1
kind: Experiment
metadata: {{name: {name}}}
spec:
  contract: nimp2p
  peers: {peers}
  connectTo: 1
  message: {{size: 1440B, interval: {interval}}}
"""
GOING: Final = "a deletion under way"
LOOKED_AT: Final = (*PRUNABLE, "Secret", "ServiceAccount", "Pod", "Deployment", "Lease", "Role",
                    "PersistentVolumeClaim")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One object on the server. `scope` is its lab. `stays` is True if a sync must keep the object.

    `oddities` are the names of its variants. The last name is that of its write sequence, if it has one.
    """

    item: Object
    scope: LabScope
    experiment: str
    oddities: tuple[str, ...] = ()
    stays: bool = False

    @property
    def key(self) -> Key:
        """Kind, namespace and name."""
        return key_of(self.item)


def key_of(item: Object) -> Key:
    """Return the kind, namespace and name of an object."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


@dataclass(slots=True)
class LiveServer:
    """Access to the API server for one test, with the test's namespaces and counters."""

    direct: DirectAccess
    sandbox: Sandbox
    folder: Path
    capture: pytest.CaptureFixture[str]
    counters: Counters
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    spaces: list[str] = field(default_factory=list)
    held: list[Object] = field(default_factory=list)
    variants_by_key: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)  # UIDs of the objects that a sync had to delete

    def rng(self, purpose: str) -> random.Random:
        """Return a generator of random choices for a purpose. The same seed gives the same choices."""
        return random.Random(f"{self.counters.seed}:{purpose}")  # noqa: S311 -- choices, not secrets

    def space(self, tail: str = "") -> str:
        """Create a namespace that belongs to no lab and is deleted after the test."""
        name = f"torture-{self.tag}{tail}"
        if name not in self.spaces:
            self.direct.namespace(name)
            self.spaces.append(name)
        return name

    def lab(self, tail: str = "", *, prefix: str = "") -> tuple[Lab, LabScope]:
        """Create a lab without experiments, in a namespace of its own."""
        scope = LabScope(self.space(tail), prefix or f"t{self.tag}-")
        root = make_lab(self.folder / f"lab{tail}", scope.namespace, experiments=())
        settings = root / "lab.yaml"
        text = settings.read_text(encoding="utf-8")
        assert "prefix: nimp2p-exp-" in text
        settings.write_text(text.replace("prefix: nimp2p-exp-", f"prefix: {scope.prefix}"), encoding="utf-8")
        kubeconfig, cluster = self.sandbox.kubeconfig, self.direct.cluster
        return Lab(root, scope.namespace, kubeconfig, cluster, self.capture), scope

    def identities(self) -> dict[Key, Identity]:
        """Return the identity of each object in the namespaces of this test, by key.

        Objects that are being deleted are omitted, unless a test keeps them with the finalizer `HOLD`.
        """
        return {
            key_of(item): _identity_of(item)
            for items in self.direct.each(self.direct.items, LOOKED_AT)
            for item in items
            if self._is_here(item) and _is_alive(item)
        }

    def _is_here(self, item: Object) -> bool:
        metadata = item["metadata"]
        name = metadata["name"] if item["kind"] == "Namespace" else metadata.get("namespace", "")
        return self.tag in name

    def check_deletions(
        self, before: dict[Key, Identity], due: Iterable[Key], purpose: str, *, beside: Iterable[str] = ()
    ) -> None:
        """Check that exactly the objects `due` have been deleted since `before`.

        An object may also be missing if a sync deleted its owner, because the garbage collector then deletes
        the object. Objects in the namespaces `beside` may be missing too.
        """
        after, due, beside = self.identities(), set(due), set(beside)
        lost = {key for key, identity in before.items() if key not in after or after[key].uid != identity.uid}
        self.spent |= {before[key].uid for key in due if key in before}
        wrong = {key for key in lost - due if key[1] not in beside and not before[key].owners & self.spent}
        not_deleted = due - lost
        self.counters.foreign_deleted += len(wrong)
        self.counters.ours_left += len(not_deleted)
        where = f"NIMLAB_SEED={self.counters.seed}, {purpose}"
        assert not wrong, f"{where}: deleted {self._named(wrong)}"
        assert not not_deleted, f"{where}: did not delete {self._named(not_deleted)}"

    def _named(self, keys: Iterable[Key]) -> list[str]:
        """Return one text per object: its key and its variants."""
        return [f"{'/'.join(key)} ({', '.join(self.variants_by_key.get(key, ()))})" for key in sorted(keys)]

    def write(self, piece: Piece) -> None:
        """Write an object to the server. The last name in `oddities` selects the write sequence."""
        self.variants_by_key[piece.key] = piece.oddities
        WRITE_SEQUENCES[piece.oddities[-1]].write(self.direct, piece.item)
        if GOING in piece.oddities:
            hold(self.direct, piece.item)
            self.held.append(piece.item)

    def clean(self) -> None:
        """Start the deletion of all namespaces of this test, and do not wait for its end."""
        for item in self.held:
            live = self.direct.get(item)
            if live is not None:
                release(self.direct, live)
        for item in self.direct.items("Namespace"):
            if self.tag in item["metadata"]["name"]:
                self.direct.delete(item)


def _identity_of(item: Object) -> Identity:
    metadata = item["metadata"]
    return Identity(metadata["uid"], frozenset(owner["uid"] for owner in metadata.get("ownerReferences", ())))


def _is_alive(item: Object) -> bool:
    metadata = item["metadata"]
    return not metadata.get("deletionTimestamp") or HOLD in metadata.get("finalizers", ())


def write_experiment(lab: Lab, name: str, peers: int = 2, interval: str = "2s") -> None:
    """Write the file of an experiment."""
    lab.write(name, EXPERIMENT.format(name=name, peers=peers, interval=interval))


def sync(lab: Lab, *arguments: str, code: int = 0) -> Answer:
    """Sync without waiting for peers and with a high prune limit, and check the exit code."""
    limit = () if {"--max-prune", "--no-prune"} & {*arguments} else ("--max-prune", "900")
    answer = lab.run("sync", "--no-wait", *limit, *arguments)
    assert answer.code == code, answer.out + answer.err
    return answer


def choose_variants(rng: random.Random, count: int) -> list[tuple[tuple[str, ...], str]]:
    """Return pairs: the variants of an object, and the write sequence that creates the object.

    Each variant and each write sequence first occurs alone. The other pairs are random combinations.
    """
    served = sorted(name for name, variant in METADATA_VARIANTS.items() if variant.served)
    variants_and_sequences: list[tuple[tuple[str, ...], str]] = [((name,), "us") for name in (*served, GOING)]
    variants_and_sequences += [((), sequence) for sequence in sorted(WRITE_SEQUENCES)]
    while len(variants_and_sequences) < count:
        variants = choose_metadata_variants(rng, "ConfigMap", served=True) if rng.random() < 0.6 else ()
        sequence = rng.choice(sorted(WRITE_SEQUENCES)) if variants and rng.random() < 0.5 else "us"
        variants_and_sequences.append((variants, sequence))
    return variants_and_sequences


def make_variant(
    rng: random.Random,
    server: LiveServer,
    scope: LabScope,
    *,
    name: str,
    spaces: tuple[str, ...],
    experiment: str,
    variants: tuple[str, ...],
    sequence: str,
) -> Piece:
    """Return an object of a lab with these variants. The object is not created on the server."""
    space = rng.choice((scope.namespace, scope.namespace, *spaces))
    item = member(scope, rng.choice(INSIDE), space, name, experiment)
    draft = Draft(item, scope, LabScope(f"nowhere-{server.tag}"), {}, f"torture-{server.tag}-else")
    for variant in variants:
        if variant != GOING:
            METADATA_VARIANTS[variant].put(draft)
    if item["metadata"].get("ownerReferences"):
        owner = item["metadata"]["ownerReferences"][0]
        owner.update(server.direct.reference(item["metadata"]["namespace"]))
    return Piece(
        item=item,
        scope=scope,
        experiment=experiment,
        oddities=(*variants, sequence),
        stays=WRITE_SEQUENCES[sequence].stays
        or any(variant == GOING or METADATA_VARIANTS[variant].stays for variant in variants),
    )


def widen_scope(server: LiveServer, scope: LabScope) -> None:
    """Record all existing kinds and namespaces on a lab's parent, as a sync does."""
    names = sorted(f"{kind}.{facts.group}".rstrip(".") for kind, facts in PRUNABLE.items())
    others = sorted(set(server.spaces) - {scope.namespace})
    parent = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "nimlab-experiments", "namespace": scope.namespace},
    }
    annotations = {
        "applyset.kubernetes.io/contains-group-kinds": ",".join(names),
        "applyset.kubernetes.io/additional-namespaces": ",".join(others),
    }
    server.direct.merge(parent, {"annotations": annotations}, "nimlab-applyset")


def make_never_pruned(scope: LabScope, kind: str, name: str) -> Piece:
    """Return an object of a kind that is never pruned, with all metadata of a member."""
    item = member(scope, kind, scope.namespace, name, "gone")
    assert FACTS[kind].namespaced
    return Piece(item=item, scope=scope, experiment="gone", oddities=(f"a {kind}", "us"), stays=True)
