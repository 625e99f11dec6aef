"""Object keys, the apply order, and the canonical form, which is the form that the server stores."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nimlab.objects.canonical_form import QUANTITY_FIELDS, QUANTITY_MAPS, canonical, is_quantity
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import ObjectKey, apply_order, key_of
from nimlab.plan.diff import diff_objects
from nimlab.units import UnitError
from nimlab.yaml_and_json import UnreadableYamlError, parse_yaml, to_json_bytes, to_yaml


def spec(**fields: Any) -> Any:
    """Return the canonical form of a spec with these fields."""
    return canonical({"spec": fields}).get("spec", {})


# Without the rules for these cases, nimlab reported unchanged objects on a real server as suspect
# (docs/server-side-apply.md).
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": None, "b": 1}, {"b": 1}),
        ({"env": [], "ports": [], "tolerations": [], "b": 1}, {"b": 1}),
        ({"nodeSelector": {}, "annotations": {}, "b": 1}, {"b": 1}),
        ({"minReadySeconds": 0, "hostNetwork": False, "paused": False, "b": 1}, {"b": 1}),
        ({"publishNotReadyAddresses": False, "b": 1}, {"b": 1}),
        ({"publishNotReadyAddresses": True}, {"publishNotReadyAddresses": True}),
        ({"automountServiceAccountToken": False}, {"automountServiceAccountToken": False}),
        ({"replicas": 0}, {"replicas": 0}),
        ({"podSelector": {}}, {"podSelector": {}}),
        ({"volumes": [{"name": "a", "emptyDir": {}}]}, {"volumes": [{"name": "a", "emptyDir": {}}]}),
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"limits": {"cpu": 0.05}}, {"limits": {"cpu": "50m"}}),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}),
        ({"hard": {"pods": 1000}}, {"hard": {"pods": "1k"}}),
        ({"emptyDir": {"sizeLimit": "2048Mi"}}, {"emptyDir": {"sizeLimit": "2Gi"}}),
        ({"emptyDir": {"sizeLimit": None, "medium": "Memory"}}, {"emptyDir": {"medium": "Memory"}}),
        ({"ports": [{"containerPort": 1}]}, {"ports": [{"containerPort": 1, "protocol": "TCP"}]}),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}),
        ({"httpGet": {"port": 80, "path": "/"}}, {"httpGet": {"port": 80, "path": "/"}}),
        ({"ingress": [{}]}, {"ingress": [{}]}),
    ],
)
def test_canonical_form_equals_the_form_of_the_server(before: Any, after: Any) -> None:
    assert spec(**before) == after


@pytest.mark.parametrize(
    "path", [*((name, "cpu") for name in sorted(QUANTITY_MAPS)), *(("a", f) for f in sorted(QUANTITY_FIELDS))]
)
def test_canonical_form_and_diff_use_the_same_quantities(path: tuple[str, str]) -> None:
    parent, field = path
    written, canonical_text = {parent: {field: "1000m"}}, {parent: {field: "1"}}
    assert is_quantity(parent, field)
    assert spec(**written) == canonical_text
    assert diff_objects({"spec": written}, {"spec": canonical_text}) == ()


@pytest.mark.parametrize("field", sorted(QUANTITY_FIELDS))
def test_label_named_like_a_quantity_is_text(field: str) -> None:
    before, after = ({"labels": {field: text}} for text in ("1.0", "1"))
    assert spec(**before) == before
    assert len(diff_objects({"spec": before}, {"spec": after})) == 1


def test_maps_with_keys_of_the_user_are_not_changed() -> None:
    data = {"empty": "", "limits": "1024Mi", "storage": "1024Mi", "value": ""}
    assert canonical({"data": data}) == {"data": data}


def test_limit_range_contains_the_defaults_of_the_server() -> None:
    pod = {"type": "Pod", "max": {"cpu": "1"}}
    container = {"type": "Container", "max": {"cpu": 2}, "min": {"cpu": "1", "memory": "1Mi"}}
    limit_range = canonical({"kind": "LimitRange", "spec": {"limits": [container, pod]}})
    assert limit_range["spec"]["limits"] == [
        {
            **container,
            "max": {"cpu": "2"},
            "default": {"cpu": "2"},
            "defaultRequest": {"cpu": "2", "memory": "1Mi"},
        },
        pod,
    ]


def test_status_is_removed() -> None:
    assert canonical({"status": {"a": 1}, "a": 1}) == {"a": 1}


def test_malformed_quantity_is_rejected() -> None:
    with pytest.raises(UnitError):
        spec(limits={"cpu": "much"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "env", "ports", "value", "podSelector", "name"]), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["spec", "data", "metadata"]), JSON))
def test_canonical_form_is_idempotent_and_ignores_key_order(value: dict[str, Any]) -> None:
    once = canonical(value)
    assert canonical(once) == once
    backwards = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert json.dumps(canonical(backwards)) == json.dumps(once)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20)))
def test_apply_body_is_read_back_unchanged_by_yaml(data: dict[str, str]) -> None:
    text = to_json_bytes({"data": data}).decode()
    assert json.loads(text) == {"data": data}
    if not any(c in key + value for key, value in data.items() for c in map(chr, range(0xD800, 0xE000))):
        assert yaml.safe_load(text) == {"data": data}


def test_unusual_characters_survive_the_apply_body() -> None:
    odd = "".join(map(chr, [*range(1, 0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF]))
    assert yaml.safe_load(to_json_bytes({"data": {"a": odd}}).decode()) == {"data": {"a": odd}}


def test_keys_have_a_text_form_and_sort_in_apply_order() -> None:
    namespaced = key_of({"kind": "Service", "metadata": {"name": "b", "namespace": "n"}})
    assert str(namespaced) == "Service/n/b"
    assert str(ObjectKey("Namespace", "", "n")) == "Namespace/n"
    kinds = ["StatefulSet", "Service", "ConfigMap", "Odd", "NetworkPolicy", "Namespace"]
    ordered = sorted((ObjectKey(kind, "n", "a") for kind in kinds), key=apply_order)
    assert [key.kind for key in ordered] == [
        "Namespace",
        "NetworkPolicy",
        "ConfigMap",
        "Service",
        "StatefulSet",
        "Odd",
    ]


def test_kinds_have_api_version_and_plural() -> None:
    assert KINDS["StatefulSet"].api_version == "apps/v1"
    assert KINDS["StatefulSet"].group_kind == "StatefulSet.apps"
    assert KINDS["Service"].group_kind == "Service"


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [", "a: *x", "? [a]\n: 1\n"])
def test_unreadable_yaml_raises_an_error_of_nimlab(text: str) -> None:
    with pytest.raises(UnreadableYamlError):
        parse_yaml(text)


def test_yaml_is_sorted_and_empty_documents_are_left_out() -> None:
    assert to_yaml([{"b": 1, "a": "x: y"}]) == "---\na: 'x: y'\nb: 1\n"
    assert parse_yaml("---\n---\na: 1\n") == [{"a": 1}]
