"""Exec plugins of a kubeconfig: run one, read its `ExecCredential`, keep it until it expires.

Follows client-go's `plugin/pkg/client/auth/exec`. One plugin runs at a time, whatever the number of threads.
What a plugin prints to stdout is a credential and is shown nowhere.
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
from nimlab.objects.masking import conceal, is_secret_name, keep_secret

_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_MODES: Final = ("Never", "IfAvailable", "Always")
_EXTENSION: Final = "client.authentication.k8s.io/exec"
_SHOWN_LINES: Final = 5
_SHOWN_CHARACTERS: Final = 400
_SHORTEST_WORD: Final = 8
_PUBLIC_WORDS: Final = frozenset({"ExecCredential", "apiVersion", *_VERSIONS})
_CONTROL: Final = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x09\x0b-\x1f\x7f-\x9f]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a plugin returned; texts are PEM. Without `expires` it is valid for this run."""

    token: str
    certificate: str
    key: str
    expires: datetime | None


class Plugin:
    """A plugin with the credential that it returned last. Safe to use from several threads."""

    def __init__(
        self, entry: KubeconfigEntry, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Take the settings of `exec`. Raises NimlabError for those that can't be used."""
        self._entry = entry
        self._exec: Mapping[str, Any] = entry.user["exec"]
        self._now = now
        self._lock = threading.Lock()
        self._held: Credential | None = None
        self._check()

    def credential(self) -> Credential:
        """Return the held credential; run the plugin if there is none or it has expired.

        The threads that wait for a run take its result, even if it expires at once.
        """
        seen = self._held
        if seen is not None and not self._is_expired(seen):
            return seen
        with self._lock:
            held = self._held
            if held is None or (held is seen and self._is_expired(held)):
                held = self._held = self._run()
            return held

    def _is_expired(self, credential: Credential) -> bool:
        return credential.expires is not None and self._now() > credential.expires

    def _check(self) -> None:
        command, version = self._exec.get("command"), self._exec.get("apiVersion")
        if not command:
            raise self._wrong("exec.command is missing", "name the plugin's program")
        if version not in _VERSIONS:
            raise self._wrong(f"exec.apiVersion is {_shown(version)}", f"write {' or '.join(_VERSIONS)}")
        mode = self._exec.get("interactiveMode") or ("IfAvailable" if version != _VERSIONS[0] else None)
        if mode not in _MODES:
            raise self._wrong(f"exec.interactiveMode is {_shown(mode)}", f"write one of {', '.join(_MODES)}")
        self._mode = mode
        if any(not variable.get("name") for variable in self._exec.get("env", ())):
            raise self._wrong("a variable in exec.env has no name", "name it, or remove it")

    def _wrong(self, what: str, hint: str) -> NimlabError:
        return self._entry.wrong(what, hint)

    def _run(self) -> Credential:
        is_interactive = self._is_interactive()
        command = [self._exec["command"], *self._exec.get("args", ())]
        try:
            done = subprocess.run(  # noqa: S603 -- the user's kubeconfig names it
                command,
                env=self._environment(is_interactive=is_interactive),
                stdin=None if is_interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if is_interactive else subprocess.PIPE,  # a prompt has to be seen
                check=False,
            )
        except (OSError, ValueError) as error:
            why = "isn't installed" if isinstance(error, FileNotFoundError) else "can't be started"
            raise self._failed(why, "install the program that the kubeconfig names in exec.command") from None
        if done.returncode:
            _keep_words(done.stdout)
            said = _readable(done.stderr or b"")
            why = f"failed with exit code {done.returncode}" + (f": {said}" if said else "")
            raise self._failed(why, "run its command by hand to see why; a login may have expired")
        return self._read(done.stdout)

    def _failed(self, why: str, hint: str) -> NimlabError:
        install = _readable(str(self._exec.get("installHint", "")).encode(errors="replace"))
        return self._wrong(f"the exec plugin `{self._exec['command']}` {why}", install or hint)

    def _is_interactive(self) -> bool:
        is_terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        if self._mode == "Always" and not is_terminal:
            raise self._failed("needs a terminal (interactiveMode: Always)", "run nimlab in a terminal")
        return self._mode != "Never" and is_terminal

    def _environment(self, *, is_interactive: bool) -> dict[str, str]:
        """The environment of this process, with the plugin's own variables and its request."""
        own = {variable["name"]: variable.get("value", "") for variable in self._exec.get("env", ())}
        for value in own.values():
            keep_secret(value)
        for name, value in os.environ.items():
            if is_secret_name(name):
                keep_secret(value)
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
        made = {name: cluster[name] for name in names if cluster.get(name)}
        if not made.get("certificate-authority-data") and (path := cluster.get("certificate-authority")):
            try:
                with open(path, "rb") as file:  # noqa: PTH123 -- a text
                    made["certificate-authority-data"] = base64.b64encode(file.read()).decode()
            except OSError:
                raise self._wrong("certificate-authority can't be read", "correct its path") from None
        for part in cluster.get("extensions", ()):
            if part.get("name") == _EXTENSION:
                made["config"] = part.get("extension")
        return made

    def _read(self, output: bytes) -> Credential:
        """Return the credential in the output. Raises NimlabError, which shows nothing of it."""
        _keep_words(output)
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
                "didn't print an ExecCredential with a status", "see its documentation"
            ) from None
        if answer.get("kind") != "ExecCredential" or answer.get("apiVersion") != self._exec["apiVersion"]:
            raise self._failed(
                f"didn't answer with an ExecCredential of {self._exec['apiVersion']}",
                "correct exec.apiVersion to the one that the plugin supports",
            )
        if bool(credential.certificate) != bool(credential.key):
            raise self._failed(
                "returned a certificate without its key, or a key alone", "see its documentation"
            )
        if not credential.token and not credential.certificate:
            raise self._failed("returned neither a token nor a certificate", "see its documentation")
        for secret in (credential.token, credential.key):
            keep_secret(secret)
        return credential


def _shown(value: object) -> str:
    return f"`{value}`" if value else "missing"


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    if not isinstance(value, str | None):
        raise TypeError(name)
    return value or ""


def _time(text: str) -> datetime | None:
    """The time in RFC 3339; more digits than Python knows are cut."""
    if not text:
        return None
    moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


def _keep_words(output: bytes) -> None:
    """Let nothing of a plugin's output be shown, whatever form it has."""
    for word in re.findall(r'[^\s"\'\\{}\[\],:]+', output.decode(errors="replace")):
        if len(word) >= _SHORTEST_WORD and word not in _PUBLIC_WORDS:
            keep_secret(word)


def _readable(output: bytes) -> str:
    """The last lines without control characters and known secrets."""
    clean = _CONTROL.sub(
        "", conceal(output.decode(errors="replace")).replace("\r\n", "\n").replace("\t", " ")
    )
    lines = [line.strip() for line in clean.splitlines() if line.strip()]
    text = " / ".join(lines[-_SHOWN_LINES:])
    return text if len(text) <= _SHOWN_CHARACTERS else "…" + text[-_SHOWN_CHARACTERS:]
