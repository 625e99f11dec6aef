"""`nimlab rbac`: its accounts can do all that a plan and a sync need, and have no right that neither uses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimlab.manifest import KINDS, key_of
from tests.live import Lab, remove_namespaces
from tests.proxy import Seen, run_proxy

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


def granted(lab: Lab, account: str, *flags: str) -> set[tuple[str, str]]:
    """What `nimlab rbac` lets an account do: verbs on kinds."""
    plurals = {(kind.group, kind.plural): kind.name for kind in KINDS.values()}
    answer = lab.run("rbac", *flags)
    assert answer.code == 0, answer.err
    (role,) = [
        one
        for one in yaml.safe_load_all(answer.out)
        if one and one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"].startswith(account)
    ]
    return {
        (verb, plurals.get((rule["apiGroups"][0], resource), resource))
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(request: Seen) -> set[tuple[str, str]]:
    """The rights that a request needs, the survey of a namespace left out; an apply may create."""
    path, _, query = request.path.partition("?")
    parts = path.split("/")
    plurals = {kind.plural: kind.name for kind in KINDS.values()}
    place = next((n for n in (len(parts) - 1, len(parts) - 2) if parts[n] in plurals), 0)
    if not place or "PartialObject" in request.accept:
        return set()
    kind, named = plurals[parts[place]], place == len(parts) - 2
    if request.method == "GET":
        verb = "get" if named else "watch" if "watch=true" in query else "list"
        return {(verb, kind)}
    verbs = {"PATCH": ("patch", "create"), "POST": ("create",), "PUT": ("update",), "DELETE": ("delete",)}
    return {(verb, kind) for verb in verbs[request.method]}


def account_kubeconfig(lab: Lab, folder: Path, account: str, *flags: str) -> Path:
    """Apply what `nimlab rbac` prints, and return the account's kubeconfig."""
    rendered = folder / "rbac.yaml"
    rendered.write_text(lab.run("rbac", *flags).out, encoding="utf-8")
    lab.kubectl("apply", "-f", str(rendered))
    config = json.loads(lab.kubectl("config", "view", "--raw", "-o", "json"))
    token = lab.kubectl("create", "token", account).strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / f"{account}-kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def everyday(lab: Lab, through: Lab) -> None:
    """Create, wait in vain, mend, restart, repair and prune: every kind and every request of a sync."""
    for name, text in MORE.items():
        (lab.root / "templates" / "experiment" / f"{name}.yaml.j2").write_text(text, encoding="utf-8")
    stuck = through.run("sync", "--timeout", "4s")
    assert stuck.code == 4, stuck.out + stuck.err
    template = lab.root / "templates" / "experiment" / "quota.yaml.j2"
    template.write_text(MORE["quota"].replace('"6"', '"30"'), encoding="utf-8")
    lab.edit("purple", "interval: 2000ms", "interval: 500ms")
    done = through.run("sync", "--timeout", "90s")
    assert done.code == 0, done.out + done.err
    assert through.run("list").code == 0
    (lab.root / "experiments" / "blue.yaml").unlink()
    done = through.run("sync")
    assert done.code == 0, done.out + done.err
    assert lab.names("StatefulSet") == ["nimp2p-exp-purple"]


def test_sync_account_can_sync_and_has_no_right_that_a_sync_does_not_use(lab: Lab, tmp_path: Path) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync")
    with run_proxy(kubeconfig, tmp_path) as proxy:
        everyday(lab, replace(lab, kubeconfig=proxy.kubeconfig))
        used = {right for request in proxy.seen for right in asked(request)}
    rights = granted(lab, "nimlab-sync")
    assert rights - used == set()
    assert {kind for _, kind in used - rights} == {"Namespace"}, "only the lab's own is asked for in vain"


def test_plan_account_can_plan_and_has_no_right_that_a_plan_does_not_use(lab: Lab, tmp_path: Path) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-plan")
    for name, text in MORE.items():
        (lab.root / "templates" / "experiment" / f"{name}.yaml.j2").write_text(text, encoding="utf-8")
    with run_proxy(kubeconfig, tmp_path) as proxy:
        reader = replace(lab, kubeconfig=proxy.kubeconfig)
        assert reader.run("sync", "--dry-run", "--exit-code").code == 3
        assert lab.run("sync", "--no-wait").code == 0
        assert reader.run("sync", "--dry-run", "--exit-code").code == 0
        used = {right for request in proxy.seen for right in asked(request)}
        assert {verb for verb, _ in used} == {"get", "list"}
        rights = granted(lab, "nimlab-plan")
        assert rights - used == set()
        assert reader.run("sync", "--no-wait").code == 0, "in sync: nothing to write"
        lab.kubectl("delete", "configmap", "nimp2p-exp-blue-spec")
        refused = reader.run("sync")
        assert refused.code == 1
        assert "forbidden" in refused.err + refused.out


@pytest.fixture
def go(lab: Lab) -> Iterator[str]:
    """An experiment with a namespace of its own, unlike any other test's."""
    name = f"go-{secrets.token_hex(3)}"
    head = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
    lab.write(name, head + "spec: {contract: dst-go, peers: 3}\n")
    yield name
    remove_namespaces(lab.cluster, [f"nimp2p-exp-{name}"])
    for kind in ("clusterrole", "clusterrolebinding"):
        for account in ("nimlab-plan", "nimlab-sync"):
            lab.kubectl("delete", kind, f"{account}-{lab.namespace}", "--ignore-not-found")


def test_accounts_for_namespaces_of_their_own_leave_what_they_cannot_see_whole(
    lab: Lab, tmp_path: Path, go: str
) -> None:
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-sync", "--namespaces")
    writer = replace(lab, kubeconfig=kubeconfig)
    done = writer.run("sync")
    assert done.code == 0, done.out + done.err
    (lab.root / "experiments" / f"{go}.yaml").unlink()
    done = writer.run("sync")
    assert done.code == 0, done.out + done.err
    assert "don't show all that is in it" in done.out
    assert lab.get("StatefulSet", "pod", f"nimp2p-exp-{go}") is None
    assert lab.get("Namespace", f"nimp2p-exp-{go}", "") is not None
    done = lab.run("sync")
    assert done.code == 0, done.out + done.err
    assert lab.get("Namespace", f"nimp2p-exp-{go}", "") is None


def test_rights_are_namespaced_unless_asked_otherwise(lab: Lab) -> None:
    def kinds(*flags: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for one in yaml.safe_load_all(lab.run("rbac", *flags).out):
            if one:
                found.setdefault(one["kind"], set()).add(key_of(one).namespace)
        return found

    narrow, wide = kinds(), kinds("--namespaces")
    assert set(narrow) == {"Namespace", "ServiceAccount", "Secret", "Role", "RoleBinding"}
    assert narrow["Role"] == {lab.namespace}
    assert set(wide) == {"Namespace", "ServiceAccount", "Secret", "ClusterRole", "ClusterRoleBinding"}
    forbidden: Any = {"*", "secrets", "roles", "rolebindings"}
    for flags in ((), ("--namespaces",)):
        for one in yaml.safe_load_all(lab.run("rbac", *flags).out):
            for rule in (one or {}).get("rules", ()):
                assert not forbidden & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
