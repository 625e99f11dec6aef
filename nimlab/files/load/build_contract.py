"""A file in `contracts/` -> `Contract`.

In: a document that fits its schema. Out: a `Contract`, or its problems. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import Problem
from nimlab.files.load.contract_rules import contract_problems
from nimlab.files.load.unit_parsers import PARSERS, image_of
from nimlab.files.load.yaml_strict import Document
from nimlab.files.spec import (
    ConnectLimit,
    Contract,
    EnvVar,
    Extra,
    Isolation,
    Port,
)


def build_contract(document: Document) -> Contract | tuple[Problem, ...]:
    """Return the contract of a file that fits its schema, or what contradicts itself in it. Pure."""
    spec, metadata = document.data["spec"], document.data["metadata"]
    problems = (*_contract_problems(document), *contract_problems(document))
    if problems:
        return problems
    return Contract(
        name=metadata["name"],
        description=metadata.get("description", ""),
        image=image_of(spec["image"]),
        container=spec["container"],
        isolation=Isolation(spec["isolation"]),
        host_name=spec["hostName"],
        connect_limit=ConnectLimit(spec["connectTo"]),
        env=tuple(
            EnvVar(
                name=one["name"],
                source=one.get("from"),
                unit=one.get("as", "word"),
                value=one.get("value"),
                description=one["description"],
            )
            for one in spec["env"]
        ),
        ports=tuple(
            Port(name=one["name"], port=one["port"], protocols=tuple(one["protocols"]))
            for one in spec["ports"]
        ),
        fields=frozenset(one["from"] for one in spec["env"] if "from" in one),
        required=frozenset(one["from"] for one in spec["env"] if one.get("required") and "from" in one),
        start_delay_s=PARSERS["duration"](spec.get("startDelay", "0s")) // 1000,
        logs=spec.get("logs", {}),
        metrics=tuple(spec.get("metrics", ())),
        source=document.path,
        extra_env=tuple(Extra(**one) for one in spec.get("extraEnv", ())),
        extra_args=tuple(Extra(**one) for one in spec.get("extraArgs", ())),
    )


def _contract_problems(document: Document) -> Iterator[Problem]:
    spec = document.data["spec"]
    if spec["hostName"] == "pod-<ordinal>" and spec["isolation"] != "namespace":
        what = "a node that parses `pod-<ordinal>` needs a namespace of its own"
        hint = "write `isolation: namespace`"
        yield document.problem("contract", what, ("spec", "isolation"), hint=hint)
    seen: set[str] = set()
    for index, one in enumerate(spec["env"]):
        path = ("spec", "env", index)
        if one["name"] in seen:
            yield document.problem("contract", f"the variable `{one['name']}` stands twice", (*path, "name"))
        seen.add(one["name"])
        if ("from" in one) == ("value" in one):
            what = f"the variable `{one['name']}` needs either `from` or `value`"
            yield document.problem("contract", what, path)
        if "from" in one and one["from"] not in KNOWN_FIELDS:
            hint = did_you_mean(one["from"], KNOWN_FIELDS, f"fields: {', '.join(sorted(KNOWN_FIELDS))}")
            what = f"experiments have no field `{one['from']}`"
            yield document.problem("contract", what, (*path, "from"), hint=hint)
    for index, one in enumerate(spec.get("extraEnv", ())):
        if one["pattern"] in seen:
            what = f"experiments can't set `{one['pattern']}`: `env` derives it"
            yield document.problem("contract", what, ("spec", "extraEnv", index, "pattern"), hint="remove it")


KNOWN_FIELDS: Final = frozenset({
    "peers", "connectTo", "message.size", "message.interval", "muxer", "fragments", "maxConnections",
    "selfTrigger", "startDelay", "gossipsub.d", "gossipsub.dLow", "gossipsub.dHigh", "gossipsub.dScore",
    "gossipsub.dOut", "gossipsub.dLazy", "gossipsub.heartbeat", "gossipsub.pruneBackoff",
    "gossipsub.floodPublish", "gossipsub.gossipFactor", "role",
})  # fmt: skip
