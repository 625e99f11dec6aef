"""Edits of experiment files by `create`, `scale` and `delete`: no text outside the edit changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.errors import EditError
from nimlab.files.edit_experiment_file import (
    NewExperiment,
    experiment_text,
    find_experiment_file,
    new_experiment_path,
    read_text,
    set_peers,
)
from nimlab.files.load import load_lab
from tests.support.examples import examples
from tests.support.paths import SAMPLE_LAB

GREEN = NewExperiment(
    name="green",
    peers=5,
    connections=2,
    msg_size=1440,
    msg_rate=2000,
    cpu=0.05,
    ram=16,
    downlink_bw=16,
    uplink_bw=16,
)


def test_flags_become_a_valid_file_with_units() -> None:
    text = experiment_text(GREEN)
    assert text.startswith("# yaml-language-server: $schema=../schema/experiment.schema.json\n")
    assert "message: {size: 1440B, interval: 2000ms}" in text
    assert "resources: {cpu: 50m, memory: 16Mi}" in text
    assert "network: {downlink: 16Mbit, uplink: 16Mbit}" in text
    files = load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})
    assert files.problems == ()


@given(owner=st.text(st.characters(exclude_categories=("C", "Z")), max_size=30))
def test_any_owner_and_description_survive_a_round_trip(owner: str) -> None:
    text = experiment_text(
        NewExperiment(
            name="no",
            peers=2,
            connections=2,
            msg_size=1,
            msg_rate=1,
            cpu=1,
            ram=16,
            downlink_bw=1,
            uplink_bw=1,
            owner=owner,
            description=f"{owner}: {owner} #",
        )
    )
    files = load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})
    (experiment,) = [e for e in files.experiments if e.name == "no"]
    assert (experiment.owner, experiment.description) == (owner, f"{owner}: {owner} #")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("spec:\n  peers: 5 # five\n  a: 1\n", "spec:\n  peers: 7 # five\n  a: 1\n"),
        ("spec: {peers: 5, a: 1}\n", "spec: {peers: 7, a: 1}\n"),
        ("spec:\r\n  peers:   5\r\n", "spec:\r\n  peers:   7\r\n"),
        ("spec:\n  'peers': 5", "spec:\n  'peers': 7"),
        ("a: {peers: 5}\nspec: {peers: 5}\n", "a: {peers: 5}\nspec: {peers: 7}\n"),
        ("spec:\n    a: 1\n", "spec:\n    peers: 7\n    a: 1\n"),
        ("spec:\r\n  a: 1\r\n", "spec:\r\n  peers: 7\r\n  a: 1\r\n"),
        ("spec: {a: 1}\n", "spec: {peers: 7, a: 1}\n"),
        ("# 😀 é\nspec: {peers: 5}\n", "# 😀 é\nspec: {peers: 7}\n"),
        ("spec:\n  peers: many\n", "spec:\n  peers: 7\n"),
        ("spec:\n  ? peers\n  : 5\n", "spec:\n  ? peers\n  : 7\n"),
        ("spec: { # {\n  a: 1}\n", "spec: { # {\n  peers: 7, a: 1}\n"),
        ("# a\r\nspec:\n  # b\n\n  a: 1\r\n", "# a\r\nspec:\n  # b\n\n  peers: 7\n  a: 1\r\n"),
    ],
)
def test_scale_changes_nothing_else(before: str, after: str) -> None:
    assert set_peers(before, 7) == after


COMMENT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20)


@given(comment=COMMENT, gap=st.integers(1, 5), indent=st.integers(1, 6), peers=st.integers(1, 9999))
def test_scale_keeps_every_other_byte(comment: str, gap: int, indent: int, peers: int) -> None:
    pad, space = " " * indent, " " * gap
    parts = [f"# {comment}\nspec:\n{pad}contract: nimp2p\n{pad}peers:{space}", f" # {comment}\n{pad}a: 1"]
    assert set_peers("5".join(parts), peers) == str(peers).join(parts)


FIELDS = {
    "contract": "nimp2p",
    "connectTo": "2",
    "message": "{size: 1440B, interval: 2000ms}",
    "resources": "{cpu: 50m, memory: 16Mi}",
    "rollout": "rolling",
}
LEFT_OUT = {"connectTo", "message", "resources", "rollout"}


@st.composite
def experiment_files(draw: st.DrawFn) -> tuple[str, str]:
    """Return the text before and after the number of peers, from a valid file in one of many styles."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    fields = {k: v for k, v in FIELDS.items() if k not in draw(st.sets(st.sampled_from(sorted(LEFT_OUT))))}
    keys = draw(st.permutations(["peers", *fields]))
    named = [(quoted(draw, key), fields.get(key, "\0")) for key in keys]
    spaces = st.integers(1, 4).map(lambda n: " " * n)
    if draw(st.booleans()):
        inner = ",".join(f"{draw(spaces)}{key}:{draw(spaces)}{value}" for key, value in named)
        spec = f"spec:{draw(spaces)}{{{inner}}}{end}"
    else:
        pad = draw(spaces)
        lines = [f"{pad}{key}:{draw(spaces)}{value}{remark(draw)}{end}" for key, value in named]
        between = draw(st.sampled_from(["", end, f"{pad}# peers: 3{end}"]))
        spec = f"spec:{remark(draw)}{end}" + between.join(lines)
    head = f"apiVersion: nimlab.dev/v1{end}kind: Experiment{remark(draw)}{end}"
    parts = draw(st.permutations([spec, f"metadata: {{name: green}}{end}"]))
    before, after = (head + "".join(parts)).split("\0")
    return before, after if draw(st.booleans()) else after.rstrip("\r\n ")


