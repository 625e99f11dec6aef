"""`onImmutableChange: orphan`: a replacement alone restarts no peers, but a changed template does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.end_to_end.test_sync import assert_in_sync, synced
from tests.support.lab import Lab

pytestmark = pytest.mark.live


@pytest.fixture
def blue(lab: Lab) -> Lab:
    """Return the lab with one running experiment, whose StatefulSet can be replaced without its peers."""
    (lab.root / "experiments" / "purple.yaml").unlink()
    lab.edit("blue", "peers: 4", "peers: 4\n  onImmutableChange: orphan")
    synced(lab)
    return lab


def edit(lab: Lab, old: str, new: str) -> None:
    """Replace a text in the StatefulSet's template; fail if the template does not contain it."""
    path = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def change_order(lab: Lab) -> None:
    """Change a field that a StatefulSet cannot change in place."""
    edit(lab, "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady")


def uids(lab: Lab) -> list[str]:
    """Return the uids of the peers."""
    items = lab.cluster.list_objects("Pod", namespace=lab.namespace).items
    return sorted(item["metadata"]["uid"] for item in items)


def planned(lab: Lab) -> dict[str, Any]:
    """Plan a sync; return its only replacement."""
    objects = json.loads(lab.run("sync", "--dry-run", "--output", "json").out)["objects"]
    (change,) = (change for change in objects if change["action"] == "replace")
    return dict(change)


def test_peers_keep_running_if_only_the_statefulset_is_replaced(blue: Lab) -> None:
    change_order(blue)
    before = uids(blue)
    assert planned(blue)["restarts"] == 0
    assert "its peers keep running" in blue.run("sync", "--dry-run").out
    synced(blue)
    assert uids(blue) == before
    assert_in_sync(blue)


@pytest.mark.parametrize("rollout", ["together", "rolling"])
def test_changed_template_restarts_the_peers_in_the_same_sync(blue: Lab, rollout: str) -> None:
    blue.edit("blue", "peers: 4", f"peers: 4\n  rollout: {rollout}")
    synced(blue)
    change_order(blue)
    edit(blue, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 1")
    before = uids(blue)
    assert planned(blue)["restarts"] == 4
    output = blue.run("sync", "--dry-run").out
    assert "restarts all 4 running peers" in output
    assert "its peers keep running" not in output
    synced(blue, "--timeout", "60s")
    assert len(uids(blue)) == 4
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)


def test_foreign_template_fields_disappear_without_restarting_peers_that_lack_them(
    blue: Lab,
) -> None:
    blue.kubectl("set", "env", "statefulset/nimp2p-exp-blue", "DEBUG=1")
    change_order(blue)
    change = planned(blue)
    assert (change["restarts"], change["foreign"]) == (0, []), "no peer runs with the foreign field yet"
    before = uids(blue)
    synced(blue)
    assert uids(blue) == before
    assert_in_sync(blue)


def test_selector_that_does_not_match_the_peers_is_rejected(blue: Lab) -> None:
    edit(
        blue,
        "    matchLabels: {{ workload_selector | json }}",
        "    matchLabels: {{ dict(workload_selector, run='2') | json }}",
    )
    labels = "      labels: {{ dict(labels, **role_labels) | json }}\n{% if"
    edit(blue, labels, labels.replace("**", "run='2', **"))
    before = uids(blue)
    answer = blue.run("sync")
    assert answer.code == 1
    assert "would not adopt the peers" in answer.out
    assert uids(blue) == before
    blue.edit("blue", "orphan", "recreate")
    synced(blue, "--timeout", "60s")
    assert_in_sync(blue)


def test_sync_after_an_interrupted_replacement_restarts_the_adopted_peers(blue: Lab) -> None:
    change_order(blue)
    edit(blue, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 1")
    before = uids(blue)
    blue.kubectl("delete", "statefulset", "nimp2p-exp-blue", "--cascade=orphan")
    assert uids(blue) == before
    synced(blue, "--timeout", "60s")
    assert len(uids(blue)) == 4
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)
