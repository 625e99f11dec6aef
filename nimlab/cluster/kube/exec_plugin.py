"""Exec plugins of a kubeconfig: run the plugin, read its `ExecCredential`, cache it until it expires.

The rules are those of client-go's `plugin/pkg/client/auth/exec`. Two threads never run the plugin at the same
time. The plugin's stdout is a credential and is never shown.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from nimlab.cluster.kube.kubeconfig import KubeconfigEntry
from nimlab.errors import NimlabError
from nimlab.objects.mask_secrets import is_secret_name, redact_credentials, remember_credential

_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_INTERACTIVE_MODES: Final = ("Never", "IfAvailable", "Always")
_CONFIG_EXTENSION: Final = "client.authentication.k8s.io/exec"
_SHOWN_LINES: Final = 5
_SHOWN_CHARACTERS: Final = 400
_MIN_SECRET_LENGTH: Final = 8
_PUBLIC_WORDS: Final = frozenset({"ExecCredential", "apiVersion", *_VERSIONS})
_CONTROL: Final = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x09\x0b-\x1f\x7f-\x9f]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The credential that a plugin returned; the certificate and the key are in PEM format.

    If `expires` is None, the credential is valid as long as nimlab runs.
    """

    token: str
    certificate: str
    key: str
    expires: datetime | None


