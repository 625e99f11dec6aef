"""Random valid files: nimlab reports a problem, or renders manifests that the guard accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from nimlab.errors import SpecError
from nimlab.files.load import load_lab
from nimlab.objects.canonical_form import canonical
from nimlab.objects.manifest import Manifest
from nimlab.units import canonical_quantity
from nimlab.workflow.desired_lab import read_desired_lab
from nimlab.yaml_and_json import to_yaml_safe_json
from tests.support.examples import examples
from tests.support.lab import make_lab
from tests.support.paths import REPOSITORY, SAMPLE_LAB

SCHEMAS = {
    kind: json.loads((REPOSITORY / "schema" / f"{kind}.schema.json").read_text(encoding="utf-8"))
    for kind in ("experiment", "contract", "lab")
}
AMOUNTS = st.one_of(
    st.integers(0, 20),
    st.sampled_from((100, 1000, 1440, 5000, 8008, 9105, 9106, 10_000, 65_535, 10**6, 10**9, 10**17)),
)
UNITS = {
    "duration": ("ms", "s", "m", "h"),
    "size": ("B", "kB", "KiB", "MB", "GB", "GiB"),
    "rate": ("bit", "kbit", "Mbit", "Gbit"),
    "ratio": ("%",),
    "cpu": ("m", ""),
    "memory": ("k", "Ki", "M", "Mi", "Gi", "Ti"),
}
WORDS = st.one_of(
    st.sampled_from(
        ("a", "nimp2p", "rtt", "shape", "metrics", "p2p", "123", "a--b", "x-y", "publish", "{{ 1 }}")
    ),
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True),
)


def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Return mostly valid texts: quantities with a unit, images, names, or fields of experiments."""
    unit = schema.get("x-unit")
    if unit == "image":
        return st.sampled_from(("a/b:v1", "c:2", "d/e:v1@sha256:" + "0" * 64))
    if unit:
        return st.builds(lambda n, u: f"{n}{u}", AMOUNTS, st.sampled_from(UNITS[unit]))
    example = schema.get("examples", ["a"])[0]
    if example == "message.interval":
        return st.sampled_from(
            ("peers", "message.size", "message.interval", "connectTo", "muxer", "startDelay")
        )
    return st.one_of(st.just(example), WORDS)


def documents(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that mostly fit a schema."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            known = schema["properties"]
            needed = {name: documents(known[name]) for name in schema.get("required", ())}
            others = {name: documents(one) for name, one in known.items() if name not in needed}
            return st.fixed_dictionaries(needed, optional=others)
        case "array":
            items, least = documents(schema["items"]), schema.get("minItems", 0)
            return st.lists(items, min_size=least, max_size=3, unique_by=repr)
        case "integer":
            least, most = schema.get("minimum", 0), schema.get("maximum", 10**17)
            inside = AMOUNTS.filter(lambda number: least <= number <= most)
            return st.one_of(inside, inside, inside, AMOUNTS, AMOUNTS.map(float))
        case "boolean":
            return st.booleans()
        case _:
            return texts(schema)


EXPERIMENTS = documents(SCHEMAS["experiment"])
CONTRACTS = documents(SCHEMAS["contract"])
LABS = documents(SCHEMAS["lab"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tests' lab whose files the test replaces."""
    return make_lab(tmp_path_factory.mktemp("whole") / "lab", "dst-lab", ())


def scalars(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every value that is neither a map nor a list, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner, path)
    else:
        yield path, value


def check(manifests: tuple[Manifest, ...]) -> None:
    """Check that manifests are canonical and that every number is an integer in plain digits."""
    for manifest in manifests:
        assert canonical(manifest) == manifest
        for path, value in scalars(manifest):
            assert isinstance(value, str | bool | int), path
            if path[-2:-1] in (("limits",), ("requests",)):
                assert value == canonical_quantity(str(value))
            if path[-1] in ("port", "containerPort", "targetPort") and isinstance(value, int):
                assert 0 < value < 2**16
            if path[-1] == "replicas":
                assert isinstance(value, int)
                assert 0 < value < 2**31


def read(root: Path, files: dict[str, object]) -> None:
    """Read a lab with these files as `sync` does, and check the result."""
    for path, data in files.items():
        (root / path).write_text(to_yaml_safe_json(data), encoding="utf-8")
    try:
        problems = load_lab(root).problems
    except SpecError as error:
        assert error.problems  # noqa: PT017 -- what is raised is the other answer
        event(error.problems[0].code)
        return
    intent = read_desired_lab(root, None)
    assert bool(problems) == bool(intent.errors)  # `sync` accepts a lab if and only if `validate` does
    check(tuple(manifest for one in intent.desired for manifest in one.manifests))
    places = [(p.location, p.code, p.what) for p in problems]
    assert len(set(places)) == len(places)
    event("rendered" if intent.desired else "refused")


@given(experiment=EXPERIMENTS)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_experiment_is_rejected_or_rendered(root: Path, experiment: dict[str, Any]) -> None:
    experiment["spec"]["contract"] = "nimp2p"
    experiment["spec"] = {
        key: value
        for key, value in experiment["spec"].items()
        if key
        in ("contract", "image", "peers", "connectTo", "message", "resources", "network", "rtt", "rollout")
    }
    shipped = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    (root / "lab.yaml").write_text(shipped, encoding="utf-8")
    read(root, {"experiments/green.yaml": experiment})


@given(contract=CONTRACTS, experiment=EXPERIMENTS)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_contract_is_rejected_or_rendered(
    root: Path, contract: dict[str, Any], experiment: dict[str, Any]
) -> None:
    contract["metadata"]["name"] = "any"
    for index, one in enumerate(contract["spec"]["env"]):
        one["name"] = f"V{index}"
        if "from" in one:
            one.pop("value", None)
        else:
            one.setdefault("value", "1")
        if "from" not in one or index % 2:
            one.pop("as", None)
    shipped = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    (root / "lab.yaml").write_text(shipped, encoding="utf-8")
    fields = {one["from"].partition(".")[0] for one in contract["spec"]["env"] if "from" in one}
    own = {key: value for key, value in experiment["spec"].items() if key in fields}
    simple = {**experiment, "metadata": {"name": "green"}, "spec": {**own, "contract": "any"}}
    read(root, {"contracts/any.yaml": contract, "experiments/green.yaml": simple})
    (root / "contracts" / "any.yaml").unlink()


@given(lab=LABS)
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_lab_is_rejected_or_rendered(root: Path, lab: dict[str, Any]) -> None:
    experiment = {
        "apiVersion": "nimlab.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": "green"},
        "spec": {"contract": "nimp2p", "connectTo": 1, "message": {"size": "1kB", "interval": "1s"}},
    }
    read(root, {"lab.yaml": lab, "experiments/green.yaml": experiment})
