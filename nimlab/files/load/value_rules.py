"""Values that make no sense, alone or beside each other, although each fits its schema.

In: a checked document with the values that hold for it, its own and the defaults below. Out: problems, each
at a value that the document itself states. What concerns only defaults is a problem of `lab.yaml`, reported
once there and not again for each experiment. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from nimlab.errors import Problem
from nimlab.files.load.unit_parsers import PARSERS
from nimlab.files.load.yaml_strict import Document, Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """The values that hold for a document, by dotted name and as they are written; `own` are its own.

    `base` is the place of the values in the document, `defaults` the file that states the other values.
    """

    document: Document
    base: Path
    written: Mapping[str, Any]
    own: frozenset[str]
    defaults: str

    def __contains__(self, name: object) -> bool:
        return name in self.written

    def number(self, name: str) -> float | None:
        """Return the value in its base unit; None if there is none."""
        return _number(name, self.written.get(name))

    def problem(self, what: str, names: Iterable[str], hint: str | None) -> Problem | None:
        """Return a problem at the first of these values that the document states; None if it states none."""
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


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in nested maps by their dotted names: `message.size`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{name}": inner for name, inner in flat(value).items()})
        else:
            found[key] = value
    return found


_UNIT_OF: Final[Mapping[str, str]] = {
    "message.size": "size",
    "message.interval": "duration",
    "startDelay": "duration",
    "gossipsub.heartbeat": "duration",
    "gossipsub.pruneBackoff": "duration",
    "resources.cpu": "cpu",
    "resources.memory": "memory",
    "network.downlink": "rate",
    "network.uplink": "rate",
    "network.latency": "duration",
    "network.jitter": "duration",
    "network.loss": "ratio",
    "rtt.interval": "duration",
    "cpu": "cpu",
    "memory": "memory",
    "timeout": "duration",
    "metrics.retention": "duration",
    "logs.retention": "duration",
    "metrics.storage": "memory",
    "logs.storage": "memory",
}

_ROUGHLY_ALL: Final = "1000000"  # of anything that is counted: far beyond every lab, and safe in 32 bits
_MESSAGE: Final = "a peer keeps whole messages in memory, several at a time"
_MEMORY: Final = "no container runtime starts a container with less than 6Mi, Docker's documented minimum"
_MACHINE: Final = "no machine has more"
_RANGES: Final[Mapping[str, tuple[str, str, str | None]]] = {  # name: least, most, why
    "connectTo": ("0", _ROUGHLY_ALL, None),
    "maxConnections": ("1", _ROUGHLY_ALL, None),
    "message.size": ("1B", "1GiB", _MESSAGE),
    "message.interval": ("1ms", "24h", None),
    "startDelay": ("0ms", "24h", None),
    **{
        f"gossipsub.{d}": ("0", _ROUGHLY_ALL, None) for d in ("d", "dLow", "dHigh", "dScore", "dOut", "dLazy")
    },
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
    "peersPerExperiment": ("1", _ROUGHLY_ALL, None),
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
_SCORE: Final = "of the d peers that stay in a mesh that is too large, dScore are chosen by their score"
_OUT: Final = "GossipSub requires dOut < dLow and dOut <= d / 2"
_CONNECTIONS: Final = "a peer that may not open these connections never joins as it should"
_AT_MOST: Final = (  # the first is at most the second; why
    ("gossipsub.dLow", "gossipsub.d", _MESH),
    ("gossipsub.d", "gossipsub.dHigh", _MESH),
    ("gossipsub.dScore", "gossipsub.d", _SCORE),
    ("connectTo", "maxConnections", _CONNECTIONS),
    ("gossipsub.d", "maxConnections", _CONNECTIONS),
    ("gossipsub.dLow", "maxConnections", _CONNECTIONS),
    ("gossipsub.heartbeat", "gossipsub.pruneBackoff", "peers are pruned and grafted once per heartbeat"),
    ("network.jitter", "network.latency", "a delay can't vary by more than itself"),
    ("fragments", "message.size", "a fragment has at least one byte"),
)
_AT_MOST_WITHOUT_D: Final = (
    ("gossipsub.dLow", "gossipsub.dHigh", _MESH),
    ("gossipsub.dScore", "gossipsub.dHigh", _SCORE),
)
_WARNINGS: Final = (  # name, least, most: what is unusual, though possible; why
    (
        "resources.cpu",
        "10m",
        "64",
        "a kubelet grants at least `10m`, and a peer with more cores than its node never starts",
    ),
    (
        "resources.memory",
        "6Mi",
        "256Gi",
        "few nodes have as much, and a peer with more than its node never starts",
    ),
)


def experiment_problems(values: Values) -> Iterator[Problem]:
    """Yield what makes no sense in an experiment, or in the defaults of a lab: one problem per value."""
    yield from _one_per_place(_all_problems(values))


def lab_problems(document: Document, built_in: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what makes no sense in `lab.yaml`; `built_in` are the values below its defaults."""
    spec = document.data["spec"]
    yield from experiment_problems(default_values(document, built_in))
    for group, ranges in (
        ("limits", _RANGES_OF_LIMITS),
        ("sync", _RANGES_OF_SYNC),
        ("platform", _RANGES_OF_PLATFORM),
    ):
        stated = flat(spec.get(group, {}))
        yield from _range_problems(_own_values(document, ("spec", group), stated), ranges)
    yield from _default_peers(document)


