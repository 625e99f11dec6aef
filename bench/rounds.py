"""The turns: every step of every round, each tool in turn, in an order drawn anew each time.

In: a server, the tools, sizes, a seed. Out: samples, one a turn, as they are taken. A turn begins when the
control plane is idle; after it the cluster is compared with what was asked for. A tool that fails says so in
its sample and sits the rest of its round out; the others go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.lab import Object, Step, Wanted, plan_steps, render_steps
from bench.measure import Cost, RunError, run_all
from bench.peers import Peer, Place, make_peer
from bench.programs import Program
from bench.server import Server

_COLLECTIONS: Final = {
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}
_TYPE: Final = ("apiVersion", "kind")
_LABEL: Final = "experiment"  # on every object of an experiment, and on nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run of the bench is about."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    repeat: int
    seed: int
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One turn of one tool: its cost, or the error; `requests` are the server's own counts by verb."""

    name: str
    size: int
    objects: int
    step: Step
    round: int
    cost: Cost | None
    requests: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


def play(setting: Setting, server: Server, programs: Mapping[str, Program], folder: Path) -> Iterator[Sample]:
    """Play all rounds of all sizes and yield what each turn cost."""
    chance = random.Random(setting.seed)  # noqa: S311 -- repeatable, not secret
    for size in setting.sizes:
        wanted = render_steps(plan_steps(size, setting.seed), folder / f"size-{size}")
        for number in range(1, setting.repeat + 1):
            names = {name: f"bench-{name}-{size}-{number}" for name in setting.names}
            for namespace in names.values():
                server.make_namespace(namespace)
            peers = {
                name: make_peer(
                    name,
                    Place(folder=folder / namespace, namespace=namespace, kubeconfig=server.kubeconfig),
                    programs,
                )
                for name, namespace in names.items()
            }
            yield from _play_round(setting, server, peers, wanted, (size, number), chance)
            server.remove_namespaces(tuple(names.values()))


def _play_round(
    setting: Setting,
    server: Server,
    peers: Mapping[str, Peer],
    wanted: Mapping[Step, Wanted],
    turn: tuple[int, int],
    chance: random.Random,
) -> Iterator[Sample]:
    out: set[str] = set()
    for step in Step:
        for name in _shuffled([n for n in peers if n not in out], chance):
            sample = _take_turn(setting, server, name, peers[name], step, wanted[step], turn)
            if sample is not None:
                yield sample
                if sample.error:
                    out.add(name)


def _take_turn(
    setting: Setting,
    server: Server,
    name: str,
    peer: Peer,
    step: Step,
    wanted: Wanted,
    turn: tuple[int, int],
) -> Sample | None:
    commands = peer.commands(step)
    if not commands:
        return None
    size, number = turn
    objects = wanted.objects(peer.place.namespace)
    peer.prepare(wanted)
    server.settle()
    before = server.counts()
    cost: Cost | None = None
    try:
        cost = run_all(
            commands,
            environment=peer.place.environment(),
            log=peer.place.folder / "output.log",
            timeout_s=setting.timeout_s,
        )
        error = ""
    except RunError as failure:
        error = str(failure)
    after = server.counts()
    if not error:
        error = find_difference(server, peer.place.namespace, objects)
    return Sample(
        name=name,
        size=size,
        objects=len(objects),
        step=step,
        round=number,
        cost=None if error else cost,
        requests={verb: count - before.get(verb, 0) for verb, count in after.items()},
        error=error,
    )


def find_difference(server: Server, namespace: str, desired: Sequence[Object]) -> str:
    """Say what in the cluster isn't as it was asked for; empty if all is."""
    live = {
        (kind, one["metadata"]["name"]): one
        for kind, path in _COLLECTIONS.items()
        for one in server.objects(path.format(namespace))
        if _LABEL in one["metadata"].get("labels", {})
    }
    wanted = {(one["kind"], one["metadata"]["name"]): one for one in desired}
    for key in wanted.keys() ^ live.keys():
        return f"{'/'.join(key)} {'is missing' if key in wanted else 'is still there'}"
    for key, one in wanted.items():
        body = {name: value for name, value in one.items() if name not in _TYPE}  # not in a LIST's items
        if (path := _differing(live[key], body)) is not None:
            return f"{'/'.join(key)} isn't as it was asked for: {path}"
    return ""


def _differing(live: Any, desired: Any, path: str = "") -> str | None:  # noqa: ANN401 -- any JSON
    """Return the path of the first thing desired that isn't there; defaults may come on top. Pure.

    What is empty, the server may leave out.
    """
    if not desired and not live:
        return None
    pairs: list[tuple[str, Any, Any]]
    if isinstance(desired, dict) and isinstance(live, dict):
        pairs = [(key, live.get(key), value) for key, value in desired.items()]
    elif isinstance(desired, list) and isinstance(live, list) and len(desired) == len(live):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(live, desired, strict=True))]
    else:
        return None if live == desired else path
    found = (_differing(a, b, f"{path}.{name}") for name, a, b in pairs)
    return next((one for one in found if one is not None), None)


def _shuffled(names: Sequence[str], chance: random.Random) -> list[str]:
    return chance.sample(list(names), len(names))
