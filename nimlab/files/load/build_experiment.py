"""Checked documents -> specs: defaults filled in, units turned into numbers, contracts obeyed.

In: documents that fit their schemas. Out: `Lab`, `Contract`, `Experiment`, and the problems that only show
when fields, or files, are seen together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import Problem
from nimlab.files.load.build_contract import KNOWN_FIELDS
from nimlab.files.load.contract_rules import use_problems
from nimlab.files.load.pod_settings import (
    NAME_ROOM,
    POD_FIELDS,
    build_roles,
    pod_problems,
    pod_settings,
    roles_in,
)
from nimlab.files.load.unit_parsers import PARSERS, image_of
from nimlab.files.load.value_rules import (
    Values,
    default_values,
    experiment_problems,
    flat,
    lab_problems,
    warnings_of,
)
from nimlab.files.load.yaml_strict import Document
from nimlab.files.spec import (
    ConnectLimit,
    Contract,
    Experiment,
    Isolation,
    Lab,
    Network,
    OnImmutableChange,
    Rollout,
    Rtt,
    Setting,
)
from nimlab.text import to_json_text

_UNIT_OF: Final[Mapping[str, str]] = {
    "message.size": "size",
    "message.interval": "duration",
    "startDelay": "duration",
    "gossipsub.heartbeat": "duration",
    "gossipsub.pruneBackoff": "duration",
    "gossipsub.gossipFactor": "ratio",
}
_NOT_PASSED_ON: Final = frozenset({
    "contract", "image", "peers", "resources", "network", "rtt", "rollout", "onImmutableChange",
}) | POD_FIELDS  # fmt: skip
_BUILT_IN: Final[Mapping[str, Any]] = {
    "peers": 2,
    "resources": {"cpu": "50m", "memory": "16Mi"},
    "network": {"method": "tc"},
    "rtt": {"enabled": True, "interval": "5s", "fanout": 8, "methods": ["tcp"]},
    "rollout": "together",
    "onImmutableChange": "fail",
}
_METHODS: Final = ("tcp", "udp", "icmp")  # in one order, or a file's own order would be a new run


def build_experiment(
    document: Document, lab: Lab, contracts: Mapping[str, Contract]
) -> Experiment | tuple[Problem, ...]:
    """Return the experiment of a file that fits its schema, or why its contract can't carry it. Pure."""
    spec, metadata = document.data["spec"], document.data["metadata"]
    contract = contracts.get(spec["contract"])
    if contract is None:
        known = ", ".join(sorted(contracts)) or "none can be used"
        hint = f"{did_you_mean(spec['contract'], contracts)} contracts: {known}".lstrip()
        what = f"there is no contract `{spec['contract']}`"
        return (document.problem("unknown-reference", what, ("spec", "contract"), hint=hint),)
    merged = _merged(_merged(_BUILT_IN, lab.defaults), spec)
    roles = roles_in(spec, lab, contract)
    if roles:
        merged["peers"] = sum(role["peers"] for role in roles)
    settings = _settings(spec, merged, contract)
    problems = (
        *_experiment_problems(document, settings, merged, contract, contracts, lab),
        *_role_env_problems(document, roles, contract),
        *pod_problems(document, roles, merged, contract, lab),
    )
    if problems:
        return problems
    full_name = lab.prefix + metadata["name"]
    isolated = contract.isolation is Isolation.NAMESPACE
    return Experiment(
        name=metadata["name"],
        full_name=full_name,
        owner=metadata.get("owner", ""),
        description=metadata.get("description", ""),
        contract=contract,
        image=image_of(spec["image"]) if "image" in spec else contract.image,
        peers=merged["peers"],
        settings=settings,
        cpu_m=PARSERS["cpu"](merged["resources"]["cpu"]),
        memory_bytes=PARSERS["memory"](merged["resources"]["memory"]),
        network=_network(merged["network"]),
        rtt=Rtt(
            enabled=merged["rtt"]["enabled"],
            interval_ms=PARSERS["duration"](merged["rtt"]["interval"]),
            fanout=merged["rtt"]["fanout"],
            methods=tuple(method for method in _METHODS if method in merged["rtt"]["methods"]),
        ),
        rollout=Rollout(merged["rollout"]),
        on_immutable_change=OnImmutableChange(merged["onImmutableChange"]),
        namespace=full_name if isolated else lab.namespace,
        source=document.path,
        digest=hashlib.sha256(to_json_text(document.data).encode()).hexdigest(),
        document=document.data,
        pod=pod_settings(spec, merged, lab, contract),
        roles=build_roles(roles, spec, merged, lab, contract),
    )


