"""Two objects -> the field changes that a person wants to see.

In: an object as it is and as it will be. Out: changed fields, old and new, with keyed lists compared by
key, server bookkeeping left out and secrets masked. What to do about a change is not decided here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nimlab.manifest import Manifest
from nimlab.units import UnitError, canonical_quantity


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


# Lists whose items are found by key, not by place (client-go's structured-merge-diff schema).
_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_PORT_KEYS: Final = (("containerPort", "protocol"), ("port", "protocol"))
_NOISE: Final = frozenset({
    "managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink",
})  # fmt: skip
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_QUANTITIES: Final = frozenset({"limits", "requests", "hard"})
_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY", re.IGNORECASE)
_ORDER: Final = "(order)"


def diff_objects(old: Manifest, new: Manifest) -> tuple[FieldChange, ...]:
    """Return the differences between two whole objects, sorted by path; empty if nothing differs."""
    from deepdiff import DeepDiff  # noqa: PLC0415 -- 200 ms that a run without changes need not pay

    before, after = _comparable(old), _comparable(new)
    if before == after:
        return ()
    tree = DeepDiff(before, after, view="tree", threshold_to_diff_deeper=0)
    secret = old.get("kind") == "Secret"
    changes = [
        _change(tuple(item.path(output_format="list")), item.t1, item.t2, kind, secret=secret)
        for kind, items in tree.items()
        for item in items
    ]
    return tuple(sorted(filter(_is_worth_showing, changes), key=lambda change: change.path))


def _is_worth_showing(change: FieldChange) -> bool:
    """False for an order that only differs because an item was added or removed: the item tells."""
    if not change.path.endswith(" order"):
        return True
    return sorted(str(change.old).split(", ")) == sorted(str(change.new).split(", "))


def diff_desired(live: Manifest, desired: Manifest) -> tuple[FieldChange, ...]:
    """Return where the live object lacks what is desired; what desired doesn't mention is left out."""
    there = _comparable(live)
    return diff_objects(_restricted(there, _comparable(desired)), desired)


def _restricted(live: Any, wanted: Any) -> Any:  # noqa: ANN401 -- any JSON
    """The part of live that desired speaks about."""
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        return {key: _restricted(live[key], wanted[key]) for key in live if key in wanted}
    return live


def _change(
    path: tuple[Any, ...],
    old: Any,  # noqa: ANN401 -- any JSON
    new: Any,  # noqa: ANN401 -- any JSON
    kind: str,
    *,
    secret: bool,
) -> FieldChange:
    old = ABSENT if kind.endswith("_item_added") else _plain(old)
    new = ABSENT if kind.endswith("_item_removed") else _plain(new)
    if _is_secret(path, secret=secret):
        old, new = _masked(old), _masked(new, changed=old is not ABSENT)
    elif isinstance(old, Mapping) or isinstance(new, Mapping):
        old, new = mask(old), mask(new)
    return FieldChange(path=_text(path), old=old, new=new)


def _comparable(value: Any, path: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 -- any JSON
    """A copy in which keyed lists are maps, quantities canonical and bookkeeping left out."""
    if isinstance(value, Mapping):
        return {
            key: _comparable(item, (*path, str(key)))
            for key, item in value.items()
            if not _is_noise(key, path)
        }
    if isinstance(value, list | tuple):
        return _comparable_list(list(value), path)
    if len(path) > 1 and path[-2] in _QUANTITIES and isinstance(value, str | int | float):
        try:
            return canonical_quantity(str(value))
        except UnitError:
            return value
    return value


def _is_noise(key: object, path: tuple[str, ...]) -> bool:
    if path == () and key == "status":
        return True
    return (path == ("metadata",) and key in _NOISE) or key == _LAST_APPLIED


def _comparable_list(items: list[Any], path: tuple[str, ...]) -> Any:  # noqa: ANN401 -- any JSON
    names = [_item_name(item, path[-1] if path else "") for item in items]
    if not items or None in names or len(set(names)) != len(names):
        return [_comparable(item, path) for item in items]
    found: dict[str, Any] = {
        f"[{name}]": _comparable(item, path) for name, item in zip(names, items, strict=True)
    }
    found[_ORDER] = ", ".join(str(name) for name in names)
    return found


def _item_name(item: object, field: str) -> str | None:
    """The item's name among its siblings, None for lists without keys."""
    if not isinstance(item, Mapping):
        return None
    choices: Sequence[tuple[str, ...]] = (
        _PORT_KEYS if field == "ports" else ((_LIST_KEYS[field],) if field in _LIST_KEYS else ())
    )
    for keys in choices:
        if keys[0] in item:
            values = [str(item.get(k, "TCP" if k == "protocol" else "")) for k in keys]
            return "/".join(values)
    return None


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Undo what `_comparable` did to lists, for showing."""
    if isinstance(value, Mapping):
        if _ORDER in value:
            return [_plain(item) for key, item in value.items() if key != _ORDER]
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _text(path: tuple[Any, ...]) -> str:
    """`spec.template.spec.containers[nimp2p].env[PEERS]`; an env item's value stands for the item."""
    parts = list(path)
    if parts[-1] == "value" and len(parts) > 2 and parts[-3] == "env":
        parts.pop()
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part == _ORDER:
            text += " order"
        elif part.startswith("[") or not re.fullmatch(r"\w+", part):
            text += part if part.startswith("[") else f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _is_secret(path: tuple[Any, ...], *, secret: bool) -> bool:
    if secret and path[0] in ("data", "stringData"):
        return True
    return any(
        here == "env" and _SECRET_NAME.search(str(name))
        for here, name in zip(path, path[1:], strict=False)
    )


def _masked(value: Any, *, changed: bool = False) -> Any:  # noqa: ANN401 -- any JSON
    if value is ABSENT:
        return value
    return "(hidden, changed)" if changed else "(hidden)"


def mask(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value with every env entry hidden whose name looks secret."""
    if isinstance(value, Mapping):
        masked = {key: mask(item) for key, item in value.items()}
        if "name" in masked and "value" in masked and _SECRET_NAME.search(str(masked["name"])):
            masked["value"] = "(hidden)"
        return masked
    return [mask(item) for item in value] if isinstance(value, list) else value
