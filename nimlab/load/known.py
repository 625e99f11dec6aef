"""A file against its kind's schema, unless it is known to fit.

In: a file's bytes, and what may be recalled of earlier runs. Out: its document and its problems. What fitted
under the same schema, read by the same code, fits again; what didn't isn't recalled, so that its problems are
found anew with their places.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nimlab.errors import NimlabError, Problem
from nimlab.load.text import Document, read_document, recalled_document
from nimlab.reading import read_file
from nimlab.recall import Recall
from nimlab.timing import stage

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_LIMIT_BYTES: Final = 256 * 1024


class Schema:
    """`schema/<kind>.schema.json`, compiled when something has to be checked."""

    def __init__(self, root: Path, kind: str, recall: Recall | None = None) -> None:
        """Read it. Raises NimlabError when it can't be used."""
        self._path = f"schema/{kind}.schema.json"
        self._recall = recall
        self._validator: Validator | None = None
        try:
            self._text = read_file(root, self._path, _LIMIT_BYTES).decode("utf-8")
        except (OSError, ValueError) as error:
            raise _unusable(self._path, error) from error
        digest = hashlib.sha256(b"schema" + self._text.encode()).hexdigest()
        if recall is None or recall.get(digest) is None:
            self._compiled()
            if recall is not None:
                recall.put(digest, True)  # noqa: FBT003 -- a value

    def read(self, path: str, data: bytes) -> tuple[Document | None, tuple[Problem, ...]]:
        """Return the document in a file, None if there is none to be read, and all that is wrong with it."""
        if self._recall is None:
            return self._check(path, data)
        digest = self._digest(data)
        known = self._recall.get(digest)
        if known is not None:
            return recalled_document(path, data, known), ()
        document, problems = self._check(path, data)
        if document is not None and not problems:
            self._recall.put(digest, document.data)
        return document, problems

    def _check(self, path: str, data: bytes) -> tuple[Document | None, tuple[Problem, ...]]:
        from nimlab.load.check import check_document

        document = read_document(path, data)
        if not isinstance(document, Document):
            return None, document
        with stage("validate"):
            return document, check_document(document, self._compiled())

    def _compiled(self) -> Validator:
        if self._validator is None:
            from nimlab.load.check import compile_schema

            try:
                self._validator = compile_schema(self._text)
            except ValueError as error:
                raise _unusable(self._path, error) from error
        return self._validator

    def _digest(self, data: bytes) -> str:
        schema = hashlib.sha256(self._text.encode()).digest()
        return hashlib.sha256(b"document" + schema + data).hexdigest()


def _unusable(path: str, error: Exception) -> NimlabError:
    return NimlabError(
        f"the schema can't be used: {' '.join(str(error).split())[:400]}",
        where=path,
        hint="restore it from the repository",
    )
