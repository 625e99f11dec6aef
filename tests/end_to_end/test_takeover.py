"""Takeover of objects that other tools created; foreign fields are reported, and removed on request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nimlab.objects.manifest import Manifest
from nimlab.objects.takeover import takeover_of, takeover_patch
from tests.objects.test_managed_fields import DESIRED, OWNED
from tests.support.lab import Lab


def live(*entries: dict[str, Any], **spec: Any) -> Manifest:
    """Return `DESIRED` as a live object with these managedFields and these fields in the pod spec."""
    live: Manifest = json.loads(json.dumps(DESIRED))
    live["metadata"] |= {"resourceVersion": "7", "managedFields": list(entries)}
    live["spec"]["template"]["spec"] |= spec
    return live


def entry(manager: str, operation: str = "Update", fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a managedFields entry; `fields` are fields of the pod spec, and are ignored for nimlab."""
    owned = OWNED if manager == "nimlab" else {"f:spec": {"f:template": {"f:spec": fields or {}}}}
    return {"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsV1": owned}


OURS = entry("nimlab", "Apply")
NODE: dict[str, Any] = {"f:nodeSelector": {".": {}, "f:disk": {}}}


def test_object_that_only_nimlab_wrote_needs_no_takeover() -> None:
    assert takeover_of(DESIRED, live(OURS), remove_foreign=True) is None


@pytest.mark.parametrize("manager", ["kubectl-client-side-apply", "kubectl-create", "k9s"])
def test_fields_of_manual_tools_are_taken_over_before_the_first_apply(manager: str) -> None:
    by_hand = live(entry(manager, fields=NODE), nodeSelector={"disk": "ssd"})
    takeover = takeover_of(DESIRED, by_hand, remove_foreign=False)
    assert takeover is not None
    assert takeover.managers == (manager,)
    assert [foreign.text for foreign in takeover.removed] == ["spec.template.spec.nodeSelector.disk"]


def test_later_manual_additions_are_kept_unless_removal_is_requested() -> None:
    added = live(OURS, entry("kubectl-edit", fields=NODE), nodeSelector={"disk": "ssd"})
    assert takeover_of(DESIRED, added, remove_foreign=False) is None
    takeover = takeover_of(DESIRED, added, remove_foreign=True)
    assert takeover is not None
    assert takeover.managers == ()
    assert takeover_patch(takeover, added) == [
        {"op": "remove", "path": "/spec/template/spec/nodeSelector/disk"}
    ]


def test_field_removed_from_git_is_removed_despite_a_co_owner() -> None:
    shared = {"f:spec": {"f:template": {"f:spec": NODE}}}
    held = live(
        {**OURS, "fieldsV1": shared}, entry("kubectl-edit", fields=NODE), nodeSelector={"disk": "ssd"}
    )
    assert takeover_of(DESIRED, held, remove_foreign=False) is None
    takeover = takeover_of(DESIRED, held, remove_foreign=True)
    assert takeover is not None
    assert [foreign.manager for foreign in takeover.removed] == ["kubectl-edit"]


def test_empty_field_that_the_server_restores_is_not_foreign() -> None:
    empty: dict[str, Any] = {"f:securityContext": {}}
    kept = live(OURS, entry("kubectl-edit", fields=empty), securityContext={})
    assert takeover_of(DESIRED, kept, remove_foreign=True) is None


def test_controllers_and_subresources_are_never_taken_over() -> None:
    scaled = {**entry("kubectl"), "subresource": "scale"}
    for other in (entry("hpa-controller"), entry("kubectl", "Apply"), scaled):
        assert takeover_of(DESIRED, live(other), remove_foreign=False) is None


def test_entry_before_first_apply_is_taken_over_although_nimlab_has_an_entry() -> None:
    wiped = live(OURS, entry("before-first-apply", fields=NODE))
    takeover = takeover_of(DESIRED, wiped, remove_foreign=False)
    assert takeover is not None
    *_, patch = takeover_patch(takeover, wiped)
    (ours,) = patch["value"]
    assert (ours["manager"], ours["operation"]) == ("nimlab", "Apply")
    pod = ours["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
    assert pod["f:nodeSelector"] == NODE["f:nodeSelector"]
    assert pod["f:initContainers"] == OWNED["f:spec"]["f:template"]["f:spec"]["f:initContainers"]


def test_takeover_keeps_entries_of_other_managers() -> None:
    mixed = live(entry("kubectl-create"), entry("hpa-controller"))
    takeover = takeover_of(DESIRED, mixed, remove_foreign=False)
    assert takeover is not None
    *_, patch = takeover_patch(takeover, mixed)
    assert [entry["manager"] for entry in patch["value"]] == ["hpa-controller", "nimlab"]


def test_items_are_removed_from_the_end_and_missing_items_are_skipped() -> None:
    names = [f"x{number}" for number in range(12)]
    keys: dict[str, Any] = {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}} for name in names}
    added = live(OURS, entry("istio", fields={"f:initContainers": keys}))
    containers = added["spec"]["template"]["spec"]["initContainers"]
    containers[1:1] = [{"name": name} for name in names]
    takeover = takeover_of(DESIRED, added, remove_foreign=True)
    assert takeover is not None
    del containers[5]
    places = [part["path"].rpartition("/")[2] for part in takeover_patch(takeover, added)]
    assert places == [str(number) for number in range(11, 0, -1)]


