"""Kubeconfig files -> the cluster and the user of one context. Every field is checked.

In: paths and the name of a context. Out: a `KubeconfigEntry`: plain values of the right types, with absolute
paths. The fields have the meaning that client-go's `tools/clientcmd` defines. Unknown fields are rejected,
because a setting that nimlab ignores could change the user or the server. Errors contain no values, because a
value may be a credential.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import NimlabError
from nimlab.objects.mask_secrets import remember_credential
from nimlab.yaml_and_json import SAFE_LOADER

Fields: TypeAlias = Mapping[str, Any]

_GROUPS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_TOP: Final[dict[str, str]] = {
    "apiVersion": "string", "kind": "string", "preferences": "map", "extensions": "list",
    "current-context": "string",
    **dict.fromkeys(_GROUPS, "list"),
}  # fmt: skip
_ENTRY_FIELDS: Final[dict[str, dict[str, str]]] = {
    "cluster": {
        "server": "string", "tls-server-name": "string", "insecure-skip-tls-verify": "bool",
        "certificate-authority": "string", "certificate-authority-data": "string", "proxy-url": "string",
        "disable-compression": "bool", "extensions": "list",
    },
    "user": {
        "client-certificate": "string", "client-certificate-data": "string", "client-key": "string",
        "client-key-data": "string", "token": "string", "tokenFile": "string", "username": "string",
        "password": "string", "as": "string", "as-uid": "string", "as-groups": "strings",
        "as-user-extra": "map of string lists", "auth-provider": "map", "exec": "map", "extensions": "list",
    },
    "context": {"cluster": "string", "user": "string", "namespace": "string", "extensions": "list"},
}  # fmt: skip
_EXEC_FIELDS: Final[dict[str, str]] = {
    "command": "string", "args": "strings", "env": "list", "apiVersion": "string", "installHint": "string",
    "provideClusterInfo": "bool", "interactiveMode": "string",
}  # fmt: skip
_ENV_FIELDS: Final[dict[str, str]] = {"name": "string", "value": "string"}
_PATHS: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_TYPES: Final[dict[str, tuple[str, type | tuple[type, ...]]]] = {
    "string": ("a string", str),
    "bool": ("true or false", bool),
    "list": ("a list", list),
    "strings": ("a list of strings", list),
    "map": ("a map", dict),
    "map of string lists": ("a map of lists of strings", dict),
}
_MAX_SHOWN_NAMES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeconfigEntry:
    """The cluster and the user of the chosen context. `path` is the file that error messages name."""

    path: Path
    context: str
    cluster: Fields
    user: Fields

    def error(self, what: str, hint: str) -> NimlabError:
        """Return the error for a setting of this context."""
        return NimlabError(f"context `{self.context}`: {what}", where=self.path, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    current: str
    groups: Mapping[str, Mapping[str, Fields]]


def default_paths() -> tuple[Path, ...]:
    """Return the files that kubectl reads by default; the first file has precedence."""
    named = os.environ.get("KUBECONFIG", "")
    if named:
        return tuple(dict.fromkeys(Path(part) for part in named.split(os.pathsep) if part))
    home = os.environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 -- Path.home() raises if there is none
    return (Path(home) / ".kube" / "config",)


def read_entry(kubeconfig: Path | None, context: str | None) -> KubeconfigEntry:
    """Return the context's cluster and user. Raises NimlabError.

    If `kubeconfig` is None, the default files are read. If `context` is None, the current context is used.
    """
    files = _read_files(kubeconfig)
    if not files:
        searched = ", ".join(str(path) for path in default_paths())
        raise NimlabError(
            "there is no kubeconfig",
            where=searched,
            hint="choose one with `--kubeconfig FILE`, or set KUBECONFIG",
        )
    first = files[0].path
    name = context or next((file.current for file in files if file.current), "")
    if not name:
        raise NimlabError("no current context is set", where=first, hint=_choose(files, ""))
    entry = _find(files, "contexts", name)
    if entry is None:
        raise NimlabError(f"there is no context `{name}`", where=first, hint=_choose(files, name))
    path, chosen = entry
    _reject_unknown(chosen, _ENTRY_FIELDS["context"], f"context `{name}`", path)
    return KubeconfigEntry(
        path=path,
        context=name,
        cluster=_part(files, "cluster", chosen, name),
        user=_part(files, "user", chosen, name),
    )


def list_contexts(kubeconfig: Path | None = None) -> tuple[str, ...]:
    """Return the sorted names of the contexts in the kubeconfig; no names if it cannot be read."""
    try:
        return _context_names(_read_files(kubeconfig))
    except NimlabError:
        return ()


def _context_names(files: Iterable[_File]) -> tuple[str, ...]:
    return tuple(sorted({name for file in files for name in file.groups["contexts"]}))


def _choose(files: Sequence[_File], name: str) -> str:
    """Return a hint that lists the contexts and suggests a similar name."""
    known = _context_names(files)
    if not known:
        return "the file defines no context; choose another with `--kubeconfig FILE`"
    listed = ", ".join(known[:_MAX_SHOWN_NAMES]) + (", …" if len(known) > _MAX_SHOWN_NAMES else "")
    return f"{did_you_mean(name, known)} choose one with `--context NAME`: {listed}".lstrip()


def _part(files: Sequence[_File], group: str, chosen: Fields, context: str) -> Fields:
    name = chosen.get(group, "")
    entry = _find(files, f"{group}s", name) if name else None
    if entry is None:
        what = f"refers to the {group} `{name}`, which is not defined" if name else f"has no {group}"
        raise NimlabError(
            f"context `{context}` {what}",
            where=files[0].path,
            hint=f"add it to `{group}s`, or choose another context",
        )
    path, fields = entry
    _reject_unknown(fields, _ENTRY_FIELDS[group], f"{group} `{name}`", path)
    if "exec" in fields:
        _reject_unknown(fields["exec"], _EXEC_FIELDS, f"user `{name}`: exec", path)
        for variable in fields["exec"].get("env", ()):
            _reject_unknown(variable, _ENV_FIELDS, f"user `{name}`: exec.env", path)
    return _absolute(fields, path.parent)


def _find(files: Iterable[_File], group: str, name: str) -> tuple[Path, Fields] | None:
    for file in files:
        if name in file.groups[group]:
            return file.path, file.groups[group][name]
    return None


def _absolute(fields: Fields, folder: Path) -> Fields:
    """Return the fields with each path resolved from the kubeconfig's folder.

    An exec command without a slash is not changed, because the system searches for it in the folders of PATH.
    """
    resolved: dict[str, Any] = {
        name: str(folder / text) if name in _PATHS and text else text for name, text in fields.items()
    }
    plugin = resolved.get("exec")
    if plugin and os.sep in plugin.get("command", ""):
        resolved["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return resolved


def _read_files(kubeconfig: Path | None) -> tuple[_File, ...]:
    """Read the file `kubeconfig`; if it is None, read all default files that exist."""
    if kubeconfig is not None:
        return (_read(kubeconfig),)
    return tuple(_read(path) for path in default_paths() if path.exists())


def _read(path: Path) -> _File:
    document = _load(path)
    for name, value in document.items():
        if name not in _TOP:
            raise _unknown(str(name), _TOP, "kubeconfig", path)
        _check_type(value, _TOP[name], str(name), path)
    if document.get("kind", "Config") not in ("Config", "") or document.get("apiVersion", "v1") not in (
        "v1",
        "",
    ):
        raise NimlabError(
            "the file is not a kubeconfig with `apiVersion: v1` and `kind: Config`",
            where=path,
            hint="choose another file with `--kubeconfig FILE`",
        )
    groups = {group: _by_name(document.get(group, ()), group, path) for group in _GROUPS}
    return _File(path=path, current=document.get("current-context", ""), groups=groups)


def _load(path: Path) -> Fields:
    """Return the document without null values.

    Errors do not contain the parser's message, because it can quote a credential.
    """
    try:
        document = yaml.load(path.read_bytes(), Loader=SAFE_LOADER)  # noqa: S506 -- a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise _unreadable("it is not valid YAML", place) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _unreadable("it is not valid YAML", str(path)) from None
    except OSError as error:
        raise _unreadable((error.strerror or "it cannot be read").lower(), str(path)) from None
    if not isinstance(document, dict | None):
        raise _unreadable("it is not a map", str(path))
    fields: Fields = _without_nulls(document or {})
    return fields


def _unreadable(reason: str, where: str) -> NimlabError:
    return NimlabError(
        f"the kubeconfig cannot be read: {reason}",
        where=where,
        hint="correct it, or choose another with `--kubeconfig FILE`",
    )


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 -- any YAML
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _by_name(entries: Iterable[Any], group: str, path: Path) -> Mapping[str, Fields]:
    """Return the entries of a list by their names, which must be unique."""
    inner, by_name = _GROUPS[group], dict[str, Fields]()
    for entry in entries:
        _check_type(entry, "map", group, path)
        _check_type(entry.get("name", ""), "string", f"{group}.name", path)
        name, fields = entry.get("name", ""), entry.get(inner, {})
        if name in by_name:
            raise NimlabError(f"{group}: duplicate name `{name}`", where=path, hint="remove one of them")
        _check_type(fields, "map", f"{group}.{inner}", path)
        _check_fields(fields, _ENTRY_FIELDS[inner], f"{inner} `{name}`", path)
        _register_secrets(fields)
        if extra := entry.keys() - {"name", inner}:
            raise _unknown(
                str(min(extra, key=str)), dict.fromkeys(("name", inner)), f"{group}: `{name}`", path
            )
        by_name[name] = fields
    return by_name


def _register_secrets(fields: Fields) -> None:
    """Register each credential as a secret, so that it is never printed."""
    for name in ("token", "password", "client-key-data"):
        remember_credential(str(fields.get(name, "")))


def _check_fields(fields: Fields, known: Mapping[str, str], where: str, path: Path) -> None:
    for name, value in fields.items():
        if name in known:
            _check_type(value, known[name], f"{where}: {name}", path)
    for extension in fields.get("extensions", ()) if "extensions" in known else ():
        _check_type(extension, "map", f"{where}: extensions", path)
        _check_type(extension.get("name", ""), "string", f"{where}: extensions.name", path)
    if isinstance(plugin := fields.get("exec"), dict) and "exec" in known:
        _check_fields(plugin, _EXEC_FIELDS, f"{where}: exec", path)
        for variable in plugin.get("env", ()):
            _check_type(variable, "map", f"{where}: exec.env", path)
            _check_fields(variable, _ENV_FIELDS, f"{where}: exec.env", path)


def _check_type(value: object, kind: str, where: str, path: Path) -> None:
    description, python_type = _TYPES[kind]
    fits = isinstance(value, python_type)
    if fits and kind == "strings":
        fits = _are_strings(value)
    if fits and kind == "map of string lists" and isinstance(value, dict):
        fits = all(isinstance(key, str) and _are_strings(items) for key, items in value.items())
    if not fits:
        raise NimlabError(
            f"{where} must be {description}",
            where=path,
            hint="correct its type; quote a string that looks like a number",
        )


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _reject_unknown(fields: Fields, known: Mapping[str, str], where: str, path: Path) -> None:
    for name in fields:
        if name not in known:
            raise _unknown(str(name), known, where, path)


def _unknown(name: str, known: Mapping[str, Any], where: str, path: Path) -> NimlabError:
    return NimlabError(
        f"{where}: unknown field `{name}`; nimlab rejects unknown fields",
        where=path,
        hint=f"{did_you_mean(name, known)} remove the field or correct its name".lstrip(),
    )
