"""One change -> notes that explain more than the changed fields show.

In: a change. Out: texts about restarts, takeovers, reverted manual changes and unverified results.
"""

from __future__ import annotations

from collections.abc import Iterator

from nimlab.files.spec import OnImmutableChange
from nimlab.objects.takeover import Takeover
from nimlab.plan.change import Action, Change
from nimlab.plan.kstatus import peers_of
from nimlab.plan.pod_restarts import caveats_of, is_restarted_by_sync
from nimlab.report.styled_text import named_list


def notes_of(change: Change) -> Iterator[str]:
    """Yield all notes of a change."""
    for manager in sorted({conflict.manager for conflict in change.reclaimed_fields}):
        fields = [c.field.lstrip(".") for c in change.reclaimed_fields if c.manager == manager]
        yield f"reverts manual changes made with `{manager}`: {named_list(fields)}"
    if change.takeover is not None:
        yield from _takeover_notes(change.takeover)
    cause = restart_cause(change)
    if cause:
        yield f"restarts {_restarted_peers(change)}{cause} (about {change.restart_s} s)"
    yield from general_notes_of(change)


def general_notes_of(change: Change) -> Iterator[str]:
    """Yield the notes that contain no number and no manager, so that similar changes have equal notes."""
    if change.replace_by is OnImmutableChange.ORPHAN and change.error is None:
        peers = "until then they keep" if change.restarts else "its peers keep"
        yield f"{peers} running: the new object adopts them"
    if change.action not in (Action.KEEP, Action.PRUNE):
        yield from caveats_of(change.desired)
    if change.unverified and change.action is not Action.KEEP:  # for a kept object, the reason explains this
        yield "unverified: computed locally, because the credentials do not allow a server-side dry run"


def restart_cause(change: Change) -> str:
    """Return how and why peers restart, as text that starts with `,` or `:`; empty if no peer restarts."""
    if change.error is not None or not change.restarts:
        return ""
    if change.takes_peers:
        return ": the object is deleted and recreated"
    together = change.desired is not None and is_restarted_by_sync(change.desired)
    how = "" if together or change.restarts == 1 else ", one after another"
    changes_template = any(field.in_template for field in change.fields)
    why = "the pod template changes" if changes_template else "they are of an older revision"
    return f"{how}: {why}"


def _takeover_notes(takeover: Takeover) -> Iterator[str]:
    """Yield a note for each manager whose fields are taken over or removed."""
    for manager in takeover.managers:
        yield f"takes over the fields of `{manager}`: from now on, a field removed from Git is removed here"
    for manager in sorted({f.manager for f in takeover.removed} - set(takeover.managers)):
        fields = [f.text for f in takeover.removed if f.manager == manager]
        yield f"removes fields added by `{manager}`: {named_list(fields)}"


def _restarted_peers(change: Change) -> str:
    """Return how many peers restart and how many of them are running; only running peers lose state."""
    if change.live is None:
        return f"all {change.restarts} peers"
    peers = peers_of(change.live)
    if peers.running >= peers.existing:
        if change.restarts < peers.existing:
            return f"{change.restarts} of {peers.existing} running peers"
        return "the one running peer" if peers.existing == 1 else f"all {peers.existing} running peers"
    if change.restarts < peers.existing:
        which = f"{change.restarts} of {peers.existing} peers"
    else:
        which = "the one peer" if peers.existing == 1 else f"all {peers.existing} peers"
    if not peers.running:
        state = "which is not running" if peers.existing == 1 else "none of which is running"
        return f"{which}, {state}"
    return f"{which}, of which {peers.running} are running" if change.restarts == peers.existing else which
