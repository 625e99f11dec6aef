"""The accounts of one apply-set cannot write objects of the other: a real API server rejects each attempt.

The server rejects some attempts because the account lacks the right, and the other attempts because of the
policies of `nimlab rbac`. Every rule of the policies must reject at least one attempt.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nimlab.access.pipeline_roles import access_manifests
from nimlab.cluster.kube import Target, connect
from nimlab.errors import Forbidden, NimlabError, Rejected
from nimlab.files.load import load_lab
from nimlab.objects.applyset import EXPERIMENTS, PLATFORM, ApplySet
from nimlab.render.render_platform import load_platform_templates, render_platform
from tests.access.test_pipeline_roles import account_kubeconfig, remove_rights
from tests.support.attacks import (
    GRANT,
    ON_EXPERIMENTS,
    ON_PLATFORM,
    RIGHT,
    WITH_DISCOVERY,
    WITH_NAMESPACES,
    Attack,
    AttackTarget,
    create_peers,
    create_pods,
)
from tests.support.lab import Lab, remove_namespaces
from tests.support.paths import SAMPLE_LAB


@pytest.fixture(params=[False, True], ids=["labels", "namespaces"])
def both(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, AttackTarget]]:
    """Yield one AttackTarget per apply-set. Each account has synced its own apply-set."""
    own_namespaces: bool = request.param
    flags = ("--namespaces",) if own_namespaces else ()
    name = f"go-{secrets.token_hex(3)}"
    if own_namespaces:
        head = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
        lab.write(name, head + "spec: {contract: dst-go, peers: 3}\n")
    config = lab.root / "lab.yaml"
    text = config.read_text(encoding="utf-8").replace("cadvisor: daemonset", "cadvisor: kubelet")
    config.write_text(text.replace("{retention: 720h}", "{retention: 720h, storage: 1Gi}"), encoding="utf-8")
    rendered = [*yaml.safe_load_all(lab.run("render").out)]
    files = load_lab(lab.root)
    rendered += render_platform(load_platform_templates(lab.root), files)
    rendered.sort(
        key=lambda m: bool(m["metadata"].get("namespace") == lab.namespace)
    )  # if names are equal, the dict below keeps the last object
    manifests = {(m["kind"], m["metadata"]["name"]): m for m in rendered}
    targets = {}
    with ExitStack() as stack:
        stack.callback(remove_rights, lab)
        stack.callback(remove_namespaces, lab.cluster, [f"nimp2p-exp-{name}"])
        for apply_set, account, more in (
            (EXPERIMENTS, "nimlab-sync", ()),
            (PLATFORM, "nimlab-sync-platform", ("--platform",)),
        ):
            kubeconfig = account_kubeconfig(lab, tmp_path, account, *more, *flags)
            writer = replace(lab, kubeconfig=kubeconfig)
            sets = ("platform",) if apply_set == PLATFORM else ()
            for _ in range(2):
                done = writer.run("sync", *sets, "--no-wait")
                assert done.code == 0, done.out + done.err
            assert "0 created, 0 updated, 0 pruned" in done.out
            target = Target(kubeconfig=kubeconfig, context=None, name="sandbox", why="a test")
            connected = stack.enter_context(closing(connect(target, parallel=1)))
            targets[apply_set] = AttackTarget(lab, connected, manifests, f"nimp2p-exp-{name}")
        yield targets


def refusals(target: AttackTarget, attacks: Mapping[str, tuple[Attack, str]]) -> set[str]:
    """Try every attack and return the server's messages; fail after a success or a wrong message."""
    refused, wrong = set(), []
    for name, (attack, words) in attacks.items():
        try:
            attack(target)
        except (Forbidden, Rejected) as error:
            refused.add(error.what)
            is_policy = "ValidatingAdmissionPolicy" in error.what
            has_right_type = isinstance(error, Rejected) is is_policy
            if words not in error.what or is_policy is (words in (RIGHT, GRANT)) or not has_right_type:
                wrong.append(f"{name}: {error.what}")
        else:
            wrong.append(f"{name}: not refused")
    assert wrong == []
    return refused


