"""What can go wrong, and how it is said: places, problems and the tree of exceptions.

Every error says what, where and how to fix it. Nothing here reads, prints or knows a cluster;
a class exists only because somebody catches it or a test names it.

    NimlabError                 what, where, hint; exit code 1
    ├─ SpecError                the user's files: all their problems at once, in file order
    ├─ RenderError              a template that can't be filled
    ├─ GuardError               a rendered manifest that may not be sent
    ├─ PlanError                the plan is refused (a stale commit, an unknown name, an empty desired state)
    │  ├─ OwnershipConflict     the object exists, and it is not ours
    │  └─ ImmutableField        the change needs a replacement that nobody allowed
    ├─ ClusterError             the API server said no, or nothing: verb, object, status
    │  ├─ Unreachable           no answer, a broken answer, or out of retries
    │  ├─ Forbidden             401 or 403; never read as "absent"
    │  ├─ Unseen                the server can't show all that it has
    │  ├─ Gone                  410: a list or watch has to be started anew
    │  ├─ FieldConflict         another field manager owns the fields
    │  ├─ Moved                 a precondition failed: the object changed since it was read
    │  └─ Rejected              the server doesn't accept the object
    ├─ LockHeld                 another sync is at work, or has taken over
    ├─ Interrupted              a signal came before anything was done; exit code 130
    ├─ SandboxError             the control plane on this machine can't be built, started or stopped
    └─ EditError                a file can't be edited the way that was asked
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What a command ends with; docs/exit-codes.md tells what a pipeline makes of each."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    PENDING = 3
    NOT_READY = 4
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Location:
    """A place in a file: path relative to the lab's root, line and column counted from 1."""

    path: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file.

    `code` is stable and documented; `pointer` is the place inside the document (`spec.peers`, empty for the
    whole file); `excerpt` is the source line and `width` the number of characters to underline from the
    location's column. A warning is about what is probably a mistake, and the file is used all the same.
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


_LONGEST_TEXT: Final = 500  # of what a server says; a body may hold a whole object


def shorten(text: str) -> str:
    """Return the text on one line, at most 500 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…"


class NimlabError(Exception):
    """Something a user can understand and mend; anything else that is raised is a bug in nimlab."""

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
    """The user's files are wrong; `problems` holds all that was found, sorted by place."""

    code = "spec"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.location, p.code, p.what)))
        files = len({p.location.path for p in self.problems})
        super().__init__(f"{len(self.problems)} problem(s) in {files} file(s)")


class RenderError(NimlabError):
    """A template can't be filled; `where` is the template's file and line."""

    code = "render"
    experiment: str | None = None
    """The experiment that was rendered, where one was."""


class GuardError(NimlabError):
    """A rendered manifest may not be sent; `where` is its object key."""

    code = "guard"
    experiment: str | None = None
    """The experiment that was rendered, where one was."""


class PlanError(NimlabError):
    """The plan is refused as a whole or for one object."""

    code = "plan"


class OwnershipConflict(PlanError):
    """The object exists and belongs to somebody else."""

    code = "ownership"


class ImmutableField(PlanError):
    """The change can only be made by replacing the object, and the experiment doesn't allow that."""

    code = "immutable-field"


class ClusterError(NimlabError):
    """The API server refused or failed; `status` is the HTTP status, 0 if there was none.

    `what` is shortened, `whole` is not: what must not be shown is found in the whole text only. Nobody prints
    that.
    """

    code = "cluster"

    def __init__(self, what: str, *, where: object = None, hint: str | None = None, status: int = 0) -> None:
        super().__init__(shorten(what), where=where, hint=hint)
        self.whole = what
        self.status = status


class Unreachable(ClusterError):
    """There was no whole answer, after retries."""

    code = "unreachable"


class Forbidden(ClusterError):
    """The credentials don't allow the request. Never means that the object is absent."""

    code = "forbidden"


class IncompleteDiscovery(ClusterError):
    """The server can't show all that it has: what isn't seen may be there all the same."""

    code = "unseen"


class Expired(ClusterError):
    """A `continue` token or a watch's resourceVersion has expired: begin again from a fresh LIST."""

    code = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """One field that another manager owns; `field` is the server's path (`.spec.replicas`)."""

    manager: str
    field: str


class FieldConflict(ClusterError):
    """Other field managers own fields that the apply wants to change."""

    code = "field-conflict"

    def __init__(
        self, what: str, *, where: object, hint: str | None, conflicts: tuple[Conflict, ...]
    ) -> None:
        super().__init__(what, where=where, hint=hint, status=409)
        self.conflicts = conflicts


class PreconditionFailed(ClusterError):
    """The object is no longer the one that was read: a precondition on uid or resourceVersion failed."""

    code = "moved"


class Rejected(ClusterError):
    """The server doesn't accept the object (400, 422, a 403 of admission, or a 500 that blames the patch)."""

    code = "rejected"


class LockHeld(NimlabError):
    """Another sync holds the lease of this set, or may hold it by now."""

    code = "locked"


class Interrupted(NimlabError):
    """A signal asked to stop before there was anything to tell."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"


class SandboxError(NimlabError):
    """The sandbox's control plane can't be built, started or stopped."""

    code = "sandbox"


class EditError(NimlabError):
    """A file can't be created, changed or removed the way that was asked."""

    code = "edit"
