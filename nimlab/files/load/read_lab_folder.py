"""Files of the lab's folder: listing, reading and validation by schema, with every problem recorded.

In: the lab's folder, and an overlay of files that are not written yet. Out: documents that fit their schema.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from nimlab.errors import Location, Problem
from nimlab.files.forbidden_text import is_visible
from nimlab.files.git_worktree import HiddenFile
from nimlab.files.load.schema_cache import Schema
from nimlab.files.load.source_document import Document, file_problem
from nimlab.files.safe_open import check_folder, read_file
from nimlab.files.spec import BrokenFile
from nimlab.value_cache import ValueCache

_READ_LIMIT_BYTES: Final = 300 * 1024
_IGNORED: Final = (".", "README")


@dataclass(slots=True)
class LoadState:
    """Inputs and results of loading a lab.

    `broken` lists the experiment files that cannot be used. `invalid_documents` violate their schema.
    `bad_contracts` contains the file of each unusable contract twice: under the contract's name and under the
    file's stem.
    """

    root: Path
    overlay: Mapping[str, str | None]
    value_cache: ValueCache | None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    broken: list[BrokenFile] = field(default_factory=list)
    invalid_documents: list[Document] = field(default_factory=list)
    bad_contracts: dict[str, str] = field(default_factory=dict)

    def add_hidden(self, hidden: Sequence[HiddenFile]) -> None:
        """Record a problem for every hidden file. An experiment in such a file is unusable."""
        for file in hidden:
            path = file.path if is_visible(file.path) else ascii(file.path)[1:-1]
            problem = Problem(code="hidden", what=file.what, location=Location(path=path), hint=file.hint)
            self.problems.append(problem)
            if file.path.startswith("experiments/"):
                self.broken.append(BrokenFile(name=PurePosixPath(path).stem, source=path))

    def read_single(self, path: str, kind: str) -> tuple[Document | None, tuple[Problem, ...]]:
        """Return the document of a single file, and its problems. The caller records the problems."""
        data = self._read_bytes(path)
        if data is None:
            return None, ()
        return Schema(self.root, kind, self.value_cache).read(path, data)

    def read_folder(self, folder: str, kind: str, broken: list[BrokenFile]) -> Iterator[Document]:
        """Yield the documents of a folder that fit their schema. Add the other files to `broken`."""
        schema = Schema(self.root, kind, self.value_cache)
        for path in self._list_files(folder):
            data = self._read_bytes(path)
            document, problems = (None, ()) if data is None else schema.read(path, data)
            if document is not None and not problems:
                yield document
                continue
            if document is not None:
                self.invalid_documents.append(document)
            self.problems.extend(problems)
            name = PurePosixPath(path).stem if document is None else document.name
            broken.append(BrokenFile(name=name, source=path))

    def _list_files(self, folder: str) -> list[str]:
        """Return the sorted paths of the YAML files in a folder. Other entries are reported or ignored."""
        paths = {
            path for path, text in self.overlay.items() if text is not None and path.startswith(folder + "/")
        }
        try:
            check_folder(self.root, folder)
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except FileNotFoundError:  # no files, because Git removes a folder with its last file
            return sorted(paths)
        except OSError as error:
            what = f"cannot read the folder `{folder}`: {error.strerror}"
            self.problems.append(file_problem(folder, what, f"replace it with a folder: `mkdir {folder}`"))
            return sorted(paths)
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.name.startswith(_IGNORED) or path in self.overlay:
                continue
            problem = _entry_problem(path, entry)
            if problem is None:
                paths.add(path)
            else:
                self.problems.append(problem)
        return sorted(paths)

    def _read_bytes(self, path: str) -> bytes | None:
        """Return a file's bytes, or record a problem and return None.

        If the file is larger than the limit, the result has one byte more than the limit.
        """
        text = self.overlay.get(path)
        if text is not None:
            return text.encode()
        try:
            return read_file(self.root, path, _READ_LIMIT_BYTES)
        except OSError as error:
            what = f"cannot read the file: {error.strerror}"
            self.problems.append(file_problem(path, what, None))
            return None


def _entry_problem(path: str, entry: os.DirEntry[str]) -> Problem | None:
    """Return the reason why an entry of a folder is not read; None if it is a regular YAML file."""
    if not is_visible(entry.name):
        return file_problem(ascii(path)[1:-1], "the file name contains invisible characters", "rename it")
    if entry.is_symlink() or not entry.is_file():
        what = "this is a symbolic link, a folder or a special file; only regular files are read"
        return file_problem(path, what, "replace it with the file itself")
    if not entry.name.endswith(".yaml"):
        what = "only files whose names end in `.yaml` are read"
        return file_problem(path, what, "rename it, or move it to another folder")
    return None
