"""Check dashboards as Grafana reads them, and extract their queries.

In: the JSON of dashboards. Out: problems as text, or queries in which values replace the variables. This
module parses PromQL. `tests/templates/test_dashboard_logql.py` parses LogQL with a parser from npm. Pure.
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
_BUILT_IN: Final = {"__rate_interval": "1m", "__auto": "1m", "__range": "30m"}
_VARIABLE: Final = re.compile(r"\$(\w+)")
_LOG_SELECTOR: Final = re.compile(r"\{([^{}]*)\}")
_COUNTER: Final = re.compile("(_total|_bucket|Segs)$")  # the kernel's counters end with `Segs`
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
    """One expression of a panel; values replace its variables."""

    dashboard: str
    panel: str
    source: str
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The choices that a dashboard's variable offers: the values of `label` in the series of `selector`."""

    dashboard: str
    variable: str
    selector: str
    label: str


def choices(dashboards: Sequence[Dashboard], **variables: str) -> Iterator[Choice]:
    """Yield the choices of every variable of every dashboard.

    `variables` maps names to values. Raises KeyError if a query uses another variable.
    """
    for board in dashboards:
        for variable in board["templating"]["list"]:
            match = _VALUES.fullmatch(variable["query"]["query"])
            assert match is not None, (
                f"{board['uid']}: `{variable['name']}` does not query the values of a label"
            )
            yield Choice(
                dashboard=board["uid"],
                variable=variable["name"],
                selector=filled(match["selector"], variables),
                label=match["label"],
            )


def queries(dashboards: Sequence[Dashboard], **variables: str) -> Iterator[Query]:
    """Yield every query of every panel, with values in place of variables.

    `variables` maps names to values. Raises KeyError if a query uses another variable.
    """
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
    """Replace the variables of an expression by their values, as Grafana does."""
    return _VARIABLE.sub(lambda match: {**_BUILT_IN, **variables}[match[1]], expression)


def without_zeros(expression: str) -> str:
    """Return an expression without the default zeros that make its result non-empty."""
    return _ZERO.sub("", expression)


