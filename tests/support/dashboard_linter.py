"""Linter for dashboards: their errors, and their queries.

In: the data of dashboards. Out: error texts, or queries with their variables filled in. This module parses
PromQL. LogQL is parsed by `tests/templates/test_dashboard_logql.py` with a package from npm. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import promql_parser

Dashboard = Mapping[str, Any]

SOURCES: Final = {"prometheus": "lab-prometheus", "loki": "lab-loki"}
_COLUMNS: Final = 24
_UID_LIMIT: Final = 40  # the limit of Grafana
_GIVEN: Final = {"__rate_interval": "1m", "__auto": "1m", "__range": "30m"}
_VARIABLE: Final = re.compile(r"\$(\w+)")
_LOG_SELECTOR: Final = re.compile(r"\{([^{}]*)\}")
_COUNTER: Final = re.compile("(_total|_bucket|Segs)$")  # the last one is a name of the kernel
_RATES: Final = frozenset({"rate", "irate", "increase"})
_CHOSEN: Final = {"experiment": promql_parser.MatchOp.Equal, "node": promql_parser.MatchOp.Re}
_CHANGES: Final = frozenset({"changes", "resets", "delta", "idelta", "deriv"})
_VALUES: Final = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
_LABELS: Final = frozenset(
    {"experiment", "namespace", "node", "pod"}
)  # labels that relabelling adds to series
_ZERO: Final = re.compile(
    r"\s+or (?:vector\(0\)|sum by \(\w+\) \(count_over_time\(\{[^{}]*\}\s*\[[^\[\]]+\]\)\) \* 0)$"
)
_ALL_PROBES: Final = re.compile(r"nimlab_rtt_probes_total(?!\{[^{}]*\bresult\b)")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BY: Final = re.compile(r"\bby \(([^()]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression of a panel, with its variables filled in."""

    dashboard: str
    panel: str
    source: str
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The values that a variable offers: those of a label in these series."""

    dashboard: str
    variable: str
    selector: str
    label: str


def choices(dashboards: Sequence[Dashboard], **variables: str) -> Iterator[Choice]:
    """Yield the choices of every variable of every dashboard. Raises KeyError for an unknown variable."""
    for board in dashboards:
        for variable in board["templating"]["list"]:
            found = _VALUES.fullmatch(variable["query"]["query"])
            assert found is not None, f"{board['uid']}: `{variable['name']}` asks for no label's values"
            yield Choice(
                dashboard=board["uid"],
                variable=variable["name"],
                selector=filled(found["selector"], variables),
                label=found["label"],
            )


def queries(dashboards: Sequence[Dashboard], **variables: str) -> Iterator[Query]:
    """Yield every query of every panel with these variables. Raises KeyError for an unknown variable."""
    for board in dashboards:
        for panel in panels_of(board):
            for target in panel["targets"]:
                yield Query(
                    dashboard=board["uid"],
                    panel=panel["title"],
                    source=panel["datasource"]["type"],
                    expression=filled(target["expr"], variables),
                )


def filled(expression: str, variables: Mapping[str, str]) -> str:
    """Return an expression with its variables replaced, as in Grafana."""
    return _VARIABLE.sub(lambda found: {**_GIVEN, **variables}[found[1]], expression)


def without_zeros(expression: str) -> str:
    """Return an expression without its fallback to zeros, because with the fallback it is never empty."""
    return _ZERO.sub("", expression)


def has_values(answer: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a response of Prometheus or Loki contains data other than NaN."""
    return any(one["value"][1] != "NaN" if "value" in one else bool(one["values"]) for one in answer)


