"""Rules and helpers that the guards of experiments and of the platform share.

In: stamped manifests or parts of them. Out: violations as text, or a GuardError with all of them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.errors import GuardError
from nimlab.objects.applyset import MEMBER, PART_OF, ApplySet, member_reference
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of

NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Object names as in RFC 1123. Any other text could change the path of a request."""
PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_RESERVED_PREFIXES: Final = (
    "applyset.kubernetes.io/",
    "nimlab.dev/",
    "pod-security.kubernetes.io/",
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
)
_FORBIDDEN_METADATA: Final = (
    "ownerReferences", "finalizers", "managedFields", "generateName", "uid", "resourceVersion",
    "deletionTimestamp",
)  # fmt: skip
_MAX_VIOLATIONS: Final = 20  # maximum number in one error


def reject_violations(
    manifests: Sequence[Manifest],
    violations_of: Callable[[Manifest], Iterable[str]],
    hint_of: Callable[[], str],
) -> None:
    """Raise a GuardError that names all violations of the manifests, and all duplicate objects.

    `hint_of` is called only if there are violations.
    """
    violations: list[tuple[ObjectKey, str]] = []
    seen: set[ObjectKey] = set()
    for manifest in manifests:
        key = key_of(manifest)
        if key in seen:
            violations.append((key, "two templates render this object"))
        seen.add(key)
        violations += [(key, what) for what in violations_of(manifest)]
    if violations:
        first_key, first_what = violations[0]
        others = "".join(f"\n  {key}: {what}" for key, what in violations[1:_MAX_VIOLATIONS])
        raise GuardError(first_what + others, where=first_key, hint=hint_of())


def api_version_violations(manifest: Manifest) -> Iterator[str]:
    """Yield a violation if the apiVersion differs from the version that nimlab uses for this kind."""
    expected = KINDS[manifest["kind"]].api_version
    if manifest["apiVersion"] != expected:
        yield f"apiVersion must be `{expected}`"


def membership_violations(
    manifest: Manifest, apply_set: ApplySet, reserved_labels: Mapping[str, str]
) -> Iterator[str]:
    """Yield violations in the metadata of a member: invalid names, reserved fields, forbidden fields.

    `manifest` is stamped. `reserved_labels` are reserved labels that it must have in addition to the labels
    of every member of `apply_set`.
    """
    metadata = manifest["metadata"]
    for field in ("name", "namespace"):
        if field in metadata and not NAME.fullmatch(str(metadata[field])):
            yield f"metadata.{field} must be 1 to 253 lower-case letters, digits, `-` and `.`"
    yield from (f"metadata.{name} is not allowed" for name in _FORBIDDEN_METADATA if name in metadata)
    if "status" in manifest:
        yield "status is not allowed, because only the API server sets it"
    expected = {
        PART_OF: apply_set.id,
        MEMBER: member_reference(key_of(manifest), apply_set),
        **reserved_labels,
    }
    if labels_of(manifest).get(PART_OF) != expected[PART_OF]:
        yield f"the label `{PART_OF}` must be `{expected[PART_OF]}`"
    if annotations_of(manifest).get(MEMBER) != expected[MEMBER]:
        yield f"the annotation `{MEMBER}` must be `{expected[MEMBER]}`"
    yield from reserved_metadata_violations(metadata, expected)


def reserved_metadata_violations(metadata: Mapping[str, Any], expected: Mapping[str, str]) -> Iterator[str]:
    """Yield a violation for each label or annotation with a forbidden value.

    Every value must be text. A reserved label or annotation must have its value in `expected`.
    """
    for field in ("labels", "annotations"):
        for name, value in (metadata.get(field) or {}).items():
            if not isinstance(value, str):
                yield f"metadata.{field}[{name}] must be a string"
            elif name.startswith(_RESERVED_PREFIXES) and expected.get(name) != value:
                yield f"metadata.{field}[{name}] is reserved"
            elif name == "app.kubernetes.io/managed-by" and value != "nimlab":
                yield f"metadata.{field}[{name}] must be `nimlab`"


def containers_of(pod: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the field, the display name and the container for each container, init containers first."""
    for field in ("initContainers", "containers"):
        for container in pod.get(field) or ():
            yield field, f"{field}[{container.get('name')}]", container


def effective_context(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the security context as Kubernetes merges it: the container's fields override the pod's."""
    of_pod, of_container = pod.get("securityContext") or {}, container.get("securityContext") or {}
    return {**of_pod, **{name: value for name, value in of_container.items() if value is not None}}


def unlisted(fields: Mapping[str, Any], allowed: Collection[str], where: str) -> Iterator[str]:
    """Yield a violation for each field that is not in `allowed`, such as a field of a newer API."""
    yield from (f"{where}: {name} is not allowed" for name in sorted(fields.keys() - set(allowed)))


def duplicates(items: Any, keys: tuple[str, ...], where: str) -> Iterator[str]:  # noqa: ANN401 -- any JSON
    """Yield a violation for each duplicate entry of a list that the server merges by these keys."""
    seen = set()
    for item in items or ():
        value = tuple(str(item.get(key)) for key in keys)
        if value in seen:
            yield f"{where}: duplicate entry {'/'.join(value)}"
        seen.add(value)
