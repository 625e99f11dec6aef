"""Only regular files inside the lab's folder are read, and only up to the size limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nimlab.files.safe_open import check_folder, read_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Create a folder with a regular file, symbolic links, a pipe and a link to a device."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "inside" / "file")
    (tmp_path / "folder-link").symlink_to(tmp_path / "inside")
    (tmp_path / "inside" / "deep-link").symlink_to(tmp_path / "inside")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    return tmp_path


def test_regular_file_is_read_up_to_one_byte_more_than_the_limit(root: Path) -> None:
    assert read_file(root, "inside/file", 100) == b"0123456789"
    assert read_file(root, "inside/file", 4) == b"01234"


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("link", "it is a symbolic link"),
        ("device", "it is a symbolic link"),
        ("folder-link/file", "`folder-link` is a symbolic link"),
        ("inside/deep-link/file", "`inside/deep-link` is a symbolic link"),
        ("pipe", "not a regular file"),
        ("inside", "not a regular file"),
        ("nothing", "No such file"),
    ],
)
def test_other_files_are_refused_with_a_readable_message(root: Path, path: str, what: str) -> None:
    with pytest.raises(OSError, match=what) as caught:
        read_file(root, path, 100)
    assert caught.value.strerror


def test_root_itself_can_be_a_link(root: Path) -> None:
    linked = root / "folder-link"
    assert read_file(linked, "file", 100) == b"0123456789"
    check_folder(linked, ".")
