"""A file in `contracts/` -> `Contract`.

In: a document that fits its schema. Out: a `Contract`, or its problems. Pure.
"""

from __future__ import annotations

from nimlab.errors import Problem
from nimlab.files.load.contract_rules import contract_problems
from nimlab.files.load.parse_units import PARSERS, image_of
from nimlab.files.load.source_document import Document
from nimlab.files.spec import ConnectLimit, Contract, EnvVar, Extra, Isolation, Port


def build_contract(document: Document) -> Contract | tuple[Problem, ...]:
    """Return the contract of a file that fits its schema, or the contradictions in it. Pure."""
    spec, metadata = document.data["spec"], document.data["metadata"]
    problems = tuple(contract_problems(document))
    if problems:
        return problems
    return Contract(
        name=metadata["name"],
        description=metadata.get("description", ""),
        image=image_of(spec["image"]),
        container=spec["container"],
        isolation=Isolation(spec["isolation"]),
        host_name=spec["hostName"],
        workload=spec.get("workload"),
        service=spec.get("service"),
        connect_limit=ConnectLimit(spec["connectTo"]),
        env=tuple(
            EnvVar(
                name=variable["name"],
                source=variable.get("from"),
                unit=variable.get("as", "word"),
                value=variable.get("value"),
                description=variable["description"],
            )
            for variable in spec["env"]
        ),
        ports=tuple(
            Port(name=port["name"], port=port["port"], protocols=tuple(port["protocols"]))
            for port in spec["ports"]
        ),
        fields=frozenset(variable["from"] for variable in spec["env"] if "from" in variable),
        required=frozenset(
            variable["from"] for variable in spec["env"] if variable.get("required") and "from" in variable
        ),
        start_delay_s=PARSERS["duration"](spec.get("startDelay", "0s")) // 1000,
        logs=spec.get("logs", {}),
        metrics=tuple(spec.get("metrics", ())),
        source=document.path,
        extra_env=tuple(Extra(**extra) for extra in spec.get("extraEnv", ())),
        extra_args=tuple(Extra(**extra) for extra in spec.get("extraArgs", ())),
    )
