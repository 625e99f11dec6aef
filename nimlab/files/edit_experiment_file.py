"""Experiment files for the commands `create`, `scale` and `delete`: find, create and edit them.

In: the text of an experiment's file, or the values of a new experiment. Out: the new text. An edit keeps all
other bytes of the file. The caller validates the new text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import EditError
from nimlab.files.load.schema_cache import SCHEMAS
from nimlab.files.spec import ConnectLimit, Contract
from nimlab.units import (
    format_cpu_m,
    format_memory_bytes,
    format_rate_bit_per_s,
)
from nimlab.yaml_and_json import to_yaml_safe_json

_PLAIN: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9 _./-]*[A-Za-z0-9])?")
_DEFAULT_SIZE_BYTES: Final = 1440
_DEFAULT_INTERVAL_MS: Final = 2000
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HEADER: Final = "# yaml-language-server: $schema=../schema/experiment.schema.json\n"
_SEE_VALIDATE: Final = "`nimlab validate` lists the errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """Values of a new experiment, in the units that the flags of nimp2p-lab use.

    `msg_size` is in bytes, `msg_rate` is the number of milliseconds between two messages, `cpu` is in cores,
    `ram` in MiB, and the bandwidths are in megabits per second. If a value is None and the contract supports
    the field, the file contains a default value.
    """

    name: str
    peers: int
    connections: int | None
    msg_size: int | None
    msg_rate: int | None
    cpu: float
    ram: int
    downlink_bw: int
    uplink_bw: int
    contract: str = "nimp2p"
    owner: str = ""
    description: str = ""


def experiment_text(
    new: NewExperiment, contract: Contract | None = None, defaults: Mapping[str, Any] | None = None
) -> str:
    """Return the text of a new experiment's file, with units and the schema header for editors. Pure.

    The file contains only fields that the contract supports. If `contract` is None, it contains all fields.
    If the contract requires a field that no flag and no default in lab.yaml sets, the file contains the
    schema's example value. Raises EditError if `cpu` is not a whole number of millicores, and for a flag
    whose field the contract does not support.
    """
    metadata = [f"name: {_scalar(new.name)}"]
    if new.owner:
        metadata.append(f"owner: {_scalar(new.owner)}")
    if new.description:
        metadata.append(f"description: {_scalar(new.description)}")
    cpu, memory = format_cpu_m(_cpu_m(new.cpu)), _memory(new.ram)
    if not cpu.endswith("m"):
        cpu = f'"{cpu}"'  # without quotes, YAML would read whole cores as a number, which the schema rejects
    down, up = (format_rate_bit_per_s(mbit * 10**6) for mbit in (new.downlink_bw, new.uplink_bw))
    return _HEADER + "\n".join(
        (
            "apiVersion: nimlab.dev/v1",
            "kind: Experiment",
            f"metadata: {{{', '.join(metadata)}}}",
            "spec:",
            f"  contract: {_scalar(new.contract)}",
            f"  peers: {new.peers}",
            *_setting_lines(_settings(new, contract, defaults or {})),
            f"  resources: {{cpu: {cpu}, memory: {memory}}}",
            f"  network: {{downlink: {down}, uplink: {up}}}",
            "",
        )
    )


def _settings(new: NewExperiment, contract: Contract | None, defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return a map from each supported setting's dotted name to its value as text. Raises EditError."""
    connections = 2
    if contract is not None and contract.connect_limit is ConnectLimit.LESS_THAN_PEERS:
        connections = max(min(2, new.peers - 1), 0)
    flags = (
        ("connectTo", "--connections", new.connections, connections, ""),
        ("message.size", "--msg-size", new.msg_size, _DEFAULT_SIZE_BYTES, "B"),
        ("message.interval", "--msg-rate", new.msg_rate, _DEFAULT_INTERVAL_MS, "ms"),
    )
    settings = {}
    for field, flag, value, default, unit in flags:
        if contract is None or field in contract.fields:
            settings[field] = f"{default if value is None else value}{unit}"
        elif value is not None:
            supported = ", ".join(f"`{name}`" for name in sorted(contract.fields))
            raise EditError(
                f"contract `{contract.name}` does not support `{field}`: "
                "its image does not read this setting",
                hint=f"remove {flag}; the contract supports {supported}",
            )
    required = contract.required - {"peers", *settings} if contract else frozenset()
    return settings | {field: _example(field) for field in sorted(required) if not _has(defaults, field)}


def _has(values: Mapping[str, Any], field: str) -> bool:
    """Return True if nested maps contain the field with this dotted name."""
    first, _, rest = field.partition(".")
    inner = values.get(first)
    return first in values and (not rest or (isinstance(inner, Mapping) and rest in inner))


def _example(field: str) -> str:
    """Return the schema's example value of a field, as YAML."""
    schema = json.loads((SCHEMAS / "experiment.schema.json").read_text(encoding="utf-8"))
    for name in ("spec", *field.split(".")):
        schema = schema["properties"][name]
    return to_yaml_safe_json(schema["examples"][0])