def contract_delay_problems(document: Document) -> Iterator[Problem]:
    """Yield what makes no sense in the delay that a contract states for its node."""
    stated = {name: value for name, value in document.data["spec"].items() if name == "startDelay"}
    values = _own_values(document, ("spec",), stated)
    yield from _range_problems(values, {"startDelay": _RANGES["startDelay"]}, in_seconds=frozenset(stated))


def warnings_of(values: Values) -> Iterator[Problem]:
    """Yield what is possible but unusual: probably a mistake, and no reason to refuse the file."""
    for name, least, most, why in _WARNINGS:
        number, low, high = values.number(name), _number(name, least), _number(name, most)
        if number is None or low is None or high is None or low <= number <= high:
            continue
        what = f"`{name}` is `{values.written[name]}`, and usual values are from `{least}` to `{most}`"
        found = values.problem(what, (name,), why)
        if found is not None:
            yield replace(found, is_warning=True)


def default_values(document: Document, built_in: Mapping[str, Any]) -> Values:
    """Return the values that hold for an experiment that states none itself."""
    stated = flat(document.data["spec"].get("defaults", {}))
    return replace(_own_values(document, ("spec", "defaults"), stated), written={**flat(built_in), **stated})


def _own_values(document: Document, base: Path, stated: Mapping[str, Any]) -> Values:
    return Values(document=document, base=base, written=stated, own=frozenset(stated), defaults=document.path)


def _one_per_place(problems: Iterable[Problem | None]) -> Iterator[Problem]:
    """Leave out a second problem of the same value: it usually has the same cause."""
    seen: set[str] = set()
    for problem in problems:
        if problem is not None and problem.pointer not in seen:
            seen.add(problem.pointer)
            yield problem


def _all_problems(values: Values) -> Iterator[Problem | None]:
    yield from _range_problems(values, _RANGES)
    sane = {name: value for name, value in values.written.items() if _is_in_range(name, value)}
    yield from _relation_problems(replace(values, written=sane))
    yield from _network_problems(values)


def _is_in_range(name: str, written: object) -> bool:
    if name not in _RANGES:
        return True
    least, most, _ = _RANGES[name]
    number, low, high = _number(name, written), _number(name, least), _number(name, most)
    return number is None or low is None or high is None or low <= number <= high


