"""Credentials in files that Git tracks are found by their content, and are never printed."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from nimlab.cli import main
from nimlab.files.credentials_in_git import tracked_secrets
from tests.support.lab import git, make_lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.process  # each test creates several repositories

BODY = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
PEM = "-----BEGIN {}PRIVATE KEY-----\n" + BODY + "\n-----END {}PRIVATE KEY-----\n"
CONFIG = "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    {}\n"


def encoded(kind: str) -> str:
    return base64.b64encode(PEM.format(kind, kind).encode()).decode()


SECRETS = {
    "pem": PEM.format("", ""),
    "ec": PEM.format("EC ", "EC "),
    "openssh": PEM.format("OPENSSH ", "OPENSSH "),
    "indented": "data:\n  key: |\n    " + PEM.format("RSA ", "RSA ").replace("\n", "\n    "),
    "in a secret": f"kind: Secret\ndata: {{tls.key: {encoded('EC ')}}}\n",
    "kubeconfig": CONFIG.format(f"client-key-data: {encoded('')}"),
    "token": CONFIG.format("token: abcdef"),
    "quoted token": CONFIG.format("token: 'abcdef'"),
    "token block": CONFIG.format("token: |\n      abcdef"),
    "password": CONFIG.format("password: abcdef"),
    "flow": "{apiVersion: v1, kind: Config, users: [{name: a, user: {token: abcdef}}]}\n",
    "json": json.dumps({"kind": "Config", "users": [{"name": "a", "user": {"token": "abcdef"}}]}, indent=1),
}
HARMLESS = {
    "a table in code": 'FIELDS = {\n  "kind": "Config",\n  "client-key-data": "text", "token": "text",\n}',
    "public": "-----BEGIN PUBLIC KEY-----\n" + BODY,
    "certificate": base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + BODY.encode()).decode(),
    "prose": "A key begins with -----BEGIN PRIVATE KEY-----, and a kubeconfig with `kind: Config`.",
    "no credential": CONFIG.format("exec: {command: login}"),
    "code": 'CONFIG = {"kind": "Config", "users": [{"user": {"token": token, "client-key-data": key(x)}}]}',
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the Git settings of the machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture(params=["", "labs/one"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Create a lab in a repository that tracks no files yet."""
    top = tmp_path / "repository"
    folder: Path = make_lab(top / request.param if request.param else top, "x")
    git(top, "init", "-q")
    return folder


@pytest.mark.parametrize("name", SECRETS)
def test_credential_is_found_when_it_is_tracked(root: Path, name: str) -> None:
    path = root / "notes" / 'ä "file"'
    path.parent.mkdir()
    path.write_text(SECRETS[name], encoding="utf-8")
    assert tracked_secrets(root) == ()
    git(root, "add", "-A")
    (warning,) = tracked_secrets(root)
    assert warning.location.path == 'notes/ä "file"'
    assert warning.is_warning
    assert "abcdef" not in f"{warning} {warning.hint}"
    assert BODY not in f"{warning} {warning.hint}"


@pytest.mark.parametrize("name", HARMLESS)
def test_file_without_a_credential_is_not_reported(root: Path, name: str) -> None:
    (root / "notes").write_text(HARMLESS[name], encoding="utf-8")
    git(root, "add", "-A")
    assert tracked_secrets(root) == ()


def test_folder_of_the_sandbox_and_a_database_are_reported(root: Path) -> None:
    for name in (
        ".nimlab/sandbox/kubeconfig",
        ".nimlab/sandbox/etcd/member/snap/db",
        "backup/member/snap/db",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0" + SECRETS["token"].encode())
    git(root, "add", "-A")
    assert [warning.location.path for warning in tracked_secrets(root)] == [
        "backup/member/snap/db",
        ".nimlab/sandbox/etcd/member/snap/db",
    ]


def test_validate_warns_and_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "admin.conf").write_text(SECRETS["kubeconfig"], encoding="utf-8")
    git(root, "add", "-A")
    assert main(["validate", "--lab", str(root)]) == 0
    output = capsys.readouterr()
    assert "admin.conf:6:1: warning[secret]" in output.err
    assert "git rm --cached admin.conf" in output.err
    assert main(["validate", "--lab", str(root), "--output", "json"]) == 0
    assert [w["code"] for w in json.loads(capsys.readouterr().out)["warnings"]] == ["secret"]


def test_this_repository_contains_no_credential() -> None:
    assert tracked_secrets(REPOSITORY) == (), "`nimlab validate` in a fresh clone must show no warning"
