"""Rules for a contract: contradictions inside it, and clashes with the containers and ports of nimlab itself.

In: a contract's document that fits its schema. Out: problems. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import Problem
from nimlab.files.load.field_units import CONTRACT_FIELDS, IMAGE_UNITS
from nimlab.files.load.source_document import Document
from nimlab.files.load.value_relations import contract_delay_problems
from nimlab.files.spec import HTTP_PORTS, POD_CONTAINERS, RTT_ECHO_PORT, RTT_METRICS_PORT, RTT_PORT_NAMES

_RESERVED_PORTS: Final[Mapping[tuple[int, str], str]] = {
    (RTT_METRICS_PORT, "TCP"): "nimlab's RTT metrics",
    (RTT_ECHO_PORT, "TCP"): "nimlab's RTT echo",
    (RTT_ECHO_PORT, "UDP"): "nimlab's RTT echo",
}
_ORDINAL_HOST: Final = "pod-<ordinal>"
_ORDINAL_WORKLOAD: Final = "pod"  # the only StatefulSet name that leads to the host names `pod-<ordinal>`
_FIXED_NAMES: Final = ("workload", "service")


def contract_problems(document: Document) -> Iterator[Problem]:
    """Yield the contradictions in a contract."""
    spec = document.data["spec"]
    yield from _name_problems(document, spec)
    yield from _env_problems(document, spec["env"])
    yield from _extra_env_problems(document, spec)
    yield from _unit_problems(document, spec["env"])
    if spec["container"] in POD_CONTAINERS:
        what = f"nimlab itself adds a container `{spec['container']}` to each peer's pod"
        yield document.problem("contract", what, ("spec", "container"), hint="choose another name")
    yield from _port_problems(document, spec["ports"])
    yield from contract_delay_problems(document)
    if spec.get("metrics") and "metrics" not in {port["name"] for port in spec["ports"]}:
        what = "the node exports metrics, but the contract has no port `metrics`"
        hint = "add the port, or remove `metrics`"
        yield document.problem("contract", what, ("spec", "metrics"), hint=hint, at_key=True)


def _name_problems(document: Document, spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of fixed names for the StatefulSet and the Service.

    Fixed names require one namespace per experiment. In a shared namespace, two experiments would use the
    same objects.
    """
    is_isolated = spec["isolation"] == "namespace"
    needs_ordinal = spec["hostName"] == _ORDINAL_HOST
    if needs_ordinal and not is_isolated:
        what = f"an image that requires the host name `{_ORDINAL_HOST}` needs one namespace per experiment"
        hint = "write `isolation: namespace`"
        yield document.problem("contract", what, ("spec", "isolation"), hint=hint)
    for name in _FIXED_NAMES:
        if is_isolated and name not in spec:
            what = f"`{name}` is missing in spec; `isolation: namespace` requires it"
            hint = "write the name that the node's code expects; contracts/dst-go.yaml is an example"
            yield document.problem("missing-key", what, ("spec",), hint=hint, at_key=True)
        elif name in spec and not is_isolated and not needs_ordinal:
            what = f"`{name}` needs `isolation: namespace`: experiments in one namespace need different names"
            hint = f"remove `{name}`; experiments then use their full names"
            yield document.problem("contract", what, ("spec", name), hint=hint, at_key=True)
    if needs_ordinal and spec.get("workload", _ORDINAL_WORKLOAD) != _ORDINAL_WORKLOAD:
        what = (
            f"an image that requires the host name `{_ORDINAL_HOST}` "
            f"needs a StatefulSet called `{_ORDINAL_WORKLOAD}`"
        )
        hint = f"write `workload: {_ORDINAL_WORKLOAD}`"
        yield document.problem("contract", what, ("spec", "workload"), hint=hint)


