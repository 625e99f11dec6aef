"""LogQL of the dashboards, parsed with the grammar of Grafana's editor."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

import pytest

from nimlab.files.load import load_lab
from nimlab.render.render_platform import load_platform_templates, render_dashboards
from tests.support.dashboard_linter import queries
from tests.support.npm_packages import install
from tests.support.paths import SAMPLE_LAB

SHIPPED = render_dashboards(load_platform_templates(SAMPLE_LAB), load_lab(SAMPLE_LAB, {}))
ASKED = {
    f"{one.dashboard}/{one.panel}/{number}": one.expression
    for number, one in enumerate(queries(SHIPPED, experiment="purple", peer=".+", node=".+"))
    if one.source == "loki"
}
GRAMMAR, RUNTIME = "0.4.2", "1.4.10"
PARSE = """
const {parser} = require("@grafana/lezer-logql");
const faults = JSON.parse(require("fs").readFileSync(0, "utf8")).map((text) => {
  const found = [];
  parser.parse(text).iterate({enter: ({type, from}) => {
    if (type.isError) found.push(`at ${from}: ${text.slice(from, from + 20)}`);
  }});
  return found;
});
console.log(JSON.stringify(faults));
"""


def faults_of(expressions: Sequence[str]) -> list[list[str]]:
    """Return the syntax errors of each expression."""
    packages = (f"@grafana/lezer-logql@{GRAMMAR}", f"@lezer/lr@{RUNTIME}")
    home = install(f"lezer-logql-{GRAMMAR}", *packages, needs=("node",))
    done = subprocess.run(
        ["node", "--input-type=commonjs", "--eval", PARSE],
        input=json.dumps(expressions),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=home,
    )
    faults: list[list[str]] = json.loads(done.stdout)
    return faults


@pytest.mark.process
def test_every_query_of_logs_can_be_parsed() -> None:
    assert len(ASKED) > 10
    found = dict(zip(ASKED, faults_of(list(ASKED.values())), strict=True))
    assert {name: faults for name, faults in found.items() if faults} == {}


SELECTOR = '{experiment="purple", pod=~".+"}'
WRONG = {
    "brace": 'sum(rate({experiment="purple"[1m]))',
    "bracket": f"sum(rate({SELECTOR} [1m))",
    "parenthesis": f"sum(rate({SELECTOR} [1m])",
    "filter": f'{SELECTOR} |! "a"',
    "quote": f'{SELECTOR} |= "a',
    "no-range": f"sum(rate({SELECTOR}))",
    "function": f"rates({SELECTOR} [1m])",
    "aggregation": f"total by (pod) (rate({SELECTOR} [1m]))",
    "unwrap": f"quantile_over_time(0.5, {SELECTOR} | unwrap [1m])",
    "matcher": '{experiment=="purple"}',
    "no-operator": f"rate({SELECTOR} [1m]) rate({SELECTOR} [1m])",
    "empty": "",
}


@pytest.mark.process
def test_syntax_error_is_found() -> None:
    found = dict(zip(WRONG, faults_of(list(WRONG.values())), strict=True))
    assert [name for name, faults in found.items() if not faults] == []


@pytest.mark.process
@pytest.mark.parametrize("old", ["[", "]", "{", "}", '"'])
def test_no_query_can_lose_a_sign(old: str) -> None:
    broken = [text.replace(old, "", 1) for text in ASKED.values() if old in text]
    assert all(faults_of(broken))
