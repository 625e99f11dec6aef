"""Errors: exit codes, places in files, problems in files, and the exception hierarchy.

Every error states what is wrong, where, and how to fix it. This module does no input or output. A class
exists only if some code catches it or a test uses it.

    NimlabError                any error that a user can fix; has `what`, `where` and `hint`; exit code 1
    ├─ SpecError               the user's files are invalid; contains all problems, sorted by place
    ├─ RenderError             a template cannot be rendered
    ├─ GuardError              a rendered manifest is not allowed
    ├─ PlanError               the plan is refused, for example because the commit is outdated
    │  ├─ OwnershipConflict    the object exists and was not created by nimlab
    │  └─ ImmutableField       the change requires a replacement, which the experiment does not allow
    ├─ ClusterError            the API server refused a request or did not answer; has the HTTP status
    │  ├─ Unreachable          no complete response was received, even after retries
    │  ├─ Forbidden            status 401 or 403; never treated as "the object does not exist"
    │  ├─ IncompleteDiscovery  the server cannot list all its kinds
    │  ├─ Expired              status 410: the list or watch must be restarted
    │  ├─ FieldConflict        another field manager owns the fields
    │  ├─ PreconditionFailed   the object has changed since it was read
    │  └─ Rejected             the server does not accept the object
    ├─ LockHeld                another sync is running, or may have acquired the lock
    ├─ Interrupted             a signal arrived before the first change; exit code 130
    ├─ SandboxError            the local control plane cannot be built, started or stopped
    └─ EditError               a file cannot be edited as requested
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """Exit codes of the commands; docs/exit-codes.md describes how a pipeline uses them."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    PENDING = 3
    NOT_READY = 4
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Location:
    """A place in a file. `path` is relative to the lab's folder; `line` and `column` are counted from 1."""

    path: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem in a file.

    `code` is stable and documented. `pointer` is the place inside the document, such as `spec.peers`; it is
    empty if the problem concerns the whole file. `excerpt` is the source line, and `width` is the number of
    characters to underline, starting at the column. A warning reports a probable mistake; the file is still
    used.
    """

    code: str
    what: str
    location: Location
    pointer: str = ""
    hint: str | None = None
    excerpt: str | None = None
    width: int = 1
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.location}: {'warning' if self.is_warning else 'error'}[{self.code}]: {self.what}"


_MESSAGE_LIMIT: Final = 500  # characters; the body of an error response can contain a whole object


def truncate(text: str, limit: int) -> str:
    """Return at most `limit` characters of the text; a `…` at the end marks a truncated text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shorten(text: str) -> str:
    """Return the text on one line of at most 500 characters."""
    return truncate(" ".join(text.split()), _MESSAGE_LIMIT)


class NimlabError(Exception):
    """An error that the user can understand and fix. Any other exception is a bug in nimlab."""

    exit_code = ExitCode.ERROR
    code = "error"

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        place = "" if self.where is None else f"{self.where}: "
        tail = "" if self.hint is None else f"\n  hint: {self.hint}"
        return f"{place}error[{self.code}]: {self.what}{tail}"


class SpecError(NimlabError):
    """The user's files are invalid. `problems` contains all their problems, sorted by place."""

    code = "spec"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.location, p.code, p.what)))
        files = len({p.location.path for p in self.problems})
        super().__init__(f"{len(self.problems)} problem(s) in {files} file(s)")


class RenderError(NimlabError):
    """A template cannot be rendered; `where` is the template's file and line."""

    code = "render"
    experiment: str | None = None
    """The experiment that was rendered, if any."""


class GuardError(NimlabError):
    """A rendered manifest is not allowed; `where` is its object key."""

    code = "guard"
    experiment: str | None = None
    """The experiment that was rendered, if any."""


class PlanError(NimlabError):
    """The plan is refused, as a whole or for one object."""

    code = "plan"


class OwnershipConflict(PlanError):
    """The object exists and was not created by nimlab."""

    code = "ownership"


class ImmutableField(PlanError):
    """The change requires a replacement of the object, which the experiment does not allow."""

    code = "immutable-field"


class ClusterError(NimlabError):
    """A request to the API server was refused or failed; `status` is the HTTP status, 0 if there is none.

    `what` is truncated for display. `full_message` is the full text, in which secrets can be redacted before
    it is truncated. Never print `full_message`.
    """

    code = "cluster"

    def __init__(self, what: str, *, where: object = None, hint: str | None = None, status: int = 0) -> None:
        super().__init__(shorten(what), where=where, hint=hint)
        self.full_message = what
        self.status = status


class Unreachable(ClusterError):
    """No complete response was received, even after retries."""

    code = "unreachable"


class Forbidden(ClusterError):
    """The credentials do not allow the request.

    This error is never treated as "the object does not exist".
    """

    code = "forbidden"


class IncompleteDiscovery(ClusterError):
    """The server cannot list all its kinds, so objects of further kinds may exist."""

    code = "unseen"


class Expired(ClusterError):
    """A `continue` token or the resourceVersion of a watch has expired; a new LIST is needed."""

    code = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A field that another manager owns. `field` is its path as in the response (`.spec.replicas`)."""

    manager: str
    field: str


class FieldConflict(ClusterError):
    """Other field managers own fields that the apply would change."""

    code = "field-conflict"

    def __init__(
        self, what: str, *, where: object, hint: str | None, conflicts: tuple[Conflict, ...]
    ) -> None:
        super().__init__(what, where=where, hint=hint, status=409)
        self.conflicts = conflicts


class PreconditionFailed(ClusterError):
    """The object has changed since it was read: a precondition on uid or resourceVersion failed."""

    code = "moved"


class Rejected(ClusterError):
    """The server does not accept the object: status 400 or 422, 403 by admission, or 500 due to the patch."""

    code = "rejected"


class LockHeld(NimlabError):
    """Another sync holds the lease of this apply-set, or may have acquired it."""

    code = "locked"


class Interrupted(NimlabError):
    """A signal stopped the program before the first change."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"


class SandboxError(NimlabError):
    """The control plane of the sandbox cannot be built, started or stopped."""

    code = "sandbox"


class EditError(NimlabError):
    """A file cannot be created, changed or removed as requested."""

    code = "edit"