def _role_env_problems(
    document: Document, roles: Sequence[Mapping[str, Any]], contract: Contract
) -> Iterator[Problem]:
    if "role" in contract.required and not roles:
        what = f"contract `{contract.name}` needs `roles`: its image fails without the name of one"
        yield document.problem("missing-key", what, ("spec",), hint="write `roles`, or a default in lab.yaml")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Maps are merged, key by key; anything else above hides what is below."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = _merged(old, value)
        else:
            result[key] = value
    return result


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a contract passes on, dotted: `message.size`."""
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        if key in _NOT_PASSED_ON:
            continue
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat


def _settings(spec: Mapping[str, Any], merged: Mapping[str, Any], contract: Contract) -> dict[str, Setting]:
    """What the image gets, in base units: what the file says, and defaults for what the contract delivers."""
    asked = _flat(spec)
    fields = {
        name: value for name, value in _flat(merged).items() if name in asked or name in contract.fields
    }
    fields["peers"] = merged["peers"]
    return {
        name: PARSERS[_UNIT_OF[name]](value) if name in _UNIT_OF else value
        for name, value in sorted(fields.items())
    }


def _experiment_problems(
    document: Document,
    settings: Mapping[str, Setting],
    merged: Mapping[str, Any],
    contract: Contract,
    contracts: Mapping[str, Contract],
    lab: Lab,
) -> Iterator[Problem]:
    name = document.data["metadata"]["name"]
    if name == "platform":
        what = "`platform` is what the monitoring stack is called"
        yield document.problem("bad-name", what, ("metadata", "name"), hint="choose another name")
    if len(lab.prefix + name) > NAME_ROOM:
        what = f"`{lab.prefix}{name}` has more than {NAME_ROOM} characters"
        yield document.problem("bad-name", what, ("metadata", "name"), hint="choose a shorter name")
    yield from undeliverable(document, contracts)
    for field in sorted(contract.required - set(settings) - {"role"}):
        what = f"contract `{contract.name}` needs `{field}`: its image fails without it"
        yield document.problem("missing-key", what, ("spec",), hint="write it, or a default in lab.yaml")
    yield from _connect_problems(document, settings, contract)
    limit = lab.limits.peers_per_experiment
    if merged["peers"] > limit:
        what = f"{merged['peers']} peers are more than the lab allows an experiment, {limit}"
        hint = f"the limit is `limits.peersPerExperiment` in {lab.source}"
        path = ("spec", "roles" if "roles" in document.data["spec"] else "peers")
        yield document.problem("limit", what, path, hint=hint)
    values = _values(document, merged, contract, lab)
    yield from experiment_problems(values)
    for of_role in _role_values(document, values):
        yield from experiment_problems(of_role)
    yield from use_problems(document, settings, contract, lab)


def _values(document: Document, merged: Mapping[str, Any], contract: Contract, lab: Lab) -> Values:
    """The values that hold for an experiment; what its contract can't deliver is a problem of its own."""
    written = {
        name: value
        for name, value in flat(merged).items()
        if name in contract.fields or name.partition(".")[0] in _NOT_PASSED_ON
    }
    own = frozenset(flat(document.data["spec"])) & frozenset(written)
    return Values(document=document, base=("spec",), written=written, own=own, defaults=lab.source)


def _role_values(document: Document, values: Values) -> Iterator[Values]:
    """Yield the values that hold for each role of an experiment: its own resources above the others."""
    for index, role in enumerate(document.data["spec"].get("roles", ())):
        own = flat({"resources": role.get("resources", {})})
        yield replace(
            values, base=("spec", "roles", index), written={**values.written, **own}, own=frozenset(own)
        )


def experiment_warnings(document: Document, lab: Lab, contracts: Mapping[str, Contract]) -> Iterator[Problem]:
    """Yield what is unusual in an experiment that `build_experiment` takes."""
    spec = document.data["spec"]
    merged = _merged(_merged(_BUILT_IN, lab.defaults), spec)
    values = _values(document, merged, contracts[spec["contract"]], lab)
    yield from warnings_of(values)
    for of_role in _role_values(document, values):
        yield from warnings_of(of_role)


def lab_file_problems(document: Document) -> tuple[Problem, ...]:
    """Return what makes no sense in a `lab.yaml` that fits its schema; warnings are among them. Pure."""
    values = default_values(document, _BUILT_IN)
    return (*lab_problems(document, _BUILT_IN), *warnings_of(values))


def undeliverable(document: Document, contracts: Mapping[str, Contract]) -> Iterator[Problem]:
    """Yield the settings that the experiment's image would never see: ignoring one would spoil the run.

    Also for a document with other mistakes, so that all of them are told at once.
    """
    spec = document.data.get("spec") if isinstance(document.data, dict) else None
    contract = contracts.get(str(spec.get("contract"))) if isinstance(spec, dict) else None
    if contract is None or not isinstance(spec, dict):
        return
    for field in _flat(spec):
        if field in contract.fields or field not in KNOWN_FIELDS:
            continue
        able = sorted(one.name for one in contracts.values() if field in one.fields)
        own = ", ".join(sorted(contract.fields))
        hint = f"contracts that can: {', '.join(able)}" if able else f"it can: {own}"
        what = f"contract `{contract.name}` cannot deliver `{field}`: its image reads no such setting"
        path = ("spec", *field.split("."))
        yield document.problem("contract", what, path, hint=hint, at_key=True)


def _connect_problems(
    document: Document, settings: Mapping[str, Setting], contract: Contract
) -> Iterator[Problem]:
    connect, peers = settings.get("connectTo"), settings["peers"]
    if not isinstance(connect, int) or not isinstance(peers, int):
        return
    if contract.connect_limit is ConnectLimit.AT_MOST_PEERS and connect > peers:
        bound = f"at most `peers` ({peers})"
    elif contract.connect_limit is ConnectLimit.LESS_THAN_PEERS and connect >= peers:
        bound = f"less than `peers` ({peers})"
    else:
        return
    what = f"`connectTo` is {connect}, and under contract `{contract.name}` must be {bound}"
    hint = "lower `connectTo`, or raise `peers`"
    yield document.problem("contract", what, ("spec", "connectTo"), hint=hint)


def _network(network: Mapping[str, Any]) -> Network:
    return Network(
        method=network.get("method", "tc"),
        downlink_bit_per_s=_optional("rate", network.get("downlink")),
        uplink_bit_per_s=_optional("rate", network.get("uplink")),
        latency_ms=_optional("duration", network.get("latency")),
        jitter_ms=_optional("duration", network.get("jitter")),
        loss_ratio=_optional("ratio", network.get("loss")),
    )


def _optional(unit: str, text: str | None) -> Any:  # noqa: ANN401 -- what the unit's parser gives
    return None if text is None else PARSERS[unit](text)
