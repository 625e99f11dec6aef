"""Rules for values that fit their schema but are out of range, or contradict other values.

In: a document that fits its schema, with the values in effect: its own values, and the defaults of fields
that it does not set. Out: problems, each at a value that the document itself contains. Contradictions between
defaults are reported once, in `lab.yaml`, and not again for each experiment. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.field_units import UNIT_OF
from nimlab.files.load.merge_defaults import BUILT_IN, flat
from nimlab.files.load.parse_units import PARSERS
from nimlab.files.load.source_document import Document, Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Values in effect for a document.

    `written` maps the dotted name of each value to the text or number that a file contains. `own` contains
    the names of the values that are in the document itself, below the path `base`. `defaults` is the file
    that contains the other values.
    """

    document: Document
    base: Path
    written: Mapping[str, Any]
    own: frozenset[str]
    defaults: str

    def __contains__(self, name: object) -> bool:
        return name in self.written

    def number(self, name: str) -> float | None:
        """Return the value in its base unit; None if it is not set."""
        return _number(name, self.written.get(name))

    def problem(self, what: str, names: Iterable[str], hint: str | None) -> Problem | None:
        """Return a problem at the first of these values that is in the document; None if there is none."""
        names = tuple(names)
        own = [name for name in names if name in self.own]
        if not own:
            return None
        others = [f"`{name}`" for name in names if name not in self.own]
        where = f"{' and '.join(others)}: see the defaults in {self.defaults}" if others else None
        path = (*self.base, *own[0].split("."))
        return self.document.problem(
            "bad-value", what, path, hint="; ".join(filter(None, (hint, where))) or None
        )


_MAX_COUNT: Final = "1000000"  # more than any lab has; fits a 32-bit integer
_MESSAGE: Final = "a peer keeps whole messages in memory, several at a time"
_MEMORY: Final = "no container runtime starts a container with less than 6Mi, Docker's documented minimum"
_MACHINE: Final = "no machine has more"
_RANGES: Final[Mapping[str, tuple[str, str, str | None]]] = {  # field: smallest value, largest value, reason
    "connectTo": ("0", _MAX_COUNT, None),
    "maxConnections": ("1", _MAX_COUNT, None),
    "message.size": ("1B", "1GiB", _MESSAGE),
    "message.interval": ("1ms", "24h", None),
    "startDelay": ("0ms", "24h", None),
    **{f"gossipsub.{d}": ("0", _MAX_COUNT, None) for d in ("d", "dLow", "dHigh", "dScore", "dOut", "dLazy")},
    "gossipsub.heartbeat": ("1ms", "1h", None),
    "gossipsub.pruneBackoff": ("1ms", "24h", None),
    "resources.cpu": ("1m", "1024", _MACHINE),
    "resources.memory": ("6Mi", "24Ti", f"{_MEMORY}; {_MACHINE} than 24Ti"),
    "network.downlink": ("1kbit", "40Gbit", None),
    "network.uplink": ("1kbit", "40Gbit", None),
    "network.latency": ("0ms", "1m", None),
    "network.jitter": ("0ms", "1m", None),
    "rtt.interval": ("50ms", "1h", None),
}
_RANGES_OF_LIMITS: Final[Mapping[str, tuple[str, str, str | None]]] = {
    "peersPerExperiment": ("1", _MAX_COUNT, None),
    "cpu": ("1m", "1000000000", None),
    "memory": ("6Mi", "1000000Ti", _MEMORY),
}
_RANGES_OF_SYNC: Final[Mapping[str, tuple[str, str, str | None]]] = {"timeout": ("1s", "24h", None)}
_RANGES_OF_PLATFORM: Final[Mapping[str, tuple[str, str, str | None]]] = {
    "metrics.retention": ("1h", "87600h", None),
    "logs.retention": ("1h", "87600h", None),
    "metrics.storage": ("1Mi", "1000Ti", None),
    "logs.storage": ("1Mi", "1000Ti", None),
}
_IN_SECONDS: Final = frozenset({"timeout", "metrics.retention", "logs.retention"})

