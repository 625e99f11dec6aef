"""Combinations of options: if an option would have no effect, the command is rejected with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimlab.cli import main
from nimlab.cli.usage import SYNC_RULES, reject_beside_saved_plan
from tests.support.lab import make_lab

IGNORED = [
    (["sync", "--exit-code"], "--exit-code", "--dry-run"),
    (["sync", "--exit-code", "--strict", "--no-wait"], "--exit-code", "--dry-run"),
    (["sync", "--out", "plan.json"], "--out", "--dry-run"),
    (["sync", "--dry-run", "--timeout", "5s"], "--timeout", "does not wait"),
    (["sync", "--dry-run", "--lock-timeout", "0s"], "--lock-timeout", "takes no lock"),
    (["sync", "--dry-run", "--wait"], "--wait", "does not wait"),
    (["sync", "--no-prune", "--max-prune", "3"], "--max-prune", "deletes nothing"),
    (["sync", "--no-prune", "--allow-empty"], "--allow-empty", "deletes nothing"),
    (["sync", "blue", "--allow-empty"], "--allow-empty", "all experiments"),
    (["sync", "--plan", "plan.json", "--prune"], "--plan", "make another plan for `prune`"),
    (["sync", "--plan", "plan.json", "--dry-run"], "--plan", "make another plan for `dry-run`"),
    (["sync", "--plan", "plan.json", "--exit-code"], "--plan", "make another plan for `exit-code`"),
    (["sync", "--plan", "plan.json", "blue"], "--plan", "make another plan for `names`"),
    (["render", "--out", "manifests", "--output", "json"], "--output", "YAML"),
    (["logs", "blue", "--follow"], "--follow", "--peer"),
]


@pytest.mark.parametrize(("arguments", "option", "remedy"), IGNORED, ids=lambda value: str(value)[:60])
def test_option_without_effect_is_a_usage_error(
    arguments: list[str], option: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    assert main([*arguments, "--lab", str(root)]) == 2
    printed = capsys.readouterr()
    assert option in printed.err
    assert remedy in " ".join(printed.err.split())
    assert printed.out == ""
    assert not (tmp_path / "lab" / "manifests").exists()


def test_command_on_a_file_suggests_a_sync_with_the_named_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    assert main(["scale", "blue", "--peers", "3", "--lab", str(root), "--context", "my cluster"]) == 0
    assert "sync blue --dry-run --context 'my cluster'" in capsys.readouterr().err


def test_no_wait_is_allowed_with_a_saved_plan_and_a_dry_run() -> None:
    reject_beside_saved_plan(frozenset({"plan", "no_wait", "kubeconfig"}))
    assert not any(rule.is_broken_by({"dry_run", "no_wait"}) for rule in SYNC_RULES)
