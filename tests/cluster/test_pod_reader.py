"""If there are many peers, only some pages are read, including the peers that do not run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nimlab.cluster.pod_reader import read_events, read_pods
from nimlab.sandbox.wait_until import wait_until
from tests.support.lab import Lab

STUCK: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "zz-stuck", "labels": {"experiment": "blue"}},
    "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "a:1"}]},
}


def warned_pods(lab: Lab) -> set[str]:
    """Return the names of the objects that Warning events of the lab's namespace are about."""
    events = read_events(lab.cluster, lab.namespace).items
    return {event["involvedObject"]["name"] for event in events if event["type"] == "Warning"}


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
    # The scheduler reports some time after it has rejected the pod.
    assert wait_until(lambda: "zz-stuck" in warned_pods(lab), within_s=30)
    assert not read_events(lab.cluster, lab.namespace).is_complete

    shown = lab.run("status", "blue")
    assert "… and 1 more peer" in shown.out
    assert json.loads(lab.run("status", "blue", "--output", "json").out)["peersNotRead"] == 1