def test_names_with_slashes_and_tildes_are_escaped_in_the_patch() -> None:
    odd = live(OURS, entry("istio", fields={"f:nodeSelector": {"f:a/b~c": {}}}), nodeSelector={"a/b~c": "x"})
    takeover = takeover_of(DESIRED, odd, remove_foreign=True)
    assert takeover is not None
    assert takeover_patch(takeover, odd)[-1]["path"] == "/spec/template/spec/nodeSelector/a~1b~0c"


def synced(lab: Lab, *arguments: str) -> str:
    """Sync and require success."""
    answer = lab.run("sync", *arguments)
    assert answer.code == 0, answer.out + answer.err
    return answer.out


def await_observed(lab: Lab) -> None:
    """Wait until the controller has observed the last change of blue's StatefulSet."""
    live = lab.get("StatefulSet", "nimp2p-exp-blue")
    assert live is not None
    seen = f"jsonpath={{.status.observedGeneration}}={live['metadata']['generation']}"
    lab.kubectl("wait", "statefulset/nimp2p-exp-blue", f"--for={seen}", "--timeout=30s")


def managers(live: Manifest | None) -> set[tuple[str, str]]:
    """Return the managers of an object, except controllers."""
    assert live is not None
    return {
        (e["manager"], e["operation"])
        for e in live["metadata"]["managedFields"]
        if e["manager"] not in ("kube-controller-manager", "kwok")
    }


@pytest.mark.live
@pytest.mark.parametrize("verb", ["apply", "create"])
def test_object_created_by_kubectl_loses_fields_removed_from_git(lab: Lab, verb: str) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    lab.edit("purple", "connectTo: 2", "connectTo: 3")
    rendered = lab.root / "rendered.yaml"
    rendered.write_text(lab.run("render").out, encoding="utf-8")
    lab.kubectl(verb, "-f", str(rendered))
    dry = lab.run("sync", "--dry-run")
    assert "takes over the fields of `kubectl-" in dry.out
    assert dry.code == 0
    synced(lab)
    for kind in ("StatefulSet", "Service"):
        assert managers(lab.get(kind, "nimp2p-exp-purple")) == {("nimlab", "Apply")}
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    assert "enableServiceLinks: false" in text
    template.write_text(text.replace("      enableServiceLinks: false\n", ""), encoding="utf-8")
    synced(lab)
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["template"]["spec"].get("enableServiceLinks", True) is True


@pytest.mark.live
def test_object_has_no_co_owner_after_take_ownership(lab: Lab) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    lab.kubectl("create", "configmap", "nimp2p-exp-blue-spec", "--from-literal=theirs=x")
    assert lab.run("sync").code == 1
    dry = lab.run("sync", "--dry-run", "--take-ownership", "--output", "json")
    (config,) = [o for o in json.loads(dry.out)["objects"] if o["name"] == "nimp2p-exp-blue-spec"]
    assert config["handover"]["managers"] == ["kubectl-create"]
    assert "data.theirs" in [change["path"] for change in config["changes"]]
    synced(lab, "--take-ownership")
    live = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert managers(live) == {("nimlab", "Apply")}
    assert live is not None
    assert "theirs" not in live["data"]


@pytest.mark.live
def test_fields_removed_from_git_are_removed_although_managed_fields_were_reset(lab: Lab) -> None:
    synced(lab)
    lab.kubectl("patch", "service", "nimp2p-exp-blue", "--type=json", "-p",
                '[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]')  # fmt: skip
    synced(lab)
    synced(lab)
    assert managers(lab.get("Service", "nimp2p-exp-blue")) == {("nimlab", "Apply")}
    template = lab.root / "templates" / "experiment" / "service.yaml.j2"
    text = template.read_text(encoding="utf-8")
    assert "publishNotReadyAddresses: true" in text
    template.write_text(text.replace("  publishNotReadyAddresses: true\n", ""), encoding="utf-8")
    synced(lab)
    live = lab.get("Service", "nimp2p-exp-blue")
    assert live is not None
    assert "publishNotReadyAddresses" not in live["spec"]


def uid_of(lab: Lab, number: int) -> str:
    """Return the UID of the pod of a blue peer."""
    pod = lab.get("Pod", f"nimp2p-exp-blue-{number}")
    assert pod is not None
    return str(pod["metadata"]["uid"])


ADDED = [
    {"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "sidecar", "image": "x:1"}},
    {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "DEBUG", "value": "1"}},
    {"op": "add", "path": "/spec/template/spec/nodeSelector", "value": {"kubernetes.io/os": "linux"}},
    {"op": "add", "path": "/spec/template/metadata/annotations", "value": {"restarted/at": "now"}},
]


