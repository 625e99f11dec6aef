"""`nimlab rbac`: its accounts have all rights that a plan and a sync need, and no other rights.

The tests compare rights by verb, kind, and scope (the lab's namespace or the whole cluster).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimlab.cluster.kube import Target, connect
from nimlab.errors import Forbidden, Rejected
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import key_of
from nimlab.sandbox.wait_until import wait_until
from tests.support.api_proxy import Proxy, Seen, run_proxy
from tests.support.lab import Lab, remove_namespaces

pytestmark = pytest.mark.live

HEAD = """\
metadata:
  name: {{ full_name | json }}
  namespace: {{ namespace | json }}
  labels: {{ labels | json }}
"""
MORE = {
    "quota": "apiVersion: v1\nkind: ResourceQuota\n" + HEAD + 'spec: {hard: {pods: "6"}}\n',
    "limits": "apiVersion: v1\nkind: LimitRange\n" + HEAD + "spec: {limits: [{type: Pod, max: {cpu: 1k}}]}\n",
    "budget": "apiVersion: policy/v1\nkind: PodDisruptionBudget\n"
    + HEAD
    + "spec: {maxUnavailable: 1, selector: {matchLabels: {{ selector | json }}}}\n",
}


Right = tuple[str, str, str]
"""A verb, a kind, and a scope: the lab's namespace (`home`), or the whole cluster (`beyond`)."""


@pytest.fixture(autouse=True)
def leave_nothing(lab: Lab) -> Iterator[None]:
    """After the test, remove the cluster-scoped objects of `nimlab rbac`; `lab` removes the others."""
    yield
    remove_rights(lab)


def remove_rights(lab: Lab) -> None:
    """Delete the cluster-scoped roles and policies whose names contain the lab's namespace."""
    kinds = "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding"
    names = lab.kubectl("get", kinds, "-o", "name").split()
    ours = [name for name in names if name.endswith(f"-{lab.namespace}")]
    if ours:
        lab.kubectl("delete", *ours)