_MESH: Final = "GossipSub keeps a mesh between two bounds: dLow <= d <= dHigh"
_SCORE: Final = "GossipSub reduces a mesh that is too large to d peers, and chooses dScore of them by score"
_OUT: Final = "GossipSub requires dOut < dLow and dOut <= d / 2"
_CONNECTIONS: Final = "with fewer connections, a peer cannot reach its configured degree"
_AT_MOST: Final = (  # the first field must be at most the second field; reason
    ("gossipsub.dLow", "gossipsub.d", _MESH),
    ("gossipsub.d", "gossipsub.dHigh", _MESH),
    ("gossipsub.dScore", "gossipsub.d", _SCORE),
    ("connectTo", "maxConnections", _CONNECTIONS),
    ("gossipsub.d", "maxConnections", _CONNECTIONS),
    ("gossipsub.dLow", "maxConnections", _CONNECTIONS),
    ("gossipsub.heartbeat", "gossipsub.pruneBackoff", "peers are pruned and grafted once per heartbeat"),
    ("network.jitter", "network.latency", "a delay cannot vary by more than its own length"),
    ("fragments", "message.size", "a fragment has at least one byte"),
)
_AT_MOST_WITHOUT_D: Final = (
    ("gossipsub.dLow", "gossipsub.dHigh", _MESH),
    ("gossipsub.dScore", "gossipsub.dHigh", _SCORE),
)
_WARNINGS: Final = (  # field, smallest usual value, largest usual value, reason
    (
        "resources.cpu",
        "10m",
        "64",
        "a kubelet grants at least `10m`, and a peer never starts if it needs more cores than its node has",
    ),
    (
        "resources.memory",
        "6Mi",
        "256Gi",
        "few nodes have this much memory, and a peer never starts if it needs more than its node has",
    ),
)


def value_problems(values: Values) -> Iterator[Problem]:
    """Yield contradictions in the values of an experiment or of a lab's defaults: one problem per value."""
    yield from _first_per_value(_all_problems(values))


def lab_problems(document: Document) -> tuple[Problem, ...]:
    """Return the contradictions in a `lab.yaml` that fits its schema, and warnings about unusual values."""
    defaults = _default_values(document)
    problems = list(value_problems(defaults))
    for section, ranges in (
        ("limits", _RANGES_OF_LIMITS),
        ("sync", _RANGES_OF_SYNC),
        ("platform", _RANGES_OF_PLATFORM),
    ):
        stated = flat(document.data["spec"].get(section, {}))
        problems.extend(_range_problems(_own_values(document, ("spec", section), stated), ranges))
    return (*problems, *_default_peers(document), *warnings_of(defaults))


def contract_delay_problems(document: Document) -> Iterator[Problem]:
    """Yield the problem of a contract's `startDelay` that is out of range, or not in whole seconds."""
    stated = {name: value for name, value in document.data["spec"].items() if name == "startDelay"}
    values = _own_values(document, ("spec",), stated)
    yield from _range_problems(values, {"startDelay": _RANGES["startDelay"]}, in_seconds=frozenset(stated))


def warnings_of(values: Values) -> Iterator[Problem]:
    """Yield warnings about values that are possible but unusual, and therefore probably a mistake."""
    for name, least, most, reason in _WARNINGS:
        number, low, high = values.number(name), _number(name, least), _number(name, most)
        if number is None or low is None or high is None or low <= number <= high:
            continue
        what = f"`{name}` is `{values.written[name]}`, and usual values are from `{least}` to `{most}`"
        problem = values.problem(what, (name,), reason)
        if problem is not None:
            yield replace(problem, is_warning=True)


def _default_values(document: Document) -> Values:
    """Return the values in effect for an experiment that sets nothing itself."""
    stated = flat(document.data["spec"].get("defaults", {}))
    return replace(_own_values(document, ("spec", "defaults"), stated), written={**flat(BUILT_IN), **stated})


def _own_values(document: Document, base: Path, stated: Mapping[str, Any]) -> Values:
    return Values(document=document, base=base, written=stated, own=frozenset(stated), defaults=document.path)


def _first_per_value(problems: Iterable[Problem | None]) -> Iterator[Problem]:
    """Yield the first problem of each value; further problems of a value usually have the same cause."""
    seen: set[str] = set()
    for problem in problems:
        if problem is not None and problem.pointer not in seen:
            seen.add(problem.pointer)
            yield problem


def _all_problems(values: Values) -> Iterator[Problem | None]:
    yield from _range_problems(values, _RANGES)
    in_range = {name: value for name, value in values.written.items() if _is_in_range(name, value)}
    yield from _relation_problems(replace(values, written=in_range))
    yield from _network_problems(values)


def _is_in_range(name: str, written: object) -> bool:
    if name not in _RANGES:
        return True
    least, most, _ = _RANGES[name]
    number, low, high = _number(name, written), _number(name, least), _number(name, most)
    return number is None or low is None or high is None or low <= number <= high


def _relation_problems(values: Values) -> Iterator[Problem | None]:
    pairs = _AT_MOST if "gossipsub.d" in values else (*_AT_MOST_WITHOUT_D, *_AT_MOST)
    for lesser, greater, reason in pairs:
        yield _at_most(values, lesser, greater, reason)
    yield _outbound_problem(values)
    yield _memory_problem(values)


