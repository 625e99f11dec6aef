"""Only some of many peers are read, and those that don't run are among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nimlab.cluster.pod_reader import read_events, read_pods
from tests.support.lab import Lab

STUCK: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "zz-stuck", "labels": {"experiment": "blue"}},
    "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "a:1"}]},
}


@pytest.mark.live
def test_of_many_peers_a_page_is_read_and_those_that_do_not_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.run("sync").code == 0
    lab.cluster.create({**STUCK, "metadata": {**STUCK["metadata"], "namespace": lab.namespace}})
    everyone = read_pods(lab.cluster, lab.namespace, "experiment=blue")
    assert everyone.whole
    assert len(everyone.items) == 5
    assert read_events(lab.cluster, lab.namespace).whole

    monkeypatch.setattr("nimlab.cluster.pod_reader._FEW", 2)
    some = read_pods(lab.cluster, lab.namespace, "experiment=blue")
    assert not some.whole
    names = {pod["metadata"]["name"] for pod in some.items}
    assert names == {"nimp2p-exp-blue-0", "nimp2p-exp-blue-1", "zz-stuck"}
    events = read_events(lab.cluster, lab.namespace)
    assert not events.whole
    assert "zz-stuck" in {e["involvedObject"]["name"] for e in events.items if e["type"] == "Warning"}

    shown = lab.run("status", "blue")
    assert "… and 1 more peer" in shown.out
    assert json.loads(lab.run("status", "blue", "--output", "json").out)["peersNotRead"] == 1
