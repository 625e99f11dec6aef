"""Settings of the peers' pods, and roles: validated fields -> `PodSettings` and `PeerGroup`.

In: documents that fit their schemas, the lab's defaults, and the contract. Out: settings and groups of peers.
The settings of a role override those of the experiment, which override those of the lab. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nimlab.files.load.parse_units import PARSERS
from nimlab.files.spec import Contract, Extra, Lab, PeerGroup, PodSettings, Spread


def roles_in(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> list[Mapping[str, Any]]:
    """Return the experiment's roles, or the lab's roles if the experiment sets no `roles` and no `peers`.

    The lab's roles do not apply to a contract that allows no roles.
    """
    if "roles" in spec:
        return list(spec["roles"])
    if "peers" in spec or not allows_roles(contract):
        return []
    return list(lab.defaults.get("roles", ()))


def allows_roles(contract: Contract) -> bool:
    """Return False if the node parses its host name `pod-<ordinal>`, because a role changes the host name."""
    return contract.host_name == "any"


def allows_env(name: str, contract: Contract) -> bool:
    """Return True if experiments may add this environment variable."""
    is_derived = any(variable.name == name for variable in contract.env)
    return not is_derived and covers(contract.extra_env, name)


def covers(extras: Iterable[Extra], text: str) -> bool:
    """Return True if one of the patterns allows the text."""
    return any(extra.covers(text) for extra in extras)


def pod_settings(
    spec: Mapping[str, Any], complete: Mapping[str, Any], lab: Lab, contract: Contract
) -> PodSettings:
    """Return the settings of a peer without a role; `complete` is the spec with defaults."""
    return _settings(complete, _env_of(spec, lab, contract), _args_of(spec, lab, contract))


def build_roles(
    roles: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any],
    complete: Mapping[str, Any],
    lab: Lab,
    contract: Contract,
) -> tuple[PeerGroup, ...]:
    """Return one group of peers per role, in the order of the roles."""
    env, args = _env_of(spec, lab, contract), _args_of(spec, lab, contract)
    groups: list[PeerGroup] = []
    for role in roles:
        own = {**complete, **role, "nodeSelector": _joined(complete, role, "nodeSelector")}
        resources = _joined(complete, role, "resources")
        groups.append(
            PeerGroup(
                role=role["name"],
                first=sum(group.peers for group in groups),
                peers=role["peers"],
                cpu_m=PARSERS["cpu"](resources["cpu"]),
                memory_bytes=PARSERS["memory"](resources["memory"]),
                pod=_settings(own, {**env, **_env_map(role)}, tuple(role.get("args", args))),
            )
        )
    return tuple(groups)


def _joined(lower: Mapping[str, Any], upper: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**lower.get(name, {}), **upper.get(name, {})}


def _env_map(spec: Mapping[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in spec.get("env", ())}


def _env_of(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> dict[str, str]:
    """Return the experiment's variables, and those defaults of the lab that the contract allows.

    If both contain a variable, the experiment's value is used.
    """
    defaults = {name: value for name, value in _env_map(lab.defaults).items() if allows_env(name, contract)}
    return {**defaults, **_env_map(spec)}


def _args_of(spec: Mapping[str, Any], lab: Lab, contract: Contract) -> tuple[str, ...]:
    """Return the experiment's arguments if the experiment sets any.

    Otherwise return those default arguments of the lab that the contract allows.
    """
    if "args" in spec:
        return tuple(spec["args"])
    defaults = lab.defaults.get("args", ())
    return tuple(argument for argument in defaults if covers(contract.extra_args, argument))


def _settings(spec: Mapping[str, Any], env: Mapping[str, str], args: tuple[str, ...]) -> PodSettings:
    return PodSettings(
        env=dict(sorted(env.items())),
        args=args,
        node_selector=dict(spec.get("nodeSelector", {})),
        tolerations=tuple(_canonical_toleration(each) for each in spec.get("tolerations", ())),
        priority_class=spec.get("priorityClassName"),
        pull_secrets=tuple(spec.get("imagePullSecrets", ())),
        pull_policy=spec.get("imagePullPolicy", "IfNotPresent"),
        spread=tuple(
            Spread(
                topology_key=rule["topologyKey"],
                max_skew=rule.get("maxSkew", 1),
                when_unsatisfiable=rule.get("whenUnsatisfiable", "ScheduleAnyway"),
            )
            for rule in spec.get("topologySpread", ())
        ),
        stagger_ms=PARSERS["duration"](spec.get("start", {}).get("stagger", "0ms")),
    )


def _canonical_toleration(toleration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the toleration with an explicit operator and without an empty value.

    The API server does not add a missing operator, and removes an empty value. Without this canonical form,
    two spellings of the same toleration would be different pod templates.
    """
    full = {"operator": "Equal", **toleration}
    return {name: value for name, value in sorted(full.items()) if value != ""}