def panels_of(board: Dashboard) -> list[Mapping[str, Any]]:
    """Return the panels of a dashboard without its row headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def lint(dashboards: Sequence[Dashboard], metrics: Collection[str]) -> list[str]:
    """Return the errors of dashboards; `metrics` are the names of the existing metrics.

    The rules are those of github.com/grafana/dashboard-linter, and one of the lab: a dashboard of one
    experiment must not query the data of another one.
    """
    found = [f"uid `{uid}` stands twice" for uid, n in Counter(b["uid"] for b in dashboards).items() if n > 1]
    found += [
        f"title `{t}` stands twice" for t, n in Counter(b["title"] for b in dashboards).items() if n > 1
    ]
    for board in dashboards:
        complaints = [*_board(board), *_variables(board, metrics), *_places(board)]
        for panel in panels_of(board):
            complaints += [f"panel `{panel['title']}`: {what}" for what in _panel(panel, board, metrics)]
        found += [f"{board['uid']}: {what}" for what in complaints]
    return found


def _board(board: Dashboard) -> Iterator[str]:
    if not board["title"] or not board["description"] or not 0 < len(board["uid"]) <= _UID_LIMIT:
        yield "it lacks a title, a description or a short uid"
    ids = Counter(panel["id"] for panel in board["panels"])
    yield from (f"panel id {number} stands twice" for number, count in ids.items() if count > 1)


def _variables(board: Dashboard, metrics: Collection[str]) -> Iterator[str]:
    """Return the errors of the variables; a variable may use those before it."""
    before: list[str] = []
    for variable in board["templating"]["list"]:
        if variable["datasource"]["uid"] != SOURCES["prometheus"]:
            yield f"variable `{variable['name']}` isn't asked of {SOURCES['prometheus']}"
        asked = _VALUES.fullmatch(variable["query"]["query"])
        if asked is None:
            complaints = ["it isn't `label_values(series, label)`"]
        else:
            complaints = [*_undefined(asked["selector"], before)]
            complaints += _promql(asked["selector"], before, metrics)
            complaints += [] if asked["label"] in _LABELS else [f"no series has a label `{asked['label']}`"]
        yield from (f"variable `{variable['name']}`: {what}" for what in complaints)
        before.append(variable["name"])


def _undefined(expression: str, defined: Collection[str]) -> Iterator[str]:
    used = set(_VARIABLE.findall(expression))
    yield from (f"`${name}` is not defined" for name in sorted(used - set(defined) - _GIVEN.keys()))


def _places(board: Dashboard) -> Iterator[str]:
    taken: dict[tuple[int, int], int] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > _COLUMNS:
            yield f"panel {panel['id']} reaches beyond {_COLUMNS} columns"
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        yield from sorted({f"panel {panel['id']} covers panel {taken[c]}" for c in cells & taken.keys()})
        taken |= dict.fromkeys(cells, panel["id"])


def _panel(panel: Mapping[str, Any], board: Dashboard, metrics: Collection[str]) -> Iterator[str]:
    if not panel["description"].endswith("."):
        yield "it has no description that ends with a full stop"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "it has no unit"
    if not panel["targets"]:
        yield "it asks for nothing"
    if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
        yield "two of its queries have one refId"
    defined = {variable["name"] for variable in board["templating"]["list"]}
    for target in panel["targets"]:
        source = target["datasource"]
        if source != panel["datasource"] or SOURCES.get(source["type"]) != source["uid"]:
            yield f"`{source['uid']}` is none of the lab's data sources"
        yield from _undefined(target["expr"], defined)
        yield from _zeros(target["expr"])
        if panel["fieldConfig"]["defaults"].get("unit") == "percentunit" and _ALL_PROBES.search(
            target["expr"]
        ):
            yield "it has failures of the exporter in it, which say nothing about a peer"
        if source["type"] == "loki":
            yield from _logql(target["expr"], defined)
        else:
            yield from _promql(target["expr"], defined, metrics)


def _zeros(expression: str) -> Iterator[str]:
    """Check that `or` is only followed by the fallback to zeros of the same series, see `without_zeros`."""
    rest = without_zeros(expression)
    if re.search(r"\bor\b", _QUOTED.sub("", rest)):
        yield "what stands after its `or` would hide that it gives nothing"
    if rest != expression and set(_BY.findall(rest)) != set(_BY.findall(expression[len(rest) :])):
        yield "its zeros are of other series than what they stand for"


def _logql(expression: str, defined: Collection[str]) -> Iterator[str]:
    selectors = _LOG_SELECTOR.findall(expression)
    if not selectors:
        yield "it selects no logs"
    for selector in selectors:
        if "experiment" in defined and 'experiment="$experiment"' not in selector:
            yield f"`{{{selector}}}` isn't the experiment's"


def _promql(expression: str, defined: Collection[str], metrics: Collection[str]) -> Iterator[str]:
    variables = {name: f"_{name}" for name in defined}
    try:
        tree = promql_parser.parse(filled(expression, variables))
    except KeyError:
        return  # an undefined variable, which is reported already
    except ValueError as error:
        yield f"it can't be parsed: {error}"
        return
    for selector, function in _selectors(tree, ""):
        name = selector.name or ""
        if name not in metrics:
            yield f"nobody shows a metric `{name}`"
        for variable in sorted(_CHOSEN.keys() & set(defined)):
            is_chosen = any(
                (matcher.name, matcher.op, matcher.value) == (variable, _CHOSEN[variable], f"_{variable}")
                for matcher in selector.matchers.matchers
            )
            if not is_chosen and not (variable == "node" and name == "up"):
                yield f"`{name}` isn't only that of the {variable} chosen"
        if function in _CHANGES and name.startswith("container_"):
            yield f"`{name}` never changes: a container that began anew has series of its own"
        if function != "count" and bool(_COUNTER.search(name)) != (function in _RATES):
            yield f"`{name}` is a counter where a rate is taken, and only there"


def _selectors(tree: Any, function: str) -> Iterator[tuple[promql_parser.VectorSelector, str]]:
    """Yield every selector of an expression with the function or aggregation around it."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield tree, function
    elif isinstance(tree, promql_parser.MatrixSelector):
        yield tree.vector_selector, function
    elif isinstance(tree, promql_parser.SubqueryExpr):
        yield from _selectors(tree.expr, function)
    elif isinstance(tree, promql_parser.Call):
        for argument in tree.args:
            yield from _selectors(argument, tree.func.name)
    elif isinstance(tree, promql_parser.BinaryExpr):
        yield from _selectors(tree.lhs, "")
        yield from _selectors(tree.rhs, "")
    elif isinstance(tree, promql_parser.AggregateExpr):
        yield from _selectors(tree.expr, str(tree.op))
    elif isinstance(tree, promql_parser.ParenExpr | promql_parser.UnaryExpr):
        yield from _selectors(tree.expr, "")
