"""Specs -> manifests: one experiment through the templates, one object a template.

In: the template folder, an experiment, the lab. Out: canonical manifests in apply order. Text from
experiments is data in the templates, never template source; and nothing else enters: not the commit, the
time, the tool's version, the machine or another experiment. So the same files give the same bytes.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nimlab.bounds import OutOfBoundsError, bounded
from nimlab.errors import RenderError
from nimlab.holes import Holes, TooMuchError
from nimlab.manifest import (
    Manifest,
    apply_order,
    canonical,
    key_of,
    misshapen,
    parse_yaml,
    to_json_text,
)
from nimlab.reading import check_folder, read_file
from nimlab.spec import Contract, EnvVar, Experiment, Isolation, Lab, Rollout, Setting
from nimlab.units import UnitError, canonical_quantity, format_cpu_m, format_memory_bytes

_OUTPUT_LIMIT_BYTES: Final = 512 * 1024  # etcd takes 1.5 MB an object; ours are a few kB
_HOLES: Final[ContextVar[Holes]] = ContextVar("holes")
_SOURCE_LIMIT_BYTES: Final = 256 * 1024
_CPU_LIMIT_S: Final = 0.5  # an experiment takes a millisecond
_MEMORY_LIMIT_BYTES: Final = 64 * 1024 * 1024
_STEP_LIMIT: Final = 1_000_000
_FAILURES: Final = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError,
)  # fmt: skip
_LABEL_VALUE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Templates:
    """Compiled templates by file name, sorted; `folder` is how their place is said in errors.

    `exhausted` are those that have used up what they may for one experiment: they aren't tried for others.
    """

    folder: str
    by_name: Mapping[str, jinja2.Template]
    exhausted: dict[str, str] = field(default_factory=dict)


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


def load_templates(root: Path, folder: str) -> Templates:
    """Compile every `*.yaml.j2` of a folder in the lab's. Raises RenderError with file and line.

    They see each other and nothing else: what isn't an ordinary file there can't be included either.
    """
    sources = _read_sources(root, folder)
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
    return Templates(folder, found)


def _read_sources(root: Path, folder: str) -> dict[str, str]:
    """The templates' texts by name, sorted."""
    try:
        check_folder(root, folder)
        names = sorted(path.name for path in (root / folder).glob("*.yaml.j2"))
    except OSError as error:
        raise RenderError(f"the templates can't be read: {error.strerror}", where=folder) from error
    if not names:
        raise RenderError("there are no templates", where=folder, hint="it holds `*.yaml.j2` files")
    sources = {}
    for name in names:
        try:
            data = read_file(root, f"{folder}/{name}", _SOURCE_LIMIT_BYTES)
            sources[name] = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or error
            raise RenderError(f"the template can't be read: {what}", where=f"{folder}/{name}:1") from error
        if len(data) > _SOURCE_LIMIT_BYTES:
            limit = f"{_SOURCE_LIMIT_BYTES // 1024} KiB"
            raise RenderError(f"the template is larger than {limit}", where=f"{folder}/{name}:1")
    return sources


@jinja2.pass_context
def _put(context: jinja2.runtime.Context, value: object) -> str:
    """The filter `json`. It takes the context so that Jinja doesn't call it ahead of time for a constant."""
    del context
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises what a strict one has to say
    return _HOLES.get().put(value)


def render_experiment(templates: Templates, experiment: Experiment, lab: Lab) -> tuple[Manifest, ...]:
    """Return the experiment's manifests, canonical and in apply order. Raises RenderError."""
    names = context_of(experiment, lab)
    manifests: list[Manifest] = []
    name = ""
    try:
        with bounded(cpu_s=_CPU_LIMIT_S, memory_bytes=_MEMORY_LIMIT_BYTES):
            for name, template in templates.by_name.items():
                where = f"{templates.folder}/{name}"
                if name in templates.exhausted:
                    raise RenderError(f"{templates.exhausted[name]} (as for another experiment)", where=where)
                manifests += _render(template, names, where, experiment)
    except OutOfBoundsError as error:
        templates.exhausted[name] = str(error)
        where = f"{templates.folder}/{name}"
        raise RenderError(f"{error} (for experiment `{experiment.name}`)", where=where) from error
    return tuple(sorted(manifests, key=lambda manifest: apply_order(key_of(manifest))))


def _render(
    template: jinja2.Template, names: Mapping[str, Any], where: str, experiment: Experiment
) -> list[Manifest]:
    holes = Holes(_OUTPUT_LIMIT_BYTES)
    return _parse(_fill(template, names, holes, where, experiment), holes, where, experiment)


