"""A template and its names -> manifests: Jinja in a sandbox, its text parsed, its values put in unparsed.

In: templates' texts, the names of one experiment. Out: canonical manifests. What templates may take of time,
memory and text is bounded: they come with a merge request.
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
from nimlab.objects.canonical import canonical, shape_fault
from nimlab.objects.manifest import Manifest
from nimlab.render.placeholders import OutputTooLargeError, ParsedTemplate, Placeholders
from nimlab.render.resource_limits import OutOfBoundsError, bounded
from nimlab.text import parse_yaml
from nimlab.units import UnitError

_OUTPUT_LIMIT_BYTES: Final = 512 * 1024  # etcd takes 1.5 MB an object; ours are a few kB
_CPU_LIMIT_S: Final = 0.5  # an experiment takes a millisecond
_MEMORY_LIMIT_BYTES: Final = 64 * 1024 * 1024
_STEP_LIMIT: Final = 1_000_000
_FAILURES: Final = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError,
)  # fmt: skip
_HOLES: Final[ContextVar[Placeholders]] = ContextVar("holes")


class Compiled:
    """Templates ready to be filled; one that has used up its time isn't tried for other experiments."""

    def __init__(self, folder: str, sources: Mapping[str, str]) -> None:
        """Compile the texts, which see each other and nothing else. Raises RenderError with file and line."""
        self._folder = folder
        self._templates = _compile(folder, sources)
        self._exhausted: dict[str, str] = {}

    def fill(self, names: Mapping[str, Any], whom: str) -> list[Manifest]:
        """Return the objects that all templates make of some names, in no order. Raises RenderError."""
        return list(self._render(names, whom, _as_object).values())

    def data(self, names: Mapping[str, Any], whom: str) -> dict[str, Any]:
        """Return the data that each template makes of some names, by its name. Raises RenderError."""
        return self._render(names, whom, lambda document, _where, _whom: document)

    def _render(
        self, names: Mapping[str, Any], whom: str, take: Callable[[Any, str, str], Any]
    ) -> dict[str, Any]:
        """Fill each template and take its document, if there is one; all of it in bounded time and memory."""
        found: dict[str, Any] = {}
        name = ""
        try:
            with bounded(cpu_s=_CPU_LIMIT_S, memory_bytes=_MEMORY_LIMIT_BYTES):
                for name, template in self._templates.items():
                    where = f"{self._folder}/{name}"
                    if name in self._exhausted:
                        raise RenderError(f"{self._exhausted[name]} (as for another)", where=where)
                    placeholders = Placeholders(_OUTPUT_LIMIT_BYTES)
                    text = _fill(template, names, placeholders, where, whom)
                    for document in _parse(text, placeholders, where, whom):
                        found[name] = take(document, where, whom)
        except OutOfBoundsError as error:
            self._exhausted[name] = str(error)
            where = f"{self._folder}/{name}"
            raise RenderError(f"{error} (for {whom})", where=where) from error
        return found


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a bound on what a single step can make: one that nothing could interrupt."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self,
        context: jinja2.runtime.Context,
        operator: str,
        left: Any,  # noqa: ANN401 -- as the base class has it
        right: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Multiply and raise only to what is small."""
        size = _size_of_product(left, right) if operator == "*" else _bits(left) * abs(int(right))
        if size > _STEP_LIMIT:
            raise SecurityError(f"the result of `{operator}` is too large")
        return super().call_binop(context, operator, left, right)


def _size_of_product(left: Any, right: Any) -> int:  # noqa: ANN401 -- whatever stands in a template
    """The length of a repeated sequence, or about the bits of a number."""
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple):
            return len(sequence) * int(times)
    return _bits(left) + _bits(right)


def _bits(value: object) -> int:
    """The bits of a number."""
    return int(value).bit_length() if isinstance(value, int | float) else 0


def _compile(folder: str, sources: Mapping[str, str]) -> dict[str, jinja2.Template]:
    environment = _Sandbox(
        loader=jinja2.FunctionLoader(
            lambda name: (sources[name], f"{folder}/{name}", None) if name in sources else None
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        optimized=False,  # or constants would be worked out while compiling
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = _put  # so that no text can be anything but data
    found = {}
    for name in sources:
        try:
            with bounded(cpu_s=_CPU_LIMIT_S, memory_bytes=_MEMORY_LIMIT_BYTES):
                found[name] = environment.get_template(name)
        except jinja2.TemplateSyntaxError as error:
            place = f"{folder}/{error.name or name}:{error.lineno}"
            raise RenderError(str(error.message), where=place) from error
        except (OutOfBoundsError, RecursionError, MemoryError, ValueError, SyntaxError) as error:
            raise RenderError(f"it can't be compiled: {error}", where=f"{folder}/{name}:1") from error
    return found


@jinja2.pass_context
def _put(context: jinja2.runtime.Context, value: object) -> str:
    """The filter `json`. It takes the context so that Jinja doesn't call it ahead of time for a constant."""
    del context
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises what a strict one has to say
    return _HOLES.get().put(value)


