"""Random kubeconfigs, and the result of kubectl and nimlab for each: a user, or a rejection."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from nimlab.cluster.kube import Target, connect
from nimlab.errors import NimlabError

CA, CERTIFICATE, KEY = "certificate-authority-data", "client-certificate-data", "client-key-data"
_WHOAMI: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_REVIEW: Final = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
_PROXIES: Final = (
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parts of random kubeconfigs: a server, an administrator, two accounts and a proxy."""

    cluster: Mapping[str, Any]
    admin: Mapping[str, Any]
    tokens: tuple[str, ...]
    proxy: Relay
    other_ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kubeconfig. `stricter` names a field that only nimlab rejects.

    `for_kubectl` is the same file without white space around the token, because only nimlab removes it.
    """

    path: Path
    for_kubectl: Path
    context: str | None
    environment: Mapping[str, str]
    stricter: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The user that the server authenticates; None for a rejection, with the error message in `text`."""

    user: str | None
    text: str = field(compare=False)


class Relay(socketserver.ThreadingTCPServer):
    """A CONNECT proxy that records the user names in Proxy-Authorization."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Relaying)
        self.seen: set[str] = set()

    @property
    def port(self) -> int:
        """The port on the loopback address."""
        return int(self.server_address[1])


class _Relaying(socketserver.StreamRequestHandler):
    server: Relay

    def handle(self) -> None:
        first, headers = self.rfile.readline().decode("latin-1"), {}
        while (line := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        encoded = headers.get("proxy-authorization", "").removeprefix("Basic ")
        self.server.seen.add(base64.b64decode(encoded).decode().partition(":")[0])
        host, _, port = first.split()[1].rpartition(":")
        with suppress(ConnectionRefusedError), socket.create_connection((host, int(port))) as upstream:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
            back.start()
            _copy(self.connection, upstream)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def run_relay() -> Iterator[Relay]:
    """Run a proxy until the end of the block."""
    with Relay() as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()


class Maker:
    """A generator of one kubeconfig from a seed."""

    def __init__(self, seed: int, world: World, folder: Path) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- not a secret
        self.seed, self.world, self.folder = seed, world, folder
        self.cluster: dict[str, Any] = dict(world.cluster)
        self.user: dict[str, Any] = {}
        self.context: dict[str, Any] = {"cluster": "c", "user": "u"}
        self.document: dict[str, Any] = {}
        self.chosen: str | None = None
        self.environment: dict[str, str] = {}
        self.stricter, self.has_spaces = "", False
        self.what: list[str] = []

    def make(self) -> Case:
        """Return the case; its files are in its own folder."""
        self.folder.mkdir(parents=True)
        self._pick(_GOOD_USERS if self.random.random() < 0.7 else _ODD_USERS)
        tables = ((_GOOD_SERVERS, 0.5), (_ODD_SERVERS, 0.15), (_IMPERSONATIONS, 0.4), (_DOCUMENTS, 0.15))
        for table, probability in tables:
            if self.random.random() < probability:
                self._pick(table)
        self.document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": self.context}, {"name": "no", "context": {}}],
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "u", "user": self.user}, {"name": "v", "user": {"token": "x"}}],
        } | self.document
        path = self.folder / "config"
        path.write_text(json.dumps(self.document), encoding="utf-8")
        trimmed = path
        if self.has_spaces:
            self.user["token"] = self.user["token"].strip()
            trimmed = self.folder / "trimmed"
            trimmed.write_text(json.dumps(self.document), encoding="utf-8")
        return Case(
            path=path,
            for_kubectl=trimmed,
            context=self.chosen,
            environment=self.environment,
            stricter=self.stricter,
            what=" + ".join(self.what),
        )

    def _pick(self, table: tuple[Any, ...]) -> None:
        step = self.random.choice(table)
        self.what.append(step.__name__.strip("_"))
        step(self)

    def token(self) -> str:
        """Return a token of one of the accounts."""
        return self.random.choice(self.world.tokens)

    def as_file(self, entry: dict[str, Any], name: str) -> None:
        """Move data to a file in the kubeconfig's folder, with a relative or an absolute path."""
        data = entry.pop(f"{name}-data", None)
        if data is not None:
            (self.folder / name).write_bytes(base64.b64decode(data))
            entry[name] = self.random.choice([name, f"./{name}", str(self.folder / name)])


def _admin(m: Maker) -> None:
    m.user.update(m.world.admin)


def _admin_in_files(m: Maker) -> None:
    _admin(m)
    for name in ("client-certificate", "client-key"):
        m.as_file(m.user, name)


def _admin_without_key(m: Maker) -> None:
    m.user[CERTIFICATE] = m.world.admin[CERTIFICATE]


