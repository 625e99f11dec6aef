"""Facts of a contract that contradict each other, the rest of a peer's pod, or the experiment that uses it.

In: a contract's document that fits its schema, or an experiment's and its contract. Out: problems. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.value_rules import contract_delay_problems
from nimlab.files.load.yaml_strict import Document
from nimlab.files.spec import (
    POD_CONTAINERS,
    RTT_ECHO_PORT,
    RTT_METRICS_PORT,
    RTT_PORT_NAMES,
    Contract,
    Isolation,
    Lab,
    Setting,
)

_SIDECARS: Final = (
    "nimlab adds containers to each peer's pod that shape its link and measure round-trip times"
)
_TAKEN: Final[Mapping[tuple[int, str], str]] = {
    (RTT_METRICS_PORT, "TCP"): "the metrics of round-trip times",
    (RTT_ECHO_PORT, "TCP"): "the echoes of round-trip times",
    (RTT_ECHO_PORT, "UDP"): "the echoes of round-trip times",
}
_UNITS_OF: Final[Mapping[str, frozenset[str]]] = {  # field: in which units an image can read it
    "message.size": frozenset({"bytes"}),
    "message.interval": frozenset({"ms", "s"}),
    "startDelay": frozenset({"ms", "s"}),
    "gossipsub.heartbeat": frozenset({"ms", "s"}),
    "gossipsub.pruneBackoff": frozenset({"ms", "s"}),
    "gossipsub.gossipFactor": frozenset({"ratio"}),
    "gossipsub.floodPublish": frozenset({"flag"}),
    "selfTrigger": frozenset({"flag"}),
    "muxer": frozenset({"word"}),
    **{
        name: frozenset({"count"})
        for name in (
            "peers",
            "connectTo",
            "fragments",
            "maxConnections",
            *(f"gossipsub.{d}" for d in ("d", "dLow", "dHigh", "dScore", "dOut", "dLazy")),
        )
    },
}
_BY_HTTP: Final = ("metrics", "publish")  # ports that are read and commanded by HTTP


def contract_problems(document: Document) -> Iterator[Problem]:
    """Yield what contradicts itself, or the rest of the pod, in a contract."""
    spec = document.data["spec"]
    if spec["container"] in POD_CONTAINERS:
        what = f"the container `{spec['container']}` is nimlab's own"
        hint = f"choose another name: {_SIDECARS}"
        yield document.problem("contract", what, ("spec", "container"), hint=hint)
    yield from _env_problems(document, spec["env"])
    yield from _port_problems(document, spec["ports"])
    yield from contract_delay_problems(document)
    if spec.get("metrics") and "metrics" not in {port["name"] for port in spec["ports"]}:
        what = "the node exports metrics, and there is no port `metrics`"
        hint = "add the port, or leave `metrics` out"
        yield document.problem("contract", what, ("spec", "metrics"), hint=hint, at_key=True)


def use_problems(
    document: Document, settings: Mapping[str, Setting], contract: Contract, lab: Lab
) -> Iterator[Problem]:
    """Yield what an experiment asks for, and its contract can't do here."""
    name = document.data["metadata"]["name"]
    if contract.isolation is Isolation.NAMESPACE and lab.prefix + name == lab.namespace:
        what = f"its own namespace would be `{lab.namespace}`, which is the lab's"
        yield document.problem("bad-name", what, ("metadata", "name"), hint="choose another name")
    muxer = settings.get("muxer")
    if muxer is None or "muxer" not in contract.fields:
        return
    needed = "UDP" if muxer == "quic" else "TCP"
    others = [port for port in contract.ports if port.name not in _BY_HTTP]
    if not any(needed in port.protocols for port in others):
        what = f"`muxer` is `{muxer}`, and under contract `{contract.name}` peers have no {needed} port"
        yield document.problem(
            "contract", what, ("spec", "muxer"), hint=f"see the ports in {contract.source}"
        )


def _env_problems(document: Document, env: list[Mapping[str, Any]]) -> Iterator[Problem]:
    for index, one in enumerate(env):
        unit = one.get("as")
        if unit is None:
            continue
        path = ("spec", "env", index, "as")
        allowed = _UNITS_OF.get(one.get("from", ""), frozenset())
        if "value" in one and "from" not in one:
            what = f"the variable `{one['name']}` has a fixed value, and `as` is for a field"
            yield document.problem("contract", what, path, hint="leave `as` out", at_key=True)
        elif allowed and unit not in allowed:
            what = f"`{one['from']}` can't be read as `{unit}`"
            yield document.problem("contract", what, path, hint=f"write `as: {' or '.join(sorted(allowed))}`")


def _port_problems(document: Document, ports: list[Mapping[str, Any]]) -> Iterator[Problem]:
    numbers: dict[tuple[int, str], str] = dict(_TAKEN)
    names: dict[str, str] = dict.fromkeys(RTT_PORT_NAMES, "nimlab's own")
    for index, port in enumerate(ports):
        own = f"the port `{port['name']}`"
        path = ("spec", "ports", index)
        twice = [name for name in _full_names(port) if name in names]
        if not _is_port_name(port["name"]):
            what = f"{own} has no name that Kubernetes takes"
            hint = "use at least one letter, and no two `-` in a row"
            yield document.problem("bad-name", what, (*path, "name"), hint=hint)
        elif twice:
            whose = names[twice[0]]
            what = f"{own} stands twice" if whose == own else f"{own} is called `{twice[0]}`, as {whose} is"
            yield document.problem("contract", what, (*path, "name"), hint="rename one of them")
        taken = next((found for p in port["protocols"] if (found := numbers.get((port["port"], p)))), None)
        if taken is not None and not twice:
            what = f"{own} has the number {port['port']}, which {taken} has"
            yield document.problem("contract", what, (*path, "port"), hint="give one of them another number")
        if port["name"] in _BY_HTTP and "TCP" not in port["protocols"]:
            what = f"{own} is used by HTTP, and needs the protocol TCP"
            yield document.problem("contract", what, (*path, "protocols"), hint="write `[TCP]`")
        names |= dict.fromkeys(_full_names(port), own)
        numbers |= {(port["port"], protocol): own for protocol in port["protocols"]}


def _full_names(port: Mapping[str, Any]) -> list[str]:
    """The port's name, and those in a Service: with several protocols, each has a port of its own."""
    name, protocols = port["name"], port["protocols"]
    return [name, *(f"{name}-{protocol.lower()}" for protocol in protocols if len(protocols) > 1)]


def _is_port_name(name: str) -> bool:
    """Return True for an IANA service name."""
    return re.search("[a-z]", name) is not None and "--" not in name