def has_values(answer: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if a result of Prometheus or Loki contains a log line or a number other than NaN."""
    return any(
        series["value"][1] != "NaN" if "value" in series else bool(series["values"]) for series in answer
    )


def panels_of(board: Dashboard) -> list[Mapping[str, Any]]:
    """Return the panels of a dashboard, without its rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def lint(dashboards: Sequence[Dashboard], metrics: Collection[str]) -> list[str]:
    """Return the problems of dashboards; `metrics` are the names of existing metrics.

    Most rules come from github.com/grafana/dashboard-linter. One rule is specific to the lab: the dashboard
    of an experiment must not query data of other experiments.
    """
    uids = Counter(board["uid"] for board in dashboards)
    titles = Counter(board["title"] for board in dashboards)
    problems = [f"duplicate uid `{uid}`" for uid, number in uids.items() if number > 1]
    problems += [f"duplicate title `{title}`" for title, number in titles.items() if number > 1]
    for board in dashboards:
        board_problems = [*_board(board), *_variables(board, metrics), *_places(board)]
        for panel in panels_of(board):
            board_problems += [f"panel `{panel['title']}`: {text}" for text in _panel(panel, board, metrics)]
        problems += [f"{board['uid']}: {text}" for text in board_problems]
    return problems


def _board(board: Dashboard) -> Iterator[str]:
    if not board["title"] or not board["description"] or not 0 < len(board["uid"]) <= _UID_LIMIT:
        yield f"title, description or uid is missing, or the uid is longer than {_UID_LIMIT} characters"
    ids = Counter(panel["id"] for panel in board["panels"])
    yield from (f"duplicate panel id {number}" for number, count in ids.items() if count > 1)


def _variables(board: Dashboard, metrics: Collection[str]) -> Iterator[str]:
    """Yield the problems of the variables; a variable may use only earlier variables."""
    defined: list[str] = []
    for variable in board["templating"]["list"]:
        if variable["datasource"]["uid"] != SOURCES["prometheus"]:
            yield f"variable `{variable['name']}`: its data source is not {SOURCES['prometheus']}"
        match = _VALUES.fullmatch(variable["query"]["query"])
        if match is None:
            problems = ["the query is not `label_values(series, label)`"]
        else:
            problems = [*_undefined(match["selector"], defined)]
            problems += _promql(match["selector"], defined, metrics)
            problems += [] if match["label"] in _LABELS else [f"no series has a label `{match['label']}`"]
        yield from (f"variable `{variable['name']}`: {text}" for text in problems)
        defined.append(variable["name"])


def _undefined(expression: str, defined: Collection[str]) -> Iterator[str]:
    used = set(_VARIABLE.findall(expression))
    yield from (f"`${name}` is not defined" for name in sorted(used - set(defined) - _BUILT_IN.keys()))


def _places(board: Dashboard) -> Iterator[str]:
    occupied: dict[tuple[int, int], int] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > _COLUMNS:
            yield f"panel {panel['id']} reaches beyond {_COLUMNS} columns"
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        yield from sorted(
            {f"panel {panel['id']} covers panel {occupied[c]}" for c in cells & occupied.keys()}
        )
        occupied |= dict.fromkeys(cells, panel["id"])


def _panel(panel: Mapping[str, Any], board: Dashboard, metrics: Collection[str]) -> Iterator[str]:
    if not panel["description"].endswith("."):
        yield "the description does not end with a full stop"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "the unit is missing"
    if not panel["targets"]:
        yield "the panel has no queries"
    if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
        yield "two queries have the same refId"
    defined = {variable["name"] for variable in board["templating"]["list"]}
    for target in panel["targets"]:
        source = target["datasource"]
        if source != panel["datasource"] or SOURCES.get(source["type"]) != source["uid"]:
            yield f"`{source['uid']}` is not a data source of the lab"
        yield from _undefined(target["expr"], defined)
        yield from _zeros(target["expr"])
        if panel["fieldConfig"]["defaults"].get("unit") == "percentunit" and _ALL_PROBES.search(
            target["expr"]
        ):
            yield "the ratio includes local errors of the exporter, which are not losses of a peer"
        if source["type"] == "loki":
            yield from _logql(target["expr"], defined)
        else:
            yield from _promql(target["expr"], defined, metrics)


def _zeros(expression: str) -> Iterator[str]:
    """Yield a problem unless the part after `or` consists of default zeros for the same series."""
    rest = without_zeros(expression)
    if re.search(r"\bor\b", _QUOTED.sub("", rest)):
        yield "the part after `or` would hide an empty result"
    if rest != expression and set(_BY.findall(rest)) != set(_BY.findall(expression[len(rest) :])):
        yield "the default zeros have other labels than the series that they replace"


def _logql(expression: str, defined: Collection[str]) -> Iterator[str]:
    selectors = _LOG_SELECTOR.findall(expression)
    if not selectors:
        yield "the query selects no logs"
    for selector in selectors:
        if "experiment" in defined and 'experiment="$experiment"' not in selector:
            yield f"`{{{selector}}}` is not limited to the experiment"


def _promql(expression: str, defined: Collection[str], metrics: Collection[str]) -> Iterator[str]:
    variables = {name: f"_{name}" for name in defined}
    try:
        tree = promql_parser.parse(filled(expression, variables))
    except KeyError:
        return  # an undefined variable, which `_undefined` reports
    except ValueError as error:
        yield f"the query cannot be parsed: {error}"
        return
    for selector, function in _selectors(tree, ""):
        name = selector.name or ""
        if name not in metrics:
            yield f"no program exposes the metric `{name}`"
        for variable in sorted(_CHOSEN.keys() & set(defined)):
            is_chosen = any(
                (matcher.name, matcher.op, matcher.value) == (variable, _CHOSEN[variable], f"_{variable}")
                for matcher in selector.matchers.matchers
            )
            if not is_chosen and not (variable == "node" and name == "up"):
                yield f"`{name}` is not limited to the chosen {variable}"
        if function in _CHANGES and name.startswith("container_"):
            yield f"`{name}` never changes: a restarted container has a new series"
        if function != "count" and bool(_COUNTER.search(name)) != (function in _RATES):
            yield f"`{name}` must be a counter inside a rate function, and must not be a counter elsewhere"


def _selectors(tree: Any, function: str) -> Iterator[tuple[promql_parser.VectorSelector, str]]:
    """Yield every selector of an expression, and the function or aggregation that directly contains it."""
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
