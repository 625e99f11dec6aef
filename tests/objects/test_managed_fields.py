"""Detection of unchanged objects and of foreign fields, with objects that a real server has returned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.objects.foreign_fields import BOOKKEEPING, foreign_fields
from nimlab.objects.managed_fields import own_entry, path_text
from nimlab.objects.manifest import Manifest
from nimlab.objects.unchanged_check import compare
from tests.support.paths import REPOSITORY

DESIRED: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "a", "namespace": "n", "labels": {"experiment": "red"}},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "paused": False,
        "template": {
            "spec": {
                "securityContext": {},
                "initContainers": [{"name": "one"}, {"name": "two"}],
                "containers": [
                    {
                        "name": "c",
                        "ports": [
                            {"containerPort": 1, "protocol": "TCP"},
                            {"containerPort": 1, "protocol": "UDP"},
                        ],
                    }
                ],
            }
        },
    },
}


def port(protocol: str) -> str:
    """Return the key that a port has in managedFields."""
    return f'k:{{"containerPort":1,"protocol":"{protocol}"}}'


OWNED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:experiment": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:paused": {},
        "f:template": {
            "f:spec": {
                "f:securityContext": {},
                "f:initContainers": {
                    'k:{"name":"one"}': {".": {}, "f:name": {}},
                    'k:{"name":"two"}': {".": {}, "f:name": {}},
                },
                "f:containers": {
                    'k:{"name":"c"}': {
                        ".": {},
                        "f:name": {},
                        "f:ports": {
                            port("TCP"): {".": {}, "f:containerPort": {}, "f:protocol": {}},
                            port("UDP"): {".": {}, "f:containerPort": {}, "f:protocol": {}},
                        },
                    }
                },
            }
        },
    },
}


def make_live() -> Any:
    """Return the object as the server stores it after an apply by nimlab, with its defaults."""
    live = copy.deepcopy(DESIRED)
    live["metadata"]["uid"] = "u"
    live["spec"]["revisionHistoryLimit"] = 10
    live["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    live["status"] = {"replicas": 0}
    entry = {"manager": "nimlab", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": OWNED}
    live["metadata"]["managedFields"] = [copy.deepcopy(entry)]
    return live


def pod(item: Any) -> Any:
    """Return the pod spec of an object."""
    return item["spec"]["template"]["spec"]


def owned(live: Any) -> Any:
    """Return the field tree of nimlab's entry."""
    return live["metadata"]["managedFields"][0]["fieldsV1"]


def test_applied_object_with_server_defaults_is_unchanged() -> None:
    assert compare(DESIRED, make_live()).unchanged


def with_pull_secrets(live_item: Any, owned_item: Any) -> tuple[Any, Any]:
    """Return a desired and a live object with a pull secret. `owned_item` is its part of the field tree."""
    desired, live = copy.deepcopy(DESIRED), make_live()
    pod(desired)["imagePullSecrets"] = [{"name": "registry"}]
    pod(live)["imagePullSecrets"] = [live_item]
    pod_owned(live)["f:imagePullSecrets"] = {'k:{"name":"registry"}': owned_item}
    return desired, live


def test_item_that_is_owned_as_a_whole_is_compared_as_a_whole() -> None:
    assert compare(*with_pull_secrets({"name": "registry"}, {})).unchanged
    assert not compare(*with_pull_secrets({"name": "registry", "more": 1}, {})).unchanged
    assert not compare(*with_pull_secrets({"name": "other"}, {})).unchanged
    assert not compare(*with_pull_secrets({"name": "registry"}, {"f:name": {}})).unchanged