def _admin_without_certificate(m: Maker) -> None:
    m.user[KEY] = m.world.admin[KEY]


def _admin_twice(m: Maker) -> None:
    _admin(m)
    m.user["client-key"] = "client-key"
    (m.folder / "client-key").write_bytes(base64.b64decode(m.world.admin[KEY]))


def _admin_broken_data(m: Maker) -> None:
    _admin(m)
    m.user[KEY] = m.random.choice(["!", "eHg=", m.user[KEY][:-9]])


def _admin_missing_file(m: Maker) -> None:
    _admin(m)
    m.user.pop(KEY)
    m.user["client-key"] = "nowhere.pem"


def _admin_and_token(m: Maker) -> None:
    _admin(m)
    m.user["token"] = m.token()


def _token(m: Maker) -> None:
    m.user["token"] = m.token()


def _token_in_spaces(m: Maker) -> None:
    m.user["token"] = m.random.choice(["{}\n", "{}\r\n", " {}", "\n{}\n\n"]).format(m.token())
    m.has_spaces = True


def _token_wrong(m: Maker) -> None:
    m.user["token"] = m.random.choice(["nobody", "é", "a\nb", "a\x00b", "\u2713", "x" * 5000])


def _token_number(m: Maker) -> None:
    m.user["token"] = m.random.choice([7, True, ["a"], {"a": "b"}])


def _token_file(m: Maker) -> None:
    (m.folder / "t").write_text(m.token() + m.random.choice(["", "\n", "\r\n", "  \n"]), encoding="utf-8")
    m.user["tokenFile"] = m.random.choice(["t", str(m.folder / "t")])


def _token_file_missing(m: Maker) -> None:
    m.user["tokenFile"] = "t"


def _token_file_empty(m: Maker) -> None:
    (m.folder / "t").write_text(m.random.choice(["", "\n"]), encoding="utf-8")
    m.user["tokenFile"] = "t"


def _token_and_file(m: Maker) -> None:
    _token_file(m)
    m.user["token"] = m.token()


def _token_and_missing_file(m: Maker) -> None:
    m.user |= {"tokenFile": "t", "token": m.token()}


def _password(m: Maker) -> None:
    m.user |= {"username": "u", "password": "p"}


def _password_and_token(m: Maker) -> None:
    m.user |= {"username": "u", "password": "p", "token": m.token()}


def _password_and_admin(m: Maker) -> None:
    _admin(m)
    m.user |= {"username": "u", "password": "p"}


def _without_credentials(m: Maker) -> None:
    m.user.update(m.random.choice([{}, {"token": ""}, {"token": None}, {"username": ""}]))


def _plugin(m: Maker) -> None:
    version = m.random.choice(["v1"] * 6 + ["v1beta1"] * 3 + ["v1alpha1", "v9", ""])
    answered = version if m.random.random() < 0.9 else "v1beta1"
    status: dict[str, Any] = m.random.choice([
        {"token": m.token()},
        {"token": m.token(), "expirationTimestamp": "2020-01-01T00:00:00Z"},
        {"token": m.token(), "expirationTimestamp": "2999-01-01T00:00:00Z"},
        {},
        {"token": ""},
        {
            "clientCertificateData": base64.b64decode(m.world.admin[CERTIFICATE]).decode(),
            "clientKeyData": base64.b64decode(m.world.admin[KEY]).decode(),
        },
        {"clientCertificateData": base64.b64decode(m.world.admin[CERTIFICATE]).decode()},
    ])  # fmt: skip
    answer = {
        "kind": m.random.choice(["ExecCredential"] * 20 + ["Secret"]),
        "apiVersion": f"client.authentication.k8s.io/{answered}",
        "status": status,
    }
    (m.folder / "answer").write_text(json.dumps(answer), encoding="utf-8")
    script = m.folder / "plugin"
    exit_code = m.random.choice([0] * 20 + [1])
    script.write_text(
        f'#!/bin/sh\n[ "$WANTED" = yes ] || exit 9\ncat "{m.folder}/answer"\nexit {exit_code}\n',
        encoding="utf-8",
    )
    script.chmod(m.random.choice([0o755] * 12 + [0o644]))
    command = m.random.choice(
        [
            ["./plugin"],
            [str(script)],
            ["sh", str(script)],
            ["./plugin"],
            [str(script)],
            ["sh", str(script)],
            ["none"],
            [""],
        ]
    )
    m.user["exec"] = {
        "apiVersion": f"client.authentication.k8s.io/{version}" if version else "",
        "command": command[0],
        "args": command[1:],
        "env": [{"name": "WANTED", "value": m.random.choice(["yes"] * 20 + ["no"])}],
        "interactiveMode": m.random.choice(["Never"] * 4 + ["IfAvailable"] * 4 + ["Always", "Odd", None]),
        "provideClusterInfo": m.random.choice([True, False, None]),
        "installHint": "install it",
    }


