"""Rules for pods and roles: placement, variables and arguments that the contract allows, lengths of names.

In: a document that fits its schema, its roles, its spec with defaults, and its contract. Out: problems. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.build_pod_settings import allows_env, allows_roles, covers
from nimlab.files.load.parse_units import PARSERS
from nimlab.files.load.source_document import Document, Path
from nimlab.files.placement_rules import priority_faults, selector_faults, toleration_faults
from nimlab.files.spec import Contract, Extra, Lab

WORKLOAD_NAME_LIMIT: Final = 52
"""Maximum length of a StatefulSet's name.

Kubernetes appends 11 characters to the name and uses the result as a label value, which can have at most 63
characters.
"""
_MAX_STAGGER_MS: Final = 3_600_000


def pod_problems(
    document: Document,
    roles: Sequence[Mapping[str, Any]],
    complete: Mapping[str, Any],
    contract: Contract,
    lab: Lab,
) -> Iterator[Problem]:
    """Yield the problems of an experiment's pods and roles."""
    spec = document.data["spec"]
    yield from placement_problems(document, ("spec",))
    yield from _extra_problems(document, spec, ("spec",), contract)
    for index, role in enumerate(spec.get("roles", ())):
        yield from _extra_problems(document, role, ("spec", "roles", index), contract)
    if roles:
        yield from _role_problems(document, contract)
        yield from _role_name_problems(document, roles, contract, lab)
    yield from _stagger_problems(document, complete, lab)


def placement_problems(document: Document, path: Path) -> Iterator[Problem]:
    """Yield the problems of the pod settings at this path of a file, and of the roles at this path."""
    spec: Any = document.data
    for step in path:
        spec = spec.get(step, {})
    yield from _group_problems(document, spec, path)
    yield from _duplicates(document, spec.get("roles", ()), ("name",), (*path, "roles"), "role")
    for index, role in enumerate(spec.get("roles", ())):
        yield from _group_problems(document, role, (*path, "roles", index))


def _group_problems(document: Document, spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for index, toleration in enumerate(spec.get("tolerations", ())):
        hint = (
            "tolerate a taint of your own nodes, such as `{key: dedicated, value: p2p, effect: NoSchedule}`"
        )
        for what in toleration_faults(toleration):
            yield document.problem("bad-value", what, (*path, "tolerations", index), hint=hint)
    for key, value in spec.get("nodeSelector", {}).items():
        for what in selector_faults({key: value}):
            hint = "choose a label of the nodes that run peers"
            yield document.problem("bad-value", what, (*path, "nodeSelector", key), hint=hint)
    for what in priority_faults(spec.get("priorityClassName", "")):
        hint = "choose another PriorityClass; `kubectl get priorityclasses` lists all"
        yield document.problem("bad-value", what, (*path, "priorityClassName"), hint=hint)
    yield from _duplicates(document, spec.get("env", ()), ("name",), (*path, "env"), "variable")
    keys = ("topologyKey", "whenUnsatisfiable")
    spread = [{"whenUnsatisfiable": "ScheduleAnyway", **rule} for rule in spec.get("topologySpread", ())]
    yield from _duplicates(document, spread, keys, (*path, "topologySpread"), "spread rule")


def _duplicates(
    document: Document, items: Sequence[Mapping[str, Any]], keys: tuple[str, ...], path: Path, noun: str
) -> Iterator[Problem]:
    """Yield a problem for each item with the same values of `keys` as an earlier item.

    The API server would merge these items.
    """
    seen: set[tuple[str, ...]] = set()
    for index, item in enumerate(items):
        identity = tuple(str(item[key]) for key in keys)
        if identity in seen:
            what = f"duplicate {noun} `{'`, `'.join(identity)}`"
            yield document.problem("bad-value", what, (*path, index, keys[0]), hint="remove one of them")
        seen.add(identity)


def _extra_problems(
    document: Document, spec: Mapping[str, Any], path: Path, contract: Contract
) -> Iterator[Problem]:
    for index, variable in enumerate(spec.get("env", ())):
        if not allows_env(variable["name"], contract):
            what, hint = _env_fault(variable["name"], contract)
            yield document.problem("contract", what, (*path, "env", index, "name"), hint=hint)
    for index, argument in enumerate(spec.get("args", ())):
        if not covers(contract.extra_args, argument):
            what = f"contract `{contract.name}` does not allow the argument `{argument[:60]}`"
            hint = _allowed(contract.extra_args, "extraArgs")
            yield document.problem("contract", what, (*path, "args", index), hint=hint)


def _env_fault(name: str, contract: Contract) -> tuple[str, str]:
    """Return why a contract does not allow a variable, and what to do instead."""
    derived = next((variable for variable in contract.env if variable.name == name), None)
    if derived is None:
        what = f"contract `{contract.name}` does not allow the variable `{name}`"
        return what, _allowed(contract.extra_env, "extraEnv")
    field = "roles" if derived.source == "role" else derived.source
    instead = f"set the field `{field}` instead" if field else f"its value is always `{derived.value}`"
    return f"nimlab sets the variable `{name}` itself", f"remove it; {instead}"


def _allowed(extras: Sequence[Extra], field: str) -> str:
    if not extras:
        return f"remove it, or list it in `{field}` of the contract if the image reads it"
    return "allowed: " + ", ".join(f"`{extra.pattern}` ({extra.description})" for extra in extras)


def _role_problems(document: Document, contract: Contract) -> Iterator[Problem]:
    spec = document.data["spec"]
    if spec.get("roles") and "peers" in spec:
        what = "`peers` is not allowed together with `roles`: the number of peers is the sum over all roles"
        yield document.problem("bad-value", what, ("spec", "peers"), hint="remove it", at_key=True)
    if not allows_roles(contract):
        what = f"contract `{contract.name}` allows no roles: its node requires the host name `pod-<ordinal>`"
        hint = "remove `roles`, or use a contract with `hostName: any`"
        yield document.problem("contract", what, ("spec", "roles"), hint=hint, at_key=True)


def _role_name_problems(
    document: Document, roles: Sequence[Mapping[str, Any]], contract: Contract, lab: Lab
) -> Iterator[Problem]:
    workload = contract.workload or lab.prefix + document.name
    for index, role in enumerate(roles):
        name = f"{workload}-{role['name']}"
        if len(name) > WORKLOAD_NAME_LIMIT:
            what = f"the StatefulSet's name `{name}` has more than {WORKLOAD_NAME_LIMIT} characters"
            hint = "choose a shorter name for the role or the experiment"
            yield document.problem("bad-name", what, ("spec", "roles", index, "name"), hint=hint)


def _stagger_problems(document: Document, complete: Mapping[str, Any], lab: Lab) -> Iterator[Problem]:
    text = complete.get("start", {}).get("stagger", "0ms")
    stagger_ms, peers = PARSERS["duration"](text), complete["peers"]
    path = ("spec", "start", "stagger")
    if stagger_ms > _MAX_STAGGER_MS:
        yield document.problem("bad-value", f"`start.stagger` is `{text}`, and must be at most `1h`", path)
    elif stagger_ms and (peers - 1) * stagger_ms >= lab.sync.timeout_s * 1000:
        last_s = (peers - 1) * stagger_ms / 1000
        timeout_s = lab.sync.timeout_s
        what = (
            f"the last of {peers} peers would start after {last_s:g} s, but a sync waits only {timeout_s} s"
        )
        hint = f"lower `start.stagger`, or raise `sync.timeout` in {lab.source}"
        yield document.problem("limit", what, path, hint=hint)
