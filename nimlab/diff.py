"""Two objects -> the field changes that a person wants to see.

In: an object as it is and as it will be. Out: changed fields, old and new, with keyed lists compared by
key, server bookkeeping left out and secrets masked. What to do about a change is not decided here. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nimlab.manifest import Manifest


class Absent(Enum):
    """The value of a field that isn't there; not the same as null or empty."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One changed field; `path` reads `spec.template.spec.containers[nimp2p].env[PEERS]`."""

    path: str
    old: Any
    new: Any


def diff_objects(old: Manifest, new: Manifest) -> tuple[FieldChange, ...]:
    """Return the differences between two whole objects, sorted by path; empty if nothing differs."""
    raise NotImplementedError


def diff_desired(live: Manifest, desired: Manifest) -> tuple[FieldChange, ...]:
    """Return where the live object lacks what is desired; what desired doesn't mention is left out."""
    raise NotImplementedError