def rules_of(lab: Lab, *flags: str) -> set[str]:
    """Return the messages of all rules in a policy."""
    (policy,) = (
        manifest
        for manifest in yaml.safe_load_all(lab.run("rbac", *flags).out)
        if manifest and manifest["kind"] == "ValidatingAdmissionPolicy"
    )
    return {rule["message"] for rule in policy["spec"]["validations"]}


@pytest.mark.live
@pytest.mark.timeout(600)
def test_each_account_can_sync_its_own_set_but_not_write_the_other(both: dict[str, AttackTarget]) -> None:
    lab = both[EXPERIMENTS].lab
    own_namespaces = ("StatefulSet", "pod") in both[EXPERIMENTS].manifests
    flags = ("--namespaces",) if own_namespaces else ()
    before = {kind: lab.names(kind) for kind in ("ConfigMap", "Service", "Deployment", "StatefulSet", "Role")}
    for apply_set, attacks, more, options in (
        (EXPERIMENTS, ON_PLATFORM, WITH_NAMESPACES, ()),
        (PLATFORM, ON_EXPERIMENTS, WITH_DISCOVERY, ("--platform",)),
    ):
        target = both[apply_set]
        refused = refusals(target, {**attacks, **(more if own_namespaces else {})})
        unused = {
            rule for rule in rules_of(lab, *options, *flags) if not any(rule[:60] in text for text in refused)
        }
        expected = {rule for rule in unused if "may not write quotas" in rule and not own_namespaces}
        assert unused == expected, "each of these rules must reject an attempt"
    create_peers(lambda _: None)(both[EXPERIMENTS])
    create_pods(lambda _: None)(both[PLATFORM])
    create_pods(lambda _: None, "DaemonSet", "lab-log-agent")(both[PLATFORM])
    assert before == {kind: lab.names(kind) for kind in before}


@pytest.mark.parametrize("prefix", ["lab-", "lab-x-", "kube-", "nimlab-"])
def test_prefix_that_allows_name_clashes_is_rejected(prefix: str) -> None:
    apply_set = ApplySet(name=EXPERIMENTS, namespace="dst-lab")
    with pytest.raises(NimlabError, match=re.escape(f"`{prefix}`")) as caught:
        access_manifests(apply_set, prefix=prefix, own_namespaces=False)
    assert "spec.prefix" in str(caught.value)
    assert access_manifests(apply_set, prefix="nimlab-x-", own_namespaces=False)


@pytest.mark.parametrize("own_namespaces", [False, True])
@pytest.mark.parametrize("name", [EXPERIMENTS, PLATFORM])
def test_policy_covers_every_kind_that_its_account_may_write(name: str, own_namespaces: bool) -> None:
    apply_set = ApplySet(name=name, namespace="dst-lab")
    manifests = access_manifests(apply_set, prefix="nimp2p-exp-", own_namespaces=own_namespaces)
    (policy,) = (manifest for manifest in manifests if manifest["kind"] == "ValidatingAdmissionPolicy")
    covered = {
        (rule["apiGroups"][0], resource)
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for resource in rule["resources"]
    }
    written = {
        (rule["apiGroups"][0], resource)
        for manifest in manifests
        for rule in manifest.get("rules", ())
        for resource in rule["resources"]
        if not {"create", "patch", "update", "delete"}.isdisjoint(rule["verbs"])
    }
    assert covered == written
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds.index("ValidatingAdmissionPolicyBinding") < kinds.index("RoleBinding"), "policies come first"


def test_names_in_the_rights_equal_the_rendered_names() -> None:
    files = load_lab(SAMPLE_LAB, {})
    kubelet = replace(files, lab=replace(files.lab, platform=replace(files.lab.platform, cadvisor="kubelet")))
    rendered = render_platform(load_platform_templates(SAMPLE_LAB), kubelet)
    apply_set = ApplySet(name=PLATFORM, namespace=files.lab.namespace)
    manifests = access_manifests(apply_set, prefix=files.lab.prefix, own_namespaces=True)
    named = {
        name
        for manifest in manifests
        for rule in manifest.get("rules", ())
        for name in rule.get("resourceNames", ())
    }
    granted = {m["metadata"]["name"] for m in rendered if m["kind"].endswith(("Role", "RoleBinding"))}
    assert named == {*granted, apply_set.lease_key.name}
