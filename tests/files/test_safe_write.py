"""Writing to paths that users choose: regular files are replaced atomically, other targets never."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nimlab.errors import EditError
from nimlab.files.safe_write import make_folder, remove_file, write_text
from tests.support.paths import REPOSITORY


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_files_are_replaced_atomically_and_keep_their_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("old", encoding="utf-8")
    path.chmod(mode)
    with umask(0o077):
        write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert mode_of(path) == mode
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_gets_the_mode_that_the_umask_allows(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        write_text(tmp_path / "a", "x")
    assert mode_of(tmp_path / "a") == mode


def test_symbolic_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("old", encoding="utf-8")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    write_text(tmp_path / "b.yaml", "new")
    assert (tmp_path / "b.yaml").is_symlink()
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8") == "new"


def test_target_of_a_dangling_link_is_created(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text(encoding="utf-8") == "new"


def make_device(folder: Path, name: str) -> Path:
    """Create a copy of a device, so that a faulty program cannot replace the device of the machine.

    Only root can create or replace devices. For other users, the path of the machine's device is returned.
    """
    if os.geteuid() != 0:
        return Path("/dev") / name
    own = folder / name
    os.mknod(own, 0o666 | stat.S_IFCHR, Path("/dev", name).stat().st_rdev)
    return own


@pytest.fixture(params=["itself", "linked", "linked twice"])
def null(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the path of a device that accepts all data."""
    (tmp_path / "devices").mkdir()
    device = make_device(tmp_path / "devices", "null")
    if request.param == "itself":
        return device
    (tmp_path / "one").symlink_to(device)
    (tmp_path / "two").symlink_to("one")
    return tmp_path / ("one" if request.param == "linked" else "two")


def test_device_stays_a_device(null: Path) -> None:
    device = null.resolve()
    before = device.lstat()
    write_text(null, "x")
    after = device.lstat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


@pytest.mark.parametrize("linked", [False, True])
def test_fifo_is_written_directly(tmp_path: Path, *, linked: bool) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = tmp_path / "link" if linked else fifo
    if linked:
        path.symlink_to("fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write_text(path, "x" * 200_000)
    reader.join(30)
    assert read == [b"x" * 200_000]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(EditError, match="cannot write the file"):
            write_text(path, "x")
    assert stat.S_ISSOCK(path.lstat().st_mode)


def test_path_of_an_open_descriptor_is_written_through_it(tmp_path: Path) -> None:
    """A second open would overwrite the beginning of the file; a rename would lose other programs' output."""
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8") as file:
        file.write("one\n")
        file.flush()
        write_text(Path(f"/dev/fd/{file.fileno()}"), "two\n")
        file.write("three\n")
    assert path.read_text(encoding="utf-8") == "one\ntwo\nthree\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_path_of_an_open_socket_is_written_through_it() -> None:
    own_end, other_end = socket.socketpair()
    with own_end, other_end:
        write_text(Path(f"/proc/self/fd/{own_end.fileno()}"), "x")
        assert other_end.recv(10) == b"x"


def test_closed_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        write_text(Path(f"/dev/fd/{write}"), "x")
    finally:
        os.close(write)


def test_write_waits_for_a_full_pipe() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[int] = []

    def drain() -> None:
        with os.fdopen(read, "rb") as file:
            got.append(len(file.read()))

    reader = threading.Thread(target=drain)
    reader.start()
    write_text(Path(f"/dev/fd/{write}"), "x" * 1_000_000)
    os.close(write)
    reader.join(30)
    assert got == [1_000_000]


def test_full_disk_keeps_the_old_file_and_is_reported_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    full = make_device(tmp_path / "devices", "full")
    with pytest.raises(EditError, match="No space left") as caught:
        write_text(full, "x")
    assert caught.value.where == str(full)
    assert stat.S_ISCHR(full.lstat().st_mode)
    folder = tmp_path / "a.yaml"
    folder.mkdir()
    with pytest.raises(EditError, match="directory"):
        write_text(folder, "x")
    assert {p.name for p in tmp_path.iterdir()} == {"a.yaml", "devices"}


@pytest.mark.parametrize("path", ["nowhere/a", "file/a", "circle", "circle/a", "a" * 300])
def test_unwritable_path_is_a_nimlab_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(EditError):
        write_text(tmp_path / path, "x")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "circle"}


def test_file_in_a_read_only_folder_is_overwritten() -> None:
    """Such a file is, for example, a single file that is mounted into a container, or a file in /proc."""
    path = Path("/proc/self/comm")
    write_text(path, "nimlab-test")
    assert path.read_text(encoding="utf-8") == "nimlab-test\n"


@pytest.mark.parametrize("path", ["file", "file/a", "circle"])
def test_folder_that_cannot_be_created_is_a_nimlab_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(EditError):
        make_folder(tmp_path / path)


def test_removal_of_a_missing_file_succeeds_and_a_failure_is_reported(tmp_path: Path) -> None:
    remove_file(tmp_path / "nothing")
    with pytest.raises(EditError):
        remove_file(tmp_path)


def shell(text: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `nimlab` is the program under test."""
    return subprocess.run(
        ["bash", "-c", f'nimlab() {{ "{sys.executable}" -m nimlab "$@"; }}\n{text}'],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.process
@pytest.mark.parametrize(
    "target", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", ">(cat)", "/dev/stderr", "/dev/fd/3 3>&1"]
)
def test_report_is_written_to_an_open_descriptor(lab_folder: Path, target: str) -> None:
    done = shell(f"nimlab validate --codequality {target} | cat", cwd=lab_folder)
    assert "2 experiments, no problems\n" in done.stdout
    assert "[]\n" in done.stdout + done.stderr
    assert "error" not in done.stderr


@pytest.mark.process
def test_report_to_stdout_is_written_after_the_result_in_the_same_file(lab_folder: Path) -> None:
    done = shell("nimlab validate --codequality /dev/stdout >out; cat out", cwd=lab_folder)
    assert done.stdout == "2 experiments, no problems\n[]\n"


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (
            "render --out lab.yaml",
            "lab.yaml: error[edit]: cannot create the folder: a part of its path is not a folder",
        ),
        ("render --out lab.yaml/x", "lab.yaml/x: error[edit]: cannot create the folder"),
        ("render --out /proc/nimlab", "/proc/nimlab: error[edit]: cannot create the folder: No such file"),
        (
            "render --out /dev/null",
            "/dev/null: error[edit]: cannot create the folder: a part of its path is not a folder",
        ),
        ("validate --codequality $FULL", "full: error[edit]: cannot write the file: No space"),
        ("validate --codequality nowhere/a", "nowhere/a: error[edit]: cannot write the file"),
        ("validate --codequality .", ".: error[edit]: cannot write the file: Is a directory"),
        ("validate --lab " + "a" * 300, "File name too long"),
        ("validate --lab circle", "circle: error: the folder cannot be found"),
        ("delete folder --force", "cannot remove the file"),
    ],
)
def test_unusable_path_is_not_reported_as_a_bug(lab_folder: Path, arguments: str, output: str) -> None:
    (lab_folder / "circle").symlink_to("circle")
    (lab_folder / "experiments" / "folder.yaml").mkdir()
    full = make_device(lab_folder.parent, "full")
    done = shell(f"nimlab {arguments.replace('$FULL', str(full))}", cwd=lab_folder)
    assert done.returncode == 1, done
    assert output in done.stderr
    assert "bug" not in done.stderr
