"""Kubeconfig files -> the cluster and the user of one context, with every field checked by name.

In: paths and the name of a context. Out: an `Entry`: plain values whose types fit, with paths made absolute.
Fields mean what client-go's `tools/clientcmd` defines. A field that isn't known is rejected, since a setting
that is ignored may decide who acts. No error shows a value: it may be a credential.
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
from nimlab.objects.masking import keep_secret
from nimlab.text import SAFE_LOADER

Fields: TypeAlias = Mapping[str, Any]

_GROUPS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_TOP: Final[dict[str, str]] = {
    "apiVersion": "text", "kind": "text", "preferences": "map", "extensions": "list",
    "current-context": "text",
    **dict.fromkeys(_GROUPS, "list"),
}  # fmt: skip
_ENTRY_FIELDS: Final[dict[str, dict[str, str]]] = {
    "cluster": {
        "server": "text", "tls-server-name": "text", "insecure-skip-tls-verify": "bool",
        "certificate-authority": "text", "certificate-authority-data": "text", "proxy-url": "text",
        "disable-compression": "bool", "extensions": "list",
    },
    "user": {
        "client-certificate": "text", "client-certificate-data": "text", "client-key": "text",
        "client-key-data": "text", "token": "text", "tokenFile": "text", "as": "text", "as-uid": "text",
        "as-groups": "texts", "as-user-extra": "map of texts", "username": "text", "password": "text",
        "auth-provider": "map", "exec": "map", "extensions": "list",
    },
    "context": {"cluster": "text", "user": "text", "namespace": "text", "extensions": "list"},
}  # fmt: skip
_EXEC_FIELDS: Final[dict[str, str]] = {
    "command": "text", "args": "texts", "env": "list", "apiVersion": "text", "installHint": "text",
    "provideClusterInfo": "bool", "interactiveMode": "text",
}  # fmt: skip
_ENV_FIELDS: Final[dict[str, str]] = {"name": "text", "value": "text"}
_PATHS: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_TYPES: Final[dict[str, tuple[str, type | tuple[type, ...]]]] = {
    "text": ("a text", str),
    "bool": ("true or false", bool),
    "list": ("a list", list),
    "texts": ("a list of texts", list),
    "map": ("a map", dict),
    "map of texts": ("a map of lists of texts", dict),
}
_MOST_NAMES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeconfigEntry:
    """The chosen context: who and where. `path` is the file that errors name."""

    path: Path
    context: str
    cluster: Fields
    user: Fields

    def wrong(self, what: str, hint: str) -> NimlabError:
        """Return the error for a setting of this context."""
        return NimlabError(f"context `{self.context}`: {what}", where=self.path, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    current: str
    groups: Mapping[str, Mapping[str, Fields]]


def default_paths() -> tuple[Path, ...]:
    """Return the files that kubectl reads when no flag names one; the first one wins."""
    named = os.environ.get("KUBECONFIG", "")
    if named:
        return tuple(dict.fromkeys(Path(part) for part in named.split(os.pathsep) if part))
    home = os.environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 -- Path raises where there is no home
    return (Path(home) / ".kube" / "config",)


def read_entry(kubeconfig: Path | None, context: str | None) -> KubeconfigEntry:
    """Return the context's cluster and user; None takes the current context. Raises NimlabError."""
    files = _read_files(kubeconfig)
    if not files:
        looked = ", ".join(str(path) for path in default_paths())
        raise NimlabError(
            "there is no kubeconfig",
            where=looked,
            hint="name one with `--kubeconfig FILE`, or set KUBECONFIG",
        )
    first = files[0].path
    name = context or next((file.current for file in files if file.current), "")
    if not name:
        raise NimlabError("no current context is set", where=first, hint=_choose(files, ""))
    found = _find(files, "contexts", name)
    if found is None:
        raise NimlabError(f"there is no context `{name}`", where=first, hint=_choose(files, name))
    path, chosen = found
    _reject_unknown(chosen, _ENTRY_FIELDS["context"], f"context `{name}`", path)
    return KubeconfigEntry(
        path=path,
        context=name,
        cluster=_part(files, "cluster", chosen, name),
        user=_part(files, "user", chosen, name),
    )


def list_contexts(kubeconfig: Path | None = None) -> tuple[str, ...]:
    """Return the names of the contexts in the kubeconfig, sorted; empty if there is none to read."""
    try:
        return _context_names(_read_files(kubeconfig))
    except NimlabError:
        return ()


def _context_names(files: Iterable[_File]) -> tuple[str, ...]:
    return tuple(sorted({name for file in files for name in file.groups["contexts"]}))


def _choose(files: Sequence[_File], name: str) -> str:
    """The hint that lists the contexts and suggests a close one."""
    known = _context_names(files)
    if not known:
        return "the file defines no context; name another with `--kubeconfig FILE`"
    listed = ", ".join(known[:_MOST_NAMES]) + (", …" if len(known) > _MOST_NAMES else "")
    return f"{did_you_mean(name, known)} choose with `--context NAME`; there are: {listed}".lstrip()


