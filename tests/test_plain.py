"""A plain kubeconfig gives the same access as the library's reading of it; all others are left to that."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimlab.errors import NimlabError, Unreachable
from nimlab.kube import KubeCluster, Target, config, connect
from nimlab.kube.plain import read_access
from nimlab.manifest import ObjectKey
from tests.live import REPOSITORY, Sandbox

KEY = ObjectKey("Namespace", "", "default")
CA, CERTIFICATE, PRIVATE = "certificate-authority-data", "client-certificate-data", "client-key-data"


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> Path:
    """Write one with a context `it`, which is the current one."""
    path = folder / "config"
    document: dict[str, Any] = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}, {"name": "d", "cluster": {"exec": 1}}],
        "users": [{"name": "u", "user": user}, {"name": "v", "user": {"exec": {}}}],
    }
    path.write_text(yaml.safe_dump(document | more), encoding="utf-8")
    return path


def as_file(folder: Path, entry: dict[str, Any], field: str, prefix: str = "") -> None:
    """Move what is in a field into a file beside the kubeconfig."""
    name = field.removesuffix("-data")
    (folder / name).write_bytes(base64.b64decode(entry.pop(field)))
    entry[name] = prefix + name


@pytest.fixture
def parts(sandbox: Sandbox) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of the sandbox's kubeconfig, with everything inside."""
    document = yaml.safe_load(sandbox.kubeconfig.read_text(encoding="utf-8"))
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    for entry in (cluster, user):
        for name in [name for name in entry if f"{name}-data" in (CA, CERTIFICATE, PRIVATE)]:
            data = (sandbox.kubeconfig.parent / entry.pop(name)).read_bytes()
            entry[f"{name}-data"] = base64.b64encode(data).decode()
    return cluster, user


def by_library(path: Path) -> KubeCluster:
    """Connect as for a kubeconfig that isn't plain."""
    target = Target(kubeconfig=path, context=None, name="x", why="")
    return config._connect_by_library(target, 4, lambda _: None)


def by_ourselves(path: Path) -> KubeCluster:
    """Connect, and demand that the library has no part in it."""
    assert read_access(path, None) is not None
    return connect(Target(kubeconfig=path, context=None, name="x", why=""), parallel=2)