def _relation_problems(values: Values) -> Iterator[Problem | None]:
    pairs = _AT_MOST if "gossipsub.d" in values else (*_AT_MOST_WITHOUT_D, *_AT_MOST)
    for lesser, greater, why in pairs:
        yield _at_most(values, lesser, greater, why)
    yield _outbound(values)
    yield _size_in_memory(values)


def _range_problems(
    values: Values,
    ranges: Mapping[str, tuple[str, str, str | None]],
    in_seconds: frozenset[str] = _IN_SECONDS,
) -> Iterator[Problem]:
    for name, (least, most, why) in ranges.items():
        number, low, high = values.number(name), _number(name, least), _number(name, most)
        if number is None or low is None or high is None:
            continue
        found = None
        if not low <= number <= high:
            what = f"`{name}` is `{values.written[name]}`, and must be from `{least}` to `{most}`"
            found = values.problem(what, (name,), why)
        elif name in in_seconds and number % 1000:
            what = f"`{name}` is `{values.written[name]}`, and must be a whole number of seconds"
            found = values.problem(what, (name,), None)
        if found is not None:
            yield found


def _at_most(values: Values, lesser: str, greater: str, why: str) -> Problem | None:
    low, high = values.number(lesser), values.number(greater)
    if low is None or high is None or low <= high:
        return None
    written = values.written
    what = f"`{lesser}` is `{written[lesser]}`, and must be at most `{greater}`, `{written[greater]}`"
    return values.problem(what, (lesser, greater), why)


def _outbound(values: Values) -> Problem | None:
    """A mesh without peers (a bootstrap node) has no outbound ones either: zero always fits."""
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


def _size_in_memory(values: Values) -> Problem | None:
    size, memory = values.number("message.size"), values.number("resources.memory")
    if size is None or memory is None or size < memory:
        return None
    written = values.written
    what = f"`message.size` is `{written['message.size']}`, and a peer has `{written['resources.memory']}`"
    return values.problem(what, ("message.size", "resources.memory"), _MESSAGE)


def _network_problems(values: Values) -> Iterator[Problem | None]:
    method = values.written.get("network.method")
    if method == "tc" and "network.jitter" in values and "network.latency" not in values:
        what = "`jitter` varies a delay, and there is no `latency`"
        yield values.problem(what, ("network.jitter",), None)
    if method in ("cni", "none"):
        for name in ("network.latency", "network.jitter", "network.loss"):
            if values.number(name):
                what = f"method `{method}` can't set `{name}`"
                yield values.problem(what, (name, "network.method"), "leave it out, or write `method: tc`")
    if method == "none" and values.base == ("spec",):  # as defaults, rates are for experiments that limit
        for name in ("network.downlink", "network.uplink"):
            if {name, "network.method"} <= values.own:
                what = f"method `none` sets no limits, and `{name}` would be ignored"
                yield values.problem(what, (name,), "leave one of them out")


def _default_peers(document: Document) -> Iterator[Problem]:
    spec = document.data["spec"]
    peers, limits = spec.get("defaults", {}).get("peers"), spec.get("limits", {})
    for name in ("peersPerExperiment", "peers"):
        limit = limits.get(name)
        if peers is not None and limit is not None and peers > limit:
            what = f"`defaults.peers` is `{peers}`, and `limits.{name}` is `{limit}`"
            yield document.problem("bad-value", what, ("spec", "defaults", "peers"), hint="lower the default")
            return


def _number(name: str, written: object) -> float | None:
    """Return the value in its base unit, None for no value; a bound of a count is written as text, too."""
    if isinstance(written, str):
        return _parsed(_UNIT_OF.get(name), written)
    return written if isinstance(written, int | float) else None


@lru_cache(maxsize=4096)  # a thousand experiments state much the same, and the bounds are the same
def _parsed(unit: str | None, text: str) -> float:
    value: float = int(text) if unit is None else PARSERS[unit](text)
    return value
