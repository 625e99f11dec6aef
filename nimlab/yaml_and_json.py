"""JSON and YAML: a strict reader, and writers with deterministic output.

In: text or JSON values. Out: JSON values or text. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

NESTING_LIMIT: Final = 100
"""Maximum depth of nested maps and lists in a document. The limit of the API server is higher."""
SAFE_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader of libyaml, which is much faster. PyYAML's own loader replaces it if PyYAML lacks libyaml."""
SAFE_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The dumper of libyaml, which is much faster. PyYAML's own dumper replaces it if PyYAML lacks libyaml."""


def parse_yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text that a template rendered, without empty documents.

    Raises UnreadableYamlError, also for a duplicate key, because YAML would silently use its last value.
    """
    try:
        _check_bounded(text)
        return [d for d in yaml.load_all(text, Loader=_StrictLoader) if d is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-01
        raise UnreadableYamlError(" ".join(str(error).split())) from error


def _check_bounded(text: str) -> None:
    """Reject aliases, which can expand without limit, and nesting that would crash the loader of libyaml."""
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if getattr(event, "anchor", None) is not None:
            raise UnreadableYamlError("anchors and aliases are not allowed: they can expand without limit")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > NESTING_LIMIT:
            raise UnreadableYamlError(f"maps and lists are nested more than {NESTING_LIMIT} levels deep")


class UnreadableYamlError(ValueError):
    """The text is not valid YAML, or a map contains a duplicate key."""


class _StrictLoader(SAFE_LOADER):  # type: ignore[misc,valid-type] # chosen at run time
    """A safe loader that rejects duplicate keys and keys that are not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- the base class's signature
        """Return the map. Raises ConstructorError for a key that is not text or occurs twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key `{key.value}`", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return] # the type of the loader is not known to mypy


def to_json_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the request body of a server-side apply. The server parses it as YAML."""
    return to_yaml_safe_json(manifest).encode()


def to_yaml_safe_json(value: object) -> str:
    r"""Return JSON that a YAML parser reads as the same value, whatever characters it contains.

    YAML parsers change some characters and reject others. Therefore U+007F..U+FFFF are written as `\uXXXX`.
    Characters above U+FFFF are not escaped, because YAML parsers reject surrogate pairs
    (docs/server-side-apply.md).
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "".join(f"\\u{ord(c):04x}" if 0x7F <= ord(c) <= 0xFFFF else c for c in text)


def to_json_text(value: object) -> str:
    """Return canonical JSON with sorted keys and no spaces. Equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def to_yaml(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return a YAML stream with one document per object and sorted keys. Equal objects give equal bytes."""
    return "".join("---\n" + _dumped(dict(m), sort_keys=True) for m in manifests)


def to_yaml_text(value: object) -> str:
    """Return one YAML document for people to read, with its keys in their original order."""
    return _dumped(value, sort_keys=False)


def _dumped(value: object, *, sort_keys: bool) -> str:
    text: str = yaml.dump(value, Dumper=SAFE_DUMPER, sort_keys=sort_keys, allow_unicode=True, width=120)
    return text