def granted(lab: Lab, account: str, *flags: str) -> set[Right]:
    """Return the rights that `nimlab rbac` grants to an account."""
    plurals = {(kind.group, kind.plural): kind.name for kind in KINDS.values()}
    answer = lab.run("rbac", *flags)
    assert answer.code == 0, answer.err
    places = {"Role": (account, "home"), "ClusterRole": (f"{account}-{lab.namespace}", "beyond")}
    return {
        (verb, plurals.get((rule["apiGroups"][0], resource), resource), places[manifest["kind"]][1])
        for manifest in yaml.safe_load_all(answer.out)
        if manifest
        and manifest["kind"] in places
        and manifest["metadata"]["name"] == places[manifest["kind"]][0]
        for rule in manifest["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_of(request: Seen, home: str) -> set[Right]:
    """Return the rights that a request needs; none for requests that list the contents of a namespace."""
    path, _, query = request.path.partition("?")
    parts = path.split("/")
    plurals = {kind.plural: kind.name for kind in KINDS.values()}
    index = next((n for n in (len(parts) - 1, len(parts) - 2) if parts[n] in plurals), 0)
    if not index or "PartialObject" in request.accept:
        return set()
    kind, named = plurals[parts[index]], index == len(parts) - 2
    where = "home" if parts[index - 2 : index] == ["namespaces", home] else "beyond"
    verbs: dict[str, tuple[str, ...]] = {
        "GET": ("get" if named else "watch" if "watch=true" in query else "list",),
        "PATCH": ("patch", "create"),
        "POST": ("create",),
        "PUT": ("update",),
        "DELETE": ("delete",),
    }
    return {(verb, kind, where) for verb in verbs[request.method]}


def missing(used: set[Right], rights: set[Right]) -> set[Right]:
    """Return the used rights that are not granted; a cluster-wide right also covers the lab's namespace."""
    return {
        (verb, kind, where)
        for verb, kind, where in used
        if not {(verb, kind, where), (verb, kind, "beyond")} & rights
    }


def account_kubeconfig(lab: Lab, folder: Path, account: str, *flags: str) -> Path:
    """Apply the output of `nimlab rbac`, wait for its policy, and return the account's kubeconfig."""
    rendered = folder / "rbac.yaml"
    rendered.write_text(lab.run("rbac", *flags).out, encoding="utf-8")
    lab.kubectl("apply", "-f", str(rendered))
    config = json.loads(lab.kubectl("config", "view", "--raw", "-o", "json"))
    token = lab.kubectl("create", "token", account).strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / f"{account}-kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    if account.startswith("nimlab-sync"):
        wait_for_policy(lab, path)
    return path


def wait_for_policy(lab: Lab, kubeconfig: Path) -> None:
    """Retry a request until the policy rejects it, because the server activates policies with a delay."""
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no", "namespace": lab.namespace}}
    target = Target(kubeconfig=kubeconfig, context=None, name="sandbox", why="a test")
    deadline = time.monotonic() + 60
    with closing(connect(target, parallel=1)) as writer:
        while time.monotonic() < deadline:
            try:
                writer.apply(probe, manager="nimlab", force=True, dry_run=True)
            except (Forbidden, Rejected) as error:
                if "ValidatingAdmissionPolicy" in str(error):
                    return
            time.sleep(0.1)
    pytest.fail("the policy does not become active")


def add_templates(lab: Lab, **changes: str) -> None:
    """Add templates for a quota, a limit range and a disruption budget; `changes` replace some of them."""
    for name, text in {**MORE, **changes}.items():
        (lab.root / "templates" / "experiment" / f"{name}.yaml.j2").write_text(text, encoding="utf-8")


def used_by(proxy: Proxy, lab: Lab) -> set[Right]:
    """Return the rights that all recorded requests needed."""
    return {right for request in proxy.seen for right in rights_of(request, lab.namespace)}


def sync_everything(lab: Lab, through: Lab) -> None:
    """Sync in all situations (create, time out, restart, correct drift, prune), to send all requests."""
    add_templates(lab)
    refused = through.run("sync")
    assert refused.code == 1, "only an administrator may write quotas in the lab's namespace"
    for name in ("quota", "limits"):
        (lab.root / "templates" / "experiment" / f"{name}.yaml.j2").unlink()
    lab.kubectl("create", "quota", "tight", "--hard=pods=6")
    stuck = through.run("sync", "--timeout", "4s")
    assert stuck.code == 4, stuck.out + stuck.err
    lab.kubectl("delete", "quota", "tight")
    lab.edit("purple", "interval: 2000ms", "interval: 500ms")
    done = through.run("sync", "--timeout", "90s")
    assert done.code == 0, done.out + done.err
    assert through.run("list").code == 0
    (lab.root / "experiments" / "blue.yaml").unlink()
    done = through.run("sync")
    assert done.code == 0, done.out + done.err
    assert lab.names("StatefulSet") == ["nimp2p-exp-purple"]


def test_sync_account_can_sync_and_uses_all_its_rights(lab: Lab, tmp_path: Path) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync")
    with run_proxy(kubeconfig, tmp_path) as proxy:
        sync_everything(lab, replace(lab, kubeconfig=proxy.kubeconfig))
        used = used_by(proxy, lab)
    rights = granted(lab, "nimlab-sync")
    assert rights - used == set()
    refused = missing(used, rights)
    assert {kind for _, kind, where in refused if where == "beyond"} == {
        "ConfigMap",
        "Namespace",
        "NetworkPolicy",
    }, "a sync tries to read the lab's namespace and former namespaces, and checks for cluster-wide rights"
    assert {kind for _, kind, where in refused if where == "home"} == {"LimitRange"}, (
        "the first write of its stage is refused"
    )


def test_plan_account_can_plan_and_uses_all_its_rights(lab: Lab, tmp_path: Path) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-plan")
    add_templates(lab)
    with run_proxy(kubeconfig, tmp_path) as proxy:
        reader = replace(lab, kubeconfig=proxy.kubeconfig)
        assert reader.run("sync", "--dry-run", "--exit-code").code == 3
        assert lab.run("sync", "--no-wait").code == 0
        assert reader.run("sync", "--dry-run", "--exit-code").code == 0
        used = used_by(proxy, lab)
        assert {verb for verb, _, _ in used} == {"get", "list"}
        rights = granted(lab, "nimlab-plan")
        assert rights - used == set()
        assert reader.run("sync", "--no-wait").code == 0, "the lab is in sync, so there is nothing to write"
        lab.kubectl("delete", "configmap", "nimp2p-exp-blue-spec")
        refused = reader.run("sync")
        assert refused.code == 1
        assert "forbidden" in refused.err + refused.out


@pytest.fixture
def go(lab: Lab) -> Iterator[str]:
    """Yield the name of an experiment with its own namespace, unique to this test."""
    name = f"go-{secrets.token_hex(3)}"
    head = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
    lab.write(name, head + "spec: {contract: dst-go, peers: 3}\n")
    yield name
    remove_namespaces(lab.cluster, [f"nimp2p-exp-{name}"])


def test_accounts_keep_a_namespace_that_they_cannot_list_completely(
    lab: Lab, tmp_path: Path, go: str
) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync", "--namespaces")
    writer = replace(lab, kubeconfig=kubeconfig)
    done = writer.run("sync")
    assert done.code == 0, done.out + done.err
    (lab.root / "experiments" / f"{go}.yaml").unlink()
    done = writer.run("sync")
    assert done.code == 0, done.out + done.err
    assert "not all objects in it could be listed" in done.out
    assert lab.get("StatefulSet", "pod", f"nimp2p-exp-{go}") is None
    assert lab.get("Namespace", f"nimp2p-exp-{go}", "") is not None

    def is_pruned() -> bool:
        done = lab.run("sync")
        assert done.code == 0, done.out + done.err
        return lab.get("Namespace", f"nimp2p-exp-{go}", "") is None

    # the garbage collector may not have deleted all dependents of the StatefulSet yet
    assert wait_until(is_pruned, within_s=30)


def in_own_namespaces(template: str) -> str:
    """Return the template with a condition: it is rendered only for experiments with their own namespace."""
    return "{% if own_namespace %}\n" + template + "{% endif %}\n"


def test_accounts_for_own_namespaces_use_all_cluster_wide_rights(lab: Lab, tmp_path: Path, go: str) -> None:
    bounds = {name: in_own_namespaces(MORE[name]) for name in ("quota", "limits")}
    add_templates(lab, **{**bounds, "quota": bounds["quota"].replace('"6"', '"2"')})
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync", "--namespaces")
    with run_proxy(kubeconfig, tmp_path) as proxy:
        writer = replace(lab, kubeconfig=proxy.kubeconfig)
        stuck = writer.run("sync", "--timeout", "4s")
        assert stuck.code == 4, stuck.out + stuck.err
        add_templates(lab, **bounds)
        lab.edit(go, "peers: 3", "peers: 3, connectTo: 1")
        done = writer.run("sync", "--timeout", "90s")
        assert done.code == 0, done.out + done.err
        kinds = "networkpolicy,service,limitrange,resourcequota,poddisruptionbudget,configmap"
        lab.kubectl("delete", kinds, "-n", f"nimp2p-exp-{go}", "-l", f"experiment={go}")
        assert writer.run("sync").code == 0
        (lab.root / "experiments" / f"{go}.yaml").unlink()
        assert writer.run("sync").code == 0
        used = used_by(proxy, lab)
    rights = granted(lab, "nimlab-sync", "--namespaces")
    spare = {("delete", "Namespace", "beyond")}  # used only if the account may list all objects
    assert rights - used == spare
    assert missing(used, rights) == set()


@pytest.mark.parametrize("own_namespaces", [False, True])
def test_platform_accounts_can_sync_and_use_all_their_rights(
    lab: Lab, tmp_path: Path, go: str, own_namespaces: bool
) -> None:
    flags = ("--platform", "--namespaces") if own_namespaces else ("--platform",)
    if not own_namespaces:
        (lab.root / "experiments" / f"{go}.yaml").unlink()
    assert lab.run("sync", "--no-wait").code == 0
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync-platform", *flags)
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    with run_proxy(kubeconfig, tmp_path) as proxy:
        through = replace(lab, kubeconfig=proxy.kubeconfig)
        for change in (
            text.replace("cadvisor: daemonset", "cadvisor: kubelet"),
            text.replace("{retention: 720h}", "{retention: 720h, storage: 1Gi}"),
            text,
        ):
            path.write_text(change, encoding="utf-8")
            answer = through.run("sync", "platform", "--timeout", "20s")
            assert answer.code in (0, 4), answer.out + answer.err
        if own_namespaces:
            assert lab.get("RoleBinding", "lab-discovery", f"nimp2p-exp-{go}") is not None
            (lab.root / "experiments" / f"{go}.yaml").unlink()
            assert through.run("sync", "platform", "--timeout", "20s").code in (0, 4)
            assert lab.get("RoleBinding", "lab-discovery", f"nimp2p-exp-{go}") is None
        used = used_by(proxy, lab)
    rights = granted(lab, "nimlab-sync-platform", *flags)
    reach = "beyond" if own_namespaces else "home"
    spare = {  # an account can grant only rights that it has
        *((verb, "Pod", reach) for verb in ("get", "list", "watch")),
        ("get", "nodes/metrics", "beyond"),
        ("list", "Event", "home"),  # read if a pod does not start
        *(("get", kind, "beyond") for kind in ("Role", "RoleBinding")),  # read again after a conflict (409)
    }
    delete_rights = {right for right in rights if right[0] == "delete"}
    assert rights - used - delete_rights <= spare
    refused_kinds = {kind for _, kind, where in missing(used, rights) if where == "beyond"}
    assert refused_kinds == {"ConfigMap", "Namespace", *(() if own_namespaces else ("Role",))}
    assert {kind for _, kind, where in missing(used, rights) if where == "home"} == (
        {"Pod"} - {kind for verb, kind, _ in rights if verb == "list"}
    )
    beyond = {kind for _, kind, where in rights if where == "beyond"}
    assert beyond <= {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Pod", "nodes/metrics"}


def test_platform_plan_account_can_plan(lab: Lab, tmp_path: Path, go: str) -> None:
    flags = ("--platform", "--namespaces")
    assert lab.run("sync", "--no-wait").code == 0
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-plan-platform", *flags)
    with run_proxy(kubeconfig, tmp_path) as proxy:
        reader = replace(lab, kubeconfig=proxy.kubeconfig)
        answer = reader.run("sync", "platform", "--dry-run", "--exit-code", "--output", "json")
        assert answer.code == 3, answer.out + answer.err
        assert f"nimp2p-exp-{go}" in answer.out
        used = used_by(proxy, lab)
    rights = granted(lab, "nimlab-plan-platform", *flags)
    assert {verb for verb, _, _ in rights} == {"get", "list"}
    assert {kind for _, kind, _ in missing(used, rights)} <= {"ConfigMap", "Namespace"}


def test_rights_are_namespaced_by_default(lab: Lab) -> None:
    def kinds(*flags: str) -> dict[str, set[str]]:
        namespaces: dict[str, set[str]] = {}
        for manifest in yaml.safe_load_all(lab.run("rbac", *flags).out):
            if manifest:
                namespaces.setdefault(manifest["kind"], set()).add(key_of(manifest).namespace)
        return namespaces

    narrow, wide = kinds(), kinds("--namespaces")
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert set(narrow) == {"Namespace", "ServiceAccount", "Secret", "Role", "RoleBinding", *policies}
    assert narrow["Role"] == {lab.namespace}
    assert set(wide) == {*narrow, "ClusterRole", "ClusterRoleBinding"}
    forbidden: Any = {"*", "secrets", "roles", "rolebindings"}
    for flags in ((), ("--namespaces",)):
        for manifest in yaml.safe_load_all(lab.run("rbac", *flags).out):
            for rule in (manifest or {}).get("rules", ()):
                assert not forbidden & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