def _env_problems(document: Document, env: list[Mapping[str, Any]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(env):
        path, name = ("spec", "env", index), variable["name"]
        if name in seen:
            what = f"duplicate variable `{name}`"
            yield document.problem("contract", what, (*path, "name"), hint="remove one of them")
        seen.add(name)
        if ("from" in variable) == ("value" in variable):
            what = f"the variable `{name}` needs exactly one of `from` and `value`"
            yield document.problem("contract", what, path)
        source = variable.get("from")
        if source is not None and source not in CONTRACT_FIELDS:
            hint = did_you_mean(source, CONTRACT_FIELDS, f"fields: {', '.join(sorted(CONTRACT_FIELDS))}")
            what = f"experiments have no field `{source}`"
            yield document.problem("contract", what, (*path, "from"), hint=hint)


def _extra_env_problems(document: Document, spec: Mapping[str, Any]) -> Iterator[Problem]:
    derived = {variable["name"] for variable in spec["env"]}
    for index, extra in enumerate(spec.get("extraEnv", ())):
        if extra["pattern"] in derived:
            what = f"experiments cannot set `{extra['pattern']}`, because `env` sets it already"
            yield document.problem("contract", what, ("spec", "extraEnv", index, "pattern"), hint="remove it")


def _unit_problems(document: Document, env: list[Mapping[str, Any]]) -> Iterator[Problem]:
    for index, variable in enumerate(env):
        unit = variable.get("as")
        if unit is None:
            continue
        path = ("spec", "env", index, "as")
        allowed = IMAGE_UNITS.get(variable.get("from", ""), frozenset())
        if "value" in variable and "from" not in variable:
            what = f"the variable `{variable['name']}` has a fixed value, so `as` is not allowed"
            yield document.problem("contract", what, path, hint="remove `as`", at_key=True)
        elif allowed and unit not in allowed:
            what = f"`{variable['from']}` cannot be passed on as `{unit}`"
            yield document.problem("contract", what, path, hint=f"write `as: {' or '.join(sorted(allowed))}`")


def _port_problems(document: Document, ports: list[Mapping[str, Any]]) -> Iterator[Problem]:
    numbers: dict[tuple[int, str], str] = dict(_RESERVED_PORTS)
    names: dict[str, str] = dict.fromkeys(RTT_PORT_NAMES, "a port of nimlab itself")
    for index, port in enumerate(ports):
        label = f"the port `{port['name']}`"
        path = ("spec", "ports", index)
        used_names = [name for name in _full_names(port) if name in names]
        if not _is_port_name(port["name"]):
            what = f"{label} has a name that Kubernetes rejects"
            hint = "use at least one letter, and no two `-` in a row"
            yield document.problem("bad-name", what, (*path, "name"), hint=hint)
        elif used_names:
            other = names[used_names[0]]
            what = (
                f"duplicate port `{port['name']}`"
                if other == label
                else _same_name(label, used_names[0], other)
            )
            yield document.problem("contract", what, (*path, "name"), hint="rename one of them")
        used_by = next((numbers[key] for key in _numbers(port) if key in numbers), None)
        if used_by is not None and not used_names:
            what = f"{label} has the number {port['port']}, which is already used by {used_by}"
            yield document.problem("contract", what, (*path, "port"), hint="change one of the two numbers")
        if port["name"] in HTTP_PORTS and "TCP" not in port["protocols"]:
            what = f"{label} serves HTTP, which needs the protocol TCP"
            yield document.problem("contract", what, (*path, "protocols"), hint="write `[TCP]`")
        names |= dict.fromkeys(_full_names(port), label)
        numbers |= dict.fromkeys(_numbers(port), label)


def _same_name(port: str, name: str, other: str) -> str:
    return f"{port} gets the name `{name}`, which is already the name of {other}"


def _full_names(port: Mapping[str, Any]) -> list[str]:
    """Return the port's name; if it has several protocols, also its name in the Service for each protocol."""
    name, protocols = port["name"], port["protocols"]
    return [name, *(f"{name}-{protocol.lower()}" for protocol in protocols if len(protocols) > 1)]


def _numbers(port: Mapping[str, Any]) -> list[tuple[int, str]]:
    return [(port["port"], protocol) for protocol in port["protocols"]]


def _is_port_name(name: str) -> bool:
    """Return True for a valid IANA service name. The schema has already checked the other rules for names."""
    return re.search("[a-z]", name) is not None and "--" not in name
