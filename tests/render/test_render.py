"""Rendering of experiments: equal files give equal manifests, text stays data, errors have a position."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.errors import RenderError
from nimlab.files.load import load_lab
from nimlab.files.spec import Experiment, LabFiles
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.canonical_form import canonical
from nimlab.objects.manifest import Manifest
from nimlab.render import Templates, label_value, load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests
from nimlab.workflow.desired_lab import read_desired_lab
from nimlab.yaml_and_json import to_yaml
from tests.support.examples import examples
from tests.support.golden import assert_golden, cases, overlay_of
from tests.support.paths import SAMPLE_LAB

PURPLE = (SAMPLE_LAB / "experiments" / "purple.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def templates() -> Templates:
    """Return the shipped templates."""
    return load_templates(SAMPLE_LAB, "templates/experiment")


def render_all(files: LabFiles, templates: Templates, names: list[str]) -> tuple[Manifest, ...]:
    """Return the stamped and guarded manifests of the named experiments."""
    apply_set = ApplySet(name="experiments", namespace=files.lab.namespace)
    result: list[Manifest] = []
    for experiment in files.experiments:
        if experiment.name in names:
            manifests = [stamp(m, apply_set) for m in render_experiment(templates, experiment, files.lab)]
            check_manifests(manifests, experiment, files.lab, apply_set)
            result += manifests
    return tuple(result)


def experiment_with(text: str) -> tuple[Experiment, LabFiles]:
    """Return the experiment green, added to the shipped lab."""
    files = load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})
    return next(experiment for experiment in files.experiments if experiment.name == "green"), files


@pytest.mark.parametrize("case", cases("render"), ids=lambda case: case.name)
def test_golden_manifests(case: Path, templates: Templates, update_golden: bool) -> None:
    files = load_lab(SAMPLE_LAB, overlay_of(case))
    assert files.problems == ()
    names = ["blue", "purple"] if case.name == "shipped" else ["green"]
    text = to_yaml(render_all(files, templates, names))
    assert_golden(case / "expected.yaml", text, update=update_golden)
    assert text == to_yaml(render_all(load_lab(SAMPLE_LAB, overlay_of(case)), templates, names))


def test_rendered_manifests_are_canonical(templates: Templates) -> None:
    for manifest in render_all(load_lab(SAMPLE_LAB), templates, ["blue", "purple"]):
        assert canonical(manifest) == manifest


def test_other_experiments_do_not_change_the_manifests(templates: Templates) -> None:
    alone = load_lab(SAMPLE_LAB, {"experiments/blue.yaml": None})
    both = load_lab(SAMPLE_LAB)
    assert render_all(alone, templates, ["purple"]) == render_all(both, templates, ["purple"])


TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u200e\u200f\u061c\ufeff"), max_size=60
)


@settings(max_examples=examples(40))
@given(owner=TEXT, description=TEXT)
def test_any_text_of_a_spec_stays_data(owner: str, description: str) -> None:
    text = yaml.safe_dump(
        {
            "apiVersion": "nimlab.dev/v1",
            "kind": "Experiment",
            "metadata": {"name": "green", "owner": owner, "description": description},
            "spec": {"contract": "nimp2p"},
        },
        allow_unicode=False,
    )
    files = load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})
    for experiment in files.experiments:
        if experiment.name == "green":
            templates = load_templates(SAMPLE_LAB, "templates/experiment")
            manifests = render_experiment(templates, experiment, files.lab)
            assert [m["kind"] for m in manifests] == [
                "NetworkPolicy",
                "ConfigMap",
                "Service",
                "StatefulSet",
            ]
            assert experiment.document["metadata"].get("description") == description


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a: {{ nothing }}\n", "x.yaml.j2:1", "nothing"),
        ("a: {{ nothing | json }}\n", "x.yaml.j2:1", "'nothing' is undefined"),
        ("a: 1\nb: {{ peers / 0 }}\n", "x.yaml.j2:2", "division"),
        ("a: {{ peers.__class__ }}\n", "x.yaml.j2:1", "unsafe"),
        ("a: {% if %}\n", "x.yaml.j2:1", "end of statement"),
        ("a: {{ 'x' * 2000000 }}\n", "x.yaml.j2:1", "result of `*` is too large"),
        ("a: {{ 7 ** 2000000 }}\n", "x.yaml.j2:1", "result of `**` is too large"),
        ("a: 1\n---\nb: 2\n", "x.yaml.j2", "2 documents"),
        ("a: 1\na: 2\n", "x.yaml.j2", "duplicate key"),
        ("a: [\n", "x.yaml.j2", "not valid YAML"),
        ("just text\n", "x.yaml.j2", "is not a Kubernetes object"),
        ("{kind: A, metadata: {name: a}}\n", "x.yaml.j2", "has no apiVersion"),
        ("{% include '/etc/passwd' %}\n", "x.yaml.j2:1", "passwd"),
        ("{% for i in range(99999) %}{{ 'x' * 9 }}\n{% endfor %}", "x.yaml.j2", "KiB"),
        (
            "{kind: A, apiVersion: v1, metadata: {name: a}, spec: {limits: {cpu: much}}}\n",
            "x.yaml.j2",
            "much",
        ),
    ],
)
def test_an_error_in_a_template_is_reported_with_its_position(
    tmp_path: Path, text: str, place: str, what: str
) -> None:
    (tmp_path / "x.yaml.j2").write_text(text, encoding="utf-8")
    files = load_lab(SAMPLE_LAB)
    with pytest.raises(RenderError) as caught:
        render_experiment(load_templates(tmp_path, "."), files.experiments[0], files.lab)
    assert str(caught.value.where).endswith(place)
    assert what in caught.value.what


def test_a_template_that_exceeded_its_time_limit_is_not_rendered_again(tmp_path: Path) -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (tmp_path / "x.yaml.j2").write_text(endless, encoding="utf-8")
    files = load_lab(SAMPLE_LAB)
    templates = load_templates(tmp_path, ".")
    results = []
    for experiment in files.experiments:
        started_s = time.process_time()
        with pytest.raises(RenderError) as caught:
            render_experiment(templates, experiment, files.lab)
        results.append((caught.value.what, time.process_time() - started_s))
    assert "for experiment `blue`" in results[0][0]
    assert "for another experiment" in results[1][0]
    assert results[1][1] < 0.1


def test_folder_without_templates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RenderError):
        load_templates(tmp_path, ".")


def test_a_template_that_renders_nothing_makes_no_object(tmp_path: Path) -> None:
    (tmp_path / "x.yaml.j2").write_text("{% if own_namespace %}a: 1{% endif %}\n", encoding="utf-8")
    files = load_lab(SAMPLE_LAB)
    assert render_experiment(load_templates(tmp_path, "."), files.experiments[0], files.lab) == ()


def test_a_change_of_owner_or_description_restarts_no_peer(templates: Templates) -> None:
    one, files = experiment_with(PURPLE.replace("purple", "green"))
    other, _ = experiment_with(PURPLE.replace("purple", "green").replace("five constrained", "5 slow"))

    def template_of(experiment: Experiment) -> Any:
        manifests = render_experiment(templates, experiment, files.lab)
        return next(m["spec"]["template"] for m in manifests if m["kind"] == "StatefulSet")

    assert template_of(one) == template_of(other)


def test_only_the_named_experiment_is_rendered() -> None:
    lab = read_desired_lab(SAMPLE_LAB, frozenset({"purple"}))
    assert [desired.name for desired in lab.desired] == ["purple"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("v1.0", "v1.0"), ("a+b", "a-b"), ("-x-", "x"), ("x" * 70, "x" * 63), ("---", "none")],
)
def test_label_value(text: str, value: str) -> None:
    assert label_value(text) == value
