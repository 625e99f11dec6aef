"""`create` writes files that the contract supports; `delete` removes only files that Git can restore."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from nimlab.cli import main
from nimlab.files.load import load_lab
from tests.support.lab import git, make_lab
from tests.support.paths import SAMPLE_LAB

CUSTOM = """
apiVersion: nimlab.dev/v1
kind: Contract
metadata: {name: NAME}
spec:
  image: example.org/node:v1
  container: node
  isolation: label
  hostName: any
  connectTo: LIMIT
  env:
    - {name: PEERS, from: peers, as: count, required: true, description: a}
ENV
  ports:
    - {name: p2p, port: 5000, protocols: [TCP]}
    - {name: metrics, port: 8008, protocols: [TCP]}
"""
FIELDS = {
    "connectTo": "count", "message.size": "bytes", "message.interval": "ms", "muxer": "word",
    "fragments": "count", "maxConnections": "count", "selfTrigger": "flag", "startDelay": "s",
    "gossipsub.d": "count", "gossipsub.dLow": "count", "gossipsub.dHigh": "count",
    "gossipsub.heartbeat": "ms", "gossipsub.floodPublish": "flag",
}  # fmt: skip
SETS = {
    "few": {},
    "connects": {"connectTo": True},
    "size-only": {"message.size": True},
    "interval-only": {"message.interval": False},
    "all-required": dict.fromkeys(FIELDS, True),
    "all-optional": dict.fromkeys(FIELDS, False),
}
CONTRACTS = [path.stem for path in sorted((SAMPLE_LAB / "contracts").glob("*.yaml"))]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the Git settings of the machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Create a lab with the shipped contracts and additional contracts."""
    folder = make_lab(tmp_path / "lab", "x")
    for limit in ("less-than-peers", "at-most-peers"):
        for name, fields in SETS.items():
            env = "\n".join(
                f"    - {{name: V{number}, from: {field}, as: {FIELDS[field]}, "
                f"required: {str(required).lower()}, description: a}}"
                for number, (field, required) in enumerate(fields.items())
            )
            text = CUSTOM.replace("NAME", f"{name}-{limit[:2]}").replace("LIMIT", limit).replace("ENV", env)
            (folder / "contracts" / f"{name}-{limit[:2]}.yaml").write_text(text, encoding="utf-8")
    return folder


def commit(root: Path) -> None:
    """Commit everything; create a repository if there is none."""
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a change")


def test_create_writes_a_valid_file_for_every_contract(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_lab(root).problems == ()
    names = sorted(load_lab(root).contracts)
    assert set(CONTRACTS) < set(names)
    for name in names:
        assert main(["create", "--name", name, "--contract", name, "--lab", str(root)]) == 0, name
        contract = load_lab(root).contracts[name]
        spec = yaml.safe_load((root / "experiments" / f"{name}.yaml").read_text(encoding="utf-8"))["spec"]
        assert ("message" in spec) is any(field.startswith("message.") for field in contract.fields)
    assert main(["validate", "--lab", str(root)]) == 0, capsys.readouterr().out


def test_flag_whose_field_the_contract_does_not_support_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["create", "--name", "go", "--contract", "dst-go", "--lab", str(root)]
    assert main([*arguments, "--msg-size", "100"]) == 1
    assert "`message.size`" in capsys.readouterr().err
    assert not (root / "experiments" / "go.yaml").exists()
    assert main([*arguments, "--peers", "5", "--connections", "3"]) == 0
    assert load_lab(root).experiments[1].settings["connectTo"] == 3


def test_default_of_the_lab_is_not_repeated_in_the_file(root: Path) -> None:
    lab = root / "lab.yaml"
    text = lab.read_text(encoding="utf-8")
    lab.write_text(
        text.replace("    connectTo: 2\n", "    connectTo: 2\n    muxer: mplex\n"), encoding="utf-8"
    )
    assert load_lab(root).lab.defaults["muxer"] == "mplex"
    assert main(["create", "--name", "a", "--contract", "all-required-le", "--lab", str(root)]) == 0
    assert "muxer" not in (root / "experiments" / "a.yaml").read_text(encoding="utf-8")
    assert load_lab(root).problems == ()


def test_error_names_an_unknown_contract(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "--name", "a", "--contract", "nimp2q", "--lab", str(root)]) == 1
    assert "there is no contract `nimp2q`" in capsys.readouterr().err


def test_first_experiment_creates_the_folder(tmp_path: Path) -> None:
    folder = make_lab(tmp_path / "lab", "x", experiments=())
    (folder / "experiments").rmdir()
    assert main(["validate", "--lab", str(folder)]) == 0
    assert main(["create", "--name", "a", "--lab", str(folder)]) == 0
    assert [e.name for e in load_lab(folder).experiments] == ["a"]


@pytest.mark.parametrize("name", ["experiments", "contracts"])
def test_file_in_the_place_of_a_folder_is_a_problem(tmp_path: Path, name: str) -> None:
    folder = make_lab(tmp_path / "lab", "x", experiments=())
    for path in sorted((folder / name).iterdir()):
        path.unlink()
    (folder / name).rmdir()
    assert load_lab(folder).problems == ()
    (folder / name).write_text("x", encoding="utf-8")
    assert [(p.code, p.location.path) for p in load_lab(folder).problems] == [("file", name)]


def test_file_without_changes_is_deleted(root: Path) -> None:
    commit(root)
    assert main(["delete", "blue", "--lab", str(root)]) == 0
    assert not (root / "experiments" / "blue.yaml").exists()


@pytest.mark.parametrize("state", ["no repository", "no commit", "untracked", "ignored", "staged", "changed"])
def test_file_that_git_cannot_restore_is_kept(
    root: Path, state: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    path = root / "experiments" / "blue.yaml"
    if state == "no commit":
        git(root, "init", "-q")
        git(root, "add", "-A")
    elif state in ("untracked", "ignored", "staged"):
        (root / ".gitignore").write_text("/experiments/blue.yaml\n", encoding="utf-8")
        commit(root)
        if state != "ignored":
            (root / ".gitignore").unlink()
        if state == "staged":
            git(root, "add", "experiments/blue.yaml")
    elif state == "changed":
        commit(root)
        path.write_text(path.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert main(["delete", "blue", "--lab", str(root)]) == 1
    message = capsys.readouterr().err
    assert "experiments/blue.yaml" in message
    assert "--force" in message
    assert path.exists()
    assert main(["delete", "blue", "--force", "--lab", str(root)]) == 0
    assert not path.exists()


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_file_with_a_change_that_git_hides_is_kept(root: Path, flag: str) -> None:
    commit(root)
    git(root, "update-index", flag, "experiments/blue.yaml")
    path = root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert main(["delete", "blue", "--lab", str(root)]) == 1
    assert path.exists()


def test_committed_file_of_a_lab_in_a_subfolder_is_deleted(tmp_path: Path) -> None:
    folder = make_lab(tmp_path / "top" / "labs" / "one", "x")
    commit(tmp_path / "top")
    assert main(["delete", "blue", "--lab", str(folder)]) == 0
    assert main(["delete", "purple", "--lab", str(folder)]) == 0
    done = subprocess.run(
        ["git", "-C", str(tmp_path / "top"), "checkout", "--", "."], check=True, capture_output=True
    )
    assert done.returncode == 0
    assert len(load_lab(folder).experiments) == 2
