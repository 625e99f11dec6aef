"""Units of the fields in files, and the units in which contracts can pass the values on to an image.

All rules and builders use these tables. Fields are named by their dotted path below `spec`, or below a
section of `lab.yaml` (`limits`, `sync`, `platform`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

UNIT_OF: Final[Mapping[str, str]] = {
    "message.size": "size",
    "message.interval": "duration",
    "startDelay": "duration",
    "gossipsub.heartbeat": "duration",
    "gossipsub.pruneBackoff": "duration",
    "gossipsub.gossipFactor": "ratio",
    "resources.cpu": "cpu",
    "resources.memory": "memory",
    "network.downlink": "rate",
    "network.uplink": "rate",
    "network.latency": "duration",
    "network.jitter": "duration",
    "network.loss": "ratio",
    "rtt.interval": "duration",
    # fields of `limits` in lab.yaml
    "cpu": "cpu",
    "memory": "memory",
    # fields of `sync` in lab.yaml
    "timeout": "duration",
    # fields of `platform` in lab.yaml
    "metrics.retention": "duration",
    "logs.retention": "duration",
    "metrics.storage": "memory",
    "logs.storage": "memory",
}
"""Map from a field to its unit in files, which is a key of `PARSERS`. The other fields have no unit."""

IMAGE_UNITS: Final[Mapping[str, frozenset[str]]] = {
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
"""Map from a field to the units in which an image can read it. `as` in a contract is one of these units."""

CONTRACT_FIELDS: Final = frozenset({*IMAGE_UNITS, "role"})
"""Fields of an experiment that a contract can pass on to an image; `role` is the name of a peer's role."""