def _setting_lines(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield one line per top-level field, such as `  message: {size: 1440B, interval: 2000ms}`."""
    groups: dict[str, list[str]] = {}
    for field, text in settings.items():
        group, _, name = field.partition(".")
        groups.setdefault(group, []).append(f"{name}: {text}" if name else text)
    for group, parts in groups.items():
        text = ", ".join(parts)
        yield f"  {group}: {{{text}}}" if f"{group}." in " ".join(settings) else f"  {group}: {text}"


def set_peers(text: str, peers: int, role: str | None = None) -> str:
    """Return the text with a new number of peers, for the experiment or for one role of it. Pure.

    All other characters are kept. If the file has no `peers`, this field is added at the beginning of `spec`.
    Raises EditError if the number or the role is invalid, or if the file has an unusual form.
    """
    if peers < 1:
        hint = "write 1 or more; `nimlab delete NAME` removes an experiment"
        raise EditError(f"an experiment cannot have {peers} peers", hint=hint)
    spec = _value(_root_node(text), "spec")
    if not isinstance(spec, yaml.MappingNode) or not spec.value:
        raise EditError("the file has no usable `spec`", hint=_SEE_VALIDATE)
    roles = _roles(spec)
    if role is None and not roles:
        node = _value(spec, "peers")
        return _with_peers(text, spec, peers) if node is None else _with_number(text, node, peers)
    if role not in roles:
        unknown = "the file has no roles" if not roles else f"the file has no role `{role}`"
        hint = f"choose a role with `--role`: {', '.join(roles)}" if roles else "remove `--role`"
        raise EditError("the experiment has roles" if role is None else unknown, hint=hint)
    node = _value(roles[role], "peers")
    if node is None:
        raise EditError(f"the role `{role}` has no `peers`", hint=_SEE_VALIDATE)
    return _with_number(text, node, peers)


def _roles(spec: yaml.MappingNode) -> dict[str, yaml.Node]:
    """Return a map from the name of each role to its YAML node."""
    node = _value(spec, "roles")
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    named = ((_value(item, "name"), item) for item in items)
    return {name.value: item for name, item in named if isinstance(name, yaml.ScalarNode)}


def _with_number(text: str, node: yaml.Node, peers: int) -> str:
    """Return the text with a new number at the node. Raises EditError if the node is not a plain scalar."""
    start, end = node.start_mark.index, node.end_mark.index
    # If the text differs from the value, the value is quoted, tagged, or an alias.
    if not isinstance(node, yaml.ScalarNode) or text[start:end] != node.value or start == end:
        raise EditError("`peers` is not a plain number", hint=f"write `peers: {peers}` by hand")
    return f"{text[:start]}{peers}{text[end:]}"


def new_experiment_path(root: Path, name: str) -> Path:
    """Return the path of a new experiment's file. Raises EditError if it exists or `name` is invalid."""
    folder = root / "experiments"
    path = folder / f"{name}.yaml"
    if path.parent != folder or name.startswith("."):
        raise EditError(f"`{name}` cannot be a file name", hint="use lower-case letters, digits, `-`")
    # `path.exists()` would raise for a name that is too long. The schema reports such a name with a hint.
    if path in set(folder.glob("*")):
        raise EditError(
            "the file already exists",
            where=f"experiments/{name}.yaml",
            hint=f"edit it, or run `nimlab scale {name} --peers N`",
        )
    return path


def find_experiment_file(root: Path, name: str) -> Path:
    """Return the file of the experiment with this name. Raises EditError if there is no such file.

    The hint of the error suggests a similar name. A file without `metadata.name` is found by its file name,
    unless `metadata.name` of another file is the same.
    """
    named: dict[str, Path] = {}
    unnamed: dict[str, Path] = {}
    for path in sorted((root / "experiments").glob("*.yaml")):
        own_name = _name_in(path)
        (unnamed if own_name is None else named).setdefault(own_name or path.stem, path)
    paths = {**unnamed, **named}
    if name in paths:
        return paths[name]
    hint = did_you_mean(name, paths, "`nimlab list` lists all experiments")
    raise EditError(f"no file in experiments/ contains an experiment `{name}`", hint=hint)


def read_text(path: Path) -> str:
    """Return a file's text with its original line ends. Raises EditError if the file cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EditError(f"cannot read the file: {error}", where=path) from error


def _cpu_m(cores: float) -> int:
    cpu_m = Decimal(repr(cores)) * 1000
    if not cpu_m.is_finite() or cpu_m < 1 or cpu_m != cpu_m.to_integral_value():
        raise EditError(
            f"a peer cannot have {cores} cores",
            hint="write whole thousandths of a core: `0.05`, `0.125`, `2`",
        )
    return int(cpu_m)


def _memory(ram_mib: int) -> str:
    """Return an amount of memory with its unit. Validation reports an amount that is not positive."""
    return format_memory_bytes(ram_mib * 1024**2) if ram_mib > 0 else f"{ram_mib}Mi"


def _scalar(text: str) -> str:
    """Return the text as a YAML scalar, with quotes if a YAML reader could misinterpret the plain text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return to_yaml_safe_json(text)


def _root_node(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise EditError("the file is not valid YAML", hint=_SEE_VALIDATE) from error


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((v for k, v in node.value if getattr(k, "value", None) == key), None)


def _with_peers(text: str, spec: yaml.MappingNode, peers: int) -> str:
    """Return the text with `peers` as the first entry of `spec`. Raises EditError if that is impossible."""
    at = spec.value[0][0].start_mark.index
    before = text[:at].rstrip(" ")
    indent = text[len(before) : at]
    if spec.flow_style and before.rstrip().endswith("{"):
        return f"{text[:at]}peers: {peers}, {text[at:]}"
    if not spec.flow_style and before.endswith(("\n", "\r")):
        line_end = "\r\n" if before.endswith("\r\n") else before[-1]
        return f"{text[:at]}peers: {peers}{line_end}{indent}{text[at:]}"
    raise EditError(
        "`spec` has an unusual form, so `peers` was not added",
        hint=f"write `peers: {peers}` under `spec` by hand",
    )


def _name_in(path: Path) -> str | None:
    """Return `metadata.name` of a file; None if the name is missing or the file cannot be read."""
    try:
        node = _value(_value(_root_node(read_text(path)), "metadata"), "name")
    except EditError:
        return None
    return node.value if isinstance(node, yaml.ScalarNode) else None
