"""Predict the result of an apply by a server dry run, without a write.

In: desired and live objects. Out: a `Prediction` for each suspect, which is an object that may not be in
sync. A dry run includes admission and defaulting, so its result is exactly the result of a sync.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nimlab.cluster.interface import Cluster
from nimlab.cluster.reclaim_fields import reclaim_fields
from nimlab.errors import ClusterError, Forbidden
from nimlab.objects.applyset import FIELD_MANAGER, PART_OF
from nimlab.objects.manifest import Manifest, ObjectKey, key_of, labels_of
from nimlab.objects.mask_secrets import hide_secrets
from nimlab.objects.takeover import Takeover, effective_takeover, takeover_of, takeover_patch
from nimlab.objects.unchanged_check import compare
from nimlab.plan.immutable_fields import immutable_changes, replacement_trial
from nimlab.plan.snapshot import Prediction


def find_suspects(
    wanted: Mapping[ObjectKey, Manifest], live: Mapping[ObjectKey, Manifest], *, remove_foreign: bool
) -> dict[ObjectKey, Takeover | None]:
    """Return the existing objects that may differ from the desired ones or that need a takeover. Pure.

    The key of the result is the object key. The value is the `Takeover` that must precede the apply; None if
    the object needs none.
    """
    suspects = {}
    for key, manifest in wanted.items():
        if key in live:
            takeover = takeover_of(manifest, live[key], remove_foreign=remove_foreign)
            if takeover is not None or not compare(manifest, live[key]).unchanged:
                suspects[key] = takeover
    return suspects


def predict(
    cluster: Cluster,
    own_sets: frozenset[str],
    desired: Manifest,
    live: Manifest,
    takeover: Takeover | None,
    *,
    force: bool,
) -> Prediction:
    """Predict the result of an apply; if immutable fields change, check that a replacement is accepted.

    For an object of another apply-set, and for an object that is being deleted, no request is sent, and the
    prediction is empty.
    """
    owner = labels_of(live).get(PART_OF)
    if owner not in {None, *own_sets} or live["metadata"].get("deletionTimestamp"):
        return Prediction()
    after_takeover = None
    try:
        with hide_secrets(desired, live):
            if immutable_changes(desired, live):
                cluster.apply(replacement_trial(desired), manager=FIELD_MANAGER, force=force, dry_run=True)
                return Prediction()
            if takeover is not None:
                after_takeover = cluster.patch(key_of(live), takeover_patch(takeover, live), dry_run=True)
                takeover = effective_takeover(takeover, live, after_takeover)
            dry_run = partial(cluster.apply, desired, manager=FIELD_MANAGER, dry_run=True)
            applied, reclaimed = reclaim_fields(dry_run, force=force)
    except Forbidden:
        return Prediction(takeover=takeover)
    except ClusterError as error:
        return Prediction(error=error, takeover=takeover)
    if takeover is None:
        return Prediction(manifest=applied, reclaimed_fields=reclaimed)
    return Prediction(
        manifest=applied, reclaimed_fields=reclaimed, takeover=takeover, after_takeover=after_takeover
    )
