"""What it means when `tc` or `ip` fails, and how to mend it. Pure.

In: a command and what it said. Out: one sentence, which ends with both. The words are iproute2's and the
kernel's; one that is too old for words of its own says `No such file or directory` whatever it lacks, so that
the command has to tell what it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nimlab.shape.link import Command

_LACKING: Final = "kind is unknown|No such file"


@dataclass(frozen=True, slots=True)
class _Cause:
    """What is meant if the command has this word and its answer fits this pattern."""

    word: str
    answer: str
    meaning: str


def _module(what: str, module: str, instead: str) -> str:
    return f"the node's kernel has no {what}: `modprobe {module}` there, or {instead}"


_NO_DOWNLINK: Final = "leave `downlink` out"
_CAUSES: Final = (
    _Cause("", "not permitted", "this container lacks the capability NET_ADMIN"),
    _Cause("", "Cannot find device|does not exist", "there is no such interface"),
    _Cause(
        "netem",
        "No distribution data",
        "the image lacks the normal distribution (`normal.dist`): install all of iproute2, or drop `jitter`",
    ),
    _Cause("netem", _LACKING, _module("netem", "sch_netem", "leave `latency`, `jitter` and `loss` out")),
    _Cause("tbf", _LACKING, _module("tbf", "sch_tbf", "leave `uplink` and `downlink` out")),
    _Cause("ifb", "Unknown device type|not supported", _module("ifb devices", "ifb", _NO_DOWNLINK)),
    _Cause("filter", "classifier not found", _module("u32 filters", "cls_u32", _NO_DOWNLINK)),
    _Cause("filter", "TC action module", _module("mirred actions", "act_mirred", _NO_DOWNLINK)),
    _Cause(
        "filter", _LACKING, _module("u32 filters or mirred actions", "-a cls_u32 act_mirred", _NO_DOWNLINK)
    ),
    _Cause("ingress", f"{_LACKING}|ingress queue", _module("ingress queue", "sch_ingress", _NO_DOWNLINK)),
)  # the first that fits


def explain(command: Command, said: str) -> str:
    """Return what the failure of a command means, and how to mend it."""
    said = " ".join(said.split())
    fitting = (
        cause.meaning
        for cause in _CAUSES
        if (not cause.word or cause.word in command) and re.search(cause.answer, said)
    )
    meaning = next(fitting, "that is not foreseen")
    return f"{meaning} (`{' '.join(command)}`: {said})"
