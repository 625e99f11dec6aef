"""create, scale and delete as edits of files: text in, text out, and nothing moves that wasn't meant.

In: an experiment's text or the wish for a new one. Out: the new text. Checking it against schema and
contracts is not done here.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from nimlab.errors import EditError
from nimlab.manifest import to_yaml_safe_json
from nimlab.units import (
    format_cpu_m,
    format_memory_bytes,
    format_rate_bit_per_s,
)

_PLAIN: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9 _./-]*[A-Za-z0-9])?")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HEADER: Final = "# yaml-language-server: $schema=../schema/experiment.schema.json\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExperiment:
    """A new experiment in the units of the seed's flags.

    `msg_size` in bytes, `msg_rate` in milliseconds between messages, `cpu` in cores, `ram` in MiB, the
    bandwidths in megabits per second.
    """

    name: str
    peers: int
    connections: int
    msg_size: int
    msg_rate: int
    cpu: float
    ram: int
    downlink_bw: int
    uplink_bw: int
    contract: str = "nimp2p"
    owner: str = ""
    description: str = ""


def experiment_text(new: NewExperiment) -> str:
    """Return the file of a new experiment, with units and a header for editors. Pure."""
    metadata = [f"name: {_scalar(new.name)}"]
    if new.owner:
        metadata.append(f"owner: {_scalar(new.owner)}")
    if new.description:
        metadata.append(f"description: {_scalar(new.description)}")
    cpu, memory = format_cpu_m(round(new.cpu * 1000)), format_memory_bytes(new.ram * 1024**2)
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
            f"  connectTo: {new.connections}",
            f"  message: {{size: {new.msg_size}B, interval: {new.msg_rate}ms}}",
            f"  resources: {{cpu: {cpu}, memory: {memory}}}",
            f"  network: {{downlink: {down}, uplink: {up}}}",
            "",
        )
    )


def set_peers(text: str, peers: int) -> str:
    """Return the text with another number of peers; every other character stays. Pure.

    Where the file doesn't say `peers`, a line is added at the head of `spec`. Raises EditError.
    """
    spec = _value(_root_node(text), "spec")
    if not isinstance(spec, yaml.MappingNode) or not spec.value:
        raise EditError("there is no `spec` to change", hint="`nimlab validate` shows what is wrong")
    node = _value(spec, "peers")
    if node is None:
        first = spec.value[0][0].start_mark
        gap = ", " if spec.flow_style else _line_end(text) + " " * first.column
        return f"{text[: first.index]}peers: {peers}{gap}{text[first.index :]}"
    if not isinstance(node, yaml.ScalarNode):
        raise EditError("`spec.peers` is not a number", hint="`nimlab validate` shows what is wrong")
    return text[: node.start_mark.index] + str(peers) + text[node.end_mark.index :]


def new_experiment_path(root: Path, name: str) -> Path:
    """Return where a new experiment is written. Raises EditError if the file exists, or can't be one."""
    folder = root / "experiments"
    path = folder / f"{name}.yaml"
    if path.parent != folder or name.startswith("."):
        raise EditError(f"`{name}` is no name for a file", hint="use lower-case letters, digits, `-`")
    if path.exists():
        raise EditError(
            "the file exists already",
            where=f"experiments/{name}.yaml",
            hint=f"edit it, or `nimlab scale {name} --peers N`",
        )
    return path


def find_experiment_file(root: Path, name: str) -> Path:
    """Return the file whose experiment has this name. Raises EditError with the nearest name."""
    found: dict[str, Path] = {}
    for path in sorted((root / "experiments").glob("*.yaml")):
        found.setdefault(_name_in(path), path)
    if name in found:
        return found[name]
    near = difflib.get_close_matches(name, sorted(found), n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`nimlab list` shows what there is"
    raise EditError(f"no file in experiments/ has an experiment called `{name}`", hint=hint)


def read_text(path: Path) -> str:
    """Return a file's text with its line ends as they are. Raises EditError."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EditError(f"the file can't be read: {error}", where=path) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, keeping its mode. Raises EditError."""
    try:
        mode = path.stat().st_mode if path.exists() else 0o644
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
            Path(temporary).chmod(mode & 0o777)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EditError(f"the file can't be written: {error.strerror}", where=path) from error


def _scalar(text: str) -> str:
    """The text as YAML that every reader takes for text: plain where that is sure, else in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return to_yaml_safe_json(text)


def _root_node(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise EditError(
            "the file isn't readable YAML", hint="`nimlab validate` shows what is wrong"
        ) from error


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((v for k, v in node.value if getattr(k, "value", None) == key), None)


def _name_in(path: Path) -> str:
    """The name that the file's experiment has; the file's own where it says none."""
    try:
        node = _value(_value(_root_node(read_text(path)), "metadata"), "name")
    except EditError:
        return path.stem
    return node.value if isinstance(node, yaml.ScalarNode) else path.stem


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
