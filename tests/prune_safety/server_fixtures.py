"""Where the torture takes place on a server: namespaces, labs in them, and what is alive before and after.

What is judged is what has become of identities: of every object that was there, whether it still is.
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
from tests.prune_safety.direct_writes import HOLD, Admin
from tests.prune_safety.object_variants import MARKS, Draft, choose_marks
from tests.prune_safety.oracle import FACTS, INSIDE, PRUNABLE, Home, Object, member
from tests.prune_safety.write_sequences import STORIES, hold, release
from tests.support.lab import Answer, Lab, Sandbox, make_lab

Key = tuple[str, str, str]


class Life(NamedTuple):
    """Who an object is, and whose uid it goes with."""

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
    """One object on the server and the truth about it: whose it is, and whether it must stay."""

    item: Object
    home: Home
    experiment: str
    oddities: tuple[str, ...] = ()
    stays: bool = False

    @property
    def key(self) -> Key:
        """Its kind, namespace and name."""
        return key_of(self.item)


def key_of(item: Object) -> Key:
    """An object's kind, namespace and name."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


@dataclass(slots=True)
class Ground:
    """A server, namespaces of the torture's own, and the count."""

    admin: Admin
    sandbox: Sandbox
    folder: Path
    capture: pytest.CaptureFixture[str]
    counters: Counters
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    spaces: list[str] = field(default_factory=list)
    held: list[Object] = field(default_factory=list)
    forged: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)  # the uids of what was due to go

    def dice(self, what: str) -> random.Random:
        """Random choices of one test, repeatable by the seed."""
        return random.Random(f"{self.counters.seed}:{what}")  # noqa: S311 -- choices, not secrets

    def space(self, tail: str = "") -> str:
        """A namespace of nobody's, gone at the end."""
        name = f"torture-{self.tag}{tail}"
        if name not in self.spaces:
            self.admin.namespace(name)
            self.spaces.append(name)
        return name

    def lab(self, tail: str = "", *, prefix: str = "") -> tuple[Lab, Home]:
        """A lab in a namespace of its own, without any experiment yet."""
        home = Home(self.space(tail), prefix or f"t{self.tag}-")
        root = make_lab(self.folder / f"lab{tail}", home.namespace, experiments=())
        settings = root / "lab.yaml"
        text = settings.read_text(encoding="utf-8")
        assert "prefix: nimp2p-exp-" in text
        settings.write_text(text.replace("prefix: nimp2p-exp-", f"prefix: {home.prefix}"), encoding="utf-8")
        kubeconfig, cluster = self.sandbox.kubeconfig, self.admin.cluster
        return Lab(root, home.namespace, kubeconfig, cluster, self.capture), home

    def alive(self) -> dict[Key, Life]:
        """Everything in the torture's namespaces; what is on its way out is as good as gone."""
        return {
            key_of(item): _life(item)
            for items in self.admin.each(self.admin.items, LOOKED_AT)
            for item in items
            if self._is_here(item) and _is_alive(item)
        }

    def _is_here(self, item: Object) -> bool:
        metadata = item["metadata"]
        name = metadata["name"] if item["kind"] == "Namespace" else metadata.get("namespace", "")
        return self.tag in name

    def judge(
        self, before: dict[Key, Life], due: Iterable[Key], what: str, *, beside: Iterable[str] = ()
    ) -> None:
        """Hold what has gone since against what was due to go.

        What is made of something due goes after it (a workload's pods), perhaps only in a later step: the
        garbage collector has its own time. What the namespaces `beside` held is not looked at.
        """
        after, due, beside = self.alive(), set(due), set(beside)
        lost = {key for key, life in before.items() if key not in after or after[key].uid != life.uid}
        self.spent |= {before[key].uid for key in due if key in before}
        wrong = {key for key in lost - due if key[1] not in beside and not before[key].owners & self.spent}
        left = due - lost
        self.counters.foreign_deleted += len(wrong)
        self.counters.ours_left += len(left)
        where = f"NIMLAB_SEED={self.counters.seed}, {what}"
        assert not wrong, f"{where}: deleted {self._named(wrong)}"
        assert not left, f"{where}: left {self._named(left)}"

    def _named(self, keys: Iterable[Key]) -> list[str]:
        """The objects, and how they were forged."""
        return [f"{'/'.join(key)} ({', '.join(self.forged.get(key, ()))})" for key in sorted(keys)]

    def write(self, piece: Piece) -> None:
        """Let an object come about as its story tells, the last of its oddities."""
        self.forged[piece.key] = piece.oddities
        STORIES[piece.oddities[-1]].write(self.admin, piece.item)
        if GOING in piece.oddities:
            hold(self.admin, piece.item)
            self.held.append(piece.item)

    def clean(self) -> None:
        """Remove all namespaces, without waiting."""
        for item in self.held:
            live = self.admin.get(item)
            if live is not None:
                release(self.admin, live)
        for item in self.admin.items("Namespace"):
            if self.tag in item["metadata"]["name"]:
                self.admin.delete(item)


