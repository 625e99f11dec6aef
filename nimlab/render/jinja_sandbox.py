"""Rendering of one folder of templates with sandboxed Jinja: variables -> canonical manifests.

In: the sources of the templates, and the variables of one experiment or of the platform. Out: canonical
manifests. Jinja renders text with placeholders. The text is parsed, then the values replace the placeholders
without being parsed. CPU time, memory and output size are limited, because merge requests can contain
templates.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nimlab.errors import RenderError
from nimlab.objects.canonical_form import canonical, shape_fault
from nimlab.objects.manifest import Manifest
from nimlab.render.placeholders import OutputTooLargeError, ParsedTemplate, Placeholders
from nimlab.render.template_limits import LimitExceededError, limit_resources
from nimlab.units import UnitError
from nimlab.yaml_and_json import parse_yaml

_OUTPUT_LIMIT_BYTES: Final = 512 * 1024  # etcd accepts 1.5 MB per object; nimlab's own objects have a few kB
_CPU_LIMIT_S: Final = 0.5  # rendering an experiment takes about a millisecond
_MEMORY_LIMIT_BYTES: Final = 64 * 1024 * 1024
_OPERATION_LIMIT: Final = 1_000_000  # characters, items or bits
_TEMPLATE_FAILURES: Final = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError,
)  # fmt: skip
_PLACEHOLDERS: Final[ContextVar[Placeholders]] = ContextVar("placeholders")


class CompiledTemplates:
    """The compiled templates of one folder.

    A template that exceeds a limit is not rendered again for other experiments.
    """

    def __init__(self, folder: str, sources: Mapping[str, str]) -> None:
        """Compile the sources; they can include only each other. Raises RenderError with file and line."""
        self._folder = folder
        self._templates = _compile(folder, sources)
        self._exceeded: dict[str, str] = {}

    def render_manifests(self, variables: Mapping[str, Any], subject: str) -> list[Manifest]:
        """Return the canonical manifests of all templates, unordered. Raises RenderError."""
        return list(self._render(variables, subject, _to_manifest).values())

    def render_documents(self, variables: Mapping[str, Any], subject: str) -> dict[str, Any]:
        """Return a map from each template's name to its document, if it has one. Raises RenderError."""
        return self._render(variables, subject, lambda document, _where, _subject: document)

    def _render(
        self, variables: Mapping[str, Any], subject: str, convert: Callable[[Any, str, str], Any]
    ) -> dict[str, Any]:
        """Render each template and convert its document, if any. The limits apply to all of them in total."""
        results: dict[str, Any] = {}
        name = ""
        try:
            with limit_resources(cpu_s=_CPU_LIMIT_S, memory_bytes=_MEMORY_LIMIT_BYTES):
                for name, template in self._templates.items():
                    where = f"{self._folder}/{name}"
                    if name in self._exceeded:
                        raise RenderError(f"{self._exceeded[name]} (for another experiment)", where=where)
                    placeholders = Placeholders(_OUTPUT_LIMIT_BYTES)
                    text = _render_text(template, variables, placeholders, where, subject)
                    for document in _parse(text, placeholders, where, subject):
                        results[name] = convert(document, where, subject)
        except LimitExceededError as error:
            self._exceeded[name] = str(error)
            where = f"{self._folder}/{name}"
            hint = "simplify the template, or the loop in it"
            raise RenderError(f"{error} (for {subject})", where=where, hint=hint) from error
        return results


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a limit on the size of a product or power.

    The limit is needed because no signal can interrupt a single operation.
    """

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self,
        context: jinja2.runtime.Context,
        operator: str,
        left: Any,  # noqa: ANN401 -- the base class's signature
        right: Any,  # noqa: ANN401 -- the base class's signature
    ) -> Any:  # noqa: ANN401 -- the base class's signature
        """Return the product or power. Raises SecurityError if it is too large."""
        size = _size_of_product(left, right) if operator == "*" else _bits(left) * abs(int(right))
        if size > _OPERATION_LIMIT:
            raise SecurityError(f"the result of `{operator}` is too large")
        return super().call_binop(context, operator, left, right)


def _size_of_product(left: Any, right: Any) -> int:  # noqa: ANN401 -- any value of a template
    """Return the length of a repeated sequence, or roughly how many bits a product has."""
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple):
            return len(sequence) * int(times)
    return _bits(left) + _bits(right)


def _bits(value: object) -> int:
    return int(value).bit_length() if isinstance(value, int | float) else 0


def _compile(folder: str, sources: Mapping[str, str]) -> dict[str, jinja2.Template]:
    environment = _Sandbox(
        loader=jinja2.FunctionLoader(
            lambda name: (sources[name], f"{folder}/{name}", None) if name in sources else None
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        optimized=False,  # otherwise Jinja would evaluate constant expressions at compile time
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = _put
    templates = {}
    for name in sources:
        try:
            with limit_resources(cpu_s=_CPU_LIMIT_S, memory_bytes=_MEMORY_LIMIT_BYTES):
                templates[name] = environment.get_template(name)
        except jinja2.TemplateSyntaxError as error:
            place = f"{folder}/{error.name or name}:{error.lineno}"
            raise RenderError(str(error.message), where=place) from error
        except (LimitExceededError, RecursionError, MemoryError, ValueError, SyntaxError) as error:
            raise RenderError(f"cannot compile: {error}", where=f"{folder}/{name}:1") from error
    return templates


@jinja2.pass_context
def _put(context: jinja2.runtime.Context, value: object) -> str:
    """Implement the filter `json`: store the value and return its marker.

    The context argument prevents Jinja from calling the filter at compile time for a constant.
    """
    del context
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises UndefinedError
    return _PLACEHOLDERS.get().put(value)


def _render_text(
    template: jinja2.Template,
    variables: Mapping[str, Any],
    placeholders: Placeholders,
    where: str,
    subject: str,
) -> str:
    """Return the text of the template, with a marker for each value. Raises RenderError."""
    reset = _PLACEHOLDERS.set(placeholders)
    try:
        text = template.render(variables)
    except OutputTooLargeError as error:
        raise _too_large(where, subject) from error
    except _TEMPLATE_FAILURES as error:
        line = _template_line(error, template.name or "")
        raise RenderError(
            f"{error} (for {subject})",
            where=f"{where}:{line}" if line else where,
            hint="templates/README.md lists the variables that a template can use",
        ) from error
    finally:
        _PLACEHOLDERS.reset(reset)
    if len(text.encode(errors="replace")) > _OUTPUT_LIMIT_BYTES:
        raise _too_large(where, subject)
    return text


def _too_large(where: str, subject: str) -> RenderError:
    limit = f"{_OUTPUT_LIMIT_BYTES // 1024} KiB"
    return RenderError(f"the rendered text is larger than {limit} (for {subject})", where=where)


def _template_line(error: Exception, name: str) -> int | None:
    """Return the line in the template. Jinja rewrites tracebacks, so the last frame has the line number."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename.endswith(name)), None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> ParsedTemplate:
    """Parse a text with markers. The result is cached, because several experiments can give the same text."""
    return ParsedTemplate(parse_yaml(text))


