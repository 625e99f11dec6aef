"""Field changes between two objects: keyed lists by key, no server-set fields, no secrets."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.objects.manifest import Manifest
from nimlab.plan.diff import ABSENT, FieldChange, diff_desired, diff_objects

STATEFULSET: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "nimp2p-exp-purple", "labels": {"app.kubernetes.io/name": "nimp2p", "team": "dst"}},
    "spec": {
        "replicas": 5,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "nimp2p",
                        "args": ["--fast", "--loud"],
                        "env": [{"name": "PEERS", "value": "5"}, {"name": "MSGRATE", "value": "2000"}],
                        "ports": [
                            {"containerPort": 5000, "name": "p2p-tcp", "protocol": "TCP"},
                            {"containerPort": 5000, "name": "p2p-udp", "protocol": "UDP"},
                        ],
                        "resources": {"limits": {"cpu": "50m", "memory": "16Mi"}},
                        "volumeMounts": [{"mountPath": "/data", "name": "data"}],
                    },
                    {"name": "rtt", "image": "rtt:1"},
                ],
            }
        },
    },
}  # fmt: skip
POD = "spec.template.spec"
PEER = f"{POD}.containers[nimp2p]"


def edited() -> tuple[Manifest, Any]:
    """Return a copy of the StatefulSet and its peer container."""
    new = copy.deepcopy(STATEFULSET)
    return new, new["spec"]["template"]["spec"]["containers"][0]


def shown(changes: tuple[FieldChange, ...]) -> list[tuple[str, Any, Any]]:
    return [(change.path, change.old, change.new) for change in changes]


def config(data: Any, **metadata: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}, "data": data}


def test_equal_objects_have_no_changes() -> None:
    assert diff_objects(STATEFULSET, copy.deepcopy(STATEFULSET)) == ()


def test_scaling_shows_replicas_and_the_env_value_at_the_path_of_its_item() -> None:
    new, peer = edited()
    new["spec"]["replicas"] = 7
    peer["env"][0]["value"] = "7"
    assert shown(diff_objects(STATEFULSET, new)) == [
        ("spec.replicas", 5, 7),
        (f"{PEER}.env[PEERS]", "5", "7"),
    ]


def test_env_item_with_another_source_is_shown_field_by_field() -> None:
    new, peer = edited()
    peer["env"][0] = {"name": "PEERS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{PEER}.env[PEERS].value", "5", ABSENT),
        (f"{PEER}.env[PEERS].valueFrom.fieldRef.fieldPath", ABSENT, "metadata.name"),
    ]


def test_env_items_added_and_removed_show_their_values() -> None:
    new, peer = edited()
    peer["env"] = [{"name": "MSGRATE", "value": "2000"}, {"name": "DEBUG", "value": "1"}]
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{PEER}.env[DEBUG]", ABSENT, "1"),
        (f"{PEER}.env[PEERS]", "5", ABSENT),
    ]


def test_pure_reordering_of_a_keyed_list_is_one_change() -> None:
    new, _ = edited()
    new["spec"]["template"]["spec"]["containers"].reverse()
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{POD}.containers order", ["nimp2p", "rtt"], ["rtt", "nimp2p"])
    ]


def test_reordering_is_shown_in_addition_to_an_added_item() -> None:
    new, peer = edited()
    peer["env"] = [{"name": "NEW", "value": "1"}, *reversed(peer["env"])]
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{PEER}.env order", ["PEERS", "MSGRATE"], ["NEW", "MSGRATE", "PEERS"]),
        (f"{PEER}.env[NEW]", ABSENT, "1"),
    ]


def test_ports_differ_by_protocol_with_tcp_as_the_default() -> None:
    new, peer = edited()
    del peer["ports"][0]["protocol"]
    peer["ports"][1]["name"] = "quic"
    changes = shown(diff_objects(STATEFULSET, new))
    assert (f"{PEER}.ports[5000/UDP].name", "p2p-udp", "quic") in changes
    assert (f"{PEER}.ports[5000/TCP].protocol", "TCP", ABSENT) in changes


def test_service_ports_and_mounts_are_compared_by_key() -> None:
    service: Manifest = {"kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": 80}]}}
    other: Manifest = {"kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": 81}]}}
    assert shown(diff_objects(service, other)) == [("spec.ports[80/TCP].targetPort", 80, 81)]
    new, peer = edited()
    peer["volumeMounts"][0]["readOnly"] = True
    assert shown(diff_objects(STATEFULSET, new)) == [(f"{PEER}.volumeMounts[/data].readOnly", ABSENT, True)]


def test_added_container_is_one_change_and_added_map_one_per_field() -> None:
    new, peer = edited()
    new["spec"]["template"]["spec"]["containers"].append(
        {"name": "log", "ports": [{"containerPort": 1, "protocol": "TCP"}]}
    )
    peer["securityContext"] = {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}
    assert shown(diff_objects(STATEFULSET, new)) == [
        (
            f"{POD}.containers[log]",
            ABSENT,
            {"name": "log", "ports": [{"containerPort": 1, "protocol": "TCP"}]},
        ),
        (f"{PEER}.securityContext.capabilities.drop", ABSENT, ["ALL"]),
        (f"{PEER}.securityContext.runAsUser", ABSENT, 1000),
    ]


def test_added_list_is_shown_by_its_items_without_an_order() -> None:
    new, _ = edited()
    new["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{POD}.volumes[data]", ABSENT, {"name": "data", "emptyDir": {}})
    ]


def test_list_of_plain_values_is_shown_as_a_whole() -> None:
    new, peer = edited()
    peer["args"] = ["--loud", "--fast", "--far"]
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{PEER}.args", ["--fast", "--loud"], ["--loud", "--fast", "--far"])
    ]


def test_list_without_keys_is_compared_by_index() -> None:
    rules = [{"from": [{"podSelector": {}}]}, {"ports": [{"port": 53}]}]
    old: Manifest = {"kind": "NetworkPolicy", "spec": {"ingress": rules}}
    new: Manifest = {"kind": "NetworkPolicy", "spec": {"ingress": [rules[0], {"ports": [{"port": 54}]}]}}
    assert [change.path for change in diff_objects(old, new)] == [
        "spec.ingress[1].ports[53/TCP]",
        "spec.ingress[1].ports[54/TCP]",
    ]
    shorter: Manifest = {"kind": "NetworkPolicy", "spec": {"ingress": rules[:1]}}
    assert shown(diff_objects(old, shorter)) == [("spec.ingress[1]", rules[1], ABSENT)]


def test_duplicate_names_are_compared_by_index() -> None:
    new, peer = edited()
    peer["env"] = [{"name": "PEERS", "value": "5"}, {"name": "PEERS", "value": "6"}]
    (change,) = diff_objects(STATEFULSET, new)
    assert change.path == f"{PEER}.env"
    assert change.new == peer["env"]
    assert change.old == STATEFULSET["spec"]["template"]["spec"]["containers"][0]["env"]


def test_item_without_its_key_is_compared_by_index() -> None:
    old: Manifest = {"kind": "X", "spec": {"env": ["a"], "volumes": [{"x": 1}]}}
    new: Manifest = {"kind": "X", "spec": {"env": ["b"], "volumes": [{"x": 2}]}}
    assert shown(diff_objects(old, new)) == [
        ("spec.env", ["a"], ["b"]),
        ("spec.volumes[0].x", 1, 2),
    ]


def test_fields_that_the_server_sets_are_ignored() -> None:
    noise = {
        "managedFields": [], "resourceVersion": "1", "uid": "u", "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z", "selfLink": "/x",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }  # fmt: skip
    old = config({"a": "1"})
    new = {**config({"a": "1"}, **noise), "status": {"phase": "Active"}}
    assert diff_objects(old, new) == ()
    template: Manifest = {"kind": "X", "spec": {"template": {"metadata": {"creationTimestamp": None}}}}
    assert diff_objects(template, {"kind": "X", "spec": {"template": {"metadata": {}}}}) == ()


def test_other_fields_with_the_names_of_server_fields_are_compared() -> None:
    old, new = config({"uid": "1", "status": "a"}), config({"uid": "2", "status": "b"})
    assert [change.path for change in diff_objects(old, new)] == ["data.status", "data.uid"]


def test_quantities_are_compared_by_value() -> None:
    new, peer = edited()
    peer["resources"]["limits"] = {"cpu": "0.05", "memory": "16384Ki"}
    assert diff_objects(STATEFULSET, new) == ()
    peer["resources"]["limits"] = {"cpu": 1, "memory": "a lot"}
    assert shown(diff_objects(STATEFULSET, new)) == [
        (f"{PEER}.resources.limits.cpu", "50m", "1"),
        (f"{PEER}.resources.limits.memory", "16Mi", "a lot"),
    ]


def test_text_that_looks_like_a_quantity_is_text() -> None:
    (change,) = diff_objects(config({"sizeLimit": "1024Mi"}), config({"sizeLimit": "1Gi"}))
    assert (change.old, change.new) == ("1024Mi", "1Gi")


def test_keys_with_dots_and_slashes_are_shown_in_brackets() -> None:
    new, _ = edited()
    new["metadata"]["labels"] = {"app.kubernetes.io/name": "other", "team": "red"}
    assert shown(diff_objects(STATEFULSET, new)) == [
        ("metadata.labels.team", "dst", "red"),
        ("metadata.labels[app.kubernetes.io/name]", "nimp2p", "other"),
    ]


def test_true_differs_from_one_and_private_names_are_compared() -> None:
    old, new = config({"__a": 1, "b": 1}), config({"__a": 2, "b": True})
    assert shown(diff_objects(old, new)) == [("data.__a", 1, 2), ("data.b", 1, True)]


def test_secrets_are_hidden() -> None:
    old: Manifest = {"kind": "Secret", "data": {"a": "b2xk", "b": "c2FtZQ=="}}
    new: Manifest = {"kind": "Secret", "data": {"a": "bmV3", "b": "c2FtZQ==", "c": "eA=="}}
    assert shown(diff_objects(old, new)) == [
        ("data.a", "(hidden)", "(hidden, changed)"),
        ("data.c", ABSENT, "(hidden)"),
    ]
    assert shown(diff_objects(old, {"kind": "Secret"})) == [
        ("data.a", "(hidden)", ABSENT),
        ("data.b", "(hidden)", ABSENT),
    ]


def test_data_is_hidden_if_only_one_object_is_a_secret() -> None:
    old: Manifest = {"kind": "ConfigMap", "stringData": {"a": "old"}}
    new: Manifest = {"kind": "Secret", "stringData": {"a": "new"}}
    for changes in (diff_objects(old, new), diff_objects(new, old), diff_desired(old, new)):
        assert "(hidden, changed)" in [change.new for change in changes]
        assert not {"old", "new"} & {str(c.old) for c in changes} & {str(c.new) for c in changes}


@pytest.mark.parametrize("name", ["API_TOKEN", "MY_SECRET", "password", "PASSWD", "SSH_KEY"])
def test_env_values_with_secret_names_are_hidden(name: str) -> None:
    def with_env(*items: Any) -> Manifest:
        new, peer = edited()
        peer["env"] = list(items)
        return new

    old = with_env({"name": name, "value": "hunter1"})
    new = with_env({"name": name, "value": "hunter2"})
    assert shown(diff_objects(old, new)) == [(f"{PEER}.env[{name}]", "(hidden)", "(hidden, changed)")]
    for before, after in ((old, with_env()), (with_env(), new), (new, STATEFULSET)):
        assert "hunter" not in repr(diff_objects(before, after))
    twice = with_env({"name": name, "value": "hunter2"}, {"name": name, "value": "hunter3"})
    thrice = with_env({"name": name, "value": "hunter4"}, {"name": name, "value": "hunter5"})
    assert "hunter" not in repr(diff_objects(twice, thrice))
    assert "hunter" not in repr(diff_objects(old, twice))


def test_secret_inside_an_added_container_is_hidden() -> None:
    new, _ = edited()
    new["spec"]["template"]["spec"]["containers"].append(
        {"name": "x", "env": [{"name": "TOKEN", "value": "hunter2"}, {"name": "A", "value": "1"}]}
    )
    (change,) = diff_objects(STATEFULSET, new)
    assert change.new["env"] == [{"name": "TOKEN", "value": "(hidden)"}, {"name": "A", "value": "1"}]


def test_fields_that_are_not_desired_are_ignored() -> None:
    live, peer = edited()
    live["spec"]["revisionHistoryLimit"] = 10
    peer["env"].append({"name": "DEBUG", "value": "1"})
    peer["imagePullPolicy"] = "Always"
    live["spec"]["tolerations"] = [{"key": "a", "effect": "NoSchedule"}]
    desired = copy.deepcopy(STATEFULSET)
    desired["spec"]["tolerations"] = [{"key": "a"}]
    assert diff_desired(live, desired) == ()
    live["spec"]["replicas"] = 2
    del live["metadata"]["labels"]["team"]
    assert shown(diff_desired(live, desired)) == [
        ("metadata.labels.team", ABSENT, "dst"),
        ("spec.replicas", 2, 5),
    ]
    desired["spec"]["tolerations"] = [{"key": "a"}, {"key": "b"}]
    assert "spec.tolerations[1]" in [change.path for change in diff_desired(live, desired)]


def test_reordering_of_desired_items_is_a_difference() -> None:
    live, _ = edited()
    live["spec"]["template"]["spec"]["containers"].reverse()
    assert [c.path for c in diff_desired(live, STATEFULSET)] == [f"{POD}.containers order"]


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"ports": []}, {"ports": {}}, ["spec.x.ports"]),
        ({}, {"ports": []}, ["spec.x.ports"]),
        ({"ports": []}, {"ports": [{"port": 1}]}, ["spec.x.ports[1/TCP]"]),
        ({"ports": [{"port": 1}]}, {"ports": []}, ["spec.x.ports[1/TCP]"]),
        ({"ports": [{"port": 1}]}, {"ports": {}}, ["spec.x.ports[1/TCP]"]),
    ],
)
def test_empty_keyed_list_differs_from_a_missing_one_and_from_a_map(
    old: Any, new: Any, paths: list[str]
) -> None:
    changes = diff_objects({"kind": "X", "spec": {"x": old}}, {"kind": "X", "spec": {"x": new}})
    assert [change.path for change in changes] == paths


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["env", "ports", "a", "__b", "name", "value"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(old=JSON, new=JSON)
def test_diff_is_empty_exactly_for_equal_objects(old: Any, new: Any) -> None:
    before, after = {"kind": "X", "spec": {"x": old}}, {"kind": "X", "spec": {"x": new}}
    changes = diff_objects(before, after)
    assert bool(changes) == (repr_of(old) != repr_of(new))
    assert [c.path for c in changes] == sorted(c.path for c in changes)
    assert diff_objects(before, before) == ()
    assert diff_desired(before, before) == ()


def repr_of(value: Any) -> str:
    """Return a text that is equal for two values only if their JSON is equal, for any order of keys."""
    if isinstance(value, dict):
        return repr({key: repr_of(value[key]) for key in sorted(value)})
    return repr([repr_of(item) for item in value]) if isinstance(value, list) else repr(value)


@pytest.mark.process
def test_importing_the_module_does_not_import_deepdiff() -> None:
    code = "import sys, nimlab.plan.diff; sys.exit('deepdiff' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
