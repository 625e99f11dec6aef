"""Parsers for the schemas' keyword `x-unit`: text of a file -> value in base units.

This module does not import jsonschema. If all files of a lab are cached, nimlab needs the parsers, but not
jsonschema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from nimlab import units
from nimlab.files.spec import Image

_IMAGE: Final = re.compile(
    r"(?P<name>[a-z0-9]+(?:[._:/-][a-z0-9]+|__[a-z0-9]+|-+[a-z0-9]+)*):(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOVING_TAGS: Final = frozenset({"latest", "main", "master", "edge", "nightly"})


def parse_image(text: str) -> tuple[str, str, str | None]:
    """Return name, tag and digest of an image reference. Raises UnitError."""
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise units.UnitError(
            f"`{text[:60]}` is not an image with a tag",
            "write `registry/name:tag`, such as `a/b:v1.2`",
        )
    if match["tag"] in _MOVING_TAGS:
        raise units.UnitError(
            f"the tag `{match['tag']}` does not name a fixed version",
            "pin a version, so that a run can be repeated",
        )
    return match["name"], match["tag"], match["digest"]


PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "duration": units.parse_duration_ms,
    "size": units.parse_size_bytes,
    "rate": units.parse_rate_bit_per_s,
    "ratio": units.parse_ratio,
    "cpu": units.parse_cpu_m,
    "memory": units.parse_memory_bytes,
    "image": parse_image,
}
"""Parser for each value of `x-unit`. A parser returns the value in base units, or raises UnitError."""


def parse_optional(unit: str, text: str | None) -> Any:  # noqa: ANN401 -- the type depends on the unit
    """Return the value of a text in base units; None if the text is None. Raises UnitError."""
    return None if text is None else PARSERS[unit](text)


def image_of(text: str) -> Image:
    """Return the `Image` of an image reference. Raises UnitError."""
    name, tag, digest = parse_image(text)
    return Image(name=name, tag=tag, digest=digest)
