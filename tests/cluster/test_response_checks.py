"""Malformed responses with status 200 cause an error; they are never taken for missing objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nimlab.cluster.kube import Target, connect
from nimlab.cluster.kube.http_response import decode, retry_after_s
from nimlab.cluster.kube.response_checks import parse_discovery, parse_event, parse_object, parse_page
from nimlab.errors import ClusterError, IncompleteDiscovery, Unreachable
from nimlab.objects.manifest import ObjectKey, key_of
from tests.support.api_proxy import Broken, Seen, run_proxy
from tests.support.lab import Lab, remove_namespaces

KEY = ObjectKey("ConfigMap", "lab", "a")
OBJECT: dict[str, Any] = {
    "apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "y"},
    "metadata": {
        "name": "a", "namespace": "lab", "uid": "u-1", "resourceVersion": "7", "labels": {"l": "1"},
        "annotations": {"n": "2"}, "finalizers": ["f/g"], "ownerReferences": [{"uid": "u-0"}],
        "managedFields": [{"manager": "nimlab", "fieldsV1": {"f:data": {"f:x": {}}}}],
    },
}  # fmt: skip
LIST: dict[str, Any] = {
    "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"},
    "items": [{**OBJECT, "metadata": {**OBJECT["metadata"], "name": name}} for name in "abc"],
}  # fmt: skip
STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200}
FULL_LIST = {**LIST, "metadata": {"resourceVersion": "9", "continue": "t", "remainingItemCount": 5}}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["List", "ConfigMap"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "metadata"]), inner),
    max_leaves=5,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a body, including the body itself."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def mutated(data: st.DataObject, value: Any) -> Any:
    """Return a copy with one or two values removed or replaced.

    Items of a list are never removed, because no client can detect such a response.
    """
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(paths(value))))
        if not path:
            return data.draw(ANYTHING)
        *parents, last = path
        inner = value
        for part in parents:
            inner = inner[part]
        if isinstance(inner, dict) and data.draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = data.draw(ANYTHING)
    return value


@given(st.data(), st.sampled_from([LIST, FULL_LIST]))
def test_malformed_page_is_never_accepted_with_fewer_objects(
    data: st.DataObject, original: dict[str, Any]
) -> None:
    try:
        answer = decode(json.dumps(mutated(data, original)).encode(), verb="list", where="x")
        page, token = parse_page(answer, "ConfigMap")
    except Unreachable:
        return
    assert isinstance(answer["items"], list)
    assert len(page.items) == len(answer["items"])
    assert bool(token) == page.more
    assert token or original is LIST or "remainingItemCount" not in answer["metadata"]
    for item in page.items:  # the fields that nimlab reads from every item
        assert key_of({**item, "kind": "ConfigMap"}).name
        assert isinstance(item["metadata"]["uid"], str)
        assert all(isinstance(value, str) for value in (item["metadata"].get("labels") or {}).values())
        assert all(isinstance(entry, dict) for entry in item["metadata"].get("managedFields") or ())


@given(st.data())
def test_malformed_object_is_never_accepted_as_another_object(data: st.DataObject) -> None:
    try:
        answer = decode(json.dumps(mutated(data, OBJECT)).encode(), verb="get", where="x")
        parsed = parse_object(answer, KEY, verb="get")
    except Unreachable:
        return
    assert key_of(parsed) == KEY
    assert isinstance(parsed["metadata"]["uid"], str)


@pytest.mark.parametrize(
    "answer",
    [
        {}, STATUS, LIST, {**OBJECT, "kind": "Secret"}, {**OBJECT, "apiVersion": "v2"},
        {**OBJECT, "metadata": []},
        *({**OBJECT, "metadata": {**OBJECT["metadata"], field: "x" if field != "uid" else ""}}
          for field in ("name", "namespace", "uid", "labels", "managedFields")),
    ],
)  # fmt: skip
def test_body_with_another_object_is_rejected(answer: dict[str, Any]) -> None:
    assert parse_object(OBJECT, KEY, verb="get") == OBJECT
    with pytest.raises(Unreachable, match="does not match the request"):
        parse_object(answer, KEY, verb="get")


@pytest.mark.parametrize(
    "answer",
    [
        {}, STATUS, {"items": []}, {**LIST, "items": {}}, {**LIST, "items": None}, {**LIST, "items": "abc"},
        {**LIST, "items": [1]}, {**LIST, "items": [{}]}, {**LIST, "metadata": None}, {**LIST, "metadata": {}},
        {**LIST, "metadata": {"resourceVersion": 9}}, {**LIST, "kind": "SecretList"},
        {**LIST, "metadata": {"resourceVersion": "9", "continue": 5}},
        {**LIST, "metadata": {"resourceVersion": "9", "continue": ["t"]}},
        {**LIST, "metadata": {"resourceVersion": "9", "remainingItemCount": 3}},
        {"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "9"}},
    ],
)  # fmt: skip
def test_body_that_is_not_a_list_is_rejected(answer: dict[str, Any]) -> None:
    with pytest.raises(Unreachable, match="does not match the request"):
        parse_page(answer, "ConfigMap")


def test_valid_list_is_accepted() -> None:
    page, token = parse_page(FULL_LIST, "ConfigMap")
    assert (len(page.items), page.resource_version, page.more, token) == (3, "9", True, "t")
    virtual: dict[str, Any] = {"kind": "PartialObjectMetadataList", "metadata": {}, "items": None}
    assert parse_page(virtual, "PodMetrics")[0].items == ()


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"5", b"{", b"{}", b'{"type": "ADDED"}', b'{"type": 5, "object": {}}', b"[" * 100_000, b"\xff",
        b'{"type": "ADDED", "object": {}}', b'{"type": "ADDED", "object": []}',
    ],
)  # fmt: skip
def test_malformed_watch_event_is_rejected(line: bytes) -> None:
    with pytest.raises(Unreachable):
        parse_event(line, where="Pod")


def discovered(**version: object) -> dict[str, Any]:
    """Return a discovery document with one kind in one version."""
    kind = {"resource": "xs", "responseKind": {"kind": "X"}, "scope": "Namespaced", "verbs": ["list"]}
    entry = {"version": "v1", "resources": [kind], **version}
    group = {"metadata": {"name": "x.example"}, "versions": [entry]}
    return {"kind": "APIGroupDiscoveryList", "items": [group]}


def test_stale_discovery_is_incomplete() -> None:
    assert parse_discovery(discovered(freshness="Current"), where="/apis") == [("x.example", "v1", "xs", "X")]
    for stale in (discovered(freshness="Stale"), discovered(freshness="Stale", resources=None), {}):
        with pytest.raises(IncompleteDiscovery):
            parse_discovery(stale, where="/apis")


@given(st.data())
def test_malformed_discovery_is_a_cluster_error(data: st.DataObject) -> None:
    answer = mutated(data, discovered())
    if isinstance(answer, dict):
        try:
            kinds = parse_discovery(answer, where="/apis")
        except ClusterError:
            return
        assert kinds


@given(st.text(max_size=5) | st.integers().map(str))
@example("²")
@example("-5")
@example("9" * 5000)
@example("Wed, 21 Oct 2026 07:28:00 GMT")
@example("1e3")
@example("٣")
def test_any_retry_after_header_gives_a_bounded_time(text: str) -> None:
    class Response:
        headers: Mapping[str, str] = {"Retry-After": text}

    assert 0 <= retry_after_s(Response()) <= 30  # type: ignore[arg-type]


MALFORMED = {
    "empty": {},
    "status": STATUS,
    "no items": {**LIST, "items": None},
    "token": FULL_LIST | {"items": 5},
}


@pytest.mark.live
@pytest.mark.parametrize("body", MALFORMED.values(), ids=list(MALFORMED))
def test_sync_with_malformed_responses_fails_and_writes_nothing(
    lab: Lab, tmp_path: Path, body: object
) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    (lab.root / "experiments" / "purple.yaml").unlink()
    for part in ("/statefulsets", "/configmaps", "/services", "/nimlab-experiments"):
        with run_proxy(lab.kubeconfig, tmp_path) as proxy:

            def fault(seen: Seen, part: str = part) -> tuple[int, object] | None:
                return (200, body) if seen.path.split("?")[0].endswith(part) else None

            proxy.fault = fault
            answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--no-wait")
        assert answer.code == 1, answer.out + answer.err
        assert "does not match the request" in answer.out + answer.err
        assert proxy.writes == []
    assert lab.get("StatefulSet", "nimp2p-exp-purple") is not None


@pytest.mark.live
def test_invalid_retry_after_headers_are_ignored(lab: Lab, tmp_path: Path) -> None:
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        target = Target(kubeconfig=proxy.kubeconfig, context=None, name="proxy", why="")
        cluster = connect(target, parallel=2)
        cluster.transport.sleep = lambda _: None
        values = iter(["\u00b2", "-1", "9" * 30, "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])

        def fault(seen: Seen) -> Broken | None:
            del seen
            text = next(values, None)
            return None if text is None else Broken(status=429, body={}, headers={"Retry-After": text})

        proxy.fault = fault
        assert cluster.get(ObjectKey("Namespace", "", "default")) is not None
        assert len(proxy.seen) == 6
        cluster.close()


@pytest.fixture
def missing_service(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """Register an API service whose server does not exist, as after the removal of a component."""
    name = "v1.nowhere.example"
    service = {"name": "nowhere", "namespace": "default"}
    spec = {"group": "nowhere.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
    path = tmp_path / "nowhere.json"
    head = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}}
    path.write_text(json.dumps({**head, "spec": {**spec, "service": service}}), encoding="utf-8")
    lab.kubectl("apply", "-f", str(path))
    try:
        lab.kubectl("wait", "--for=condition=Available=False", f"apiservice/{name}", "--timeout=30s")
        yield "nowhere.example"
    finally:
        lab.kubectl("delete", "apiservice", name)


@pytest.mark.live
def test_namespace_is_kept_while_an_api_service_does_not_respond(lab: Lab, missing_service: str) -> None:
    with pytest.raises(IncompleteDiscovery, match=missing_service):
        lab.cluster.list_namespace_metadata("default")
    namespace = f"nimp2p-exp-gone-{lab.namespace[4:]}"
    head = "apiVersion: nimlab.dev/v1\nkind: Experiment\n"
    path = lab.write(
        "gone", f"{head}metadata: {{name: {namespace[11:]}}}\nspec: {{contract: dst-go, peers: 3}}\n"
    )
    try:
        answer = lab.run("sync", "--no-wait")
        assert answer.code == 0, answer.err
        path.unlink()
        answer = lab.run("sync", "--no-wait")
        assert answer.code == 0, answer.out + answer.err
        assert "not all objects in it could be listed" in answer.out
        live = lab.get("Namespace", namespace, "")
        assert live is not None
        assert "deletionTimestamp" not in live["metadata"]
        remaining = lab.get("StatefulSet", "pod", namespace)  # but the lab's objects are deleted
        assert remaining is None or "deletionTimestamp" in remaining["metadata"]
    finally:
        remove_namespaces(lab.cluster, [namespace])