class Plugin:
    """A plugin and its cached credential. Several threads can use it."""

    def __init__(
        self, entry: KubeconfigEntry, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Read the settings of `exec`. Raises NimlabError for invalid settings."""
        self._entry = entry
        self._exec: Mapping[str, Any] = entry.user["exec"]
        self._now = now
        self._lock = threading.Lock()
        self._cached: Credential | None = None
        self._check()

    def credential(self) -> Credential:
        """Return the cached credential; run the plugin if there is none or if it has expired.

        A thread that waited while another thread ran the plugin uses that thread's credential, even if it has
        already expired.
        """
        previous = self._cached
        if previous is not None and not self._is_expired(previous):
            return previous
        with self._lock:
            cached = self._cached
            if cached is None or (cached is previous and self._is_expired(cached)):
                cached = self._cached = self._run()
            return cached

    def _is_expired(self, credential: Credential) -> bool:
        return credential.expires is not None and self._now() > credential.expires

    def _check(self) -> None:
        command, version = self._exec.get("command"), self._exec.get("apiVersion")
        if not command:
            raise self._error("exec.command is missing", "set it to the plugin's program")
        if version not in _VERSIONS:
            raise self._error(f"exec.apiVersion is {_quote(version)}", f"write {' or '.join(_VERSIONS)}")
        mode = self._exec.get("interactiveMode") or ("IfAvailable" if version != _VERSIONS[0] else None)
        if mode not in _INTERACTIVE_MODES:
            raise self._error(
                f"exec.interactiveMode is {_quote(mode)}", f"write one of {', '.join(_INTERACTIVE_MODES)}"
            )
        self._mode = mode
        if any(not variable.get("name") for variable in self._exec.get("env", ())):
            raise self._error("a variable in exec.env has no name", "name it, or remove it")

    def _error(self, what: str, hint: str) -> NimlabError:
        return self._entry.error(what, hint)

    def _run(self) -> Credential:
        is_interactive = self._is_interactive()
        command = [self._exec["command"], *self._exec.get("args", ())]
        try:
            completed = subprocess.run(  # noqa: S603 -- the command comes from the user's kubeconfig
                command,
                env=self._environment(is_interactive=is_interactive),
                stdin=None if is_interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if is_interactive else subprocess.PIPE,  # so that the user can see a prompt
                check=False,
            )
        except (OSError, ValueError) as error:
            is_missing = isinstance(error, FileNotFoundError)
            reason = "is not installed" if is_missing else "cannot be started"
            raise self._failed(reason, "install the program in exec.command of the kubeconfig") from None
        if completed.returncode:
            _register_words(completed.stdout)
            message = _last_lines(completed.stderr or b"")
            reason = f"failed with exit code {completed.returncode}" + (f": {message}" if message else "")
            raise self._failed(reason, "run its command by hand to see why; the login may have expired")
        return self._read(completed.stdout)

    def _failed(self, reason: str, hint: str) -> NimlabError:
        install_hint = _last_lines(str(self._exec.get("installHint", "")).encode(errors="replace"))
        return self._error(f"the exec plugin `{self._exec['command']}` {reason}", install_hint or hint)

    def _is_interactive(self) -> bool:
        is_terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        if self._mode == "Always" and not is_terminal:
            raise self._failed("needs a terminal (interactiveMode: Always)", "run nimlab in a terminal")
        return self._mode != "Never" and is_terminal

    def _environment(self, *, is_interactive: bool) -> dict[str, str]:
        """Return this process's environment with the plugin's variables and the `ExecCredential` request."""
        own = {variable["name"]: variable.get("value", "") for variable in self._exec.get("env", ())}
        for value in own.values():
            remember_credential(value)
        for name, value in os.environ.items():
            if is_secret_name(name):
                remember_credential(value)
        spec: dict[str, Any] = {"interactive": is_interactive}
        if self._exec.get("provideClusterInfo"):
            spec["cluster"] = self._cluster()
        request = {"kind": "ExecCredential", "apiVersion": self._exec["apiVersion"], "spec": spec}
        return {**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(request)}

    def _cluster(self) -> dict[str, Any]:
        cluster = self._entry.cluster
        names = (
            "server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data",
            "proxy-url", "disable-compression",
        )  # fmt: skip
        info = {name: cluster[name] for name in names if cluster.get(name)}
        if not info.get("certificate-authority-data") and (path := cluster.get("certificate-authority")):
            try:
                with open(path, "rb") as file:  # noqa: PTH123 -- a string
                    info["certificate-authority-data"] = base64.b64encode(file.read()).decode()
            except OSError:
                raise self._error("certificate-authority cannot be read", "correct its path") from None
        for extension in cluster.get("extensions", ()):
            if extension.get("name") == _CONFIG_EXTENSION:
                info["config"] = extension.get("extension")
        return info

    def _read(self, output: bytes) -> Credential:
        """Return the credential in the output.

        Raises NimlabError if there is none; the error contains no part of the output.
        """
        _register_words(output)
        try:
            answer = json.loads(output)
            status = answer["status"]
            credential = Credential(
                token=_text(status, "token").strip(),
                certificate=_text(status, "clientCertificateData"),
                key=_text(status, "clientKeyData"),
                expires=_time(_text(status, "expirationTimestamp")),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._failed(
                "did not print an ExecCredential with a status", "see its documentation"
            ) from None
        if answer.get("kind") != "ExecCredential" or answer.get("apiVersion") != self._exec["apiVersion"]:
            raise self._failed(
                f"did not print an ExecCredential of {self._exec['apiVersion']}",
                "correct exec.apiVersion to the one that the plugin supports",
            )
        if bool(credential.certificate) != bool(credential.key):
            raise self._failed(
                "returned a certificate without its key, or a key without its certificate",
                "see its documentation",
            )
        if not credential.token and not credential.certificate:
            raise self._failed("returned neither a token nor a certificate", "see its documentation")
        for secret in (credential.token, credential.key):
            remember_credential(secret)
        return credential


def _quote(value: object) -> str:
    return f"`{value}`" if value else "missing"


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    if not isinstance(value, str | None):
        raise TypeError(name)
    return value or ""


def _time(text: str) -> datetime | None:
    """Parse a time in RFC 3339, truncated to microseconds."""
    if not text:
        return None
    moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def _register_words(output: bytes) -> None:
    """Register every long word of a plugin's output as a secret, because its format is unknown."""
    for word in re.findall(r'[^\s"\'\\{}\[\],:]+', output.decode(errors="replace")):
        if len(word) >= _MIN_SECRET_LENGTH and word not in _PUBLIC_WORDS:
            remember_credential(word)


def _last_lines(output: bytes) -> str:
    """Return the last lines without control characters or known secrets, at most 400 characters."""
    clean = _CONTROL.sub(
        "", redact_credentials(output.decode(errors="replace")).replace("\r\n", "\n").replace("\t", " ")
    )
    lines = [line.strip() for line in clean.splitlines() if line.strip()]
    text = " / ".join(lines[-_SHOWN_LINES:])
    return text if len(text) <= _SHOWN_CHARACTERS else "…" + text[-_SHOWN_CHARACTERS:]
