"""Foreign fields: fields inside nimlab's objects that other managers added and that no file specifies.

In: a desired manifest and the live object. Out: the foreign fields, sorted by path. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.managed_fields import (
    FieldPath,
    FieldTree,
    decode_key,
    descend,
    entries_of,
    is_own_entry,
    path_text,
)
from nimlab.objects.manifest import Manifest
from nimlab.objects.mask_secrets import HIDDEN, is_secret_name, mask

_ROOTS: Final = (
    ("f:spec",), ("f:data",), ("f:binaryData",), ("f:rules",), ("f:subjects",),
    ("f:metadata", "f:labels"), ("f:metadata", "f:annotations"),
)  # fmt: skip
_CONTROL_PLANE: Final = frozenset({
    "kube-controller-manager", "kube-scheduler", "kubelet", "k3s", "kwok", "kube-apiserver",
})  # fmt: skip

# Defaults that the server fills in (api/core/v1 and api/apps/v1, `SetDefaults_…`). In a pod template, a field
# counts as a default only with the value given in `_POD_DEFAULTS`. Outside the template, a field in
# `_DEFAULTS` counts as a default with any value, because the server derives the value from other fields.
_POD_DEFAULTS: Final = frozenset({
    ("f:dnsPolicy", "ClusterFirst"), ("f:restartPolicy", "Always"), ("f:schedulerName", "default-scheduler"),
    ("f:terminationGracePeriodSeconds", 30), ("f:enableServiceLinks", True), ("f:imagePullPolicy", "Always"),
    ("f:imagePullPolicy", "IfNotPresent"), ("f:terminationMessagePath", "/dev/termination-log"),
    ("f:terminationMessagePolicy", "File"), ("f:protocol", "TCP"), ("f:scheme", "HTTP"), ("f:path", "/"),
    ("f:defaultMode", 420), ("f:timeoutSeconds", 1), ("f:periodSeconds", 10), ("f:successThreshold", 1),
    ("f:failureThreshold", 3),
})  # fmt: skip
_DEFAULTS: Final = frozenset({
    "f:replicas", "f:podManagementPolicy", "f:revisionHistoryLimit", "f:updateStrategy", "f:type",
    "f:partition", "f:persistentVolumeClaimRetentionPolicy", "f:whenDeleted", "f:whenScaled", "f:protocol",
    "f:targetPort", "f:sessionAffinity", "f:internalTrafficPolicy", "f:ipFamilies", "f:ipFamilyPolicy",
    "f:clusterIP", "f:clusterIPs", "f:policyTypes", "f:progressDeadlineSeconds",
})  # fmt: skip

# Labels and annotations that Kubernetes itself writes; docs/foreign.md lists the component that writes each.
BOOKKEEPING: Final = frozenset({
    "kubernetes.io/metadata.name",
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignField:
    """A field that another manager added to an object of nimlab.

    `text` is the path in readable form, such as `spec.template.spec.containers[nimp2p].env[DEBUG]`.
    `of_secret` is True if the object is a Secret.
    """

    manager: str
    path: FieldPath
    text: str
    value: Any
    of_secret: bool = False

    @property
    def shown(self) -> Any:  # noqa: ANN401 -- any JSON
        """The value as it is shown to the user: secrets in it are masked."""
        return HIDDEN if self.of_secret or _is_secret_value(self.path) else mask(self.value)

    @property
    def in_template(self) -> bool:
        """True if the field is part of the pod template, so that new peers will have it."""
        return self.text.startswith("spec.template.")


def _is_secret_value(path: FieldPath) -> bool:
    """Return True for the value of an env variable whose name looks secret."""
    match path:
        case (*_, item, "f:value") if item.startswith("k:"):
            return is_secret_name(decode_key(item).get("name", ""))
    return False


def foreign_fields(desired: Manifest, live: Manifest) -> tuple[ForeignField, ...]:
    """Return the fields that other managers own and that `desired` does not specify; sorted by path.

    A list item that is foreign as a whole, such as a container or an env variable, counts as one field.
    Fields that the control plane sets are not foreign. A field that `desired` specifies is never foreign: if
    the live value differs, this is drift. A field that nimlab owns together with another manager becomes
    foreign when `desired` no longer specifies it, because the field stays in the object after the next apply.
    The name of a manager does not prove who wrote a field, because a client can use any name.
    """
    foreign: dict[FieldPath, ForeignField] = {}
    for entry in entries_of(live):
        manager = str(entry.get("manager", ""))
        if is_own_entry(entry) or entry.get("subresource"):
            continue
        for path, value in _foreign_values(entry.get("fieldsV1") or {}, desired, live):
            if _is_set_by_kubernetes(manager, path, value):
                continue
            foreign[path] = ForeignField(
                manager=manager,
                path=path,
                text=path_text(path),
                value=value,
                of_secret=live.get("kind") == "Secret",
            )
    return tuple(foreign[path] for path in sorted(foreign))


def _foreign_values(fields: FieldTree, desired: Manifest, live: Manifest) -> Iterator[tuple[FieldPath, Any]]:
    """Yield the path and the value of each field in a manager's field tree `fields` that is not desired.

    Only the parts of the object that `_ROOTS` lists are searched.
    """
    for root in _ROOTS:
        owned, desired_part, live_part = fields, desired, live
        for part in root:
            owned, desired_part, live_part = (
                owned.get(part, {}),
                descend(desired_part, part),
                descend(live_part, part),
            )
        if owned:
            yield from _walk(owned, desired_part, live_part, root)


def _is_set_by_kubernetes(manager: str, path: FieldPath, value: Any) -> bool:  # noqa: ANN401 -- any JSON
    """Return True if Kubernetes set the field.

    Such a field is in `BOOKKEEPING`, was written by a controller of the control plane, or contains a default.
    Controllers of the control plane never write to a pod template. If the server fills in a default after a
    JSON patch by nimlab, the server records the default in an Update entry of the manager `nimlab`.
    """
    if path[0] == "f:metadata":
        return path[-1][2:] in BOOKKEEPING
    in_template = path[1:2] == ("f:template",)
    if manager in _CONTROL_PLANE:
        return path[0] == "f:spec" and not in_template
    if manager != FIELD_MANAGER or path[0] != "f:spec":
        return False
    if not in_template:
        return path[-1] in _DEFAULTS
    is_scalar = isinstance(value, str | int)
    return path[-2] == "f:requests" or (is_scalar and (path[-1], value) in _POD_DEFAULTS)


def _walk(
    owned: FieldTree,
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    path: FieldPath,
) -> Iterator[tuple[FieldPath, Any]]:
    """Yield the topmost paths that the manager owns, that are not desired, and that the live object contains.

    Empty values are skipped, because the server restores an empty value if the API requires the field. An
    example is `podSelector`.
    """
    if live in (None, {}, []):
        return
    is_whole = not owned or path[-1].startswith(("k:", "v:"))
    if is_whole and desired is None:
        yield path, live
        return
    for child, subtree in owned.items():
        if child == ".":
            continue
        yield from _walk(subtree, descend(desired, child), descend(live, child), (*path, child))
