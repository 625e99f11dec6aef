"""On a machine that cannot run the rig, the error lists everything that is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig.__main__ import main


def test_missing_requirements_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert "cannot be started: a real node needs root rights" in error
    assert "these packages: buildah conntrack containerd" in error
