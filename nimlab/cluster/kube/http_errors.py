"""What the API server answered, in our words: a status and a body -> one of our errors.

In: HTTP status, the server's `Status` object, what was asked. Out: the error to raise and whether asking
again can help. The original text may hold what must not be shown; the error shows a short form of it, once
that is taken out. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from nimlab.errors import (
    ClusterError,
    Conflict,
    Expired,
    FieldConflict,
    Forbidden,
    PreconditionFailed,
    Rejected,
    Unreachable,
)

_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_OUR_FAULT_500: Final = ("failed to create typed patch object", "failed to convert new object")


def is_retried(status: int, message: str) -> bool:
    """Return True when the same request may succeed later.

    A 500 that blames the patch itself never will: the server parses an apply body before it validates it
    and reports an unknown field this way.
    """
    return status in _RETRIED and not any(mark in message for mark in _OUR_FAULT_500)


def error_of(status: int, answer: Mapping[str, Any], *, verb: str, where: str, path: str) -> ClusterError:
    """Return the error that a failed request means. `answer` is the server's Status, or empty."""
    message = str(answer.get("message") or f"HTTP status {status} without an explanation")
    causes = _causes(answer)
    if status in (401, 403):
        return _refusal(status, message, causes, verb=verb, where=where, path=path)
    if status == 409:
        return _conflict(message, causes, where=where)
    if status == 410:
        return Expired(f"{verb}: {message}", where=where, status=status)
    if status == 404:
        return ClusterError(f"{verb}: {message}", where=where, status=status)
    if is_retried(status, message):
        return Unreachable(
            f"{verb}: the server answers {status}: {message}",
            where=where,
            hint="run it again; what is done stays done",
            status=status,
        )
    return Rejected(f"{verb}: {message}", where=where, status=status)


def _refusal(
    status: int,
    message: str,
    causes: list[Mapping[str, Any]],
    *,
    verb: str,
    where: str,
    path: str,
) -> ClusterError:
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return PreconditionFailed(f"{verb}: {message}", where=where, hint="wait until the namespace is gone")
    if status == 401:
        hint = "the credentials are unknown or expired: renew them"
    elif _is_by_admission(message):
        hint = "a rule of the cluster refuses this object, whatever right the credentials have"
        return Rejected(f"{verb}: {message}", where=where, hint=hint, status=status)
    else:
        hint = f"the credentials need the right to {verb} at {path.split('?')[0]}"
    return Forbidden(f"{verb}: {message}", where=where, hint=hint, status=status)


def _is_by_admission(message: str) -> bool:
    """True for a 403 that isn't about rights: a policy, a webhook, a quota, Pod Security.

    Who lacks a right is named as the user (apiserver, `responsewriters.Forbidden`; RBAC's escalation check).
    """
    told = "is forbidden: " in message and not re.search(r'[Uu]ser "', message)
    return told or "denied request" in message


def _conflict(message: str, causes: list[Mapping[str, Any]], *, where: str) -> ClusterError:
    conflicts = tuple(
        Conflict(manager=_manager(str(cause.get("message", ""))), field=str(cause.get("field", "")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    )
    if not conflicts:
        return PreconditionFailed(message, where=where, hint="run it again: it looks anew", status=409)
    owned = ", ".join(f"{c.field.lstrip('.')} is owned by `{c.manager}`" for c in conflicts[:4])
    more = f" and {len(conflicts) - 4} more" if len(conflicts) > 4 else ""
    return FieldConflict(
        owned + more,
        where=where,
        hint="leave it out of the spec, or take it over with `nimlab sync --take-ownership`",
        conflicts=conflicts,
    )


def _manager(message: str) -> str:
    match = re.search(r'conflicts? with "([^"]*)"', message)
    return match[1] if match else "another manager"


def _causes(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [c for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []
