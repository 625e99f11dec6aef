"""Specs -> manifests: one experiment through the templates, once for each group of its peers.

In: the template folder, an experiment, the lab. Out: canonical manifests in apply order. Text from
experiments is data in the templates, never template source; and nothing else enters than what `context` says.
So the same files give the same bytes, and what they gave before may be recalled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nimlab.cache import ValueCache
from nimlab.errors import RenderError
from nimlab.files.safe_open import check_folder, foreign_content, is_seen, read_file
from nimlab.files.spec import Experiment, Lab
from nimlab.objects.manifest import Manifest, apply_order, key_of
from nimlab.render.context import contexts_of, label_value
from nimlab.text import to_json_text

if TYPE_CHECKING:
    from nimlab.render.jinja_sandbox import Compiled

__all__ = [
    "EXPERIMENT_FOLDER",
    "Templates",
    "contexts_of",
    "find_template",
    "label_value",
    "load_sources",
    "load_templates",
    "render_experiment",
]

EXPERIMENT_FOLDER: Final = "templates/experiment"
_SOURCE_LIMIT_BYTES: Final = 256 * 1024
_IGNORED: Final = (".", "README")


class Templates:
    """The texts of a folder's templates, compiled when something has to be rendered anew.

    `digest` tells them apart from any others; `recall` may hold what they have rendered before.
    """

    def __init__(
        self, folder: str, sources: Mapping[str, str], value_cache: ValueCache | None = None
    ) -> None:
        self.digest = _digest([folder, sources])
        self.value_cache = value_cache
        self.folder = folder
        self.sources = sources
        self._compiled: Compiled | None = None

    def compiled(self) -> Compiled:
        """Return them compiled. Raises RenderError with file and line."""
        if self._compiled is None:
            from nimlab.render.jinja_sandbox import (
                Compiled,  # with Jinja, which a lab without changes doesn't need
            )

            self._compiled = Compiled(self.folder, self.sources)
        return self._compiled

    def find(self, names: Mapping[str, Any], kind: str, name: str) -> tuple[str, str] | None:
        """Return path and text of the template that makes an object; None if none does."""
        for file, data in self.compiled().data(names, f"{kind} `{name}`").items():
            if (data.get("kind"), data["metadata"].get("name")) == (kind, name):
                return f"{self.folder}/{file}", self.sources[file]
        return None


def load_templates(root: Path, folder: str, value_cache: ValueCache | None = None) -> Templates:
    """Read and compile every `*.yaml.j2` of a folder in the lab's. Raises RenderError with file and line.

    What isn't an ordinary file there can't be included either. Those that are known to `recall` have been
    compiled before.
    """
    templates = Templates(folder, load_sources(root, folder), value_cache)
    if value_cache is None or value_cache.get(templates.digest) is None:
        templates.compiled()
        if value_cache is not None:
            value_cache.put(templates.digest, True)  # noqa: FBT003 -- a value
    return templates


def render_experiment(templates: Templates, experiment: Experiment, lab: Lab) -> tuple[Manifest, ...]:
    """Return the experiment's manifests, canonical and in apply order. Raises RenderError."""
    found: list[Manifest] = []
    for names in contexts_of(experiment, lab):
        filled = _filled(templates, names, f"experiment `{experiment.name}`")
        # Objects that don't depend on a role come out equal each time. Two that differ under one name both
        # stay, and the guard names them.
        found += [one for one in filled if one not in found] if found else filled
    return _ordered(found)


def _filled(templates: Templates, names: Mapping[str, Any], whom: str) -> list[Manifest]:
    """The objects for one group of peers, recalled where they were rendered before."""
    value_cache = templates.value_cache
    if value_cache is None:
        return templates.compiled().fill(names, whom)
    digest = _digest([templates.digest, names])
    known: list[Manifest] | None = value_cache.get(digest)
    if known is None:
        known = templates.compiled().fill(names, whom)
        value_cache.put(digest, known)
    return known


def find_template(
    templates: Templates, experiment: Experiment, lab: Lab, kind: str, name: str
) -> tuple[str, str] | None:
    """Return path and text of the template that makes an object of an experiment; None if none does."""
    found = (templates.find(names, kind, name) for names in contexts_of(experiment, lab))
    return next((place for place in found if place is not None), None)


def _ordered(manifests: list[Manifest]) -> tuple[Manifest, ...]:
    return tuple(sorted(manifests, key=lambda manifest: apply_order(key_of(manifest))))


def _digest(value: object) -> str:
    return hashlib.sha256(to_json_text(value).encode()).hexdigest()


def load_sources(root: Path, folder: str) -> dict[str, str]:
    """Return the texts of a folder's templates by name, sorted. Raises RenderError."""
    try:
        check_folder(root, folder)
        entries = sorted((root / folder).iterdir())
    except OSError as error:
        hint = "`git status` shows whether it was deleted or renamed"
        raise RenderError(
            f"the templates can't be read: {error.strerror}", where=folder, hint=hint
        ) from error
    names = [path.name for path in entries if path.name.endswith(".yaml.j2")]
    for path in entries:
        if path.name not in names and not path.name.startswith(_IGNORED) and path.is_file():
            raise RenderError(
                "only files that end in `.yaml.j2` are templates",
                where=f"{folder}/{path.name}" if is_seen(path.name) else folder,
                hint="rename it, or move it away",
            )
    if not names:
        raise RenderError("there are no templates", where=folder, hint="it holds `*.yaml.j2` files")
    sources = {}
    for name in names:
        if not is_seen(name):
            place = f"{folder}/{ascii(name)[1:-1]}:1"
            said = "the template's name holds characters that can't be seen"
            raise RenderError(said, where=place, hint="rename it")
        try:
            data = read_file(root, f"{folder}/{name}", _SOURCE_LIMIT_BYTES)
            sources[name] = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or error
            raise RenderError(f"the template can't be read: {what}", where=f"{folder}/{name}:1") from error
        if len(data) > _SOURCE_LIMIT_BYTES:
            limit = f"{_SOURCE_LIMIT_BYTES // 1024} KiB"
            raise RenderError(f"the template is larger than {limit}", where=f"{folder}/{name}:1")
        foreign = foreign_content(sources[name])
        if foreign is not None:
            line, what, hint = foreign
            raise RenderError(what, where=f"{folder}/{name}:{line}", hint=hint)
    return sources
