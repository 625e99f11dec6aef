"""Reading and validation of files, with a cache of the files that passed validation before.

In: the bytes of a file, and the cache of earlier runs. Out: the document and its problems. Only documents
that fit their schema are cached. The key is a digest of the schema and the file. Other files are validated
again, which also finds the positions of their problems.

nimlab validates files by its own schemas, because the code relies on them. A lab contains copies of the
schemas for editors and readers. nimlab refuses a copy that differs, and never compiles it.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nimlab import __version__
from nimlab.errors import Location, Problem, SpecError
from nimlab.files.forbidden_text import foreign_content
from nimlab.files.load.source_document import Document
from nimlab.files.load.yaml_strict import cached_document, read_document
from nimlab.files.safe_open import read_file
from nimlab.stopwatch import stage
from nimlab.value_cache import ValueCache

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMAS: Final = Path(__file__).with_name("schema_source")
_LIMIT_BYTES: Final = 256 * 1024


class Schema:
    """Schema of one kind of file. The schema is compiled when the first file has to be validated."""

    def __init__(self, root: Path, kind: str, value_cache: ValueCache | None = None) -> None:
        """Read the schema. Raises SpecError if the lab's copy is missing or differs."""
        self._cache = value_cache
        self._validator: Validator | None = None
        self._text = (SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8")
        _check_copy(root, f"schema/{kind}.schema.json", self._text)

    def read(self, path: str, data: bytes) -> tuple[Document | None, tuple[Problem, ...]]:
        """Return the document of a file, or None if it is unreadable, and all problems of the file."""
        if self._cache is None:
            return self._validate(path, data)
        digest = self._digest(data)
        cached = self._cache.get(digest)
        if cached is not None:
            return cached_document(path, data, cached), ()
        document, problems = self._validate(path, data)
        if document is not None and not problems:
            self._cache.put(digest, document.data)
        return document, problems

    def _validate(self, path: str, data: bytes) -> tuple[Document | None, tuple[Problem, ...]]:
        from nimlab.files.load.check_schema import check_document

        document = read_document(path, data)
        if not isinstance(document, Document):
            return None, document
        with stage("validate"):
            return document, check_document(document, self._compiled())

    def _compiled(self) -> Validator:
        if self._validator is None:
            from nimlab.files.load.check_schema import compile_schema

            self._validator = compile_schema(self._text)
        return self._validator

    def _digest(self, data: bytes) -> str:
        schema = hashlib.sha256(self._text.encode()).digest()
        return hashlib.sha256(b"document" + schema + data).hexdigest()


def _check_copy(root: Path, path: str, own: str) -> None:
    """Raise SpecError unless the lab's copy of a schema has the same lines as nimlab's own."""
    try:
        text = read_file(root, path, _LIMIT_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(path, 1, f"cannot read the schema: {error}") from error
    foreign = foreign_content(text)
    if foreign is not None:
        raise _unusable(path, foreign[0], foreign[1])
    lines = text.splitlines()
    for number, (copied, expected) in enumerate(zip_longest(lines, own.splitlines()), 1):
        if copied != expected:
            what = f"this copy differs from the schema of nimlab {__version__} from this line on"
            raise _unusable(path, number, what)


def _unusable(path: str, line: int, what: str) -> SpecError:
    hint = f"the lab's schema copy is outdated; copy the current one from {SCHEMAS}"
    return SpecError((Problem(code="file", what=what, location=Location(path=path, line=line), hint=hint),))
