"""Field changes between two objects, as they are shown to the user.

In: an object before and after a change. Out: the changed fields with their old and new values. Keyed lists
are compared by key, fields that the server sets are ignored, and secrets are masked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from nimlab.objects.canonical_form import is_quantity
from nimlab.objects.manifest import Manifest
from nimlab.objects.mask_secrets import HIDDEN, is_secret_name, mask
from nimlab.units import UnitError, canonical_quantity
from nimlab.yaml_and_json import to_json_text

_Path: TypeAlias = tuple[str | int, ...]
_Leaf: TypeAlias = tuple[_Path, Any, Any]


class Absent(Enum):
    """The value of a missing field; it differs from null and from empty values."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One changed field; `path` has the form `spec.template.spec.containers[nimp2p].env[PEERS]`."""

    path: str
    old: Any
    new: Any

    @property
    def in_template(self) -> bool:
        """True if the field is part of a workload's pod template, so that changing it restarts the pods."""
        return self.path.startswith("spec.template")


# The key fields of each keyed list. Some lists have alternative keys. Items of a keyed list are matched by
# their keys, not by their indexes. Source: the schema of client-go's structured-merge-diff.
_LIST_KEYS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "ephemeralContainers": (("name",),),
    "volumes": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "hostAliases": (("ip",),),
    "ownerReferences": (("uid",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
}
_SERVER_FIELDS: Final = frozenset({
    "managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink",
})  # fmt: skip
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_ORDER: Final = "(order)"
"""Key that `_comparable` adds if it converts a keyed list to a map; its value is the order of the items."""


def diff_objects(old: Manifest, new: Manifest) -> tuple[FieldChange, ...]:
    """Return the differences between two whole objects, sorted by path; empty if nothing differs."""
    secret = "Secret" in (old.get("kind"), new.get("kind"))
    return _diff(_comparable(old), _comparable(new), secret=secret)


def diff_desired(live: Manifest, desired: Manifest) -> tuple[FieldChange, ...]:
    """Return the differences in the fields that `desired` specifies, sorted by path."""
    secret = "Secret" in (live.get("kind"), desired.get("kind"))
    after = _comparable(desired)
    return _diff(_restricted(_comparable(live), after), after, secret=secret)


def _diff(before: Any, after: Any, *, secret: bool) -> tuple[FieldChange, ...]:  # noqa: ANN401 -- any JSON
    if to_json_text(before) == to_json_text(after):
        return ()
    leaves = [
        leaf
        for path in _changed_paths(before, after)
        for leaf in _leaves(path, _at(before, path), _at(after, path))
        if _is_worth_showing(leaf)
    ]
    changed = frozenset(path for path, _, _ in leaves)
    changes = []
    for path, old, new in leaves:
        hidden = _is_secret(path, before, after, secret=secret)
        old, new = _masked(_plain(old), _plain(new)) if hidden else (_shown(old), _shown(new))
        changes.append(FieldChange(path=_text(_shown_path(path, old, new, changed)), old=old, new=new))
    return tuple(sorted(changes, key=lambda change: change.path))


def _changed_paths(before: Any, after: Any, path: _Path = ()) -> Iterator[_Path]:  # noqa: ANN401 -- any JSON
    """Yield the paths at which two values differ. A list of plain values counts as one value."""
    before, after = _like_keyed_list(before, after), _like_keyed_list(after, before)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            if key in before and key in after:
                yield from _changed_paths(before[key], after[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(before, list) and isinstance(after, list):
        yield from (path + inner for inner in _changed_items(before, after))
    elif type(before) is not type(after) or before != after:
        yield path


def _like_keyed_list(value: Any, other: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Convert an empty list to a map if the other value is such a map, so that each item is one change."""
    is_keyed = isinstance(other, Mapping) and _ORDER in other
    return {_ORDER: []} if is_keyed and value == [] else value


def _changed_items(before: list[Any], after: list[Any]) -> Iterable[_Path]:
    """Return the paths at which two unkeyed lists differ. A list of plain values counts as one value."""
    if to_json_text(before) == to_json_text(after):
        return ()
    if _is_plain_list(before) and _is_plain_list(after):
        return ((),)
    from deepdiff import DeepDiff  # the import takes 200 ms, and most runs do not need it

    tree = DeepDiff(
        before,
        after,
        view="tree",
        ignore_private_variables=False,  # otherwise DeepDiff ignores keys such as `__a`
        threshold_to_diff_deeper=0,
        zip_ordered_iterables=True,
    )
    paths = [tuple(item.path(output_format="list")) for items in tree.values() for item in items]
    return {
        path[:-1] if all(_is_plain_list(_at(items, path[:-1])) for items in (before, after)) else path
        for path in paths
    }


def _is_plain_list(value: object) -> bool:
    return isinstance(value, list) and not any(isinstance(v, Mapping | list) for v in value)


def _at(tree: Any, path: _Path) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value at a path; ABSENT if there is no value."""
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return ABSENT
    return tree


def _leaves(path: _Path, old: Any, new: Any) -> Iterator[_Leaf]:  # noqa: ANN401 -- any JSON
    """Yield one leaf per field of an added or removed map, but a single leaf for an item of a list.

    A leaf consists of a path, the old value and the new value.
    """
    added_or_removed = new if old is ABSENT else old if new is ABSENT else None
    is_item = isinstance(path[-1], int) or path[-1].startswith("[")
    if not isinstance(added_or_removed, Mapping) or not added_or_removed or is_item:
        yield path, old, new
        return
    for key in added_or_removed:
        yield from _leaves((*path, key), _at(old, (key,)), _at(new, (key,)))


def _is_worth_showing(leaf: _Leaf) -> bool:
    """Return False for a change of the order that results only from added or removed items."""
    path, old, new = leaf
    if path[-1] != _ORDER:
        return True
    if old is ABSENT or new is ABSENT:
        return False
    return [n for n in old if n in new] != [n for n in new if n in old]


def _shown_path(path: _Path, old: object, new: object, changed: frozenset[_Path]) -> _Path:
    """Return the path to show. If only the `value` of an env item changes, this is the path of the item."""
    if len(path) < 3 or path[-1] != "value" or path[-3] != "env" or ABSENT in (old, new):
        return path
    siblings = [other for other in changed if other[:-1] == path[:-1]]
    return path[:-1] if len(siblings) == 1 else path


def _restricted(live: Any, desired: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the part of `live` that `desired` specifies."""
    if isinstance(live, Mapping) and isinstance(desired, Mapping):
        return {key: _restricted(live[key], desired[key]) for key in live if key in desired}
    if isinstance(live, list) and isinstance(desired, list) and len(live) == len(desired):
        return [_restricted(a, b) for a, b in zip(live, desired, strict=True)]
    return live


def _comparable(value: Any, path: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 -- any JSON
    """Return a copy without server-set fields; keyed lists become maps, and quantities become canonical."""
    if isinstance(value, Mapping):
        items = {
            str(key): _comparable(item, (*path, str(key)))
            for key, item in value.items()
            if not _is_server_field(str(key), path)
        }
        return {k: v for k, v in items.items() if v or k not in ("labels", "annotations")}
    if isinstance(value, list | tuple):
        return _comparable_list(list(value), path)
    return _quantity(value) if _is_quantity(path) else value


def _is_quantity(path: tuple[str, ...]) -> bool:
    return len(path) > 1 and path[0] == "spec" and is_quantity(path[-2], path[-1])


def _quantity(value: object) -> object:
    try:
        return canonical_quantity(str(value))
    except UnitError:  # a live object may contain quantities that nimlab cannot parse
        return value


def _is_server_field(key: str, path: tuple[str, ...]) -> bool:
    if not path:
        return key == "status"
    return (path[-1] == "metadata" and key in _SERVER_FIELDS) or key == _LAST_APPLIED


def _comparable_list(items: list[Any], path: tuple[str, ...]) -> Any:  # noqa: ANN401 -- any JSON
    field = path[-1] if path else ""
    names = [item_name(item, field) for item in items]
    if not items or field not in _LIST_KEYS or None in names or len(set(names)) != len(names):
        return [_comparable(item, path) for item in items]
    by_name: dict[str, Any] = {
        f"[{name}]": _comparable(item, path) for name, item in zip(names, items, strict=True)
    }
    by_name[_ORDER] = names
    return by_name


def item_name(item: object, field: str) -> str | None:
    """Return the name that identifies an item of a keyed list; None if the item has no key."""
    if not isinstance(item, Mapping):
        return None
    for keys in _LIST_KEYS.get(field, ()):
        if keys[0] in item:
            # the default protocol of a port is TCP
            return "/".join(str(item.get(key, "TCP" if key == "protocol" else "")) for key in keys)
    return None


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value with the maps from `_comparable` converted back to lists."""
    if isinstance(value, Mapping):
        if _ORDER in value:
            return [_plain(item) for key, item in value.items() if key != _ORDER]
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _shown(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value to show, with secrets masked.

    For an env item that consists of a name and a literal value, return only the literal value.
    """
    shown = mask(_plain(value))
    if isinstance(shown, Mapping) and set(shown) == {"name", "value"}:
        return shown["value"]
    return shown


def _text(path: _Path) -> str:
    """Return a path as text, such as `spec.containers[nimp2p].env[PEERS]` or `spec.ports order`."""
    text = ""
    for part in path:
        if part == _ORDER:
            text += " order"
        elif isinstance(part, str) and part.startswith("["):
            text += part
        elif isinstance(part, str) and part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part}]"
    return text


def _is_secret(path: _Path, before: Any, after: Any, *, secret: bool) -> bool:  # noqa: ANN401 -- any JSON
    if secret and path[0] in ("data", "stringData"):
        return True
    if path[-1] != "value":
        return False
    names = [_at(tree, (*path[:-1], "name")) for tree in (before, after)]
    return any(is_secret_name(name) for name in names if name is not ABSENT)


def _masked(old: object, new: object) -> tuple[object, object]:
    """Return placeholders for the old and the new value of a secret; ABSENT if the value does not exist."""
    changes = old is not ABSENT and new is not ABSENT
    return (
        ABSENT if old is ABSENT else HIDDEN,
        ABSENT if new is ABSENT else "(hidden, changed)" if changes else HIDDEN,
    )
