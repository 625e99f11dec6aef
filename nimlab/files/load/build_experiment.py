"""A file in `experiments/` -> `Experiment`: with defaults, in base units, and checked by all rules.

In: a document that fits its schema, the lab, and its contracts. Out: an `Experiment`, or its problems. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import Problem
from nimlab.files.load.build_pod_settings import build_roles, pod_settings, roles_in
from nimlab.files.load.experiment_rules import experiment_problems
from nimlab.files.load.field_units import UNIT_OF
from nimlab.files.load.merge_defaults import contract_fields_in, with_defaults
from nimlab.files.load.parse_units import PARSERS, image_of, parse_optional
from nimlab.files.load.pod_rules import pod_problems
from nimlab.files.load.source_document import Document
from nimlab.files.spec import (
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
from nimlab.yaml_and_json import to_json_text

# The order is fixed: another order would change the pod template, which restarts the peers.
_METHODS: Final = ("tcp", "udp", "icmp")


def build_experiment(
    document: Document, lab: Lab, contracts: Mapping[str, Contract]
) -> Experiment | tuple[Problem, ...]:
    """Return the experiment of a file that fits its schema, or its problems. Pure."""
    spec = document.data["spec"]
    contract = contracts.get(spec["contract"])
    if contract is None:
        return (_unknown_contract(document, contracts),)
    complete = with_defaults(spec, lab)
    roles = roles_in(spec, lab, contract)
    complete["roles"] = roles
    if roles:
        complete["peers"] = sum(role["peers"] for role in roles)
    settings = _settings(spec, complete, contract)
    problems = (
        *experiment_problems(document, complete, settings, contracts, lab),
        *pod_problems(document, roles, complete, contract, lab),
    )
    if problems:
        return problems
    metadata, full_name = document.data["metadata"], lab.prefix + document.name
    return Experiment(
        name=document.name,
        full_name=full_name,
        owner=metadata.get("owner", ""),
        description=metadata.get("description", ""),
        contract=contract,
        image=image_of(spec["image"]) if "image" in spec else contract.image,
        settings=settings,
        cpu_m=PARSERS["cpu"](complete["resources"]["cpu"]),
        memory_bytes=PARSERS["memory"](complete["resources"]["memory"]),
        network=_network(complete["network"]),
        rtt=_rtt(complete["rtt"]),
        rollout=Rollout(complete["rollout"]),
        on_immutable_change=OnImmutableChange(complete["onImmutableChange"]),
        namespace=full_name if contract.isolation is Isolation.NAMESPACE else lab.namespace,
        source=document.path,
        digest=hashlib.sha256(to_json_text(document.data).encode()).hexdigest(),
        document=document.data,
        pod=pod_settings(spec, complete, lab, contract),
        roles=build_roles(roles, spec, complete, lab, contract),
    )


def _unknown_contract(document: Document, contracts: Mapping[str, Contract]) -> Problem:
    name = document.data["spec"]["contract"]
    known = ", ".join(sorted(contracts)) or "none is usable"
    hint = f"{did_you_mean(name, contracts)} contracts: {known}".lstrip()
    what = f"there is no contract `{name}`"
    return document.problem("unknown-reference", what, ("spec", "contract"), hint=hint)


def _settings(spec: Mapping[str, Any], complete: Mapping[str, Any], contract: Contract) -> dict[str, Setting]:
    """Return settings in base units: all settings of the file, and defaults that the contract supports."""
    own = contract_fields_in(spec)
    settings = {
        name: value
        for name, value in contract_fields_in(complete).items()
        if name in own or name in contract.fields
    }
    settings["peers"] = complete["peers"]
    return {
        name: PARSERS[UNIT_OF[name]](value) if name in UNIT_OF else value
        for name, value in sorted(settings.items())
    }


def _network(network: Mapping[str, Any]) -> Network:
    return Network(
        method=network.get("method", "tc"),
        downlink_bit_per_s=parse_optional("rate", network.get("downlink")),
        uplink_bit_per_s=parse_optional("rate", network.get("uplink")),
        latency_ms=parse_optional("duration", network.get("latency")),
        jitter_ms=parse_optional("duration", network.get("jitter")),
        loss_ratio=parse_optional("ratio", network.get("loss")),
    )


def _rtt(rtt: Mapping[str, Any]) -> Rtt:
    return Rtt(
        enabled=rtt["enabled"],
        interval_ms=PARSERS["duration"](rtt["interval"]),
        fanout=rtt["fanout"],
        methods=tuple(method for method in _METHODS if method in rtt["methods"]),
    )