def _range_problems(
    values: Values,
    ranges: Mapping[str, tuple[str, str, str | None]],
    in_seconds: frozenset[str] = _IN_SECONDS,
) -> Iterator[Problem]:
    for name, (least, most, reason) in ranges.items():
        number, low, high = values.number(name), _number(name, least), _number(name, most)
        if number is None or low is None or high is None:
            continue
        problem = None
        if not low <= number <= high:
            what = f"`{name}` is `{values.written[name]}`, and must be from `{least}` to `{most}`"
            problem = values.problem(what, (name,), reason)
        elif name in in_seconds and number % 1000:
            what = f"`{name}` is `{values.written[name]}`, and must be a whole number of seconds"
            problem = values.problem(what, (name,), None)
        if problem is not None:
            yield problem


def _at_most(values: Values, lesser: str, greater: str, reason: str) -> Problem | None:
    low, high = values.number(lesser), values.number(greater)
    if low is None or high is None or low <= high:
        return None
    written = values.written
    what = f"`{lesser}` is `{written[lesser]}`, and must be at most `{greater}`, `{written[greater]}`"
    return values.problem(what, (lesser, greater), reason)


def _outbound_problem(values: Values) -> Problem | None:
    """Return the problem of a `dOut` that is too large. Zero is always allowed; bootstrap nodes use it."""
    out = values.number("gossipsub.dOut")
    if not out:
        return None
    low, degree = values.number("gossipsub.dLow"), values.number("gossipsub.d")
    if low is not None and out >= low:
        what = f"`gossipsub.dOut` is `{out}`, and must be less than `gossipsub.dLow`, `{low}`"
        return values.problem(what, ("gossipsub.dOut", "gossipsub.dLow"), _OUT)
    if degree is not None and 2 * out > degree:
        what = f"`gossipsub.dOut` is `{out}`, and must be at most half of `gossipsub.d`, `{degree}`"
        return values.problem(what, ("gossipsub.dOut", "gossipsub.d"), _OUT)
    return None


def _memory_problem(values: Values) -> Problem | None:
    size, memory = values.number("message.size"), values.number("resources.memory")
    if size is None or memory is None or size < memory:
        return None
    written = values.written
    amount = written["resources.memory"]
    what = (
        f"`message.size` is `{written['message.size']}`, and must be less than `resources.memory`, `{amount}`"
    )
    return values.problem(what, ("message.size", "resources.memory"), _MESSAGE)


def _network_problems(values: Values) -> Iterator[Problem | None]:
    method = values.written.get("network.method")
    if method == "tc" and "network.jitter" in values and "network.latency" not in values:
        what = "`jitter` is the variation of `latency`, which is not set"
        yield values.problem(what, ("network.jitter",), "write `latency`, or remove `jitter`")
    if method in ("cni", "none"):
        for name in ("network.latency", "network.jitter", "network.loss"):
            if values.number(name):
                what = f"the method `{method}` cannot set `{name}`"
                yield values.problem(what, (name, "network.method"), "remove it, or write `method: tc`")
    # The lab's defaults may contain rates together with `none`, because other experiments can use the rates.
    if method == "none" and values.base == ("spec",):
        for name in ("network.downlink", "network.uplink"):
            if {name, "network.method"} <= values.own:
                what = f"the method `none` sets no limits, so `{name}` would be ignored"
                yield values.problem(what, (name,), "remove one of them")


def _default_peers(document: Document) -> Iterator[Problem]:
    spec = document.data["spec"]
    peers, limits = spec.get("defaults", {}).get("peers"), spec.get("limits", {})
    for name in ("peersPerExperiment", "peers"):
        limit = limits.get(name)
        if peers is not None and limit is not None and peers > limit:
            what = f"`defaults.peers` is `{peers}`, and must be at most `limits.{name}`, `{limit}`"
            yield document.problem("bad-value", what, ("spec", "defaults", "peers"), hint="lower the default")
            return


def _number(name: str, written: object) -> float | None:
    """Return the value in its base unit; None for a value that is not a number.

    The bounds in this module are texts: `1ms`, or `64` for a count, which has no unit.
    """
    if isinstance(written, str):
        return _parsed(UNIT_OF.get(name), written)
    return written if isinstance(written, int | float) else None


@lru_cache(maxsize=4096)  # experiments mostly use the same values, and always the same bounds
def _parsed(unit: str | None, text: str) -> float:
    value: float = int(text) if unit is None else PARSERS[unit](text)
    return value