def _plugin_and_token(m: Maker) -> None:
    _plugin(m)
    m.user["token"] = m.token()
    m.stricter = "exec"


def _provider(m: Maker) -> None:
    _admin(m)
    m.user["auth-provider"] = {"name": m.random.choice(["gcp", "oidc", "azure"]), "config": {}}
    m.stricter = "auth-provider"


def _typo(m: Maker) -> None:
    _admin(m)
    m.user["impersonate"] = "x"
    m.stricter = "impersonate"


_GOOD_USERS = (
    _admin, _admin_in_files, _token, _token_file, _token_in_spaces, _token_and_file, _admin_and_token,
    _plugin, _password_and_admin, _token_and_missing_file,
)  # fmt: skip
_ODD_USERS = (
    _plugin, _plugin, _plugin, _admin_without_key, _admin_without_certificate, _admin_twice,
    _admin_broken_data, _admin_missing_file, _token_wrong, _token_number, _token_file_missing,
    _token_file_empty, _password, _password_and_token, _without_credentials, _plugin_and_token, _provider,
    _typo,
)  # fmt: skip


def _ca_in_file(m: Maker) -> None:
    m.as_file(m.cluster, "certificate-authority")


def _ca_twice(m: Maker) -> None:
    m.cluster["certificate-authority"] = "ca"
    (m.folder / "ca").write_bytes(base64.b64decode(m.world.cluster[CA]))


def _ca_wrong(m: Maker) -> None:
    m.cluster[CA] = m.random.choice([m.world.other_ca, "eHg=", "?"])


def _ca_none(m: Maker) -> None:
    m.cluster.pop(CA, None)


def _ca_missing(m: Maker) -> None:
    m.cluster.pop(CA, None)
    m.cluster["certificate-authority"] = "nowhere"


def _insecure(m: Maker) -> None:
    m.cluster.pop(CA, None)
    m.cluster["insecure-skip-tls-verify"] = True


def _insecure_and_ca(m: Maker) -> None:
    m.cluster["insecure-skip-tls-verify"] = m.random.choice([True, False, None, "true"])


def _named(m: Maker) -> None:
    m.cluster["tls-server-name"] = m.random.choice(
        ["localhost", "kubernetes.default", "elsewhere.example", ""]
    )


def _capitals(m: Maker) -> None:
    m.cluster["server"] = m.cluster["server"].replace("https", "HTTPS")


def _slash(m: Maker) -> None:
    m.cluster["server"] += m.random.choice(["/", "//", "/nowhere"])


def _port_closed(m: Maker) -> None:
    m.cluster["server"] = "https://127.0.0.1:1"


def _bare(m: Maker) -> None:
    m.cluster["server"] = m.random.choice([m.cluster["server"].removeprefix("https://"), "", "::", 7])


def _by_proxy(m: Maker) -> None:
    m.cluster["proxy-url"] = f"http://case{m.seed}:pw@127.0.0.1:{m.world.proxy.port}"
    m.environment = m.random.choice([{}, {"NO_PROXY": "*"}, {"HTTPS_PROXY": "http://127.0.0.1:1"}])


def _bad_proxy(m: Maker) -> None:
    m.cluster["proxy-url"] = m.random.choice(["ftp://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:1", "::"])


def _proxy_of_environment(m: Maker) -> None:
    m.environment = {m.random.choice(["HTTPS_PROXY", "https_proxy", "ALL_PROXY"]): "http://127.0.0.1:1"}


def _uncompressed(m: Maker) -> None:
    m.cluster["disable-compression"] = m.random.choice([True, False])


def _extended(m: Maker) -> None:
    m.cluster["extensions"] = [{"name": "x", "extension": {"provider": "y"}}]
    m.context["extensions"] = [{"name": "x", "extension": {"provider": "y"}}]


def _cluster_typo(m: Maker) -> None:
    m.cluster["proxy_url"] = "http://127.0.0.1:1"
    m.stricter = "proxy_url"


_GOOD_SERVERS = (
    _ca_in_file, _insecure, _named, _capitals, _slash, _by_proxy, _by_proxy, _proxy_of_environment,
    _uncompressed, _extended, _insecure_and_ca,
)  # fmt: skip
_ODD_SERVERS = (
    _ca_twice, _ca_wrong, _ca_none, _ca_missing, _insecure_and_ca, _named, _port_closed, _bare, _bad_proxy,
    _cluster_typo,
)  # fmt: skip


