"""A file against its kind's schema, unless it is known to fit.

In: a file's bytes, and what may be recalled of earlier runs. Out: its document and its problems. What fitted
under the same schema, read by the same code, fits again; what didn't isn't recalled, so that its problems are
found anew with their places.

The schemas are the tool's own, since all that comes after relies on what they ask for. A lab has copies, for
editors and for people; one that says something else is refused, never compiled.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nimlab import __version__
from nimlab.cache import ValueCache
from nimlab.errors import Location, Problem, SpecError
from nimlab.files.load.yaml_strict import Document, read_document, recalled_document
from nimlab.files.safe_open import foreign_content, read_file
from nimlab.timing import stage

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMAS: Final = Path(__file__).with_name("schema")
_LIMIT_BYTES: Final = 256 * 1024


class Schema:
    """The schema of a kind of file, compiled when something has to be checked."""

    def __init__(self, root: Path, kind: str, value_cache: ValueCache | None = None) -> None:
        """Read it. Raises SpecError when the lab's copy isn't one."""
        self._recall = value_cache
        self._validator: Validator | None = None
        self._text = (SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8")
        _check_copy(root, f"schema/{kind}.schema.json", self._text)

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
        from nimlab.files.load.validate import check_document

        document = read_document(path, data)
        if not isinstance(document, Document):
            return None, document
        with stage("validate"):
            return document, check_document(document, self._compiled())

    def _compiled(self) -> Validator:
        if self._validator is None:
            from nimlab.files.load.validate import compile_schema

            self._validator = compile_schema(self._text)
        return self._validator

    def _digest(self, data: bytes) -> str:
        schema = hashlib.sha256(self._text.encode()).digest()
        return hashlib.sha256(b"document" + schema + data).hexdigest()


def _check_copy(root: Path, path: str, own: str) -> None:
    """Raise SpecError unless the lab's file says, line by line, what the tool's own schema does."""
    try:
        text = read_file(root, path, _LIMIT_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(path, 1, f"the schema can't be read: {error}") from error
    foreign = foreign_content(text)
    if foreign is not None:
        raise _unusable(path, foreign[0], foreign[1])
    lines = text.splitlines()
    for number, (there, here) in enumerate(zip_longest(lines, own.splitlines()), 1):
        if there != here:
            what = f"from this line on it isn't the schema of nimlab {__version__}"
            raise _unusable(path, number, what)


def _unusable(path: str, line: int, what: str) -> SpecError:
    hint = f"what a file may hold is the tool's to say: copy its schemas from {SCHEMAS}"
    return SpecError((Problem(code="file", what=what, location=Location(path=path, line=line), hint=hint),))
