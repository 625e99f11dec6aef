from __future__ import annotations

from pathlib import Path

import pytest

from nimlab.sandbox.command_lines import format_command
from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.process import find_strays
from nimlab.sandbox.state import PART_NAMES

LAYOUT = Layout(home=Path("/some where/home"))
PORTS = {"etcd": 1001, "kube-apiserver": 1002}


@pytest.mark.parametrize("name", PART_NAMES)
def test_every_part_can_be_known_by_its_command_line(name: str) -> None:
    command = format_command(name, Path("/programs") / name, LAYOUT, PORTS)
    assert command[0] == f"/programs/{name}"
    assert any(f"={LAYOUT.pki}/" in argument for argument in command)


@pytest.mark.parametrize("name", PART_NAMES)
def test_no_secret_and_no_open_door_is_on_a_command_line(name: str) -> None:
    command = " ".join(format_command(name, Path(name), LAYOUT, PORTS))
    assert "insecure" not in command
    assert "http://" not in command
    assert "0.0.0.0" not in command  # noqa: S104 -- that it isn't there
    assert "token" not in command


def test_servers_listen_where_the_record_says() -> None:
    etcd = format_command("etcd", Path("etcd"), LAYOUT, PORTS)
    api = format_command("kube-apiserver", Path("kube-apiserver"), LAYOUT, PORTS)
    assert "--listen-client-urls=https://127.0.0.1:1001" in etcd
    assert "--etcd-servers=https://127.0.0.1:1001" in api
    assert {"--bind-address=127.0.0.1", "--secure-port=1002"} <= set(api)


def test_nobody_runs_in_a_folder_that_never_was() -> None:
    assert find_strays(LAYOUT.pki, ()) == ()
