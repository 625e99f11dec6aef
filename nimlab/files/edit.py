"""create, scale and delete as edits of files: text in, text out, and nothing moves that wasn't meant.

In: an experiment's text or the wish for a new one. Out: the new text. Checking it against schema and
contracts is not done here.
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
from nimlab.text import to_yaml_safe_json
from nimlab.units import (
    format_cpu_m,
    format_memory_bytes,
    format_rate_bit_per_s,
)

_PLAIN: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9 _./-]*[A-Za-z0-9])?")
_USUAL_SIZE_BYTES: Final = 1440
_USUAL_INTERVAL_MS: Final = 2000
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HEADER: Final = "# yaml-language-server: $schema=../schema/experiment.schema.json\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """A new experiment in the units of the seed's flags.

    `msg_size` in bytes, `msg_rate` in milliseconds between messages, `cpu` in cores, `ram` in MiB, the
    bandwidths in megabits per second. None stands for a default, where the contract has the field.
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
    """Return the file of a new experiment, with units and a header for editors. Pure.

    Only fields that the contract delivers are written; without one, all of them. What the contract requires
    and no flag or default of the lab gives is written with the schema's example. Raises EditError for a part
    of a core that Kubernetes can't say, and for a flag whose field the contract doesn't deliver.
    """
    metadata = [f"name: {_scalar(new.name)}"]
    if new.owner:
        metadata.append(f"owner: {_scalar(new.owner)}")
    if new.description:
        metadata.append(f"description: {_scalar(new.description)}")
    cpu, memory = format_cpu_m(_cpu_m(new.cpu)), _memory(new.ram)
    if not cpu.endswith("m"):
        cpu = f'"{cpu}"'  # whole cores would read as a number without a unit
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
    """The fields that the contract passes on to the image, dotted, and their text."""
    usual = 2
    if contract is not None and contract.connect_limit is ConnectLimit.LESS_THAN_PEERS:
        usual = max(min(2, new.peers - 1), 0)
    flags = (
        ("connectTo", "--connections", new.connections, usual, ""),
        ("message.size", "--msg-size", new.msg_size, _USUAL_SIZE_BYTES, "B"),
        ("message.interval", "--msg-rate", new.msg_rate, _USUAL_INTERVAL_MS, "ms"),
    )
    found = {}
    for field, flag, value, default, unit in flags:
        if contract is None or field in contract.fields:
            found[field] = f"{default if value is None else value}{unit}"
        elif value is not None:
            able = ", ".join(f"`{name}`" for name in sorted(contract.fields))
            raise EditError(
                f"contract `{contract.name}` can't deliver `{field}`: its image reads no such setting",
                hint=f"leave {flag} out; the contract delivers {able}",
            )
    required = contract.required - {"peers", *found} if contract else frozenset()
    return found | {field: _example(field) for field in sorted(required) if not _has(defaults, field)}


def _has(values: Mapping[str, Any], field: str) -> bool:
    """True when a dotted field is among nested values."""
    first, _, rest = field.partition(".")
    inner = values.get(first)
    return first in values and (not rest or (isinstance(inner, Mapping) and rest in inner))


def _example(field: str) -> str:
    """The schema's example of a field, as YAML."""
    facts = json.loads((SCHEMAS / "experiment.schema.json").read_text(encoding="utf-8"))
    for name in ("spec", *field.split(".")):
        facts = facts["properties"][name]
    return to_yaml_safe_json(facts["examples"][0])


def _setting_lines(settings: Mapping[str, str]) -> Iterator[str]:
    """One line for each field, or group of them, in their order."""
    groups: dict[str, list[str]] = {}
    for field, text in settings.items():
        group, _, name = field.partition(".")
        groups.setdefault(group, []).append(f"{name}: {text}" if name else text)
    for group, parts in groups.items():
        text = ", ".join(parts)
        yield f"  {group}: {{{text}}}" if f"{group}." in " ".join(settings) else f"  {group}: {text}"


def set_peers(text: str, peers: int, role: str | None = None) -> str:
    """Return the text with another number of peers, of a role if one is named. Pure.

    Every other character stays. Where the file doesn't say `peers`, it is added at the head of `spec`.
    Raises EditError where the place can't be told for sure: then nothing is guessed.
    """
    if peers < 1:
        hint = "write 1 or more; `nimlab delete NAME` ends an experiment"
        raise EditError(f"an experiment can't have {peers} peers", hint=hint)
    spec = _value(_root_node(text), "spec")
    if not isinstance(spec, yaml.MappingNode) or not spec.value:
        raise EditError("there is no `spec` to change", hint="`nimlab validate` shows what is wrong")
    roles = _roles(spec)
    if role is None and not roles:
        node = _value(spec, "peers")
        return _with_peers(text, spec, peers) if node is None else _with_number(text, node, peers)
    if role not in roles:
        what = "the file has no roles" if not roles else f"`{role}` is not a role of it"
        known = f"name one with `--role`: {', '.join(roles)}" if roles else "leave out `--role`"
        raise EditError("the experiment has roles" if role is None else what, hint=known)
    node = _value(roles[role], "peers")
    if node is None:
        raise EditError(f"the role `{role}` has no `peers`", hint="`nimlab validate` shows what is wrong")
    return _with_number(text, node, peers)


