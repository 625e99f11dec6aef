"""Rules for an experiment, its contract and its lab: names, limits, and settings for the image.

In: a document that fits its schema, its spec with defaults, its settings, its contract, and the lab. Out:
problems and warnings. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.field_units import CONTRACT_FIELDS
from nimlab.files.load.merge_defaults import NIMLAB_FIELDS, contract_fields_in, flat, with_defaults
from nimlab.files.load.pod_rules import WORKLOAD_NAME_LIMIT
from nimlab.files.load.source_document import Document
from nimlab.files.load.value_relations import Values, value_problems, warnings_of
from nimlab.files.spec import HTTP_PORTS, ConnectLimit, Contract, Isolation, Lab, Setting

_PLATFORM: Final = "platform"  # `nimlab sync platform` applies the monitoring stack


def experiment_problems(
    document: Document,
    complete: Mapping[str, Any],
    settings: Mapping[str, Setting],
    contracts: Mapping[str, Contract],
    lab: Lab,
) -> Iterator[Problem]:
    """Yield the problems of an experiment whose contract exists; `complete` is its spec with defaults."""
    contract = contracts[complete["contract"]]
    yield from _name_problems(document, contract, lab)
    yield from unsupported_settings(document, contracts)
    yield from _missing_settings(document, complete, settings, contract)
    yield from _connect_problems(document, settings, contract)
    yield from _peer_limit_problems(document, complete["peers"], lab)
    values = _values(document, complete, contract, lab)
    yield from value_problems(values)
    for role_values in _values_of_roles(document, values):
        yield from value_problems(role_values)
    yield from _muxer_problems(document, settings, contract)


def experiment_warnings(document: Document, lab: Lab, contracts: Mapping[str, Contract]) -> Iterator[Problem]:
    """Yield warnings about unusual values of an experiment that has no problems."""
    spec = document.data["spec"]
    values = _values(document, with_defaults(spec, lab), contracts[spec["contract"]], lab)
    yield from warnings_of(values)
    for role_values in _values_of_roles(document, values):
        yield from warnings_of(role_values)


def unsupported_settings(document: Document, contracts: Mapping[str, Contract]) -> Iterator[Problem]:
    """Yield a problem for every setting that the image does not read, because it would have no effect.

    This function also accepts a document that violates its schema, so that all problems are reported in one
    pass.
    """
    spec = document.data.get("spec") if isinstance(document.data, dict) else None
    contract = contracts.get(str(spec.get("contract"))) if isinstance(spec, dict) else None
    if contract is None or not isinstance(spec, dict):
        return
    for field in contract_fields_in(spec):
        if field in contract.fields or field not in CONTRACT_FIELDS:
            continue
        supporting = sorted(other.name for other in contracts.values() if field in other.fields)
        hint = (
            f"contracts that support it: {', '.join(supporting)}"
            if supporting
            else f"it supports: {', '.join(sorted(contract.fields))}"
        )
        what = f"contract `{contract.name}` does not support `{field}`: its image does not read this setting"
        path = ("spec", *field.split("."))
        yield document.problem("contract", what, path, hint=hint, at_key=True)


def _name_problems(document: Document, contract: Contract, lab: Lab) -> Iterator[Problem]:
    path, full_name = ("metadata", "name"), lab.prefix + document.name
    if document.name == _PLATFORM:
        what = f"the name `{_PLATFORM}` is reserved for the monitoring stack"
        yield document.problem("bad-name", what, path, hint="choose another name")
    if len(full_name) > WORKLOAD_NAME_LIMIT:
        what = f"the full name `{full_name}` has more than {WORKLOAD_NAME_LIMIT} characters"
        yield document.problem("bad-name", what, path, hint="choose a shorter name")
    if contract.isolation is Isolation.NAMESPACE and full_name == lab.namespace:
        what = f"the experiment's own namespace would be `{lab.namespace}`, the namespace of the lab"
        yield document.problem("bad-name", what, path, hint="choose another name")


def _missing_settings(
    document: Document,
    complete: Mapping[str, Any],
    settings: Mapping[str, Setting],
    contract: Contract,
) -> Iterator[Problem]:
    hint = "set it in the experiment, or set a default in lab.yaml"
    for field in sorted(contract.required - set(settings) - {"role"}):
        what = f"contract `{contract.name}` requires `{field}`: its image fails without it"
        yield document.problem("missing-key", what, ("spec",), hint=hint)
    if "role" in contract.required and not complete.get("roles"):
        what = f"contract `{contract.name}` requires `roles`: its image fails without the name of a role"
        yield document.problem("missing-key", what, ("spec",), hint=hint)


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
    what = f"`connectTo` is {connect}, and contract `{contract.name}` requires {bound}"
    hint = "lower `connectTo`, or raise `peers`"
    yield document.problem("contract", what, ("spec", "connectTo"), hint=hint)


def _peer_limit_problems(document: Document, peers: int, lab: Lab) -> Iterator[Problem]:
    limit = lab.limits.peers_per_experiment
    if peers > limit:
        what = f"the experiment has {peers} peers; the lab allows {limit} per experiment"
        hint = f"the limit is `limits.peersPerExperiment` in {lab.source}"
        path = ("spec", "roles" if "roles" in document.data["spec"] else "peers")
        yield document.problem("limit", what, path, hint=hint)


def _muxer_problems(
    document: Document, settings: Mapping[str, Setting], contract: Contract
) -> Iterator[Problem]:
    muxer = settings.get("muxer")
    if muxer is None or "muxer" not in contract.fields:
        return
    protocol = "UDP" if muxer == "quic" else "TCP"
    peer_ports = [port for port in contract.ports if port.name not in HTTP_PORTS]
    if not any(protocol in port.protocols for port in peer_ports):
        what = f"`muxer: {muxer}` needs a {protocol} port for peers; contract `{contract.name}` has none"
        hint = f"see the ports in {contract.source}"
        yield document.problem("contract", what, ("spec", "muxer"), hint=hint)


def _values(document: Document, complete: Mapping[str, Any], contract: Contract, lab: Lab) -> Values:
    """Return the values in effect for an experiment, without settings that the contract does not support."""
    written = {
        name: value
        for name, value in flat(complete).items()
        if name in contract.fields or name.partition(".")[0] in NIMLAB_FIELDS
    }
    own = frozenset(flat(document.data["spec"])) & frozenset(written)
    return Values(document=document, base=("spec",), written=written, own=own, defaults=lab.source)


def _values_of_roles(document: Document, values: Values) -> Iterator[Values]:
    """Yield the values in effect for each role, whose resources override the experiment's."""
    for index, role in enumerate(document.data["spec"].get("roles", ())):
        own = flat({"resources": role.get("resources", {})})
        yield replace(
            values, base=("spec", "roles", index), written={**values.written, **own}, own=frozenset(own)
        )
