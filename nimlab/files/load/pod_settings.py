"""Settings of peers' pods, and roles: a checked document -> groups of peers, and what is wrong with them.

In: documents that fit their schemas, the lab's defaults, the contract. Out: `PodSettings`, `Group`, problems.
A role's settings stand above the experiment's, which stand above the lab's. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.unit_parsers import PARSERS
from nimlab.files.load.yaml_strict import Document, Path
from nimlab.files.placement_rules import priority_faults, selector_faults, toleration_faults
from nimlab.files.spec import Contract, Extra, Lab, PeerGroup, PodSettings, Spread

POD_FIELDS: Final = frozenset({
    "roles", "env", "args", "nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets",
    "imagePullPolicy", "topologySpread", "start",
})  # fmt: skip
"""Fields of an experiment that this module reads; a contract passes none of them on."""
NAME_ROOM: Final = 52  # a StatefulSet's name and its revision's hash share a label of 63
_MAX_STAGGER_MS: Final = 3_600_000


def roles_in(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> list[Mapping[str, Any]]:
    """Return the roles of an experiment: its own, or the lab's where it says neither roles nor peers.

    A node that parses `pod-<ordinal>` can have no roles, so the lab's are left out for it.
    """
    if "roles" in spec:
        return list(spec["roles"])
    if "peers" in spec or not _may_have_roles(contract):
        return []
    return list(lab.defaults.get("roles", ()))


def pod_settings(
    spec: Mapping[str, Any], merged: Mapping[str, Any], lab: Lab, contract: Contract
) -> PodSettings:
    """Return the settings of a peer without a role; `merged` is the spec above the lab's defaults."""
    return _settings(merged, _env_of(spec, lab, contract), _args_of(spec, lab, contract))


def build_roles(
    roles: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any],
    merged: Mapping[str, Any],
    lab: Lab,
    contract: Contract,
) -> tuple[PeerGroup, ...]:
    """Return the groups of peers that the roles ask for, in their order."""
    env, args = _env_of(spec, lab, contract), _args_of(spec, lab, contract)
    found: list[PeerGroup] = []
    for role in roles:
        own = {**merged, **role, "nodeSelector": _joined(merged, role, "nodeSelector")}
        resources = _joined(merged, role, "resources")
        found.append(
            PeerGroup(
                role=role["name"],
                first=sum(group.peers for group in found),
                peers=role["peers"],
                cpu_m=PARSERS["cpu"](resources["cpu"]),
                memory_bytes=PARSERS["memory"](resources["memory"]),
                pod=_settings(own, {**env, **_as_map(role)}, tuple(role.get("args", args))),
            )
        )
    return tuple(found)


def _joined(below: Mapping[str, Any], above: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**below.get(name, {}), **above.get(name, {})}


def _as_map(spec: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in spec.get("env", ())}


