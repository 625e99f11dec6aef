from __future__ import annotations

from pathlib import Path

import pytest

from nimlab.sandbox.command_lines import format_command
from nimlab.sandbox.daemon_process import find_strays
from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.state_values import PART_NAMES

LAYOUT = Layout(home=Path("/some where/home"))
PORTS = {"etcd": 1001, "kube-apiserver": 1002}


@pytest.mark.parametrize("name", PART_NAMES)
def test_every_command_line_identifies_its_sandbox(name: str) -> None:
    command = format_command(name, Path("/programs") / name, LAYOUT, PORTS)
    assert command[0] == f"/programs/{name}"
    assert any(f"={LAYOUT.pki}/" in argument for argument in command)


@pytest.mark.parametrize("name", PART_NAMES)
def test_no_command_line_contains_a_secret_or_an_insecure_option(name: str) -> None:
    command = " ".join(format_command(name, Path(name), LAYOUT, PORTS))
    assert "insecure" not in command
    assert "http://" not in command
    assert "0.0.0.0" not in command  # noqa: S104 -- its absence
    assert "token" not in command


def test_servers_listen_on_the_recorded_ports() -> None:
    etcd = format_command("etcd", Path("etcd"), LAYOUT, PORTS)
    api = format_command("kube-apiserver", Path("kube-apiserver"), LAYOUT, PORTS)
    assert "--listen-client-urls=https://127.0.0.1:1001" in etcd
    assert "--etcd-servers=https://127.0.0.1:1001" in api
    assert {"--bind-address=127.0.0.1", "--secure-port=1002"} <= set(api)


def test_a_folder_without_a_sandbox_has_no_processes() -> None:
    assert find_strays(LAYOUT.pki, ()) == ()