def _parse(text: str, placeholders: Placeholders, where: str, subject: str) -> list[Any]:
    """Return the document of a template as a list, which is empty if nothing was rendered."""
    try:
        documents: list[Any] = placeholders.fill(_parsed(text))
    except ValueError as error:  # includes UnreadableYamlError
        raise RenderError(
            f"the rendered text is not valid YAML: {error} (for {subject})", where=where
        ) from error
    if len(documents) > 1:
        raise RenderError(
            f"the rendered text contains {len(documents)} documents (for {subject})",
            where=where,
            hint="split the file: one object per template",
        )
    return documents


def _to_manifest(document: Any, where: str, subject: str) -> Manifest:  # noqa: ANN401 -- any YAML
    """Return the document as a canonical manifest. Raises RenderError if it is not a Kubernetes object."""
    suffix = f"(for {subject})"
    if not (isinstance(document, dict) and isinstance(document.get("metadata"), dict)):
        raise RenderError(f"the rendered document is not a Kubernetes object {suffix}", where=where)
    fault = shape_fault(document)
    if fault is not None:
        raise RenderError(f"the rendered document is not a Kubernetes object: {fault} {suffix}", where=where)
    if not (document.get("apiVersion") and document.get("kind") and document["metadata"].get("name")):
        raise RenderError(f"the rendered object has no apiVersion, kind or name {suffix}", where=where)
    try:
        return canonical(document)
    except UnitError as error:
        raise RenderError(f"{error.what} {suffix}", where=where, hint=error.hint) from error