def _as_user(m: Maker) -> None:
    m.user["as"] = m.random.choice(
        ["jane", "system:serviceaccount:default:default", "ü ✓", "a,b", "x\ny", ""]
    )


def _as_groups(m: Maker) -> None:
    _as_user(m)
    m.user["as-groups"] = m.random.choice([[], ["a"], ["a", "b", "a"], ["a,b"], ["ü"], "a"])


def _as_everything(m: Maker) -> None:
    _as_user(m)
    m.user |= {
        "as-uid": m.random.choice(["17", "", "x y"]),
        "as-groups": ["g", "system:masters"],
        "as-user-extra": m.random.choice([
            {"reason": ["one", "two"]}, {"example.org/A%b": ["x"]}, {"a": []}, {"ü": ["ü"]}, {"a": "b"},
        ]),
    }  # fmt: skip


def _without_impersonated_user(m: Maker) -> None:
    m.user |= m.random.choice([{"as-groups": ["a"]}, {"as-uid": "1"}, {"as-user-extra": {"a": ["b"]}}])


_IMPERSONATIONS = (
    _as_user,
    _as_user,
    _as_groups,
    _as_groups,
    _as_everything,
    _as_everything,
    _without_impersonated_user,
)


def _other_context(m: Maker) -> None:
    m.chosen = m.random.choice(["it", "no", "typo"])


def _no_current(m: Maker) -> None:
    m.document["current-context"] = m.random.choice(["", None, "typo", "no", 7])


def _no_user(m: Maker) -> None:
    m.context["user"] = m.random.choice(["nobody", "", None, 7])


def _no_cluster(m: Maker) -> None:
    m.context["cluster"] = m.random.choice(["nowhere", "", None])


def _twice(m: Maker) -> None:
    m.document["users"] = [{"name": "u", "user": m.user}, {"name": "u", "user": {"token": "x"}}]


def _other_kind(m: Maker) -> None:
    m.document.update(
        m.random.choice([{"kind": "Pod"}, {"apiVersion": "v2"}, {"kind": None}, {"preferences": {}}])
    )


def _wrong_shape(m: Maker) -> None:
    m.document.update(
        m.random.choice([{"users": {}}, {"clusters": None}, {"contexts": "x"}, {"users": ["x"]}])
    )


def _namespaced(m: Maker) -> None:
    m.context["namespace"] = m.random.choice(["default", "elsewhere", "", 7])


_DOCUMENTS = (
    _other_context,
    _no_current,
    _no_user,
    _no_cluster,
    _twice,
    _other_kind,
    _wrong_shape,
    _namespaced,
)


def clean_environment(case: Case, home: Path) -> dict[str, str]:
    """Return the environment for both programs, without the machine's proxy settings and kubeconfig."""
    kept = {name: value for name, value in os.environ.items() if name not in (*_PROXIES, "KUBECONFIG")}
    return {**kept, "HOME": str(home), **case.environment}


def by_kubectl(case: Case, home: Path) -> Verdict:
    """Return the user that the server authenticates for kubectl."""
    program = Path(sys.executable).parent / "kubectl"
    flags = [] if case.context is None else ["--context", case.context]
    completed = subprocess.run(
        [str(program), "--kubeconfig", str(case.for_kubectl), *flags, "--request-timeout=20s", "create",
         "--raw", _WHOAMI, "-f", "-"],
        env=clean_environment(case, home),
        input=json.dumps(_REVIEW),
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    if completed.returncode:
        return Verdict(None, completed.stderr)
    return Verdict(_user_in(json.loads(completed.stdout)), "")


def by_nimlab(case: Case, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """Return the user that the server authenticates for nimlab. Errors other than NimlabError are bugs."""
    for name in (*_PROXIES, "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    target = Target(kubeconfig=case.path, context=case.context, name="x", why="")
    try:
        with closing(connect(target, parallel=1)) as cluster:
            response = cluster.transport.request(
                "POST",
                _WHOAMI,
                verb="create",
                where="SelfSubjectReview",
                body=json.dumps(_REVIEW).encode(),
                headers={"Content-Type": "application/json"},
                attempts=1,
            )
            return Verdict(_user_in(json.loads(response.data)), "")
    except NimlabError as error:
        return Verdict(None, str(error))


def _user_in(review: Mapping[str, Any]) -> str:
    user = dict(review["status"]["userInfo"])
    extra = user.get("extra")
    if isinstance(extra, dict):  # the order of its keys may differ
        user["extra"] = dict(sorted(extra.items()))
    return json.dumps(user, sort_keys=True)