def _part(files: Sequence[_File], group: str, chosen: Fields, context: str) -> Fields:
    name = chosen.get(group, "")
    found = _find(files, f"{group}s", name) if name else None
    if found is None:
        what = f"names the {group} `{name}`, which isn't defined" if name else f"names no {group}"
        raise NimlabError(
            f"context `{context}` {what}",
            where=files[0].path,
            hint=f"add it to `{group}s`, or choose another context",
        )
    path, fields = found
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
    """The fields with each path counted from the kubeconfig's folder; a bare command is looked up on PATH."""
    made: dict[str, Any] = {
        name: str(folder / text) if name in _PATHS and text else text for name, text in fields.items()
    }
    plugin = made.get("exec")
    if plugin and os.sep in plugin.get("command", ""):
        made["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return made


def _read_files(kubeconfig: Path | None) -> tuple[_File, ...]:
    """Every file that takes part. A missing one is an error only where a flag names it."""
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
            "this isn't a kubeconfig of `apiVersion: v1` and `kind: Config`",
            where=path,
            hint="name another file",
        )
    groups = {group: _by_name(document.get(group, ()), group, path) for group in _GROUPS}
    return _File(path=path, current=document.get("current-context", ""), groups=groups)


def _load(path: Path) -> Fields:
    """The document without nulls. What the parser reports isn't shown: it may quote a credential."""
    try:
        document = yaml.load(path.read_bytes(), Loader=SAFE_LOADER)  # noqa: S506 -- a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise _unreadable("it isn't valid YAML", place) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _unreadable("it isn't valid YAML", str(path)) from None
    except OSError as error:
        raise _unreadable((error.strerror or "it can't be read").lower(), str(path)) from None
    if not isinstance(document, dict | None):
        raise _unreadable("it isn't a map", str(path))
    fields: Fields = _without_nulls(document or {})
    return fields


def _unreadable(why: str, where: str) -> NimlabError:
    return NimlabError(
        f"the kubeconfig can't be read: {why}", where=where, hint="name another with `--kubeconfig FILE`"
    )


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 -- any YAML
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _by_name(entries: Iterable[Any], group: str, path: Path) -> Mapping[str, Fields]:
    """The entries of a list by their names, which must differ."""
    inner, found = _GROUPS[group], dict[str, Fields]()
    for entry in entries:
        _check_type(entry, "map", group, path)
        _check_type(entry.get("name", ""), "text", f"{group}.name", path)
        name, fields = entry.get("name", ""), entry.get(inner, {})
        if name in found:
            raise NimlabError(
                f"{group}: the name `{name}` is there twice", where=path, hint="remove one of them"
            )
        _check_type(fields, "map", f"{group}.{inner}", path)
        _check_fields(fields, _ENTRY_FIELDS[inner], f"{inner} `{name}`", path)
        _remember(fields)
        if extra := entry.keys() - {"name", inner}:
            raise _unknown(
                str(min(extra, key=str)), dict.fromkeys(("name", inner)), f"{group}: `{name}`", path
            )
        found[name] = fields
    return found


def _remember(fields: Fields) -> None:
    """Keep each credential out of whatever is printed from now on."""
    for name in ("token", "password", "client-key-data"):
        keep_secret(str(fields.get(name, "")))


def _check_fields(fields: Fields, known: Mapping[str, str], where: str, path: Path) -> None:
    for name, value in fields.items():
        if name in known:
            _check_type(value, known[name], f"{where}: {name}", path)
    for part in fields.get("extensions", ()) if "extensions" in known else ():
        _check_type(part, "map", f"{where}: extensions", path)
        _check_type(part.get("name", ""), "text", f"{where}: extensions.name", path)
    if isinstance(plugin := fields.get("exec"), dict) and "exec" in known:
        _check_fields(plugin, _EXEC_FIELDS, f"{where}: exec", path)
        for variable in plugin.get("env", ()):
            _check_type(variable, "map", f"{where}: exec.env", path)
            _check_fields(variable, _ENV_FIELDS, f"{where}: exec.env", path)


def _check_type(value: object, kind: str, where: str, path: Path) -> None:
    wanted, python = _TYPES[kind]
    fits = isinstance(value, python)
    if fits and kind == "texts":
        fits = _are_texts(value)
    if fits and kind == "map of texts" and isinstance(value, dict):
        fits = all(isinstance(key, str) and _are_texts(items) for key, items in value.items())
    if not fits:
        raise NimlabError(
            f"{where} must be {wanted}", where=path, hint="quote a text that looks like a number"
        )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _reject_unknown(fields: Fields, known: Mapping[str, str], where: str, path: Path) -> None:
    for name in fields:
        if name not in known:
            raise _unknown(str(name), known, where, path)


def _unknown(name: str, known: Mapping[str, Any], where: str, path: Path) -> NimlabError:
    return NimlabError(
        f"{where}: the field `{name}` isn't known, and none is ignored",
        where=path,
        hint=f"{did_you_mean(name, known)} remove it, or correct its name".lstrip(),
    )
