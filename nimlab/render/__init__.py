"""Specs -> manifests: renders the templates once for each group of peers of an experiment.

In: the template folder, an experiment, the lab. Out: canonical manifests in apply order. Values of an
experiment are data in the templates, never template source. A template can use only the variables of
`template_variables`, so the same files always give the same manifests, and results can be cached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nimlab.errors import RenderError
from nimlab.files.forbidden_text import foreign_content, is_visible
from nimlab.files.safe_open import check_folder, read_file
from nimlab.files.spec import Experiment, Lab
from nimlab.objects.manifest import Manifest, apply_order, key_of
from nimlab.render.template_variables import label_value, template_contexts
from nimlab.value_cache import ValueCache
from nimlab.yaml_and_json import to_json_text

if TYPE_CHECKING:
    from nimlab.render.jinja_sandbox import CompiledTemplates

__all__ = [
    "EXPERIMENT_FOLDER",
    "Templates",
    "find_template",
    "label_value",
    "load_sources",
    "load_templates",
    "render_experiment",
    "template_contexts",
]

EXPERIMENT_FOLDER: Final = "templates/experiment"
_SUFFIX: Final = ".yaml.j2"
_SOURCE_LIMIT_BYTES: Final = 256 * 1024
_IGNORED_PREFIXES: Final = (".", "README")


class Templates:
    """The sources of a folder's templates. They are compiled when they are needed for the first time.

    `digest` identifies the folder and the sources. `value_cache` may contain results of earlier runs.
    """

    def __init__(
        self, folder: str, sources: Mapping[str, str], value_cache: ValueCache | None = None
    ) -> None:
        self.digest = _digest([folder, sources])
        self.value_cache = value_cache
        self.folder = folder
        self.sources = sources
        self._compiled: CompiledTemplates | None = None

    def compiled(self) -> CompiledTemplates:
        """Return the compiled templates. Raises RenderError with file and line."""
        if self._compiled is None:
            # Imported late, because Jinja is slow to import and often not needed.
            from nimlab.render.jinja_sandbox import CompiledTemplates

            self._compiled = CompiledTemplates(self.folder, self.sources)
        return self._compiled

    def find(self, variables: Mapping[str, Any], kind: str, name: str) -> tuple[str, str] | None:
        """Return the path and the source of the template that renders an object; None if no template does."""
        documents = self.compiled().render_documents(variables, f"{kind} `{name}`")
        for file, document in documents.items():
            if (document.get("kind"), document["metadata"].get("name")) == (kind, name):
                return f"{self.folder}/{file}", self.sources[file]
        return None


def load_templates(root: Path, folder: str, value_cache: ValueCache | None = None) -> Templates:
    """Read and compile all `*.yaml.j2` files of a folder. Raises RenderError with file and line.

    A template can include only other templates of the same folder. If the cache contains the digest of the
    templates, an earlier run compiled them without an error, so they are not compiled here.
    """
    templates = Templates(folder, load_sources(root, folder), value_cache)
    if value_cache is None or value_cache.get(templates.digest) is None:
        templates.compiled()
        if value_cache is not None:
            value_cache.put(templates.digest, True)  # noqa: FBT003 -- a value
    return templates


def render_experiment(templates: Templates, experiment: Experiment, lab: Lab) -> tuple[Manifest, ...]:
    """Return the experiment's manifests, canonical and in apply order. Raises RenderError."""
    manifests: list[Manifest] = []
    for variables in template_contexts(experiment, lab):
        rendered = _render(templates, variables, f"experiment `{experiment.name}`")
        # All templates are rendered for each group. An object that does not depend on the role is rendered
        # several times and kept once. If different objects have the same name, the guard reports them.
        manifests += (
            [manifest for manifest in rendered if manifest not in manifests] if manifests else rendered
        )
    return tuple(sorted(manifests, key=lambda manifest: apply_order(key_of(manifest))))


def _render(templates: Templates, variables: Mapping[str, Any], subject: str) -> list[Manifest]:
    """Return the manifests of one group of peers, from the cache if possible. Raises RenderError."""
    value_cache = templates.value_cache
    if value_cache is None:
        return templates.compiled().render_manifests(variables, subject)
    digest = _digest([templates.digest, variables])
    manifests: list[Manifest] | None = value_cache.get(digest)
    if manifests is None:
        manifests = templates.compiled().render_manifests(variables, subject)
        value_cache.put(digest, manifests)
    return manifests


def find_template(
    templates: Templates, experiment: Experiment, lab: Lab, kind: str, name: str
) -> tuple[str, str] | None:
    """Return the path and the source of the template that renders an experiment's object, or None."""
    matches = (templates.find(variables, kind, name) for variables in template_contexts(experiment, lab))
    return next((match for match in matches if match is not None), None)


def _digest(value: object) -> str:
    return hashlib.sha256(to_json_text(value).encode()).hexdigest()


def load_sources(root: Path, folder: str) -> dict[str, str]:
    """Return the sources of a folder's templates by name, sorted. Raises RenderError."""
    names = _template_names(root, folder)
    return {name: _read_source(root, folder, name) for name in names}


def _template_names(root: Path, folder: str) -> list[str]:
    try:
        check_folder(root, folder)
        paths = sorted((root / folder).iterdir())
    except OSError as error:
        raise RenderError(
            f"cannot read the templates: {error.strerror}",
            where=folder,
            hint="`git status` shows whether the folder was deleted or renamed",
        ) from error
    names = [path.name for path in paths if path.name.endswith(_SUFFIX)]
    for path in paths:
        if path.name not in names and not path.name.startswith(_IGNORED_PREFIXES) and path.is_file():
            raise RenderError(
                f"the name of a template must end in `{_SUFFIX}`",
                where=f"{folder}/{path.name}" if is_visible(path.name) else folder,
                hint="rename the file or move it to another folder",
            )
    if not names:
        raise RenderError("the folder contains no templates", where=folder, hint=f"add `*{_SUFFIX}` files")
    return names


def _read_source(root: Path, folder: str, name: str) -> str:
    """Return the text of a template. Raises RenderError."""
    where = f"{folder}/{name}"
    if not is_visible(name):
        raise RenderError(
            "the template's name contains invisible characters",
            where=f"{folder}/{ascii(name)[1:-1]}:1",
            hint="rename the file",
        )
    try:
        data = read_file(root, where, _SOURCE_LIMIT_BYTES)
        source = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RenderError(f"cannot read the template: {reason}", where=f"{where}:1") from error
    if len(data) > _SOURCE_LIMIT_BYTES:
        limit = f"{_SOURCE_LIMIT_BYTES // 1024} KiB"
        raise RenderError(
            f"the template is larger than {limit}", where=f"{where}:1", hint="split the template"
        )
    foreign = foreign_content(source)
    if foreign is not None:
        line, what, hint = foreign
        raise RenderError(what, where=f"{where}:{line}", hint=hint)
    return source
