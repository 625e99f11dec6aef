"""The defects that the torture has found, and which of them are open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WHY: Final[Mapping[str, str]] = {
    "relabelled": "a narrowed run believes the label `experiment`, which anybody may have changed",
    "error-without-stop": "a problem of a file that breaks no experiment stops no prune, and exits 0",
    "replaced-without-proofs": "a replacement deletes without asking for the five proofs",
    "adopted-by-label": "an object is taken for ours when it only carries the set's label",
    "remade-in-namespace": "what is ours in a namespace is known by name, not by uid",
    "owner-outside": "an object with any owner at all isn't counted among a namespace's strangers",
    "kinds-of-other-versions": "a namespace is only looked through in each group's first version",
    "kinds-of-other-groups": "what is ours in a namespace is known without its group",
    "namespace-of-two": "a namespace is spared for what stays of its own experiment only",
    "diluted-limit": "the percentage is counted against foreign objects that carry the label, too",
    "narrowed-parent": "kinds and namespaces that the parent doesn't record are never looked at again",
}
OPEN: Final[frozenset[str]] = frozenset()