SUSPECTS: dict[str, Callable[[Any, Any], object]] = {
    "terminating": lambda d, v: v["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    "no-entries": lambda d, v: v["metadata"].pop("managedFields"),
    "reset": lambda d, v: v["metadata"].update(managedFields=[{}]),
    "update-by-our-name": lambda d, v: v["metadata"]["managedFields"][0].update(operation="Update"),
    "our-subresource": lambda d, v: v["metadata"]["managedFields"][0].update(subresource="scale"),
    "two-entries": lambda d, v: v["metadata"]["managedFields"].append(v["metadata"]["managedFields"][0]),
    "other-version": lambda d, v: v["metadata"]["managedFields"][0].update(apiVersion="apps/v1beta1"),
    "value": lambda d, v: v["spec"].update(replicas=3),
    "zero-is-not-false": lambda d, v: v["spec"].update(replicas=False),
    "one-is-not-true": lambda d, v: (d["spec"].update(replicas=1), v["spec"].update(replicas=True)),
    "missing-value": lambda d, v: v["spec"].pop("replicas"),
    "desired-is-null": lambda d, v: (d["spec"].update(replicas=None), v["spec"].update(replicas=None)),
    "taken-by-scale": lambda d, v: owned(v)["f:spec"].pop("f:replicas"),
    "dropped-in-git": lambda d, v: d["spec"].pop("replicas"),
    "added-in-git": lambda d, v: (d["spec"].update(x=1), v["spec"].update(x=1)),
    "label-overwritten": lambda d, v: v["metadata"]["labels"].update(experiment="blue"),
    "atomic-map": lambda d, v: v["spec"]["selector"]["matchLabels"].update(c="d"),
    "former-empty-map": lambda d, v: (
        pod(d).update(securityContext={"runAsUser": 5}),
        pod(v).update(securityContext={"runAsUser": 5}),
    ),
    "init-order-in-git": lambda d, v: pod(d)["initContainers"].reverse(),
    "init-order-by-others": lambda d, v: pod(v)["initContainers"].reverse(),
    "port-order-by-others": lambda d, v: pod(v)["containers"][0]["ports"].reverse(),
    "item-missing": lambda d, v: pod(v)["initContainers"].pop(),
    "item-dropped-in-git": lambda d, v: pod(d)["initContainers"].pop(),
    "item-added-in-git": lambda d, v: pod(d)["initContainers"].append({"name": "three"}),
    "duplicate-in-live": lambda d, v: pod(v)["initContainers"].append({"name": "one"}),
    "duplicate-in-git": lambda d, v: pod(d)["initContainers"].append({"name": "one"}),
    "item-itself-not-owned": lambda d, v: pod_owned(v)["f:initContainers"]['k:{"name":"one"}'].pop("."),
    "dot-beside-fields": lambda d, v: pod_owned(v).update({".": {}}),
    "index-paths": lambda d, v: owned(v)["f:spec"].update({"f:replicas": {"i:0": {}}}),
    "parts-of-a-text": lambda d, v: (
        d["spec"].update(x="y"),
        v["spec"].update(x="y"),
        owned(v)["f:spec"].update({"f:x": {"f:part": {}}}),
    ),
    "key-of-another-type": lambda d, v: [
        port.update(containerPort=True)
        for manifest in (d, v)
        for port in pod(manifest)["containers"][0]["ports"]
    ],
    "map-became-text": lambda d, v: v["spec"].update(template="x"),
    "broken-key": lambda d, v: pod_owned(v)["f:initContainers"].update({"k:not json": {".": {}}}),
    "no-fields": lambda d, v: v["metadata"]["managedFields"][0].pop("fieldsV1"),
}


def pod_owned(live: Any) -> Any:
    """Return the part of nimlab's field tree for the pod spec."""
    return owned(live)["f:spec"]["f:template"]["f:spec"]


@pytest.mark.parametrize("name", sorted(SUSPECTS))
def test_changed_object_is_suspect(name: str) -> None:
    desired, live = copy.deepcopy(DESIRED), make_live()
    SUSPECTS[name](desired, live)
    verdict = compare(desired, live)
    assert not verdict.unchanged
    assert verdict.reason


def test_foreign_items_and_other_owners_do_not_make_an_object_suspect() -> None:
    live = make_live()
    pod(live)["initContainers"].insert(1, {"name": "foreign"})
    live["metadata"]["labels"]["team"] = "x"
    other = {"manager": "other", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": OWNED}
    live["metadata"]["managedFields"].append(other)
    assert compare(DESIRED, live).unchanged


def test_sets_are_compared_including_their_order() -> None:
    desired: Manifest = {"apiVersion": "v1", "metadata": {"name": "a", "finalizers": ["x/1", "x/2"]}}
    fields: dict[str, Any] = {"f:metadata": {"f:finalizers": {'v:"x/1"': {}, 'v:"x/2"': {}}}}
    entry = {"manager": "nimlab", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields}
    metadata = {"managedFields": [entry], "finalizers": ["x/1", "foreign", "x/2"]}
    assert compare(desired, {"metadata": metadata}).unchanged
    for wrong in (["x/2", "x/1"], ["x/1"], ["x/1", "x/1", "x/2"]):
        assert not compare(desired, {"metadata": {**metadata, "finalizers": wrong}}).unchanged


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(ANY_JSON)
def test_malformed_managed_fields_raise_no_error(value: Any) -> None:
    live = make_live()
    live["metadata"]["managedFields"][0]["fieldsV1"] = value
    compare(DESIRED, live)
    live = make_live()
    live["spec"] = value
    assert not compare(DESIRED, live).unchanged


def with_foreign(fields: dict[str, Any], manager: str = "kubectl-edit", **entry: Any) -> Any:
    """Return a live object with an entry of another manager."""
    live = make_live()
    live["metadata"]["managedFields"].append(
        {"manager": manager, "operation": "Update", "apiVersion": "apps/v1", "fieldsV1": fields, **entry}
    )
    return live


def test_foreign_additions_are_reported_at_their_topmost_path() -> None:
    theirs = {
        "f:containers": {
            'k:{"name":"c"}': {"f:env": {'k:{"name":"DEBUG"}': {".": {}, "f:name": {}, "f:value": {}}}},
            'k:{"name":"side"}': {".": {}, "f:name": {}, "f:image": {}},
        },
        "f:nodeSelector": {},
    }
    live = with_foreign({"f:spec": {"f:template": {"f:spec": theirs}}})
    pod(live)["containers"][0]["env"] = [{"name": "DEBUG", "value": "1"}]
    pod(live)["containers"].append({"name": "side", "image": "x"})
    pod(live)["nodeSelector"] = {"a": "b"}
    foreign = foreign_fields(DESIRED, live)
    assert [(f.text, f.manager) for f in foreign] == [
        ("spec.template.spec.containers[c].env[DEBUG]", "kubectl-edit"),
        ("spec.template.spec.containers[side]", "kubectl-edit"),
        ("spec.template.spec.nodeSelector", "kubectl-edit"),
    ]


@pytest.mark.parametrize(
    "live",
    [
        with_foreign({"f:spec": {"f:replicas": {}}}),  # a desired field that another manager owns is drift
        with_foreign({"f:metadata": {"f:labels": {"f:team": {}}}}),
        with_foreign({"f:status": {"f:replicas": {}}}),
        with_foreign({"f:spec": {"f:revisionHistoryLimit": {}}}, manager="kube-controller-manager"),
        with_foreign({"f:spec": {"f:revisionHistoryLimit": {}}}, subresource="scale"),
        with_foreign({"f:spec": {"f:gone": {}}}),
    ],
)
def test_fields_that_are_not_foreign(live: Any) -> None:
    assert foreign_fields(DESIRED, live) == ()


ADDED: dict[str, Any] = {'k:{"name":"DEBUG"}': {".": {}, "f:name": {}, "f:value": {}}}


@pytest.mark.parametrize("manager", ["kubelet", "kube-controller-manager", "nimlab", "k3s"])
def test_additions_to_templates_and_data_are_foreign_for_any_manager(manager: str) -> None:
    container: dict[str, Any] = {
        'k:{"name":"c"}': {"f:env": ADDED, "f:resources": {"f:limits": {"f:cpu": {}}}}
    }
    theirs = {"f:template": {"f:spec": {"f:containers": container, "f:dnsPolicy": {}}}}
    live = with_foreign({"f:spec": theirs, "f:data": {"f:a": {}}}, manager=manager)
    pod(live)["containers"][0] |= {"env": [{"name": "DEBUG"}], "resources": {"limits": {"cpu": "1"}}}
    pod(live)["dnsPolicy"] = "None"
    live["data"] = {"a": "b"}
    assert [f.text for f in foreign_fields(DESIRED, live)] == [
        "data.a",
        "spec.template.spec.containers[c].env[DEBUG]",
        "spec.template.spec.containers[c].resources.limits.cpu",
        "spec.template.spec.dnsPolicy",
    ]


def test_default_after_the_removal_of_a_field_is_not_foreign() -> None:
    container: dict[str, Any] = {
        'k:{"name":"c"}': {"f:resources": {"f:requests": {"f:cpu": {}}}, "f:imagePullPolicy": {}}
    }
    filled = {"f:spec": {"f:containers": container, "f:dnsPolicy": {}}}
    live = with_foreign({"f:spec": {"f:template": filled, "f:revisionHistoryLimit": {}}}, manager="nimlab")
    pod(live)["containers"][0] |= {"resources": {"requests": {"cpu": "1"}}, "imagePullPolicy": "Always"}
    assert foreign_fields(DESIRED, live) == ()


@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize("manager", ["kubectl-label", "mesh-operator", "kubelet", "nimlab"])
def test_labels_and_annotations_of_other_managers_are_foreign(part: str, manager: str) -> None:
    live = with_foreign({"f:metadata": {f"f:{part}": {"f:mesh.io/team": {}}}}, manager=manager)
    live["metadata"].setdefault(part, {})["mesh.io/team"] = "a"
    (foreign,) = foreign_fields(DESIRED, live)
    assert (foreign.manager, foreign.text) == (manager, f"metadata.{part}[mesh.io/team]")
    assert not foreign.in_template


@pytest.mark.parametrize("key", sorted(BOOKKEEPING))
def test_bookkeeping_of_kubernetes_is_documented_and_not_foreign(key: str) -> None:
    live = with_foreign({"f:metadata": {"f:annotations": {f"f:{key}": {}}}}, manager="kubectl")
    live["metadata"].setdefault("annotations", {})[key] = "1"
    assert foreign_fields(DESIRED, live) == ()
    assert f"`{key}`" in (REPOSITORY / "docs" / "foreign.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", sorted(BOOKKEEPING))
def test_bookkeeping_in_a_template_is_foreign(key: str) -> None:
    theirs: dict[str, Any] = {"f:metadata": {"f:annotations": {f"f:{key}": {}}}}
    live = with_foreign({"f:spec": {"f:template": theirs}})
    live["spec"]["template"].setdefault("metadata", {}).setdefault("annotations", {})[key] = "1"
    (foreign,) = foreign_fields(DESIRED, live)
    assert foreign.in_template


def test_restart_annotation_counts_as_foreign() -> None:
    name = "kubectl.kubernetes.io/restartedAt"
    live = with_foreign({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {f"f:{name}": {}}}}}})
    live["spec"]["template"]["metadata"] = {"annotations": {name: "now"}}
    (foreign,) = foreign_fields(DESIRED, live)
    assert foreign.text == f"spec.template.metadata.annotations[{name}]"
    assert foreign.manager == "kubectl-edit"


def test_paths_have_a_readable_form() -> None:
    path = ("f:spec", "f:a.b/c", port("UDP"), 'v:"x"')
    assert path_text(path) == 'spec[a.b/c][1,UDP]["x"]'


def test_own_entry_requires_exactly_one_apply_entry_of_nimlab() -> None:
    live = make_live()
    assert own_entry(live) == OWNED
    live["metadata"]["managedFields"] = []
    assert own_entry(live) is None