def context_of(experiment: Experiment, lab: Lab) -> dict[str, Any]:
    """Return every name that a template can use; `templates/README.md` says what each means."""
    contract = experiment.contract
    full = experiment.full_name
    network = experiment.network
    return {
        "name": experiment.name,
        "full_name": full,
        "namespace": experiment.namespace,
        "own_namespace": contract.isolation is Isolation.NAMESPACE,
        "lab_namespace": lab.namespace,
        "workload": experiment.workload,
        "service": experiment.service,
        "peers": experiment.peers,
        "labels": _labels(experiment, lab),
        "selector": {"experiment": experiment.name},
        "container": contract.container,
        "image": str(experiment.image),
        "env": _env(contract, experiment.settings),
        "ports": [
            {
                "name": _port_name(port.name, protocol, port.protocols),
                "port": port.port,
                "protocol": protocol,
            }
            for port in contract.ports
            for protocol in port.protocols
        ],
        "scraped_ports": [p.port for p in contract.ports if p.name in ("metrics", "publish")],
        "cpu": format_cpu_m(experiment.cpu_m),
        "memory": format_memory_bytes(experiment.memory_bytes),
        "rollout_together": experiment.rollout is Rollout.TOGETHER,
        "network": {
            "method": network.method,
            "downlink": _quantity(network.downlink_bit_per_s),
            "uplink": _quantity(network.uplink_bit_per_s),
        },
        "spec_as_run": {
            "contract": contract.name,
            "experiment.json": to_json_text(experiment.document),
            "image": str(experiment.image),
            "settings.json": to_json_text(dict(sorted(experiment.settings.items()))),
            "sha256": experiment.digest,
        },
    }


def _labels(experiment: Experiment, lab: Lab) -> dict[str, str]:
    """The labels of every object and pod: scrape rules, log rules and dashboards select by the same."""
    return {
        "app.kubernetes.io/component": "peer",
        "app.kubernetes.io/managed-by": "nimlab",
        "app.kubernetes.io/name": experiment.contract.name,
        "app.kubernetes.io/part-of": lab.prefix.rstrip("-"),
        "app.kubernetes.io/version": label_value(experiment.image.tag),
        "experiment": experiment.name,
        "prefix": experiment.full_name,
    }


def label_value(text: str) -> str:
    """Return the text as a label value: at most 63 of its allowed characters, ends alphanumeric."""
    return _LABEL_VALUE.sub("-", text)[:63].strip("-._") or "none"


def _quantity(value: int | None) -> str | None:
    return None if value is None else canonical_quantity(str(value))


def _port_name(name: str, protocol: str, protocols: tuple[str, ...]) -> str:
    return name if len(protocols) == 1 else f"{name}-{protocol.lower()}"


def _env(contract: Contract, settings: Mapping[str, Setting]) -> list[dict[str, str]]:
    """The env that the contract lists, in its order; what nothing feeds is left to the image's default."""
    return [
        {"name": variable.name, "value": value}
        for variable in contract.env
        if (value := _env_value(variable, settings)) is not None
    ]


def _env_value(variable: EnvVar, settings: Mapping[str, Setting]) -> str | None:
    """A variable's text: fixed by the contract, or the setting that feeds it in the image's unit."""
    if variable.source is None:
        return variable.value
    value = settings.get(variable.source)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if variable.unit == "s" and isinstance(value, int):
        value = value // 1000 if value % 1000 == 0 else value / 1000
    return str(value)


def _fill(
    template: jinja2.Template,
    names: Mapping[str, Any],
    holes: Holes,
    where: str,
    experiment: Experiment,
) -> str:
    """The template's text, in which marks stand for values; they are kept in `holes`.

    Raises RenderError.
    """
    reset = _HOLES.set(holes)
    try:
        text = template.render(names)
    except TooMuchError as error:
        raise _too_large(where, experiment) from error
    except _FAILURES as error:
        line = _template_line(error, template.name or "")
        raise RenderError(
            f"{error} (for experiment `{experiment.name}`)",
            where=f"{where}:{line}" if line else where,
            hint="the names that a template can use are in templates/README.md",
        ) from error
    finally:
        _HOLES.reset(reset)
    if len(text.encode(errors="replace")) > _OUTPUT_LIMIT_BYTES:
        raise _too_large(where, experiment)
    return text


def _too_large(where: str, experiment: Experiment) -> RenderError:
    limit = f"{_OUTPUT_LIMIT_BYTES // 1024} KiB"
    return RenderError(f"the result is larger than {limit} (for experiment `{experiment.name}`)", where=where)


def _template_line(error: Exception, name: str) -> int | None:
    """The template's line: Jinja rewrites tracebacks so that the last frame in it has the right number."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename.endswith(name)), None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> list[Any]:
    """Documents with marks in them: the same for all experiments that render to the same text."""
    return parse_yaml(text)


def _parse(text: str, holes: Holes, where: str, experiment: Experiment) -> list[Manifest]:
    """The object that a template rendered to; none where it left itself out."""
    suffix = f"(for experiment `{experiment.name}`)"
    try:
        documents = holes.fill(_parsed(text))
    except ValueError as error:  # UnreadableYamlError is one
        raise RenderError(f"the result isn't YAML: {error} {suffix}", where=where) from error
    if len(documents) > 1:
        raise RenderError(
            f"the result is {len(documents)} documents {suffix}",
            where=where,
            hint="one object a template: split the file",
        )
    for document in documents:
        if not (isinstance(document, dict) and isinstance(document.get("metadata"), dict)):
            raise RenderError(f"the result isn't a Kubernetes object {suffix}", where=where)
        odd = misshapen(document)
        if odd is not None:
            raise RenderError(f"the result isn't a Kubernetes object: {odd} {suffix}", where=where)
        if not (document.get("apiVersion") and document.get("kind") and document["metadata"].get("name")):
            raise RenderError(f"the result lacks apiVersion, kind or a name {suffix}", where=where)
    try:
        return [canonical(document) for document in documents]
    except UnitError as error:
        raise RenderError(f"{error.what} {suffix}", where=where, hint=error.hint) from error
