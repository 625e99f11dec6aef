"""Each field of a kubeconfig has the same effect as in kubectl, or is rejected by an error that names it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nimlab.cli import main
from nimlab.cli.choose_cluster import choose_target
from nimlab.cluster.kube import KubeCluster, Target, connect, list_contexts
from nimlab.cluster.kube import resolve_connection as access
from nimlab.cluster.kube.credentials import TokenFile
from nimlab.cluster.kube.exec_plugin import Plugin
from nimlab.cluster.kube.kubeconfig import read_entry
from nimlab.cluster.kube.proxies import choose_proxy
from nimlab.cluster.kube.resolve_connection import in_cluster_access, read_access
from nimlab.errors import Forbidden, NimlabError, Unreachable
from nimlab.objects.manifest import ObjectKey
from nimlab.objects.mask_secrets import redact_credentials
from tests.support.lab import Lab, Sandbox
from tests.support.paths import REPOSITORY, SAMPLE_LAB

KEY = ObjectKey("Namespace", "", "default")
CA, CERTIFICATE, PRIVATE = "certificate-authority-data", "client-certificate-data", "client-key-data"
PLAIN: dict[str, Any] = {"server": "https://a:1"}
TOKEN = "hunter2-token-of-somebody"  # noqa: S105 -- a test value


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> Path:
    """Write a kubeconfig whose current context has this cluster and this user; return its path."""
    path = folder / "config"
    document: dict[str, Any] = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}, {"name": "d", "cluster": {"exec": 1}}],
        "users": [{"name": "u", "user": user}, {"name": "v", "user": {"exec": {}}}],
    }
    path.write_text(yaml.safe_dump(document | more), encoding="utf-8")
    return path


def at(path: Path) -> KubeCluster:
    """Connect to the cluster of a kubeconfig."""
    return connect(Target(kubeconfig=path, context=None, name="x", why=""), parallel=2)


def as_file(folder: Path, entry: dict[str, Any], field: str, prefix: str = "") -> None:
    """Move the data of a field to a file in the kubeconfig's folder."""
    name = field.removesuffix("-data")
    (folder / name).write_bytes(base64.b64decode(entry.pop(field)))
    entry[name] = prefix + name


@pytest.fixture
def parts(sandbox: Sandbox) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the cluster and the user of the sandbox's kubeconfig."""
    document = yaml.safe_load(sandbox.kubeconfig.read_text(encoding="utf-8"))
    return document["clusters"][0]["cluster"], document["users"][0]["user"]


Parts = tuple[dict[str, Any], dict[str, Any]]
Shape = Callable[[Path, dict[str, Any], dict[str, Any]], None]