@pytest.mark.live
def test_foreign_additions_are_reported_and_removed_on_request(lab: Lab) -> None:
    synced(lab)
    assert lab.run("sync", "--dry-run", "--strict").code == 0
    name = "statefulset/nimp2p-exp-blue"
    lab.kubectl("patch", name, "--type=json", "--field-manager=mesh-operator", "-p", json.dumps(ADDED))
    await_observed(lab)
    dry = lab.run("sync", "--dry-run", "--exit-code")
    assert dry.code == 0
    assert "mesh-operator" in dry.out
    assert "peers are not restarted" in dry.out
    assert lab.run("sync", "--dry-run", "--strict").code == 3
    others = [uid_of(lab, n) for n in (1, 2, 3)]
    assert lab.run("sync", "--strict").code == 3
    shown = lab.run("status", "blue", "--output", "json")
    foreign = [f for o in json.loads(shown.out)["objects"] for f in o["foreign"]]
    assert {f["manager"] for f in foreign} == {"mesh-operator"}
    assert "mesh-operator" in lab.run("status", "blue").out
    assert "drifted" in lab.run("list").out
    lab.kubectl("delete", "pod", "nimp2p-exp-blue-0")  # the new pod has the added fields
    lab.kubectl("wait", "--for=jsonpath={.status.updatedReplicas}=1", name)
    plan = json.loads(lab.run("sync", "--dry-run", "--remove-foreign", "--output", "json").out)
    (change,) = [o for o in plan["objects"] if o["action"] == "update"]
    assert change["restarts"] == 1
    assert change["foreign"] == []
    assert {f["path"] for f in change["handover"]["removed"]} == {f["path"] for f in foreign}
    out = synced(lab, "--remove-foreign", "--strict")
    assert "removes fields added by `mesh-operator`" in out
    live = lab.get("StatefulSet", "nimp2p-exp-blue")
    assert live is not None
    pod = live["spec"]["template"]["spec"]
    assert [c["name"] for c in pod["containers"]] == ["nimp2p"]
    assert "DEBUG" not in json.dumps(pod)
    assert not pod.get("nodeSelector")
    assert not live["spec"]["template"]["metadata"].get("annotations")
    assert lab.run("sync", "--dry-run", "--exit-code", "--strict").code == 0
    peer = lab.get("Pod", "nimp2p-exp-blue-0")
    assert peer is not None
    assert "sidecar" not in json.dumps(peer["spec"]["containers"])
    assert [uid_of(lab, n) for n in (1, 2, 3)] == others


@pytest.mark.live
def test_default_value_that_another_manager_owns_is_not_removed(lab: Lab) -> None:
    synced(lab)
    for policy in ("Delete", "Retain"):  # at the end, the other manager owns the field with its default value
        patch = json.dumps({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": policy}}})
        lab.kubectl(
            "patch",
            "statefulset/nimp2p-exp-blue",
            "--type=merge",
            "--field-manager=mesh-operator",
            "-p",
            patch,
        )
    await_observed(lab)
    assert "mesh-operator" in lab.run("sync", "--dry-run").out
    answer = lab.run("sync", "--dry-run", "--remove-foreign", "--exit-code")
    assert answer.code == 0, answer.out + answer.err


@pytest.mark.live
def test_strict_reports_labels_and_annotations_of_others(lab: Lab) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.kubectl("label", "service/nimp2p-exp-blue", "team=mesh", "--field-manager=mesh-operator")
    lab.kubectl("annotate", "configmap/nimp2p-exp-blue-spec", "mesh.io/seen=1")
    answer = lab.run("sync", "--dry-run", "--strict")
    assert answer.code == 3, answer.out + answer.err
    assert "metadata.labels.team added by `mesh-operator`" in answer.out
    assert "metadata.annotations[mesh.io/seen] added by `kubectl-annotate`" in answer.out
    assert lab.run("sync", "--remove-foreign").code == 0
    assert lab.run("sync", "--dry-run", "--strict", "--exit-code").code == 0
    service = lab.get("Service", "nimp2p-exp-blue")
    assert service is not None
    assert "team" not in service["metadata"]["labels"]


@pytest.mark.live
def test_strict_accepts_writes_of_controllers(lab: Lab) -> None:
    """Controllers add annotations to the Deployments and DaemonSets of the platform."""
    assert lab.run("sync", "platform", "--no-wait").code == 0
    answer = lab.run("sync", "platform", "--dry-run", "--strict")
    assert answer.code == 0, answer.out + answer.err


@pytest.mark.live
def test_addition_is_reported_despite_the_manager_name_nimlab(lab: Lab) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    for name, manager in (("blue", "kubelet"), ("purple", "nimlab")):
        which = f"statefulset/nimp2p-exp-{name}"
        lab.kubectl("set", "env", which, "-c", "nimp2p", "DEBUG=1", f"--field-manager={manager}")
    answer = lab.run("sync", "--dry-run", "--strict")
    assert answer.code == 3, answer.out + answer.err
    for manager in ("kubelet", "nimlab"):
        assert f"env[DEBUG] added by `{manager}`" in answer.out
    assert lab.run("sync", "--remove-foreign").code == 0
    assert lab.run("sync", "--dry-run", "--strict", "--exit-code").code == 0
