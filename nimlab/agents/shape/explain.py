"""Explain why `tc` or `ip` failed, and how to fix it. Pure.

The patterns match messages of iproute2 and the kernel. Old versions print only `No such file or directory`.
In this case, the command shows which part is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nimlab.agents.shape.link import Command

_LACKING: Final = "kind is unknown|No such file"


@dataclass(frozen=True, slots=True)
class _Cause:
    """The `meaning` of a failure whose command contains `word` and whose output matches `answer`."""

    word: str
    answer: str
    meaning: str


def _module(what: str, module: str, instead: str) -> str:
    return f"the node's kernel has no {what}: run `modprobe {module}` on the node, or {instead}"


_NO_DOWNLINK: Final = "remove `downlink`"
_CAUSES: Final = (
    _Cause("", "not permitted", "this container lacks the capability NET_ADMIN"),
    _Cause("", "Cannot find device|does not exist", "the interface does not exist"),
    _Cause(
        "netem",
        "No distribution data",
        "the image lacks the normal distribution (`normal.dist`): install all of iproute2 or remove `jitter`",
    ),
    _Cause("netem", _LACKING, _module("netem", "sch_netem", "remove `latency`, `jitter` and `loss`")),
    _Cause("tbf", _LACKING, _module("tbf", "sch_tbf", "remove `uplink` and `downlink`")),
    _Cause("ifb", "Unknown device type|not supported", _module("ifb devices", "ifb", _NO_DOWNLINK)),
    _Cause("filter", "classifier not found", _module("u32 filters", "cls_u32", _NO_DOWNLINK)),
    _Cause("filter", "TC action module", _module("mirred actions", "act_mirred", _NO_DOWNLINK)),
    _Cause(
        "filter", _LACKING, _module("u32 filters or mirred actions", "-a cls_u32 act_mirred", _NO_DOWNLINK)
    ),
    _Cause("ingress", f"{_LACKING}|ingress queue", _module("ingress queue", "sch_ingress", _NO_DOWNLINK)),
)  # the first match applies


def explain(command: Command, output: str) -> str:
    """Return why a command failed, and how to fix the cause."""
    output = " ".join(output.split())
    meanings = (
        cause.meaning
        for cause in _CAUSES
        if (not cause.word or cause.word in command) and re.search(cause.answer, output)
    )
    meaning = next(meanings, "unexpected error")
    return f"{meaning} (`{' '.join(command)}`: {output})"