def _roles(spec: yaml.MappingNode) -> dict[str, yaml.Node]:
    """The roles that a file lists, by name."""
    node = _value(spec, "roles")
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    named = ((_value(item, "name"), item) for item in items)
    return {name.value: item for name, item in named if isinstance(name, yaml.ScalarNode)}


def _with_number(text: str, node: yaml.Node, peers: int) -> str:
    """The text with another number in the place of a plain one. Raises EditError."""
    start, end = node.start_mark.index, node.end_mark.index
    # A node whose text isn't its value is quoted, tagged, or an alias, whose own text is elsewhere.
    if not isinstance(node, yaml.ScalarNode) or text[start:end] != node.value or start == end:
        raise EditError("`peers` is not a plain number", hint=f"write `peers: {peers}` by hand")
    return f"{text[:start]}{peers}{text[end:]}"


def new_experiment_path(root: Path, name: str) -> Path:
    """Return where a new experiment is written. Raises EditError if the file exists, or can't be one."""
    folder = root / "experiments"
    path = folder / f"{name}.yaml"
    if path.parent != folder or name.startswith("."):
        raise EditError(f"`{name}` is no name for a file", hint="use lower-case letters, digits, `-`")
    # `exists` would fail on a name that is too long for a file; the schema's check says that better.
    if path in set(folder.glob("*")):
        raise EditError(
            "the file exists already",
            where=f"experiments/{name}.yaml",
            hint=f"edit it, or `nimlab scale {name} --peers N`",
        )
    return path


def find_experiment_file(root: Path, name: str) -> Path:
    """Return the file whose experiment has this name. Raises EditError with the nearest name.

    A file that says no name counts by its own, after those that do.
    """
    said: dict[str, Path] = {}
    unsaid: dict[str, Path] = {}
    for path in sorted((root / "experiments").glob("*.yaml")):
        own = _name_in(path)
        (unsaid if own is None else said).setdefault(own or path.stem, path)
    found = {**unsaid, **said}
    if name in found:
        return found[name]
    hint = did_you_mean(name, found, "`nimlab list` shows what there is")
    raise EditError(f"no file in experiments/ has an experiment called `{name}`", hint=hint)


def read_text(path: Path) -> str:
    """Return a file's text with its line ends as they are. Raises EditError."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EditError(f"the file can't be read: {error}", where=path) from error


def _cpu_m(cores: float) -> int:
    cpu_m = Decimal(repr(cores)) * 1000
    if not cpu_m.is_finite() or cpu_m < 1 or cpu_m != cpu_m.to_integral_value():
        raise EditError(
            f"a peer can't have {cores} of a core", hint="write thousandths: `0.05`, `0.125`, `2`"
        )
    return int(cpu_m)


def _memory(ram_mib: int) -> str:
    """The amount with its unit; an amount that can't be is left as it is, for the check of the file."""
    return format_memory_bytes(ram_mib * 1024**2) if ram_mib > 0 else f"{ram_mib}Mi"


def _scalar(text: str) -> str:
    """The text as YAML that every reader takes for text: plain where that is sure, else in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return to_yaml_safe_json(text)


def _root_node(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        hint = "`nimlab validate` shows what is wrong"
        raise EditError("the file isn't readable YAML", hint=hint) from error


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((v for k, v in node.value if getattr(k, "value", None) == key), None)


def _with_peers(text: str, spec: yaml.MappingNode, peers: int) -> str:
    """The text with `peers` as the first entry of `spec`."""
    at = spec.value[0][0].start_mark.index
    before = text[:at].rstrip(" ")
    gap = text[len(before) : at]
    if spec.flow_style and before.rstrip().endswith("{"):
        return f"{text[:at]}peers: {peers}, {text[at:]}"
    if not spec.flow_style and before.endswith(("\n", "\r")):
        line_end = "\r\n" if before.endswith("\r\n") else before[-1]
        return f"{text[:at]}peers: {peers}{line_end}{gap}{text[at:]}"
    raise EditError(
        "there is no plain place for `peers`", hint=f"write `peers: {peers}` under `spec` by hand"
    )


def _name_in(path: Path) -> str | None:
    """The name that the file's experiment has; None where it says none."""
    try:
        node = _value(_value(_root_node(read_text(path)), "metadata"), "name")
    except EditError:
        return None
    return node.value if isinstance(node, yaml.ScalarNode) else None
