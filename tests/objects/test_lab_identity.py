"""A recorded apply-set belongs to this lab only if there is evidence. A fork or a copy gives no evidence."""

from __future__ import annotations

import pytest

from nimlab.objects.lab_identity import LabIdentity, LabRelation, lab_relation

NOTHING = LabIdentity()


def at(folder: str, lab_id: str | None = None) -> LabIdentity:
    """Return the identity of a lab in a Git repository."""
    return LabIdentity(id=lab_id, repository_folder=folder, host_folder="h")


@pytest.mark.parametrize(
    ("own", "recorded", "knows_commit", "expected"),
    [
        (at("", "dst"), at("", "dst"), False, LabRelation.SAME),
        (at("", "dst"), at("labs/two", "dst"), None, LabRelation.SAME),
        (at("", "dst"), at("", "vac"), True, LabRelation.OTHER),
        (at(""), at(""), True, LabRelation.SAME),
        (at(""), at(""), False, LabRelation.UNKNOWN),
        (at("labs/one"), at("labs/two"), True, LabRelation.OTHER),
        (at("", "dst"), at(""), False, LabRelation.UNKNOWN),
        (NOTHING, at(""), False, LabRelation.UNKNOWN),
        (at(""), NOTHING, None, LabRelation.UNKNOWN),
        (at(""), NOTHING, True, LabRelation.SAME),
        (LabIdentity(host_folder="h"), LabIdentity(host_folder="h"), None, LabRelation.SAME),
        (LabIdentity(host_folder="h"), LabIdentity(host_folder="other"), None, LabRelation.UNKNOWN),
        (at(""), LabIdentity(host_folder="h"), None, LabRelation.SAME),
    ],
)
def test_lab_relation(
    own: LabIdentity, recorded: LabIdentity, knows_commit: bool | None, expected: LabRelation
) -> None:
    assert lab_relation(own, recorded, knows_commit=knows_commit) is expected


def test_unknown_facts_are_copied_from_the_former_record() -> None:
    assert NOTHING.recorded_over(at("labs/one", "dst")) == LabIdentity(id="dst", repository_folder="labs/one")
    assert at("").recorded_over(LabIdentity(host_folder="x")) == LabIdentity(repository_folder="")
    assert LabIdentity(host_folder="x").recorded_over(NOTHING) == LabIdentity(host_folder="x")