def quoted(draw: st.DrawFn, key: str) -> str:
    """Return a key, with or without quotes."""
    return draw(st.sampled_from([key, f"'{key}'", f'"{key}"']))


def remark(draw: st.DrawFn) -> str:
    """Return a comment for the end of a line, or nothing."""
    return "" if draw(st.booleans()) else f"  # peers: 4 {draw(COMMENT)}"


@settings(max_examples=examples(60))
@given(file=experiment_files(), before=st.integers(1, 9999), after=st.integers(1, 9999))
def test_scale_of_any_valid_file_changes_digits_only(file: tuple[str, str], before: int, after: int) -> None:
    old, new = str(before).join(file), str(after).join(file)
    assert set_peers(old, after) == new
    assert yaml.safe_load(new)["spec"]["peers"] == after
    assert set_peers(new, before) == old


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\n",
        "spec: 1\n",
        "spec: {}\n",
        "spec: {peers: [1]}\n",
        "a: [",
        "[" * 5000,
        "a: &n 5\nspec: {peers: *n}\n",
        "spec: {peers: &n 5}\n",
        "spec: {peers: !!int 5}\n",
        "spec: {peers: '5'}\n",
        "spec:\n  peers:\n  a: 1\n",
        "spec:\n  peers: |\n    5\n",
        "spec:\n  ? a\n  : 1\n",
        "spec: {? a : 1}\n",
    ],
)
def test_scale_refuses_files_that_it_cannot_edit(text: str) -> None:
    with pytest.raises(EditError):
        set_peers(text, 3)


@pytest.mark.parametrize("peers", [0, -1])
def test_scale_refuses_fewer_than_one_peer(peers: int) -> None:
    with pytest.raises(EditError):
        set_peers("spec: {peers: 5}\n", peers)


@pytest.mark.parametrize("cpu", [0, -1, 0.0001, 0.0505, float("nan"), float("inf")])
def test_fraction_of_a_core_that_would_be_rounded_is_refused(cpu: float) -> None:
    with pytest.raises(EditError):
        experiment_text(replace(GREEN, cpu=cpu))


def make_files(root: Path) -> Path:
    """Create three files: one is named after its experiment, one is not, and one is broken."""
    folder = root / "experiments"
    folder.mkdir()
    (folder / "blue.yaml").write_text("metadata: {name: blue}\n", encoding="utf-8")
    (folder / "other.yaml").write_text("metadata: {name: purple}\n", encoding="utf-8")
    (folder / "broken.yaml").write_text("a: [", encoding="utf-8")
    return folder


def test_files_are_found_by_the_name_of_their_experiment(tmp_path: Path) -> None:
    folder = make_files(tmp_path)
    assert find_experiment_file(tmp_path, "purple") == folder / "other.yaml"
    assert find_experiment_file(tmp_path, "broken") == folder / "broken.yaml"
    (folder / "a.yaml").write_text("metadata: {name: broken}\n", encoding="utf-8")
    assert find_experiment_file(tmp_path, "broken") == folder / "a.yaml"
    with pytest.raises(EditError) as caught:
        find_experiment_file(tmp_path, "purpel")
    assert caught.value.hint == "did you mean `purple`?"
    with pytest.raises(EditError) as caught:
        find_experiment_file(tmp_path, "zzz")
    assert caught.value.hint == "`nimlab list` lists all experiments"


@pytest.mark.parametrize("name", ["blue", "../blue", "a/b", ".hidden"])
def test_new_file_replaces_no_file_and_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    make_files(tmp_path)
    with pytest.raises(EditError):
        new_experiment_path(tmp_path, name)


def test_new_file_is_named_after_its_experiment(tmp_path: Path) -> None:
    folder = make_files(tmp_path)
    assert new_experiment_path(tmp_path, "green") == folder / "green.yaml"
    assert new_experiment_path(tmp_path, "a" * 300).parent == folder


def test_unreadable_file_is_an_edit_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff")
    with pytest.raises(EditError):
        read_text(path)
