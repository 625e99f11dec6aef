"""The rounds: at every step, each tool takes one turn, in a new random order.

In: a server, the tools, sizes, a seed. Out: one sample per turn, yielded as it is taken. A turn begins when
the control plane is idle. After the turn, the cluster is compared with the desired objects. If a tool fails,
its sample contains the error, and the tool is skipped for the rest of the round.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.lab import DesiredState, Object, Step, plan_steps, render_steps
from bench.measure import Cost, RunError, run_all
from bench.server import Server
from bench.tool_programs import Program
from bench.tools import Tool, Workspace, make_tool

_COLLECTIONS: Final = {
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}
_TYPE_FIELDS: Final = ("apiVersion", "kind")
_LABEL: Final = "experiment"  # all objects of experiments have this label, and no other objects have it


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one run of the benchmark."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    repeat: int
    seed: int
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One turn of one tool: its cost or its error. The server counts the `requests` per verb."""

    name: str
    size: int
    objects: int
    step: Step
    round: int
    cost: Cost | None
    requests: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


def run_rounds(
    settings: Settings, server: Server, programs: Mapping[str, Program], folder: Path
) -> Iterator[Sample]:
    """Run all rounds of all sizes and yield one sample per turn."""
    rng = random.Random(settings.seed)  # noqa: S311 -- repeatable, not secret
    for size in settings.sizes:
        desired = render_steps(plan_steps(size, settings.seed), folder / f"size-{size}")
        for number in range(1, settings.repeat + 1):
            namespaces = {name: f"bench-{name}-{size}-{number}" for name in settings.names}
            for namespace in namespaces.values():
                server.make_namespace(namespace)
            tools = {
                name: make_tool(
                    name,
                    Workspace(folder=folder / namespace, namespace=namespace, kubeconfig=server.kubeconfig),
                    programs,
                )
                for name, namespace in namespaces.items()
            }
            yield from _run_round(settings, server, tools, desired, (size, number), rng)
            server.remove_namespaces(tuple(namespaces.values()))


def _run_round(
    settings: Settings,
    server: Server,
    tools: Mapping[str, Tool],
    desired: Mapping[Step, DesiredState],
    size_and_round: tuple[int, int],
    rng: random.Random,
) -> Iterator[Sample]:
    failed: set[str] = set()
    for step in Step:
        for name in _shuffled([n for n in tools if n not in failed], rng):
            sample = _take_turn(settings, server, name, tools[name], step, desired[step], size_and_round)
            if sample is not None:
                yield sample
                if sample.error:
                    failed.add(name)


def _take_turn(
    settings: Settings,
    server: Server,
    name: str,
    tool: Tool,
    step: Step,
    desired: DesiredState,
    size_and_round: tuple[int, int],
) -> Sample | None:
    """Run and measure the tool once; return None if the tool does not support the step."""
    commands = tool.commands(step)
    if not commands:
        return None
    size, number = size_and_round
    objects = desired.objects(tool.workspace.namespace)
    tool.prepare(desired)
    server.wait_until_idle()
    before = server.counts()
    cost: Cost | None = None
    try:
        cost = run_all(
            commands,
            environment=tool.workspace.environment(),
            log=tool.workspace.folder / "output.log",
            timeout_s=settings.timeout_s,
        )
        error = ""
    except RunError as failure:
        error = str(failure)
    after = server.counts()
    if not error:
        error = find_difference(server, tool.workspace.namespace, objects)
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
    """Return the first difference between the cluster and the desired objects; empty if there is none."""
    live_by_key = {
        (kind, item["metadata"]["name"]): item
        for kind, path in _COLLECTIONS.items()
        for item in server.objects(path.format(namespace))
        if _LABEL in item["metadata"].get("labels", {})
    }
    desired_by_key = {(item["kind"], item["metadata"]["name"]): item for item in desired}
    for key in desired_by_key.keys() ^ live_by_key.keys():
        return f"{'/'.join(key)} {'is missing' if key in desired_by_key else 'was not deleted'}"
    for key, item in desired_by_key.items():
        # The items of a LIST do not contain `apiVersion` and `kind`.
        body = {name: value for name, value in item.items() if name not in _TYPE_FIELDS}
        if (path := _first_difference(live_by_key[key], body)) is not None:
            return f"{'/'.join(key)} differs from the desired object at {path}"
    return ""


def _first_difference(live: Any, desired: Any, path: str = "") -> str | None:  # noqa: ANN401 -- any JSON
    """Return the path of the first desired value that is missing from the live object. Pure.

    The live object may have additional fields (defaults). An empty value is equal to a missing value, because
    the server may omit it.
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
    differences = (_first_difference(a, b, f"{path}.{name}") for name, a, b in pairs)
    return next((difference for difference in differences if difference is not None), None)


def _shuffled(names: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(list(names), len(names))