def _life(item: Object) -> Life:
    metadata = item["metadata"]
    return Life(metadata["uid"], frozenset(owner["uid"] for owner in metadata.get("ownerReferences", ())))


def _is_alive(item: Object) -> bool:
    metadata = item["metadata"]
    return not metadata.get("deletionTimestamp") or HOLD in metadata.get("finalizers", ())


def ask(lab: Lab, name: str, peers: int = 2, interval: str = "2s") -> None:
    """Write an experiment's file."""
    lab.write(name, EXPERIMENT.format(name=name, peers=peers, interval=interval))


def run(lab: Lab, *arguments: str, code: int = 0) -> Answer:
    """Sync without waiting for peers, within a wide limit, and demand an exit code."""
    limit = () if {"--max-prune", "--no-prune"} & {*arguments} else ("--max-prune", "900")
    answer = lab.run("sync", "--no-wait", *limit, *arguments)
    assert answer.code == code, answer.out + answer.err
    return answer


def forgeries(dice: random.Random, count: int) -> list[tuple[tuple[str, ...], str]]:
    """Return marks and stories for so many objects: each alone once, then none, or some together."""
    served = sorted(name for name, mark in MARKS.items() if mark.served)
    found: list[tuple[tuple[str, ...], str]] = [((name,), "us") for name in (*served, GOING)]
    found += [((), story) for story in sorted(STORIES)]
    while len(found) < count:
        marks = choose_marks(dice, "ConfigMap", served=True) if dice.random() < 0.6 else ()
        story = dice.choice(sorted(STORIES)) if marks and dice.random() < 0.5 else "us"
        found.append((marks, story))
    return found


def forge(
    dice: random.Random,
    ground: Ground,
    home: Home,
    *,
    name: str,
    spaces: tuple[str, ...],
    experiment: str,
    marks: tuple[str, ...],
    story: str,
) -> Piece:
    """Return an object of a lab's own, forged as told; it isn't on the server yet."""
    space = dice.choice((home.namespace, home.namespace, *spaces))
    item = member(home, dice.choice(INSIDE), space, name, experiment)
    draft = Draft(item, home, Home(f"nowhere-{ground.tag}"), {}, f"torture-{ground.tag}-else")
    for mark in marks:
        if mark != GOING:
            MARKS[mark].put(draft)
    if item["metadata"].get("ownerReferences"):
        owner = item["metadata"]["ownerReferences"][0]
        owner.update(ground.admin.reference(item["metadata"]["namespace"]))
    return Piece(
        item=item,
        home=home,
        experiment=experiment,
        oddities=(*marks, story),
        stays=STORIES[story].stays or any(mark == GOING or MARKS[mark].stays for mark in marks),
    )


def widen(ground: Ground, home: Home) -> None:
    """Record on a lab's parent what a sync of its own would have recorded for all that is there now."""
    names = sorted(f"{kind}.{facts.group}".rstrip(".") for kind, facts in PRUNABLE.items())
    others = sorted(set(ground.spaces) - {home.namespace})
    parent = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "nimlab-experiments", "namespace": home.namespace},
    }
    scope = {
        "applyset.kubernetes.io/contains-group-kinds": ",".join(names),
        "applyset.kubernetes.io/additional-namespaces": ",".join(others),
    }
    ground.admin.merge(parent, {"annotations": scope}, "nimlab-applyset")


def never(home: Home, kind: str, name: str) -> Piece:
    """An object of a kind that is never pruned, with every mark and proof."""
    item = member(home, kind, home.namespace, name, "gone")
    assert FACTS[kind].namespaced
    return Piece(item=item, home=home, experiment="gone", oddities=(f"a {kind}", "us"), stays=True)
