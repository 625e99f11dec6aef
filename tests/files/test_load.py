"""Loading: every problem is reported at its position, and no content of a file raises another exception."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.errors import Problem, SpecError
from nimlab.files.load import load_lab
from nimlab.files.load.check_schema import check_document, compile_schema
from nimlab.files.load.schema_cache import SCHEMAS
from nimlab.files.load.source_document import Document
from nimlab.files.load.yaml_strict import read_document
from nimlab.files.spec import Isolation, LabFiles
from nimlab.report import format_problems
from nimlab.value_cache import ValueCache
from tests.support.examples import examples
from tests.support.golden import assert_golden, cases, overlay_of
from tests.support.paths import REPOSITORY, SAMPLE_LAB

PURPLE = (SAMPLE_LAB / "experiments" / "purple.yaml").read_text(encoding="utf-8")
NIMP2P = (SAMPLE_LAB / "contracts" / "nimp2p.yaml").read_text(encoding="utf-8")
CODES = {
    "bad-name", "bad-unit", "bad-value", "contract", "duplicate-key", "duplicate-name", "file", "limit",
    "missing-key", "unknown-key", "unknown-reference", "wrong-type", "yaml-surprise", "yaml-syntax",
}  # fmt: skip


def problems_of(overlay: dict[str, str | None]) -> tuple[Problem, ...]:
    """Return all problems of the shipped lab with some files replaced."""
    try:
        return load_lab(SAMPLE_LAB, overlay).problems
    except SpecError as error:
        return error.problems


def load_green(text: str) -> LabFiles:
    """Load the shipped lab with one more experiment."""
    return load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})


@pytest.mark.parametrize("case", cases("errors"), ids=lambda case: case.name)
def test_golden_errors(case: Path, update_golden: bool) -> None:
    problems = problems_of(overlay_of(case))
    text = format_problems(problems, files=3, paint=False) + "\n"
    assert_golden(case / "expected.txt", text, update=update_golden)


def test_every_problem_code_has_a_golden_case() -> None:
    found = {problem.code for case in cases("errors") for problem in problems_of(overlay_of(case))}
    assert found == CODES


def test_shipped_lab_has_no_problem() -> None:
    files = load_lab(SAMPLE_LAB)
    assert files.problems == ()
    assert [e.name for e in files.experiments] == ["blue", "purple"]
    purple = files.experiments[1]
    assert (purple.peers, purple.cpu_m, purple.memory_bytes) == (5, 50, 16 * 2**20)
    assert purple.settings == {
        "connectTo": 2,
        "message.interval": 2000,
        "message.size": 1440,
        "peers": 5,
    }
    assert purple.network.downlink_bit_per_s == 16_000_000
    assert (purple.full_name, purple.namespace) == ("nimp2p-exp-purple", "dst-lab")
    assert str(purple.image) == "katakuri100/nimp2p:v2.0.14"


def test_defaults_apply_only_to_fields_that_the_contract_supports() -> None:
    head = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n"
    text = head + "spec: {contract: dst-go, peers: 5}\n"
    files = load_green(text)
    assert files.problems == ()
    green = next(e for e in files.experiments if e.name == "green")
    assert green.settings == {"connectTo": 2, "peers": 5}
    assert green.contract.isolation is Isolation.NAMESPACE
    assert (green.namespace, green.workload, green.service) == (
        "nimp2p-exp-green",
        "pod",
        "nimp2p-service",
    )


def test_one_broken_file_does_not_affect_the_others() -> None:
    files = load_green(PURPLE.replace("purple", "green").replace("peers: 5", "peers: x"))
    assert [e.name for e in files.experiments] == ["blue", "purple"]
    assert [(b.name, b.source) for b in files.broken] == [("green", "experiments/green.yaml")]


@pytest.mark.parametrize(
    "text",
    [
        "kind: Contract\n",
        "{",
        "",
        NIMP2P.replace("name: nimp2p", "name: Bad_Name", 1),
        NIMP2P.replace("metrics, port: 8008", "p2p, port: 8008"),
        NIMP2P.replace("port: 5000", "port: 5000.0"),
    ],
)
def test_broken_contract_is_one_problem_and_breaks_its_experiments(text: str) -> None:
    files = load_lab(SAMPLE_LAB, {"contracts/nimp2p.yaml": text})
    assert files.experiments == ()
    assert {problem.location.path for problem in files.problems} == {"contracts/nimp2p.yaml"}
    assert [str(b) for b in files.broken] == [
        f"experiments/{name}.yaml cannot be used until contracts/nimp2p.yaml is corrected"
        for name in ("blue", "purple")
    ]


def test_missing_contracts_folder_is_one_problem(tmp_path: Path) -> None:
    for name in ("schema", "experiments"):
        shutil.copytree(SAMPLE_LAB / name, tmp_path / name)
    shutil.copy(SAMPLE_LAB / "lab.yaml", tmp_path)
    files = load_lab(tmp_path)
    assert [problem.location.path for problem in files.problems] == ["contracts"]
    assert [(b.name, b.cause) for b in files.broken] == [("blue", "contracts"), ("purple", "contracts")]


def test_broken_lab_yaml_is_the_only_problem() -> None:
    lab = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8").replace("peers: 2", "peers: 0")
    assert [problem.location.path for problem in problems_of({"lab.yaml": lab})] == ["lab.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        PURPLE.replace("name: purple", f"name: {'A' * 50}"),
        PURPLE.replace("peers: 5", "peers: -5.5"),
        PURPLE.replace("peers: 5", "peers: -0.0"),
    ],
)
def test_value_that_breaks_several_rules_is_one_problem(text: str) -> None:
    assert len(problems_of({"experiments/green.yaml": text})) == 1


def test_two_files_with_the_same_name_are_both_unusable() -> None:
    files = load_green(PURPLE)
    assert [e.name for e in files.experiments] == ["blue"]
    assert [b.source for b in files.broken] == ["experiments/green.yaml", "experiments/purple.yaml"]


def test_totals_are_compared_with_the_limits_of_the_lab() -> None:
    lab = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    lab = lab.replace("peersPerExperiment: 10000", "peersPerExperiment: 10000\n    peers: 8")
    (problem,) = problems_of({"lab.yaml": lab})
    assert problem.code == "limit"
    assert "9 peers" in problem.what
    assert problem.location.path == "experiments/purple.yaml"


def test_digest_and_settings_ignore_key_order_comments_and_spacing() -> None:
    shuffled = (
        "kind: Experiment\napiVersion: nimlab.dev/v1\n"
        "spec:\n  rtt: {fanout: 8, interval: 5s, enabled: true}\n"
        "  network: {uplink: 16Mbit, downlink: 16Mbit}\n  # note\n  resources: {memory: 16Mi, cpu: 50m}\n"
        "  message: {interval: 2000ms, size: 1440B}\n  connectTo: 2\n  peers:   5\n  contract: nimp2p\n"
        'metadata: {description: "five constrained peers", owner: dst, name: purple}\n'
    )
    plain = load_lab(SAMPLE_LAB).experiments[1]
    other = load_lab(SAMPLE_LAB, {"experiments/purple.yaml": shuffled}).experiments[1]
    assert other == plain


def copy_lab(folder: Path) -> Path:
    """Copy the shipped lab."""
    for name in ("contracts", "schema", "experiments"):
        shutil.copytree(SAMPLE_LAB / name, folder / name)
    shutil.copy(SAMPLE_LAB / "lab.yaml", folder)
    return folder


@pytest.mark.parametrize("name", ["link.yaml", "folder.yaml", "green.json", "green.yml"])
def test_only_regular_yaml_files_are_read(tmp_path: Path, name: str) -> None:
    root = copy_lab(tmp_path)
    path = root / "experiments" / name
    if name.startswith("link"):
        path.symlink_to("/etc/hostname")
    elif name.startswith("folder"):
        path.mkdir()
    else:
        path.write_text("{}", encoding="utf-8")
    (problem,) = load_lab(root).problems
    assert (problem.code, problem.location.path) == ("file", f"experiments/{name}")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a: \x00", b"a: \xc3\x28", b"x" * 300_000, b"", b"\xef\xbb\xbfa: 1"]
)
def test_file_that_is_not_a_document_is_one_problem(tmp_path: Path, data: bytes) -> None:
    root = copy_lab(tmp_path)
    (root / "experiments" / "green.yaml").write_bytes(data)
    for value_cache in (None, ValueCache(tmp_path / "cache", "s")):
        (problem,) = load_lab(root, value_cache=value_cache).problems
        assert problem.location.path == "experiments/green.yaml"


def test_missing_folder_counts_as_empty(tmp_path: Path) -> None:
    root = copy_lab(tmp_path)
    shutil.rmtree(root / "experiments")
    files = load_lab(root)
    assert (files.problems, files.experiments) == ((), ())
    shutil.rmtree(root / "contracts")
    assert load_lab(root).problems == ()


@given(st.binary(max_size=400))
def test_any_bytes_give_a_document_or_problems_at_positions_in_the_file(data: bytes) -> None:
    result = read_document("x.yaml", data)
    if isinstance(result, tuple):
        assert result
        lines = data.decode("utf-8", errors="replace").splitlines() or [""]
        assert all(1 <= problem.location.line <= len(lines) + 1 for problem in result)


@settings(max_examples=examples(150))
@given(data=st.data())
def test_mutated_file_raises_only_spec_errors(data: st.DataObject) -> None:
    text = PURPLE
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 6)))
        text = text[:at] + data.draw(st.text(max_size=6)) + text[end:]
    for problem in problems_of({"experiments/green.yaml": text}):
        assert problem.code in CODES
        assert problem.location.line <= text.count("\n") + text.count("\r") + 1


def _walk(schema: Any, where: str) -> list[str]:
    """Return each place of a schema without description, examples or `additionalProperties: false`."""
    missing = []
    for name, inner in schema.get("properties", {}).items():
        place = f"{where}.{name}"
        missing += [f"{place}: {key}" for key in ("description", "examples") if not inner.get(key)]
        missing += _walk(inner, place)
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        missing.append(f"{where}: open")
    items = schema.get("items")
    return missing + (_walk(items, f"{where}[]") if isinstance(items, dict) else [])


KINDS = ("experiment", "contract", "lab")


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_describe_every_property_and_are_closed(kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
    assert schema["$schema"].endswith("2020-12/schema")
    assert _walk(schema, kind) == []
    assert '"$ref"' not in json.dumps(schema)
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_golden_schemas_in_the_lab_are_copies_of_nimlabs_schemas(kind: str, update_golden: bool) -> None:
    text = (SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert_golden(REPOSITORY / "schema" / f"{kind}.schema.json", text, update=update_golden)


def _with_format(schema: Any) -> list[dict[str, Any]]:
    """Return the parts of a schema that require a pattern, a unit, or one of several words."""
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    own = [schema] if {"pattern", "x-unit", "enum", "const"} & schema.keys() else []
    return own + [match for part in inner for match in _with_format(part)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_formatted_text_may_end_in_a_newline(kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
    schemas = [part for part in _with_format(schema) if isinstance(part["examples"][0], str)]
    assert len(schemas) >= 3
    assert any("pattern" in part for part in schemas)
    for part in schemas:
        pattern = part.get("pattern", "^$")
        assert pattern[0] + pattern[-1] == "^$", "the pattern must match the entire text"
        example, validator = part["examples"][0], compile_schema(json.dumps(part))
        assert list(validator.iter_errors(example)) == []
        for text in (f"{example}\n", f"\n{example}", f"{example}\n\n"):
            assert list(validator.iter_errors(text)), (text, part)


def test_name_with_a_newline_is_rejected() -> None:
    (problem,) = problems_of({"experiments/green.yaml": PURPLE.replace("name: purple", r'name: "green\n"')})
    assert (problem.code, problem.location.line, problem.pointer) == ("bad-name", 4, "metadata.name")


@pytest.mark.parametrize(
    ("items", "is_valid"),
    [
        ("[{a: 1}, {a: 2}]", True),
        ("[{a: 1, b: 2}, {b: 2, a: 1}]", False),
        ("[[1], [1]]", False),
        ("[1, true, '1']", True),
        ("['a', 'a']", False),
    ],
)
def test_items_with_equal_content_are_duplicates(items: str, is_valid: bool) -> None:
    document = read_document("x.yaml", items.encode())
    assert isinstance(document, Document)
    assert (check_document(document, compile_schema('{"uniqueItems": true}')) == ()) is is_valid


def test_number_of_reported_problems_is_limited() -> None:
    head = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n"
    text = head + "spec: {contract: nimp2p, rtt: {methods: [" + "x, " * 5000 + "x]}}\n"
    assert len(problems_of({"experiments/green.yaml": text})) == 1000


def test_changed_schema_in_a_lab_is_refused_at_the_changed_line(tmp_path: Path) -> None:
    root = copy_lab(tmp_path)
    path = root / "schema" / "experiment.schema.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8")  # line ends of a checkout on Windows
    assert load_lab(root).problems == ()
    path.write_text(text.replace('"maxLength": 41', '"maxLength": 410'), encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_lab(root)
    (problem,) = raised.value.problems
    assert problem.location.path == "schema/experiment.schema.json"
    assert '"maxLength": 41' in text.splitlines()[problem.location.line - 1]