def inside(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, cluster, user


def beside(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    as_file(folder, cluster, CA)
    for field in (CERTIFICATE, PRIVATE):
        as_file(folder, user, field)


def absolute(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    as_file(folder, cluster, CA, f"{folder}/")
    for field in (CERTIFICATE, PRIVATE):
        as_file(folder, user, field, f"{folder}/")


def data_before_files(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder
    cluster["certificate-authority"] = user["client-key"] = "/nowhere"


def with_slash(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["server"] += "/"


def by_name(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    del folder, user
    cluster["tls-server-name"] = "localhost"


Shape = Callable[[Path, dict[str, Any], dict[str, Any]], None]


@pytest.mark.live
@pytest.mark.parametrize("shape", [inside, beside, absolute, data_before_files, with_slash, by_name])
def test_both_ways_reach_the_server(parts: Any, tmp_path: Path, shape: Shape) -> None:
    cluster, user = parts
    shape(tmp_path, cluster, user)
    path = kubeconfig(tmp_path, cluster, user)
    ours, theirs = by_ourselves(path), by_library(path)
    assert ours.get(KEY) == theirs.get(KEY)
    assert ours.host == theirs.host
    assert ours._credentials() == theirs._credentials() == {}


@pytest.mark.live
def test_token_is_sent_beside_the_certificate(parts: Any, tmp_path: Path) -> None:
    cluster, user = parts
    user |= {"token": "one"}
    path = kubeconfig(tmp_path, cluster, user)
    ours, theirs = by_ourselves(path), by_library(path)
    assert ours._credentials() == theirs._credentials() == {"authorization": f"Bearer {user['token']}"}


@pytest.mark.live
@pytest.mark.parametrize("wrong", ["another CA", "another name"])
def test_server_that_isnt_the_one_is_not_trusted(parts: Any, tmp_path: Path, wrong: str) -> None:
    cluster, user = parts
    if wrong == "another CA":
        cluster[CA] = user[CERTIFICATE]
    else:
        cluster["tls-server-name"] = "elsewhere.example"
    path = kubeconfig(tmp_path, cluster, user)
    for cluster in (by_ourselves(path), by_library(path)):
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            cluster.get(KEY)


@pytest.mark.live
def test_no_private_key_stays_on_the_disk(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    by_ourselves(kubeconfig(tmp_path, *parts))
    assert not [*folder.iterdir()]


PLAIN: dict[str, Any] = {"server": "https://a:1", CA: base64.b64encode(b"x").decode()}
USER: dict[str, Any] = {"token": "t"}


@pytest.mark.parametrize(
    ("cluster", "user", "more"),
    [
        ({"insecure-skip-tls-verify": True}, {}, {}),
        ({"proxy-url": "http://p:1"}, {}, {}),
        ({"server": "a:1"}, {}, {}),
        ({"server": None}, {}, {}),
        ({CA: ""}, {}, {}),
        ({CA: "eA==!"}, {}, {}),
        ({CA: None, "certificate-authority": "missing.pem"}, {}, {}),
        ({}, {"exec": {}}, {}),
        ({}, {"auth-provider": {}}, {}),
        ({}, {"tokenFile": "t"}, {}),
        ({}, {"username": "u", "password": "p"}, {}),
        ({}, {"as": "somebody"}, {}),
        ({}, {"token": 7}, {}),
        ({}, {CERTIFICATE: base64.b64encode(b"x").decode()}, {}),
        ({}, {}, {"current-context": "other"}),
        ({}, {}, {"users": []}),
        ({}, {}, {"clusters": [{"name": "c", "cluster": PLAIN}] * 2}),
        ({}, {}, {"contexts": None}),
        ({}, {}, {"contexts": [{"name": "it", "context": {"cluster": "c", "user": "u", "x": 1}}]}),
    ],
)
def test_all_else_is_the_librarys(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], more: dict[str, Any]
) -> None:
    path = kubeconfig(tmp_path, PLAIN | cluster, USER | user, **more)
    assert read_access(path, None) is None


def test_plain_one_is_read_by_its_context_and_from_where_kubectl_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kubeconfig(tmp_path, PLAIN, USER, **{"current-context": "other"})
    access = read_access(path, "it")
    assert access is not None
    assert (access.server, access.token) == ("https://a:1", "t")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert read_access(None, "it") == access
    both = tmp_path / "a:b"
    both.write_bytes(path.read_bytes())
    monkeypatch.setenv("KUBECONFIG", str(both))
    assert read_access(None, "it") is None, "two files, for kubectl"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    path.rename(tmp_path / ".kube" / "config")
    assert read_access(None, "it") == access
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    assert read_access(None, "it") is None, "the library knows whom a proxy is for"


def test_what_is_no_certificate_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NimlabError, match="the kubeconfig can't be used"):
        connect(
            Target(kubeconfig=kubeconfig(tmp_path, PLAIN, USER), context=None, name="x", why=""), parallel=1
        )


HEAVY = ("kubernetes", "pydantic", "jsonschema", "requests", "rich", "hypothesis")


@pytest.mark.live
def test_sync_of_an_unchanged_lab_imports_nothing_that_it_can_do_without(lab: Any) -> None:
    """Each costs more than the reading of a small cluster."""
    assert lab.run("sync", "--no-wait").code == 0
    program = (
        "import json, sys; from nimlab.cli import main; code = main(sys.argv[1:]);"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "sync", "--lab", str(lab.root), "--kubeconfig", str(lab.kubeconfig)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not {*HEAVY} & {*modules}
