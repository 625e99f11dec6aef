"""Dashboards as Grafana reads them -> what is wrong with them, and the queries that they make.

In: dashboards' data. Out: complaints in words, or queries with the variables filled in. PromQL is parsed
here; LogQL has no parser but Loki's own, so the rig asks that one. Pure.
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
_UID_LIMIT: Final = 40  # Grafana's
_GIVEN: Final = {"__rate_interval": "1m", "__auto": "1m", "__range": "30m"}
_VARIABLE: Final = re.compile(r"\$(\w+)")
_LOG_SELECTOR: Final = re.compile(r"\{([^{}]*)\}")
_COUNTER: Final = re.compile("(_total|_bucket|Segs)$")  # the last is the kernel's name
_RATES: Final = frozenset({"rate", "irate", "increase"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression of a panel, ready to be asked."""

    dashboard: str
    panel: str
    source: str
    expression: str


def queries(dashboards: Sequence[Dashboard], **variables: str) -> Iterator[Query]:
    """Yield every query of every panel, with these variables filled in. Raises KeyError for one not given."""
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
    """Return an expression with its variables replaced, as Grafana does."""
    return _VARIABLE.sub(lambda found: {**_GIVEN, **variables}[found[1]], expression)


def panels_of(board: Dashboard) -> list[Mapping[str, Any]]:
    """Return a dashboard's panels without the rows' titles."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def lint(dashboards: Sequence[Dashboard], metrics: Collection[str]) -> list[str]:
    """Return what is wrong with dashboards; `metrics` are the names that are there.

    The rules are after github.com/grafana/dashboard-linter, and the lab's own: a dashboard of one experiment
    asks for nothing of another.
    """
    found = [f"uid `{uid}` stands twice" for uid, n in Counter(b["uid"] for b in dashboards).items() if n > 1]
    found += [
        f"title `{t}` stands twice" for t, n in Counter(b["title"] for b in dashboards).items() if n > 1
    ]
    for board in dashboards:
        complaints = [*_board(board), *_places(board)]
        for panel in panels_of(board):
            complaints += [f"panel `{panel['title']}`: {what}" for what in _panel(panel, board, metrics)]
        found += [f"{board['uid']}: {what}" for what in complaints]
    return found


def _board(board: Dashboard) -> Iterator[str]:
    if not board["title"] or not board["description"] or not 0 < len(board["uid"]) <= _UID_LIMIT:
        yield "it lacks a title, a description or a short uid"
    ids = Counter(panel["id"] for panel in board["panels"])
    yield from (f"panel id {number} stands twice" for number, count in ids.items() if count > 1)
    for variable in board["templating"]["list"]:
        if variable["datasource"]["uid"] != SOURCES["prometheus"]:
            yield f"variable `{variable['name']}` isn't asked of {SOURCES['prometheus']}"


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
        used = set(_VARIABLE.findall(target["expr"]))
        yield from (f"`${name}` is not defined" for name in sorted(used - defined - _GIVEN.keys()))
        if source["type"] == "loki":
            yield from _logql(target["expr"], defined)
        else:
            yield from _promql(target["expr"], defined, metrics)


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
        return  # a variable that isn't defined, which has been said
    except ValueError as error:
        yield f"it can't be parsed: {error}"
        return
    for selector, function in _selectors(tree, ""):
        name = selector.name or ""
        matchers = {(matcher.name, str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
        if name not in metrics:
            yield f"nobody shows a metric `{name}`"
        for variable in sorted({"experiment", "node"} & set(defined)):
            ops = {op for label, op, value in matchers if label == variable and value == f"_{variable}"}
            if not ops and not (variable == "node" and name == "up"):
                yield f"`{name}` isn't only that of the {variable} chosen"
        if function != "count" and bool(_COUNTER.search(name)) != (function in _RATES):
            yield f"`{name}` is a counter where a rate is taken, and only there"


def _selectors(tree: Any, function: str) -> Iterator[tuple[promql_parser.VectorSelector, str]]:
    """Every selector of an expression, with the function or aggregation that it is directly in."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield tree, function
    elif isinstance(tree, promql_parser.MatrixSelector):
        yield tree.vector_selector, function
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
