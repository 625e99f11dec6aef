"""Text formats: JSON and YAML, read strictly and written deterministically.

In: text, or JSON values. Out: JSON values, or text. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

NESTING_LIMIT: Final = 100
"""Levels of nested maps and lists that a document may have: the API server's own limit is higher."""


def parse_yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text that we rendered ourselves; empty ones are left out.

    Raises UnreadableYamlError, also for a key that stands twice: the last one would win silently.
    """
    try:
        _check_bounded(text)
        return [d for d in yaml.load_all(text, Loader=_StrictLoader) if d is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2026-13-01 is a ValueError
        raise UnreadableYamlError(" ".join(str(error).split())) from error


def _check_bounded(text: str) -> None:
    """Refuse what can grow without end, or is so deep that libyaml's loader would crash the process."""
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if getattr(event, "anchor", None) is not None:
            raise UnreadableYamlError("anchors and aliases are not allowed: they can grow without end")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > NESTING_LIMIT:
            raise UnreadableYamlError(f"it is nested more than {NESTING_LIMIT} deep")


class UnreadableYamlError(ValueError):
    """The text isn't YAML, or holds a key twice."""


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml's where there is one
    """A safe loader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- the base class's signature
        """Refuse a key that isn't text, or stands twice; the last one would win silently."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key isn't text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key `{key.value}` stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return] # the stubs don't know the C loader


def to_json_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the body of a server-side apply, which the server parses as YAML."""
    return to_yaml_safe_json(manifest).encode()


def to_yaml_safe_json(value: object) -> str:
    r"""Return JSON that a YAML reader takes for the same value, whatever characters it holds.

    YAML readers mangle some characters and refuse others, so all of U+007F..U+FFFF is written as `\uXXXX`;
    what lies above is written as it is, since they refuse surrogate pairs (docs/server-side-apply.md).
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "".join(f"\\u{ord(c):04x}" if 0x7F <= ord(c) <= 0xFFFF else c for c in text)


def to_json_text(value: object) -> str:
    """Return canonical JSON: sorted keys, no spaces. Equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def to_yaml(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return a YAML stream, one document an object, keys sorted; the same objects give the same bytes."""
    return "".join("---\n" + _dumped(dict(m), sort_keys=True) for m in manifests)


def to_yaml_text(value: object) -> str:
    """Return one YAML document for people to read: keys stay in the order in which they were written."""
    return _dumped(value, sort_keys=False)


def _dumped(value: object, *, sort_keys: bool) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=sort_keys, allow_unicode=True, width=120)
    return text
