"""Numbers in files: the same rule holds for all fields, and manifests contain only plain digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.errors import Problem, SpecError
from nimlab.files.load import load_lab
from nimlab.files.spec import LabFiles
from nimlab.render import load_templates, render_experiment
from tests.support.examples import examples
from tests.support.paths import SAMPLE_LAB

LAB = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
CONTRACT = (SAMPLE_LAB / "contracts" / "nimp2p.yaml").read_text(encoding="utf-8")
HEAD = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n"
EXPERIMENT = HEAD + (
    "spec:\n  contract: nimp2p\n  peers: 5\n  connectTo: 2\n  rtt: {fanout: 8}\n"
    "  message: {size: 1440B, interval: 2000ms}\n"
)
TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")

FIELDS = [  # path, text of the file, text before the number, number
    ("experiments/green.yaml", EXPERIMENT, "peers: ", "5"),
    ("experiments/green.yaml", EXPERIMENT, "connectTo: ", "2"),
    ("experiments/green.yaml", EXPERIMENT, "fanout: ", "8"),
    ("contracts/nimp2p.yaml", CONTRACT, "p2p, port: ", "5000"),
    ("lab.yaml", LAB, "    peers: ", "2"),
    ("lab.yaml", LAB, "    connectTo: ", "2"),
    ("lab.yaml", LAB, "fanout: ", "8"),
    ("lab.yaml", LAB, "peersPerExperiment: ", "10000"),
    ("lab.yaml", LAB, "objects: ", "20"),
    ("lab.yaml", LAB, "percent: ", "50"),
    ("lab.yaml", LAB, "parallel: ", "8"),
]
IDS = [f"{path.split('/')[0]}-{before.strip(' :')}" for path, _, before, _ in FIELDS]


def load(overlay: dict[str, str | None]) -> LabFiles | tuple[Problem, ...]:
    """Load the shipped lab with some files replaced; return its problems if there are any."""
    try:
        files = load_lab(SAMPLE_LAB, overlay)
    except SpecError as error:
        return error.problems
    return files.problems or files


def leaves(value: object) -> Iterator[object]:
    """Yield every value in a manifest that is neither a map nor a list."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def place_of(text: str, before: str) -> tuple[int, int]:
    """Return the line and the column of the text that follows `before`."""
    at = text.index(before) + len(before)
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


@pytest.mark.parametrize(("path", "text", "before", "number"), FIELDS, ids=IDS)
def test_float_is_rejected_where_a_whole_number_is_required(
    path: str, text: str, before: str, number: str
) -> None:
    assert before + number in text
    written = text.replace(before + number, f"{before}{number}.0", 1)
    result = load({path: written})
    assert isinstance(result, tuple)
    (problem,) = result
    assert problem.code == "wrong-type"
    assert (problem.location.line, problem.location.column) == place_of(text, before)
    assert problem.location.path == path
    assert problem.what.endswith(f"must be a whole number, not `{number}.0`")
    assert problem.hint == f"write `{number}`"