def relative_files(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    as_file(folder, cluster, CA)
    for field in (CERTIFICATE, PRIVATE):
        as_file(folder, user, field)


def absolute_files(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    as_file(folder, cluster, CA, f"{folder}/")
    for field in (CERTIFICATE, PRIVATE):
        as_file(folder, user, field, f"{folder}/")


def trailing_slash(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["server"] += "/"


def upper_case_scheme(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["server"] = cluster["server"].replace("https", "HTTPS")


def server_name(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["tls-server-name"] = "localhost"


def uncompressed(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["disable-compression"] = True


@pytest.mark.live
@pytest.mark.parametrize(
    "shape", [relative_files, absolute_files, trailing_slash, upper_case_scheme, server_name, uncompressed]
)
def test_each_notation_reaches_the_server(parts: Parts, tmp_path: Path, shape: Shape) -> None:
    shape(tmp_path, *parts)
    with closing(at(kubeconfig(tmp_path, *parts))) as cluster:
        assert cluster.get(KEY) is not None


@pytest.mark.live
@pytest.mark.parametrize("wrong", ["another CA", "another name"])
def test_server_with_another_certificate_is_not_trusted(parts: Parts, tmp_path: Path, wrong: str) -> None:
    cluster, user = parts
    if wrong == "another CA":
        cluster[CA] = user[CERTIFICATE]
    else:
        cluster["tls-server-name"] = "elsewhere.example"
    with (
        closing(at(kubeconfig(tmp_path, cluster, user))) as connected,
        pytest.raises(Unreachable, match="the server's certificate is") as caught,
    ):
        connected.get(KEY)
    message = str(caught.value)
    assert "check that the cluster is running" not in message
    assert "_ssl.c" not in message
    assert "kubeconfig" in message or "tls-server-name" in message


@pytest.mark.live
def test_missing_server_is_reported_as_refused_connection(parts: Parts, tmp_path: Path) -> None:
    cluster, user = parts
    cluster["server"] = "https://127.0.0.1:1"
    with (
        closing(at(kubeconfig(tmp_path, cluster, user))) as connected,
        pytest.raises(Unreachable, match="Connection refused") as caught,
    ):
        connected.transport.request("GET", "/", verb="get", where="x", attempts=1)
    assert "check that the cluster is running" in str(caught.value)


@pytest.mark.live
def test_no_private_key_remains_on_disk(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    at(kubeconfig(tmp_path, *parts)).close()
    assert not [*folder.iterdir()]


@pytest.mark.live
def test_insecure_server_gives_one_warning(
    parts: Parts, lab: Lab, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    cluster, user = parts
    cluster.pop(CA)
    cluster["insecure-skip-tls-verify"] = True
    path = kubeconfig(tmp_path, cluster, user)
    code = main(["list", "--lab", str(lab.root), "--kubeconfig", str(path)])
    output = lab.capture.readouterr().err
    assert code == 0, output
    assert output.count("insecure-skip-tls-verify") == 1
    assert not [*recwarn]


@pytest.mark.live
def test_permissions_of_the_impersonated_user_apply(parts: Parts, tmp_path: Path) -> None:
    cluster, user = parts
    user |= {"as": "jane"}
    with (
        closing(at(kubeconfig(tmp_path, cluster, user))) as connected,
        pytest.raises(Forbidden, match="jane"),
    ):
        connected.get(KEY)
    user |= {"as-groups": ["x", "system:masters"]}
    with closing(at(kubeconfig(tmp_path, cluster, user))) as connected:
        assert connected.get(KEY) is not None, "each group is sent in its own header"


@pytest.mark.live
def test_nothing_is_written_for_an_impersonated_user_without_permissions(
    parts: Parts, lab: Lab, tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path, parts[0], parts[1] | {"as": "jane"})
    assert main(["sync", "--no-wait", "--lab", str(lab.root), "--kubeconfig", str(path)]) == 1
    assert "jane" in lab.capture.readouterr().err


def test_impersonation_is_sent_as_client_go_sends_it(tmp_path: Path) -> None:
    user = {
        "token": TOKEN,
        "as": "jänn",
        "as-uid": "17",
        "as-groups": ["a", "b"],
        "as-user-extra": {"example.org/A%b": ["one", "two"]},
    }
    headers = read_access(kubeconfig(tmp_path, PLAIN, user), None).headers()
    assert headers == (
        ("authorization", f"Bearer {TOKEN}"),
        ("Impersonate-User", "jänn".encode().decode("latin-1")),
        ("Impersonate-Uid", "17"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.org%2FA%25b", "one"),
        ("Impersonate-Extra-example.org%2FA%25b", "two"),
    )


@pytest.mark.process
@pytest.mark.parametrize("text", ["{}\n", "{}\r\n", " {}\t", "\n{}\n\n"])
@pytest.mark.parametrize("source", ["token", "tokenFile", "exec"])
def test_white_space_around_a_token_is_removed(tmp_path: Path, text: str, source: str) -> None:
    user = token_from(tmp_path, source, text.format(TOKEN))
    assert read_access(kubeconfig(tmp_path, PLAIN, user), None).headers() == (
        ("authorization", f"Bearer {TOKEN}"),
    )


@pytest.mark.process
@pytest.mark.parametrize("text", ["{}\nx", "é{}", "{} x", "{}\x00", "✓{}", "{}\x7f"])
@pytest.mark.parametrize("source", ["token", "tokenFile", "exec"])
def test_invalid_token_is_rejected_and_never_shown(
    tmp_path: Path, text: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kubeconfig(tmp_path, PLAIN, token_from(tmp_path, source, text.format(TOKEN)))
    with pytest.raises(NimlabError, match="token") as caught:
        read_access(path, None).headers()
    shown = repr(caught.value) + str(caught.value) + capsys.readouterr().err
    assert "hunter2" not in shown


def token_from(folder: Path, source: str, text: str) -> dict[str, Any]:
    """Return a user whose token comes from this source."""
    if source == "token":
        return {"token": text}
    if source == "tokenFile":
        (folder / "t").write_bytes(text.encode())
        return {"tokenFile": "t"}
    return plugin(folder, {"token": text})


def plugin(
    folder: Path, status: object, *, script: str = 'cat "$ANSWER"', version: str = "v1", **more: Any
) -> dict[str, Any]:
    """Return a user with an exec plugin that records each run."""
    version = f"client.authentication.k8s.io/{version}"
    answer = {"kind": "ExecCredential", "apiVersion": version, "status": status}
    (folder / "answer").write_text(json.dumps(answer), encoding="utf-8")
    program = folder / "plugin"
    program.write_text(
        f'#!/bin/sh\necho "$KUBERNETES_EXEC_INFO" >> "{folder}/runs"\n{script}\n', encoding="utf-8"
    )
    program.chmod(0o755)
    settings = {
        "apiVersion": version,
        "command": "./plugin",
        "interactiveMode": "Never",
        "env": [{"name": "ANSWER", "value": str(folder / "answer")}, {"name": "P", "value": "hunter2-env"}],
    }
    return {"exec": settings | more}


def runs(folder: Path) -> list[Any]:
    """Return the request of each run of the plugin."""
    return [json.loads(line) for line in (folder / "runs").read_text(encoding="utf-8").splitlines()]


@pytest.mark.process
def test_plugin_runs_once_until_its_credential_expires(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    expires = (now + timedelta(seconds=30)).isoformat().replace("+00:00", "Z")
    user = plugin(tmp_path, {"token": TOKEN, "expirationTimestamp": expires})
    entry = read_entry(kubeconfig(tmp_path, PLAIN, user), None)
    moments = [now]
    exec_plugin = Plugin(entry, now=lambda: moments[-1])
    for _ in range(5):
        assert exec_plugin.credential().token == TOKEN
    assert len(runs(tmp_path)) == 1
    moments.append(now + timedelta(seconds=31))
    exec_plugin.credential()
    assert len(runs(tmp_path)) == 2


@pytest.mark.process
def test_plugin_never_runs_twice_at_the_same_time(tmp_path: Path) -> None:
    status = {"token": TOKEN, "expirationTimestamp": "2020-01-01T00:00:00Z"}
    script = f'cd "{tmp_path}"; mkdir busy 2>/dev/null || echo x >> overlaps; cat "$ANSWER"; rmdir busy'
    user = plugin(tmp_path, status, script=script)
    exec_plugin = Plugin(read_entry(kubeconfig(tmp_path, PLAIN, user), None))
    barrier = threading.Barrier(8)

    def ask() -> str:
        barrier.wait()
        return exec_plugin.credential().token

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask) for _ in range(8)]
        assert {future.result(30) for future in futures} == {TOKEN}
    assert not (tmp_path / "overlaps").exists()
    assert len(runs(tmp_path)) < 8, "waiting threads must use the new credential"


@pytest.mark.process
def test_error_of_a_failing_plugin_contains_its_output_and_install_hint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = 'echo hunter2-out; printf "\\033[31mlog in\\033[0m first\\nhunter2-out $P\\n" >&2; exit 3'
    user = plugin(tmp_path, {}, script=script, installHint="get it from your platform team")
    with pytest.raises(NimlabError) as caught:
        read_access(kubeconfig(tmp_path, PLAIN, user), None).headers()
    message = str(caught.value)
    assert "failed with exit code 3: log in first" in message
    assert "hint: get it from your platform team" in message
    assert "hunter2" not in message
    assert "\033" not in message
    assert capfd.readouterr().err == "", "stderr of the plugin must not be passed through"


@pytest.mark.process
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "no-such-plugin"}, "is not installed"),
        ({"command": ""}, "exec.command"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "exec.apiVersion"),
        ({"interactiveMode": "Always"}, "terminal"),
        ({"interactiveMode": "Often"}, "exec.interactiveMode"),
        ({"interactiveMode": None}, "exec.interactiveMode"),
        ({"env": [{"value": "x"}]}, "exec.env"),
        ({"environment": []}, "`environment`"),
    ],
)
def test_invalid_plugin_settings_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    user = plugin(tmp_path, {"token": TOKEN}, installHint="install it", **change)
    with pytest.raises(NimlabError) as caught:
        read_access(kubeconfig(tmp_path, PLAIN, user), None).headers()
    assert words in str(caught.value)
    if change.get("command"):
        assert "install it" in str(caught.value)


@pytest.mark.process
@pytest.mark.parametrize(
    "status", [None, [], {}, {"token": ""}, {"token": 7}, {"clientKeyData": "hunter2-key-of-one"},
               {"token": "hunter2-token", "expirationTimestamp": "soon"}],
)  # fmt: skip
def test_invalid_credential_of_a_plugin_is_an_error_without_its_text(tmp_path: Path, status: object) -> None:
    user = plugin(tmp_path, status)
    with pytest.raises(NimlabError, match="exec plugin") as caught:
        read_access(kubeconfig(tmp_path, PLAIN, user), None).headers()
    assert "hunter2" not in str(caught.value)


@pytest.mark.process
def test_plugin_receives_the_cluster_if_configured(tmp_path: Path) -> None:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    cluster = PLAIN | {"tls-server-name": "n", "extensions": [extension]}
    user = plugin(tmp_path, {"token": TOKEN}, provideClusterInfo=True)
    read_access(kubeconfig(tmp_path, cluster, user), None).headers()
    assert runs(tmp_path)[0]["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://a:1", "tls-server-name": "n", "config": {"audience": "x"}},
    }


@pytest.mark.live
def test_certificate_of_a_plugin_is_accepted_by_the_server(parts: Parts, tmp_path: Path) -> None:
    cluster, user = parts
    pair = {
        "clientCertificateData": base64.b64decode(user[CERTIFICATE]).decode(),
        "clientKeyData": base64.b64decode(user[PRIVATE]).decode(),
    }
    with closing(at(kubeconfig(tmp_path, cluster, plugin(tmp_path, pair)))) as connected:
        assert connected.get(KEY) is not None
        assert connected.get(KEY) is not None
    assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("cluster", "user", "more", "words"),
    [
        ({"server": "a:1"}, {}, {}, "cluster.server"),
        ({"server": None}, {}, {}, "no server"),
        ({"server": "https://u:hunter2@a:1"}, {}, {}, "cluster.server"),
        ({"server": "http://a:1"}, {}, {}, "user.token is not sent over http"),
        ({CA: "eA==!"}, {}, {}, CA),
        ({CA: "eA=="}, {}, {}, "certificate-authority"),
        ({"certificate-authority": "missing.pem"}, {}, {}, "missing.pem"),
        ({"proxy-url": "socks5://u:hunter2@p:1"}, {}, {}, "socks5://p:1"),
        ({"proxy-url": "p:1"}, {}, {}, "proxy"),
        ({"insecure-skip-tls-verify": "yes"}, {}, {}, "insecure-skip-tls-verify"),
        ({"compression": True}, {}, {}, "`compression`"),
        ({}, {"exec": {}}, {}, "exec"),
        ({}, {"auth-provider": {"name": "gcp"}}, {}, "auth-provider"),
        ({}, {"tokenfile": "t"}, {}, "did you mean `tokenFile`"),
        ({}, {"username": "u", "password": "p"}, {}, "password"),
        ({}, {"as-groups": ["x"]}, {}, "as-groups"),
        ({}, {"as": "x\ny"}, {}, "Impersonate-User"),
        ({}, {"token": 7}, {}, "token must be a string"),
        ({}, {CERTIFICATE: base64.b64encode(b"x").decode()}, {}, "client-certificate"),
        ({}, {}, {"current-context": "other"}, "there is no context `other`"),
        ({}, {}, {"users": []}, "refers to the user `u`, which is not defined"),
        ({}, {}, {"clusters": [{"name": "c", "cluster": PLAIN}] * 2}, "duplicate name"),
        ({}, {}, {"contexts": "x"}, "contexts must be a list"),
        ({}, {}, {"contexts": [{"name": "it", "context": {"cluster": "c", "user": "u", "x": 1}}]}, "`x`"),
        ({}, {}, {"kind": "Pod"}, "kubeconfig"),
        ({}, {}, {"curent-context": "x"}, "did you mean `current-context`"),
    ],
)
def test_unsupported_setting_is_rejected_by_name(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    path = kubeconfig(tmp_path, PLAIN | cluster, {"token": TOKEN} | user, **more)
    with pytest.raises(NimlabError) as caught:
        read_access(path, None)
    assert words in str(caught.value)
    assert str(path) in str(caught.value) or "proxy" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", [f"token: *{TOKEN}\n", f"a: !{TOKEN} x\n", f"a: [{TOKEN}\n", f"\0{TOKEN}"])
def test_invalid_yaml_is_an_error_without_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NimlabError, match="is not valid YAML") as caught:
        read_access(path, None)
    assert "hunter2" not in str(caught.value)


def test_unknown_context_is_an_error_with_the_existing_names(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, PLAIN, {"token": TOKEN}, contexts=[
        {"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("production", "staging")
    ])  # fmt: skip
    with pytest.raises(NimlabError) as caught:
        read_access(path, "prodction")
    assert "there is no context `prodction`" in str(caught.value)
    assert "did you mean `production`? choose one with `--context NAME`: production, staging" in str(
        caught.value
    )
    with pytest.raises(NimlabError, match="no such file"):
        read_access(tmp_path / "nope", None)
    with pytest.raises(NimlabError, match="is a directory"):
        read_access(tmp_path, None)


def test_files_are_merged_and_the_first_has_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for name, token in (("a", "one"), ("b", "two")):
        (tmp_path / name).mkdir()
        files.append(kubeconfig(tmp_path / name, PLAIN, {"token": token}))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{files[0]}::{files[1]}")
    assert read_access(None, None).headers() == (("authorization", "Bearer one"),)
    assert list_contexts() == ("it",)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NimlabError, match="there is no kubeconfig"):
        read_access(None, None)
    (tmp_path / ".kube").mkdir()
    files[1].rename(tmp_path / ".kube" / "config")
    assert read_access(None, "it").headers() == (("authorization", "Bearer two"),)


PROXIED = {
    "HTTPS_PROXY": "http://u:hunter2@p:1",
    "HTTP_PROXY": "plain:2",
    "NO_PROXY": "b,.c.d,10.0.0.0/8,e:443",
}


@pytest.mark.parametrize(
    ("server", "proxy_url", "environment", "expected"),
    [
        ("https://a:1", "", PROXIED, "http://p:1"),
        ("http://a:1", "", PROXIED, "http://plain:2"),
        ("https://a:1", "http://own:3", {"NO_PROXY": "*"}, "http://own:3"),
        ("https://a:1", "http://own:3", PROXIED, "http://own:3"),
        ("https://a:1", "", {"https_proxy": "https://p:1"}, "https://p:1"),
        ("https://a:1", "", PROXIED | {"NO_PROXY": "*"}, None),
        ("https://b:1", "", PROXIED, None),
        ("https://x.b:1", "", PROXIED, None),
        ("https://xb:1", "", PROXIED, "http://p:1"),
        ("https://x.c.d", "", PROXIED, None),
        ("https://c.d", "", PROXIED, "http://p:1"),
        ("https://10.1.2.3:6443", "", PROXIED, None),
        ("https://e", "", PROXIED, None),
        ("https://e:6443", "", PROXIED, "http://p:1"),
        ("https://localhost:1", "", PROXIED, None),
        ("https://127.9.9.9:1", "", PROXIED, None),
        ("https://[::1]:1", "", PROXIED, None),
    ],
)
def test_proxy_is_chosen_as_by_kubectl(
    server: str, proxy_url: str, environment: dict[str, str], expected: str | None
) -> None:
    proxy = choose_proxy(server, proxy_url, environment)
    assert (proxy and proxy.url) == expected
    assert "hunter2" not in str(proxy)


@pytest.mark.parametrize("text", ["socks5://u:hunter2@p:1", "socks5h://p:1", "ftp://p:1"])
def test_unsupported_proxy_is_named_without_its_password(text: str) -> None:
    with pytest.raises(NimlabError, match="p:1 cannot be used") as caught:
        choose_proxy("https://a:1", "", {"HTTPS_PROXY": text})
    assert "hunter2" not in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)


@pytest.mark.live
def test_unreachable_proxy_is_named_without_its_password(parts: Parts, tmp_path: Path) -> None:
    cluster, user = parts
    cluster["proxy-url"] = "http://u:hunter2@127.0.0.1:1"
    with (
        closing(at(kubeconfig(tmp_path, cluster, user))) as connected,
        pytest.raises(Unreachable, match=r"the proxy http://127\.0\.0\.1:1") as caught,
    ):
        connected.transport.request("GET", "/", verb="get", where="x", attempts=1)
    assert "hunter2" not in str(caught.value)


def test_token_file_is_read_again_and_may_be_missing_temporarily(tmp_path: Path) -> None:
    path, moments = tmp_path / "t", [0.0]
    path.write_text("one\n", encoding="utf-8")
    file = TokenFile(path, clock_s=lambda: moments[-1])
    path.write_text("two\n", encoding="utf-8")
    assert file.token() == "one"
    moments.append(61.0)
    assert file.token() == "two"
    path.unlink()
    moments.append(122.0)
    assert file.token() == "two"


def test_in_cluster_uses_the_service_account_and_excludes_other_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NimlabError, match="only in a pod"):
        in_cluster_access(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(NimlabError, match="token file cannot be read"):
        in_cluster_access(tmp_path)
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    with pytest.raises(NimlabError, match="CA cannot be read"):
        in_cluster_access(tmp_path)
    (tmp_path / "ca.crt").write_text("x", encoding="utf-8")
    pod_access = in_cluster_access(tmp_path)
    assert (pod_access.server, pod_access.headers()) == (
        "https://[fd00::1]:443",
        (("authorization", f"Bearer {TOKEN}"),),
    )
    for file, context in ((tmp_path, None), (None, "it")):
        with pytest.raises(typer.BadParameter, match="name one cluster"):
            choose_target(tmp_path, file, context, in_cluster=True)
    assert choose_target(tmp_path, None, None, in_cluster=True).in_cluster


@pytest.mark.live
def test_in_cluster_uses_the_permissions_of_the_service_account(
    parts: Parts, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, _ = parts
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster[CA]))
    token = lab.kubectl("-n", "kube-system", "create", "token", "default")
    (tmp_path / "token").write_text(token, encoding="utf-8")
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    assert main(["list", "--in-cluster", "--lab", str(lab.root)]) == 1
    assert "system:serviceaccount:kube-system:default" in lab.capture.readouterr().err
    assert main(["list", "--in-cluster", "--context", "x", "--lab", str(lab.root)]) == 2


@pytest.mark.process
def test_bug_report_contains_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kubeconfig(tmp_path, PLAIN, {"username": "u", "password": "hunter2-pass"})
    password_access = read_access(path, None)

    def break_down(*_: object) -> None:
        ((_name, value),) = password_access.headers()
        raise RuntimeError(f"Invalid header value {value.encode()!r} for hunter2-pass")

    monkeypatch.setattr("nimlab.cli.open_session.choose_target", lambda *_, **__: break_down())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["list", "--lab", str(SAMPLE_LAB)]) == 70
    (report,) = tmp_path.glob("nimlab-bug-*")
    output = report.read_text(encoding="utf-8") + capsys.readouterr().err
    assert "hunter2" not in output
    assert base64.b64encode(b"u:hunter2-pass").decode() not in output
    assert "(hidden)" in output
    assert redact_credentials("hunter2-pass") == "(hidden)"


SLOW_IMPORTS = ("kubernetes", "pydantic", "jsonschema", "requests", "rich", "hypothesis")


@pytest.mark.live
def test_sync_of_an_unchanged_lab_avoids_slow_imports(lab: Any) -> None:
    """Each of these imports takes more time than the reads from a small cluster."""
    assert lab.run("sync", "--no-wait").code == 0
    program = (
        "import json, sys; from nimlab.cli import main; code = main(sys.argv[1:]);"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, "sync", "--lab", str(lab.root), "--kubeconfig", str(lab.kubeconfig)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, modules = json.loads(completed.stdout.splitlines()[-1])
    assert code == 0
    assert not {*SLOW_IMPORTS} & {*modules}