def _env_of(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> dict[str, str]:
    """The lab's variables that the contract allows, and the experiment's above them."""
    below = {
        name: value for name, value in _as_map(lab.defaults).items() if _env_fault(name, contract) is None
    }
    return {**below, **_as_map(spec)}


def _args_of(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> tuple[str, ...]:
    """The experiment's arguments, or those of the lab's that the contract allows."""
    if "args" in spec:
        return tuple(spec["args"])
    return tuple(one for one in lab.defaults.get("args", ()) if _allows(contract.extra_args, one))


def _settings(spec: Mapping[str, Any], env: Mapping[str, str], args: tuple[str, ...]) -> PodSettings:
    return PodSettings(
        env=dict(sorted(env.items())),
        args=args,
        node_selector=dict(spec.get("nodeSelector", {})),
        tolerations=tuple(_canonical_toleration(one) for one in spec.get("tolerations", ())),
        priority_class=spec.get("priorityClassName"),
        pull_secrets=tuple(spec.get("imagePullSecrets", ())),
        pull_policy=spec.get("imagePullPolicy", "IfNotPresent"),
        spread=tuple(
            Spread(
                topology_key=one["topologyKey"],
                max_skew=one.get("maxSkew", 1),
                when_unsatisfiable=one.get("whenUnsatisfiable", "ScheduleAnyway"),
            )
            for one in spec.get("topologySpread", ())
        ),
        stagger_ms=PARSERS["duration"](spec.get("start", {}).get("stagger", "0ms")),
    )


def _canonical_toleration(toleration: Mapping[str, Any]) -> dict[str, Any]:
    """The toleration with its operator written out, or two ways to write one would be two templates.

    The server stores what it is sent: it fills in neither an operator nor a value, and drops an empty value.
    """
    full = {"operator": "Equal", **toleration}
    return {name: value for name, value in sorted(full.items()) if value != ""}


def _allows(extras: Iterable[Extra], text: str) -> bool:
    return any(extra.covers(text) for extra in extras)


def _may_have_roles(contract: Contract) -> bool:
    return contract.host_name == "any"


def _env_fault(name: str, contract: Contract) -> tuple[str, str] | None:
    """Why a variable may not be added under a contract, and what to do; None if it may."""
    own = next((one for one in contract.env if one.name == name), None)
    if own is not None:
        source = "roles" if own.source == "role" else own.source
        hint = f"set the field `{source}`" if source else f"it is always `{own.value}`"
        return f"nimlab derives `{name}` itself", f"leave it out; {hint}"
    if _allows(contract.extra_env, name):
        return None
    return f"contract `{contract.name}` does not allow the variable `{name}`", _allowed(
        contract.extra_env, "extraEnv"
    )


def _allowed(extras: Sequence[Extra], field: str) -> str:
    if not extras:
        return f"it allows none: `{field}` of the contract lists what its image reads"
    return "allowed: " + ", ".join(f"`{one.pattern}` ({one.description})" for one in extras)


def pod_problems(
    document: Document,
    roles: Sequence[Mapping[str, Any]],
    merged: Mapping[str, Any],
    contract: Contract,
    lab: Lab,
) -> Iterator[Problem]:
    """Yield what is wrong with the pods and roles that an experiment asks for."""
    spec = document.data["spec"]
    yield from placement_problems(document, ("spec",))
    yield from _extra_problems(document, spec, ("spec",), contract)
    for index, role in enumerate(spec.get("roles", ())):
        yield from _extra_problems(document, role, ("spec", "roles", index), contract)
    yield from _role_problems(document, roles, contract, lab)
    yield from _stagger_problems(document, merged, lab)


def placement_problems(document: Document, path: Path) -> Iterator[Problem]:
    """Yield what is wrong with the pods' settings at a place of a file, and with its roles'."""
    spec: Any = document.data
    for step in path:
        spec = spec.get(step, {})
    yield from _group_problems(document, spec, path)
    yield from _repeated(document, spec.get("roles", ()), ("name",), (*path, "roles"), "the role")
    for index, role in enumerate(spec.get("roles", ())):
        yield from _group_problems(document, role, (*path, "roles", index))


def _group_problems(document: Document, spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for index, one in enumerate(spec.get("tolerations", ())):
        hint = (
            "tolerate a taint of your own nodes, such as `{key: dedicated, value: p2p, effect: NoSchedule}`"
        )
        for what in toleration_faults(one):
            yield document.problem("bad-value", what, (*path, "tolerations", index), hint=hint)
    for key, value in spec.get("nodeSelector", {}).items():
        for what in selector_faults({key: value}):
            hint = "choose a label of the nodes that run peers"
            yield document.problem("bad-value", what, (*path, "nodeSelector", key), hint=hint)
    for what in priority_faults(spec.get("priorityClassName", "")):
        hint = "`kubectl get priorityclasses` lists the others"
        yield document.problem("bad-value", what, (*path, "priorityClassName"), hint=hint)
    yield from _repeated(document, spec.get("env", ()), ("name",), (*path, "env"), "the variable")
    keys = ("topologyKey", "whenUnsatisfiable")
    spread = [{"whenUnsatisfiable": "ScheduleAnyway", **one} for one in spec.get("topologySpread", ())]
    yield from _repeated(document, spread, keys, (*path, "topologySpread"), "the rule")


def _repeated(
    document: Document, items: Sequence[Mapping[str, Any]], keys: tuple[str, ...], path: Path, noun: str
) -> Iterator[Problem]:
    """Yield the items whose identity stands twice: the server merges such lists by it."""
    seen: set[tuple[str, ...]] = set()
    for index, item in enumerate(items):
        value = tuple(str(item[key]) for key in keys)
        if value in seen:
            what = f"{noun} `{'`, `'.join(value)}` is listed twice"
            yield document.problem("bad-value", what, (*path, index, keys[0]), hint="remove one of them")
        seen.add(value)


def _extra_problems(
    document: Document, spec: Mapping[str, Any], path: Path, contract: Contract
) -> Iterator[Problem]:
    for index, one in enumerate(spec.get("env", ())):
        fault = _env_fault(one["name"], contract)
        if fault is not None:
            yield document.problem("contract", fault[0], (*path, "env", index, "name"), hint=fault[1])
    for index, argument in enumerate(spec.get("args", ())):
        if not _allows(contract.extra_args, argument):
            what = f"contract `{contract.name}` does not allow the argument `{argument[:60]}`"
            hint = _allowed(contract.extra_args, "extraArgs")
            yield document.problem("contract", what, (*path, "args", index), hint=hint)


def _role_problems(
    document: Document, roles: Sequence[Mapping[str, Any]], contract: Contract, lab: Lab
) -> Iterator[Problem]:
    spec = document.data["spec"]
    if not roles:
        return
    if spec.get("roles") and "peers" in spec:
        what = "`peers` is the sum over all roles, and is not written beside `roles`"
        yield document.problem("bad-value", what, ("spec", "peers"), hint="remove it", at_key=True)
    if not _may_have_roles(contract):
        what = (
            f"contract `{contract.name}` allows no roles: its node parses its number out of `pod-<ordinal>`"
        )
        hint = "remove `roles`, or use a contract with `hostName: any`"
        yield document.problem("contract", what, ("spec", "roles"), hint=hint, at_key=True)
    workload = (
        "pod" if contract.isolation.value == "namespace" else lab.prefix + document.data["metadata"]["name"]
    )
    for index, role in enumerate(roles):
        name = f"{workload}-{role['name']}"
        if len(name) > NAME_ROOM:
            what = f"`{name}` has more than {NAME_ROOM} characters"
            hint = "choose a shorter name for the role or the experiment"
            yield document.problem("bad-name", what, ("spec", "roles", index, "name"), hint=hint)


def _stagger_problems(document: Document, merged: Mapping[str, Any], lab: Lab) -> Iterator[Problem]:
    text = merged.get("start", {}).get("stagger", "0ms")
    stagger_ms, peers = PARSERS["duration"](text), merged["peers"]
    path = ("spec", "start", "stagger")
    if stagger_ms > _MAX_STAGGER_MS:
        what = f"`start.stagger` is `{text}`, and must be at most `1h`"
        yield document.problem("bad-value", what, path)
    elif stagger_ms and (peers - 1) * stagger_ms >= lab.sync.timeout_s * 1000:
        last_s = (peers - 1) * stagger_ms / 1000
        waits_s = lab.sync.timeout_s
        what = f"the last of {peers} peers would start after {last_s:g} s, and a sync waits for {waits_s} s"
        hint = f"lower `start.stagger`, or raise `sync.timeout` in {lab.source}"
        yield document.problem("limit", what, path, hint=hint)