def _fill(
    template: jinja2.Template,
    names: Mapping[str, Any],
    placeholders: Placeholders,
    where: str,
    whom: str,
) -> str:
    """The template's text, in which marks stand for values; they are kept in `holes`.

    Raises RenderError.
    """
    reset = _HOLES.set(placeholders)
    try:
        text = template.render(names)
    except OutputTooLargeError as error:
        raise _too_large(where, whom) from error
    except _FAILURES as error:
        line = _template_line(error, template.name or "")
        raise RenderError(
            f"{error} (for {whom})",
            where=f"{where}:{line}" if line else where,
            hint="the names that a template can use are in templates/README.md",
        ) from error
    finally:
        _HOLES.reset(reset)
    if len(text.encode(errors="replace")) > _OUTPUT_LIMIT_BYTES:
        raise _too_large(where, whom)
    return text


def _too_large(where: str, whom: str) -> RenderError:
    limit = f"{_OUTPUT_LIMIT_BYTES // 1024} KiB"
    return RenderError(f"the result is larger than {limit} (for {whom})", where=where)


def _template_line(error: Exception, name: str) -> int | None:
    """The template's line: Jinja rewrites tracebacks so that the last frame in it has the right number."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename.endswith(name)), None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> ParsedTemplate:
    """Documents with marks in them: the same for all experiments that render to the same text."""
    return ParsedTemplate(parse_yaml(text))


def _parse(text: str, placeholders: Placeholders, where: str, whom: str) -> list[Any]:
    """The document that a template rendered to; none where it left itself out."""
    try:
        documents: list[Any] = placeholders.fill(_parsed(text))
    except ValueError as error:  # UnreadableYamlError is one
        raise RenderError(f"the result isn't YAML: {error} (for {whom})", where=where) from error
    if len(documents) > 1:
        raise RenderError(
            f"the result is {len(documents)} documents (for {whom})",
            where=where,
            hint="one object a template: split the file",
        )
    return documents


def _as_object(document: Any, where: str, whom: str) -> Manifest:  # noqa: ANN401 -- any YAML
    """The document as a canonical manifest. Raises RenderError if it is none."""
    suffix = f"(for {whom})"
    if not (isinstance(document, dict) and isinstance(document.get("metadata"), dict)):
        raise RenderError(f"the result isn't a Kubernetes object {suffix}", where=where)
    odd = shape_fault(document)
    if odd is not None:
        raise RenderError(f"the result isn't a Kubernetes object: {odd} {suffix}", where=where)
    if not (document.get("apiVersion") and document.get("kind") and document["metadata"].get("name")):
        raise RenderError(f"the result lacks apiVersion, kind or a name {suffix}", where=where)
    try:
        return canonical(document)
    except UnitError as error:
        raise RenderError(f"{error.what} {suffix}", where=where, hint=error.hint) from error
