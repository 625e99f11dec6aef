"""Files of a hostile merge request: each could make nimlab hang, crash, leak data or accept wrong input.

Each is written into a copy of the shipped lab. nimlab must reject each case of `REFUSED` and report where the
error is. `CODE_LIKE` is text that looks like code and must be rendered unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

HEAD: Final = "apiVersion: nimlab.dev/v1\nkind: Experiment\n"
GREEN: Final = HEAD + "metadata: {name: green}\nspec: {contract: nimp2p}\n"
SPEC: Final = HEAD + "metadata: {{name: green}}\nspec:\n  contract: nimp2p\n  {}\n"


@dataclass(frozen=True, slots=True)
class Hostile:
    """A case: its name, a function that writes it into a lab's folder, and part of the expected message."""

    name: str
    write: Callable[[Path], object]
    message: str = ""


def text_file(path: str, text: str | bytes) -> Callable[[Path], object]:
    """Return a function that writes one file."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text

    def write(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return write


def green_file(text: str | bytes) -> Callable[[Path], object]:
    """Return a function that writes the experiment green."""
    return text_file("experiments/green.yaml", text)


def link(path: str, target: str) -> Callable[[Path], object]:
    """Return a function that creates a symbolic link."""

    def write(root: Path) -> None:
        place = root / path
        if place.is_dir():
            place.rename(root / "moved")
        else:
            place.unlink(missing_ok=True)
        place.symlink_to(target)

    return write


def pipe(path: str) -> Callable[[Path], object]:
    """Return a function that creates a named pipe: opening it for reading blocks forever."""

    def write(root: Path) -> None:
        (root / path).unlink(missing_ok=True)
        os.mkfifo(root / path)

    return write


def replaced(path: str, old: str, new: str) -> Callable[[Path], object]:
    """Return a function that replaces a text in a file of the lab."""

    def write(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        assert old in text, old
        (root / path).write_text(text.replace(old, new), encoding="utf-8")

    return write


# Values that are invalid in every field of a spec.
BAD_VALUES: Final = {
    "template": "'{{ 7*7 }}'",
    "statement": "'{% include \"/etc/passwd\" %}'",
    "newline": '"5\\nhostNetwork: true"',
    "colon": "'5: {hostNetwork: true}'",
    "flow": "'5}, hostNetwork: true, x: {a: b'",
    "document": '"5\\n---\\nkind: ClusterRole"',
    "path": "'../../../etc/passwd'",
    "null byte": '"a\\0b"',
    "bidi": '"\\u202e5"',
    "list": "[1, 2]",
    "map": "{a: b}",
    "negative": "-1",
    "huge": "1" * 300,
    "infinite": ".inf",
    "not a number": ".nan",
    "exponent": "1e999",
    "hexadecimal": "0xffff",
    "octal": "0o777",
    "base 60": "1:30",
    "date": "2026-01-01",
    "yes": "yes",
    "null": "null",
    "long": "'" + "x" * 300_000 + "'",
}
FIELDS: Final = {
    "contract": "",
    "image": "",
    "peers": "",
    "connectTo": "",
    "message": "{{size: {}}}",
    "message ": "{{interval: {}}}",
    "resources": "{{cpu: {}}}",
    "resources ": "{{memory: {}}}",
    "network": "{{downlink: {}}}",
    "network ": "{{method: {}}}",
    "rtt": "{{interval: {}}}",
    "rollout": "",
    "onImmutableChange": "",
}


def values() -> Iterator[Hostile]:
    """Yield each bad value in each field of a spec."""
    for field, form in FIELDS.items():
        for label, value in BAD_VALUES.items():
            field_value = form.format(value) if "{}" in form else value
            key = field.strip()
            text = HEAD + f"metadata: {{name: green}}\nspec:\n  {key}: {field_value}\n"
            if key != "contract":
                text += "  contract: nimp2p\n"
            yield Hostile(f"{label} in {field.strip()} {form}".strip(), green_file(text))


def names() -> Iterator[Hostile]:
    """Yield names that lead outside the folder, are not unique, or look like other names."""
    for label, name in {
        "path": "../purple", "absolute": "/etc/passwd", "empty": '""', "upper": "Green", "dots": "..",
        "slash": "a/b", "space": "'a b'", "newline": '"a\\nb"', "template": "'{{ x }}'", "null": "null",
        "null byte": '"a\\0"', "bidi": '"a\\u202eb"', "cyrillic": "'\u0430bc'", "fullwidth": "'\uff41'",
        "long": "a" * 42, "very long": "a" * 300_000, "number": "5", "boolean": "true", "yes": "yes",
        "dash first": "'-a'", "dash last": "a-", "underscore": "a_b", "dot": "a.b", "list": "[a]",
        "map": "{a: b}",
        "zero width": '"a\\u200bb"', "tab": '"a\\tb"', "emoji": "'\U0001f600'", "used": "purple",
    }.items():  # fmt: skip
        yield Hostile(
            f"name: {label}", green_file(HEAD + f"metadata: {{name: {name}}}\nspec: {{contract: nimp2p}}\n")
        )


def syntax() -> Iterator[Hostile]:
    """Yield YAML that expands, runs code, hides text or is ambiguous."""
    bomb = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9) if n else 'lol'}]\n" for n in range(30))
    cases: dict[str, str | bytes] = {
        "alias bomb": bomb,
        "alias bomb in a spec": GREEN.replace("spec: {", "spec: &a {") + "x: [*a, *a, *a]\n",
        "self-reference": "a: &a [*a]\n",
        "merge key": GREEN.replace("spec: {", "spec: {<<: {peers: 9}, "),
        "python object": GREEN + "x: !!python/object/apply:os.system ['touch /tmp/hostile']\n",
        "python name": GREEN + "x: !!python/name:os.system\n",
        "binary": GREEN + "x: !!binary aGk=\n",
        "set": GREEN + "x: !!set {a}\n",
        "own tag": GREEN + "x: !x y\n",
        "str tag": GREEN.replace("nimp2p", "!!str nimp2p"),
        "two documents": GREEN + "---\n" + GREEN.replace("green", "other"),
        "directive": "%TAG ! tag:example.org,2000:\n---\n" + GREEN,
        "duplicate key": GREEN + "spec: {contract: dst-go}\n",
        "duplicate inner key": GREEN.replace("{contract", "{peers: 5, peers: 6, contract"),
        "duplicate by quoting": GREEN.replace("{contract", "{peers: 5, 'peers': 6, contract"),
        "deep list": "a: " + "[" * 120_000,
        "deep list, closed": "a: " + "[" * 1000 + "]" * 1000,
        "deep map": "".join(" " * n + f"a{n}:\n" for n in range(400)),
        "many keys": HEAD + "".join(f"k{n}: 1\n" for n in range(30_000)),
        "many items": HEAD + "x: [" + "1," * 100_000 + "1]\n",
        "huge": b"# " + b"x" * 5_000_000,
        "huge line": HEAD + "x: '" + "y" * 250_000 + "'\n",
        "empty": "",
        "only a comment": "# nothing\n",
        "a list": "- a\n- b\n",
        "a number": "5\n",
        "text": "just text\n",
        "null byte": GREEN.encode() + b"\0",
        "latin": GREEN.encode() + b"# \xe9\xff\n",
        "utf-16": GREEN.encode("utf-16"),
        "utf-32": GREEN.encode("utf-32"),
        "byte order mark": "\ufeff" + GREEN,
        "bidi override": GREEN + "# \u202e evil\n",
        "bidi isolate": GREEN + "# \u2066 evil\n",
        "surrogate": GREEN + "x: \ud800\n",
        "escaped surrogate": GREEN + 'x: "\\ud800"\n',
        "escape character": GREEN + "# \x1b[2J\n",
        "carriage return tricks": HEAD.replace("\n", "\r") + "x: 1\r",
        "tab": GREEN + "\tx: 1\n",
        "unclosed": GREEN + "x: [\n",
        "unclosed quote": GREEN + 'x: "\n',
        "complex key": "? {a: b}\n: c\n",
        "null key": "~: a\n" + GREEN,
        "number key": "5: a\n" + GREEN,
        "schema reference": GREEN + '$ref: "http://127.0.0.1:1/x"\n',
        "schema reference in the spec": GREEN.replace("{contract", '{$ref: "#/$defs/x", contract'),
        "other apiVersion": GREEN.replace("nimlab.dev/v1", "v1"),
        "other kind": GREEN.replace("kind: Experiment", "kind: ClusterRole"),
        "no kind": "metadata: {name: green}\nspec: {contract: nimp2p}\n",
        "a million peers": GREEN.replace("{contract", "{peers: 1000000, contract"),
        "peers past 64 bits": GREEN.replace("{contract", "{peers: 99999999999999999999, contract"),
        "namespace": HEAD + "metadata: {name: green, namespace: kube-system}\nspec: {contract: nimp2p}\n",
        "labels": HEAD + "metadata: {name: green, labels: {a: b}}\nspec: {contract: nimp2p}\n",
        "reserved labels": HEAD
        + "metadata: {name: green, labels: {applyset.kubernetes.io/part-of: x}}\nspec: {contract: nimp2p}\n",
        "annotations": HEAD + "metadata: {name: green, annotations: {a: b}}\nspec: {contract: nimp2p}\n",
        "owner references": HEAD + "metadata: {name: green, ownerReferences: []}\nspec: {contract: nimp2p}\n",
        "host network": SPEC.format("hostNetwork: true"),
        "privileged": SPEC.format("privileged: true"),
        "volumes": SPEC.format("volumes: [{hostPath: {path: /}}]"),
        "command": SPEC.format("command: [sh]"),
        "env": SPEC.format("env: {LD_PRELOAD: /x}"),
        "prototype": SPEC.format("__proto__: {a: b}"),
        "class": SPEC.format("__class__: {a: b}"),
        "PEERS by hand": SPEC.format("PEERS: 5"),
        "moving image": SPEC.format("image: a/b:latest"),
        "image without a tag": SPEC.format("image: a/b"),
        "image with a path": SPEC.format("image: ../../a:1"),
        "image with a newline": SPEC.format('image: "a/b:1\\nx: y"'),
    }  # fmt: skip
    for label, text in cases.items():
        yield Hostile(f"syntax: {label}", green_file(text))


def places() -> Iterator[Hostile]:
    """Yield links, devices, pipes and folders in place of regular files."""
    for folder in ("experiments", "contracts"):
        yield Hostile(f"{folder}: link to a file", link(f"{folder}/x.yaml", "/etc/hostname"))
        yield Hostile(f"{folder}: link to a device", link(f"{folder}/x.yaml", "/dev/zero"))
        yield Hostile(f"{folder}: link inside", link(f"{folder}/x.yaml", "../lab.yaml"))
        yield Hostile(f"{folder}: dangling link", link(f"{folder}/x.yaml", "nowhere"))
        yield Hostile(f"{folder}: pipe", pipe(f"{folder}/x.yaml"))
        yield Hostile(f"{folder}: folder", text_file(f"{folder}/x.yaml/y.yaml", GREEN))
        yield Hostile(f"{folder}: other ending", text_file(f"{folder}/x.yml", GREEN))
        yield Hostile(f"{folder}: upper ending", text_file(f"{folder}/x.YAML", GREEN))
        yield Hostile(f"{folder}: double ending", text_file(f"{folder}/x.yaml.bak", GREEN))
        yield Hostile(f"{folder}: whole folder a link", link(folder, "/etc"))
        yield Hostile(f"{folder}: link to itself", link(folder, "."))
    yield Hostile("lab.yaml: link", link("lab.yaml", "/etc/hostname"))
    yield Hostile("lab.yaml: device", link("lab.yaml", "/dev/zero"))
    yield Hostile("lab.yaml: pipe", pipe("lab.yaml"))


BOTH: Final = '{{"allOf": [{{"$ref": "#/$defs/{0}"}}, {{"$ref": "#/$defs/{0}"}}]}}'
DOUBLING: Final = "{" + ", ".join(f'"n{n}": {BOTH.format(f"n{n + 1}")}' for n in range(40)) + ', "n40": {}}'
SCHEMAS: Final[dict[str, str | bytes]] = {
    "reference to the net": '{"$ref": "http://127.0.0.1:1/x"}',
    "reference to a file": '{"$ref": "file:///etc/passwd"}',
    "reference to nothing": '{"$ref": "#/$defs/none"}',
    "reference to itself": '{"$ref": "#"}',
    "reference in a circle": '{"$ref": "#/$defs/a", "$defs": {"a": ' + BOTH.format("a") + "}}",
    "reference to itself in a property": '{"properties": {"kind": {"$ref": "#/properties/kind"}}}',
    "dynamic reference": '{"$dynamicAnchor": "a", "$dynamicRef": "#a"}',
    "reference to the metaschema": '{"$ref": "https://json-schema.org/draft/2020-12/schema"}',
    "slow pattern": '{"properties": {"kind": {"pattern": "^(a+)+$"}}}',
    "slow pattern of keys": '{"patternProperties": {"^(.*)*.*=$": false}}',
    "doubling": '{"$ref": "#/$defs/n0", "$defs": ' + DOUBLING + "}",
    "anything": "{}",
    "anything, in a word": "true",
    "nothing": "false",
    "a list": "[]",
    "a number": "5",
    "empty": "",
    "no JSON": "{",
    "no text": b"\xff\xfe",
    "deep": '{"not":' * 5000 + "{}" + "}" * 5000,
    "long": '{"title": "' + "x" * 3_000_000 + '"}',
    "many": '{"enum": [' + "1," * 120_000 + "1]}",
    "big number": '{"maximum": ' + "9" * 200_000 + "}",
    "unknown type": '{"type": "thing"}',
    "unknown unit": '{"properties": {"kind": {"x-unit": "furlong"}}}',
    "closed without properties": '{"additionalProperties": false}',
    "required without properties": '{"required": ["x"]}',
}  # fmt: skip
"""Schemas that loop, expand, refer to other files, or allow values that later code does not expect."""


def schemas() -> Iterator[Hostile]:
    """Yield schemas that a merge request has changed."""
    other = "differs from the schema of nimlab"
    for kind in ("lab", "contract", "experiment"):
        path = f"schema/{kind}.schema.json"
        yield Hostile(f"{path}: link", link(path, "/etc/hostname"), "it is a symbolic link")
        yield Hostile(f"{path}: pipe", pipe(path), "not a regular file")
        yield Hostile(f"{path}: link to nothing", link(path, "nowhere"), "it is a symbolic link")
        for label, old, new in (
            ("open", '"additionalProperties": false', '"additionalProperties": true'),
            ("nothing required", '"required"', '"x-required"'),
            ("other types", '"type": "string"', '"type": ["string", "object"]'),
        ):
            yield Hostile(f"{path}: {label}", replaced(path, old, new), other)
        for label, text in SCHEMAS.items():
            message = "decode" if isinstance(text, bytes) else other
            yield Hostile(f"{path}: {label}", text_file(path, text), message)


INVISIBLE: Final = {
    "null": "\\0", "bell": "\\a", "backspace": "\\b", "escape": "\\e", "return": "\\r", "delete": "\\x7f",
    "next line": "\\x85", "C1": "\\x9b", "zero width": "\\u200b", "joiner": "\\u200d", "embedding": "\\u202a",
    "right to left": "\\u200f", "override": "\\u202e", "isolate": "\\u2066", "word joiner": "\\u2060",
    "Arabic mark": "\\u061c", "byte order mark": "\\ufeff", "tag": "\\U000e0041",
}  # fmt: skip
"""Invisible characters, as YAML escapes."""


def invisible_characters() -> Iterator[Hostile]:
    """Yield invisible characters in free text, keys and file names, escaped and unescaped."""
    message = "the invisible character"
    for label, escaped in INVISIBLE.items():
        for field in ("owner", "description"):
            text = HEAD + f'metadata: {{name: green, {field}: "a{escaped}b"}}\nspec: {{contract: nimp2p}}\n'
            yield Hostile(f"{label} in {field}", green_file(text), message)
        yield Hostile(f"{label} in a key", green_file(GREEN + f'"a{escaped}b": 1\n'), message)
        plain = yaml.safe_load(f'"{escaped}"')
        if plain not in "\0\r":  # a file name cannot contain \0, and \r is allowed at the end of a line
            yield Hostile(f"{label} as it is", green_file(GREEN + f"# a{plain}b\n"), message)
            yield named_file(label, f"experiments/a{plain}b.yaml")
    for label, plain in {"newline": "\n", "tab": "\t", "no UTF-8": "\udcff"}.items():
        yield named_file(label, f"experiments/a{plain}b.yaml")
        yield named_file(label, f"contracts/a{plain}b.yaml")
        yield named_template(label, f"a{plain}b.yaml.j2")
    for label, old, new in (
        ("a contract's description", "  description:", '  description: "a\\eb" #'),
        ("what a node logs", "  logs:", '  logs:\n    "a\\eb": x'),
    ):
        yield Hostile(f"escape in {label}", replaced("contracts/nimp2p.yaml", old, new), message)


def named_file(label: str, path: str) -> Hostile:
    """Return a case with a file at this path."""
    name = f"{label} in a file's name in {path.rpartition('/')[0]}"
    return Hostile(name, text_file(path, GREEN), "name contains invisible characters")


def named_template(label: str, name: str) -> Hostile:
    """Return a case with a template of this name."""
    case = f"{label} in a template's name"
    return Hostile(
        case, text_file(f"templates/experiment/{name}", GREEN), "name contains invisible characters"
    )


def equals() -> Iterator[Hostile]:
    """Yield very long lists in fields whose items must be unique."""
    for label, item in (("maps", "{{a: {}}}"), ("lists of maps", "[{{a: {}}}]"), ("words", "x{}")):
        items = ", ".join(item.format(n) for n in range(4500))
        text = SPEC.format(f"rtt: {{methods: [{items}]}}")
        yield Hostile(f"many {label} to compare", green_file(text), "rtt.methods")


def settings() -> Iterator[Hostile]:
    """Yield changes of lab.yaml and of contracts that try to affect other objects."""
    for label, new in {
        "namespace of the system": "namespace: kube-system",
        "namespace with a path": "namespace: ../x",
        "namespace with a newline": 'namespace: "a\\nb"',
        "namespace empty": 'namespace: ""',
        "namespace number": "namespace: 5",
    }.items():
        yield Hostile(f"lab: {label}", replaced("lab.yaml", "namespace: dst-lab", new))
    for label, new in {
        "prefix of nothing": 'prefix: ""',
        "prefix with a newline": 'prefix: "a\\n"',
        "prefix with a template": "prefix: '{{ x }}'",
        "long prefix": "prefix: " + "a" * 60,
    }.items():
        yield Hostile(f"lab: {label}", replaced("lab.yaml", "prefix: nimp2p-exp-", new))
    contract = "contracts/nimp2p.yaml"
    for label, old, new in (
        ("another name twice", "name: nimp2p", "name: dst-go"),
        ("name with a path", "name: nimp2p", "name: ../x"),
        ("unknown key", "kind: Contract", "kind: Contract\nhostNetwork: true"),
        ("other kind", "kind: Contract", "kind: Role"),
    ):
        yield Hostile(f"contract: {label}", replaced(contract, old, new))


REFUSED: Final = (
    *values(), *names(), *syntax(), *places(), *schemas(), *invisible_characters(), *equals(), *settings(),
)  # fmt: skip

CODE_LIKE: Final = (
    "{{ 7*7 }}", "{% raw %}", "{# x #}", "{{ ''.__class__.__mro__ }}", "$(reboot)", "`reboot`", "${PATH}",
    "%s %d %n", "a: b", "- a", "a\nkind: ClusterRole", "a\n---\nkind: Role", "&a", "*a", "!!python/name:os",
    "'\"", "\\\"}", "]]}}", "<!-- -->", "<script>", "|", ">", "@x", "%TAG", "null", "true", "5", "1e3", "~",
    "\ue000x:0\ue001", "é 😀 \u2028 \xa0", "x" * 60, "#", "a #b", " lead", "trail ", "\t", "..", "/",
)  # fmt: skip
"""Texts for an owner or a description that must remain data."""
