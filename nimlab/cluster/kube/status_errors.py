"""Translate error responses of the API server: an HTTP status and a `Status` object -> a ClusterError.

In: the HTTP status, the server's `Status` object and the request. Out: the error to raise. The server's
message can contain secrets, which `hide_secrets` redacts in the error. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from nimlab.cluster.interface import RUN_AGAIN
from nimlab.cluster.kube.retry import is_retried
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

_SHOWN_CONFLICTS: Final = 4


def error_of(status: int, details: Mapping[str, Any], *, verb: str, where: str, path: str) -> ClusterError:
    """Return the error for a failed request. `details` is the server's `Status` object; it may be empty."""
    message = str(details.get("message") or f"HTTP status {status} without a message")
    causes = _causes(details)
    if status in (401, 403):
        return _forbidden(status, message, causes, verb=verb, where=where, path=path)
    if status == 409:
        return _conflict(message, causes, where=where)
    if status == 410:
        return Expired(f"{verb}: {message}", where=where, status=status)
    if status == 404:
        return ClusterError(f"{verb}: {message}", where=where, status=status)
    if is_retried(status, message):
        return Unreachable(
            f"{verb}: the server responded with {status}: {message}",
            where=where,
            hint="run the command again; completed changes are kept",
            status=status,
        )
    return Rejected(f"{verb}: {message}", where=where, status=status)


def _forbidden(
    status: int,
    message: str,
    causes: list[Mapping[str, Any]],
    *,
    verb: str,
    where: str,
    path: str,
) -> ClusterError:
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return PreconditionFailed(f"{verb}: {message}", where=where, hint="wait until it is deleted")
    if status == 401:
        hint = "the server rejects the credentials as unknown or expired: renew them"
    elif _is_admission_error(message):
        hint = "an admission rule of the cluster rejects this object; other credentials would not help"
        return Rejected(f"{verb}: {message}", where=where, hint=hint, status=status)
    else:
        hint = f"the credentials need the permission to {verb} at {path.split('?')[0]}"
    return Forbidden(f"{verb}: {message}", where=where, hint=hint, status=status)


def _is_admission_error(message: str) -> bool:
    """Return True if admission (a policy, a webhook, a quota, Pod Security) caused the 403, not RBAC.

    If a permission is missing, the message contains the user (apiserver: `responsewriters.Forbidden`, RBAC
    escalation check).
    """
    names_user = re.search(r'[Uu]ser "', message) is not None
    return ("is forbidden: " in message and not names_user) or "denied request" in message


def _conflict(message: str, causes: list[Mapping[str, Any]], *, where: str) -> ClusterError:
    conflicts = tuple(
        Conflict(manager=_manager(str(cause.get("message", ""))), field=str(cause.get("field", "")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    )
    if not conflicts:
        return PreconditionFailed(message, where=where, hint=RUN_AGAIN, status=409)
    shown = [f"{c.field.lstrip('.')} is owned by `{c.manager}`" for c in conflicts[:_SHOWN_CONFLICTS]]
    hidden = len(conflicts) - len(shown)
    return FieldConflict(
        ", ".join(shown) + (f" and {hidden} more" if hidden else ""),
        where=where,
        hint="remove it from the spec, or take ownership with `nimlab sync --take-ownership`",
        conflicts=conflicts,
    )


def _manager(message: str) -> str:
    match = re.search(r'conflicts? with "([^"]*)"', message)
    return match[1] if match else "another manager"


def _causes(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [cause for cause in causes if isinstance(cause, Mapping)] if isinstance(causes, list) else []
