"""If there are many peers, only some pages are read, including the peers that do not run."""

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
def test_first_page_and_peers_that_do_not_run_are_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.run("sync").code == 0
    lab.cluster.create({**STUCK, "metadata": {**STUCK["metadata"], "namespace": lab.namespace}})
    all_pods = read_pods(lab.cluster, lab.namespace, "experiment=blue")
    assert all_pods.is_complete
    assert len(all_pods.items) == 5
    assert read_events(lab.cluster, lab.namespace).is_complete

    monkeypatch.setattr("nimlab.cluster.pod_reader._PAGE_SIZE", 2)
    pods = read_pods(lab.cluster, lab.namespace, "experiment=blue")
    assert not pods.is_complete
    names = {pod["metadata"]["name"] for pod in pods.items}
    assert names == {"nimp2p-exp-blue-0", "nimp2p-exp-blue-1", "zz-stuck"}
    events = read_events(lab.cluster, lab.namespace)
    assert not events.is_complete
    assert "zz-stuck" in {
        event["involvedObject"]["name"] for event in events.items if event["type"] == "Warning"
    }

    shown = lab.run("status", "blue")
    assert "… and 1 more peer" in shown.out
    assert json.loads(lab.run("status", "blue", "--output", "json").out)["peersNotRead"] == 1