@pytest.mark.parametrize(
    ("written", "code", "hint"),
    [
        ("5.5", "wrong-type", "for example `5`"),
        ("05.0", "wrong-type", "write `5`"),
        ("-0.0", "wrong-type", "write `0`"),
        ("100000000000000000.0", "wrong-type", "for example `5`"),
        ('"5"', "wrong-type", "write `5` without quotes"),
        ("true", "wrong-type", "for example `5`"),
        ("~", "wrong-type", "for example `5`"),
        ("1e2", "yaml-surprise", "put it in quotes if it is text, else write `100`"),
        ("1.0e2", "yaml-surprise", "put it in quotes if it is text, else write `100`"),
        ("1E+2", "yaml-surprise", "put it in quotes if it is text, else write `100`"),
        ("1e999999999", "yaml-surprise", "put it in quotes if it is text, else write the number in full"),
        ("-0", "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        (".inf", "yaml-surprise", "put it in quotes if it is text, else write a finite number"),
        ("-.INF", "yaml-surprise", "put it in quotes if it is text, else write a finite number"),
        (".NaN", "yaml-surprise", "put it in quotes if it is text, else write a finite number"),
        ("1_000", "yaml-surprise", "put it in quotes if it is text, else write the digits without `_`"),
        (
            "010",
            "yaml-surprise",
            "put it in quotes if it is text, else write the number without leading zeros",
        ),
        ("0o10", "yaml-surprise", "put it in quotes if it is text, else write a decimal number"),
        ("0x10", "yaml-surprise", "put it in quotes if it is text, else write a decimal number"),
        ("5.", "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        ("+5", "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        ("5." + "0" * 19, "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        ("9" * 19, "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        ("9" * 19 + ".0", "yaml-surprise", "put it in quotes if it is text, else write plain digits"),
        ("9" * 18, "limit", "the limit is `limits.peersPerExperiment` in lab.yaml"),
    ],
)
def test_other_spellings_of_a_number_are_rejected_with_a_hint(written: str, code: str, hint: str) -> None:
    result = load({"experiments/green.yaml": EXPERIMENT.replace("peers: 5", f"peers: {written}")})
    assert isinstance(result, tuple)
    (problem,) = result
    assert (problem.code, problem.hint) == (code, hint)
    assert (problem.location.line, problem.location.column) == (6, 10)


@pytest.mark.parametrize(
    ("line", "code", "what", "hint"),
    [
        ("resources: {cpu: 1}", "bad-unit", "`1` has no unit", 'write `1000m` or `"1"`, one core'),
        ("resources: {cpu: 0.5}", "bad-unit", "`0.5` has no unit", 'write `500m` or `"0.5"`, 0.5 cores'),
        (
            "resources: {cpu: 0.0000001}",
            "bad-unit",
            "`0.0000001` has no unit",
            "write thousandths of a core, such as `50m`",
        ),
        (
            "resources: {memory: 16}",
            "bad-unit",
            "`16` has no unit",
            "write an amount of memory with a unit, such as `16Mi`",
        ),
        (
            "resources: {cpu: true}",
            "wrong-type",
            "spec.resources.cpu must be text, not `true`",
            'put it in quotes: `"true"`',
        ),
        (
            "image: 3.0",
            "wrong-type",
            "spec.image must be text, not `3.0`",
            "for example `katakuri100/nimp2p:v2.0.14`",
        ),
        (
            "rtt: {enabled: 1}",
            "wrong-type",
            "spec.rtt.enabled must be `true` or `false`, not `1`",
            "for example `true`",
        ),
        (
            'rtt: {enabled: "true"}',
            "wrong-type",
            "spec.rtt.enabled must be `true` or `false`, not text",
            "write `true` without quotes",
        ),
    ],
)
def test_message_contains_the_value_and_a_valid_spelling(line: str, code: str, what: str, hint: str) -> None:
    result = load({"experiments/green.yaml": f"{HEAD}spec:\n  contract: nimp2p\n  {line}\n"})
    assert isinstance(result, tuple)
    (problem,) = result
    assert (problem.code, problem.what, problem.hint) == (code, what, hint)


NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.integers(0, 12).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.from_regex(r"[-+]?[0-9]{1,3}\.[0-9]{0,3}([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[-+]?0[xob]?[0-9]{1,3}", fullmatch=True),
    st.from_regex(r"[-+]?[0-9]{1,3}[_,:][0-9]{1,3}", fullmatch=True),
    st.sampled_from((".inf", "-.inf", ".nan", "true", "~", "\u0663", "\uff15", "\u00bd")),
)


@given(field=st.sampled_from(FIELDS), number=NUMBERS)
@settings(max_examples=examples(300), deadline=None)
def test_number_is_refused_at_its_position_or_rendered_in_plain_digits(field: Any, number: str) -> None:
    path, text, before, usual = field
    result = load(
        {"experiments/green.yaml": EXPERIMENT, path: text.replace(before + usual, before + number, 1)}
    )
    if isinstance(result, tuple):
        if result[0].code != "limit":  # a limit is reported at the value that exceeds it
            assert {p.location.path for p in result} >= {path}
        return
    assert re.fullmatch(r"0|[1-9][0-9]*", number)
    for experiment in result.experiments:
        for manifest in render_experiment(TEMPLATES, experiment, result.lab):
            assert not any(isinstance(leaf, float) for leaf in leaves(manifest))
        counts = [value for name, value in experiment.settings.items() if name in ("peers", "connectTo")]
        assert all(type(value) is int for value in counts)


RATIOS = CONTRACT.replace(
    "  ports:",
    "    - {name: FACTOR, from: gossipsub.gossipFactor, as: ratio, description: share}\n"
    "    - {name: WAIT, from: startDelay, as: s, description: wait}\n  ports:",
    1,
)


@pytest.mark.parametrize(
    ("percent", "ratio", "interval", "seconds"),
    [
        ("25%", "0.25", "5s", "5"),
        ("0.00001%", "0.0000001", "50ms", "0.05"),
        ("0%", "0.0", "3599999ms", "3599.999"),
        ("0.000000001%", "0.00000000001", "1234567ms", "1234.567"),
    ],
)
def test_fractions_are_passed_on_in_plain_digits(
    percent: str, ratio: str, interval: str, seconds: str
) -> None:
    text = HEAD + (
        f"spec:\n  contract: nimp2p\n  peers: 5\n  startDelay: {interval}\n  rtt: {{interval: {interval}}}\n"
        f"  gossipsub: {{gossipFactor: {percent}}}\n  network: {{loss: {percent}}}\n"
    )
    files = load({"contracts/nimp2p.yaml": RATIOS, "experiments/green.yaml": text})
    assert isinstance(files, LabFiles)
    green = next(e for e in files.experiments if e.name == "green")
    manifests = render_experiment(TEMPLATES, green, files.lab)
    values = {leaf for manifest in manifests for leaf in leaves(manifest)}
    assert {ratio, seconds, f"--loss-ratio={ratio}"} <= values
