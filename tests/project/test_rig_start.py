"""On a machine that lacks requirements of the rig, the rig reports them at once and fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig.__main__ import main


def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([]) == 1
    message = capsys.readouterr().err
    assert "can't be started: a real node needs root" in message
    assert "these packages: buildah conntrack containerd" in message
