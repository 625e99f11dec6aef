"""Plans with the shipped read-only role show everything that a sync would do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.access.test_pipeline_roles import account_kubeconfig, remove_rights
from tests.support.lab import Lab

pytestmark = pytest.mark.live

PEERS = "StatefulSet/nimp2p-exp-blue"
SPEC = "ConfigMap/nimp2p-exp-blue-spec"
SERVICE = "Service/nimp2p-exp-blue"
ENV = "{name: EXTRA, value: x}"
DEBUG = "{name: DEBUG, value: '1'}"
LABELS = "labels: {{ labels | json }}"
PULL = "          imagePullPolicy: {{ pod.pull_policy | json }}\n"
LINES = [f"            - {item}\n" for item in (ENV, DEBUG)]
RICHER = [
    ("statefulset", "          env:\n{% for", f"          env:\n{''.join(LINES)}{{% for"),
    (
        "statefulset",
        "      labels: {{ dict(labels, **role_labels) | json }}\n{% if",
        '      labels: {{ dict(labels, team="x") | json }}\n{% if',
    ),
    ("statefulset", PULL, f"{PULL}          args: [a, b]\n"),
    ("configmap", "data: {{ spec_as_run | json }}", 'data: {{ dict(spec_as_run, extra="x") | json }}'),
    ("service", f"  {LABELS}", f"  {LABELS}\n  annotations: {{team: x}}"),
]
CHANGES = {
    "env-removed": ("statefulset", LINES[0], "", PEERS, 4),
    "env-reordered": ("statefulset", "".join(LINES), "".join(reversed(LINES)), PEERS, 4),
    "label-removed": ("statefulset", 'dict(labels, team="x")', "labels", PEERS, 4),
    "argument-removed": ("statefulset", "args: [a, b]", "args: [a]", PEERS, 4),
    "all-arguments-removed": ("statefulset", "          args: [a, b]\n", "", PEERS, 4),
    "key-removed": ("configmap", 'dict(spec_as_run, extra="x")', "spec_as_run", SPEC, 0),
    "annotation-removed": ("service", "\n  annotations: {team: x}", "", SERVICE, 0),
    "limit-removed": ("statefulset", "  revisionHistoryLimit: 2\n", "", PEERS, 0),
}


@pytest.fixture
def reader(lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """Yield the lab with the read-only account, after a sync of objects with additional fields."""
    for kind, old, new in RICHER:
        edit(lab, kind, old, new)
    (lab.root / "experiments" / "purple.yaml").unlink()
    synced = lab.run("sync")
    assert synced.code == 0, synced.out + synced.err
    yield replace(lab, kubeconfig=account_kubeconfig(lab, tmp_path, "nimlab-plan"))
    remove_rights(lab)


def edit(lab: Lab, kind: str, old: str, new: str) -> None:
    """Replace a text in a template; the text must occur."""
    path = lab.root / "templates" / "experiment" / f"{kind}.yaml.j2"
    text = path.read_text(encoding="utf-8")
    assert old in text, (kind, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def pending(lab: Lab, code: int = 3) -> dict[str, Any]:
    """Return the objects that a dry run would change, by kind and name."""
    answer = lab.run("sync", "--dry-run", "--exit-code", "--output", "json")
    assert answer.code == code, answer.out + answer.err
    objects = json.loads(answer.out)["objects"]
    return {f"{o['kind']}/{o['name']}": o for o in objects if o["action"] != "keep"}


def test_plan_of_a_read_only_account_shows_all_changes_of_a_sync(lab: Lab, reader: Lab) -> None:
    assert pending(reader, code=0) == {}
    shipped = {path: path.read_text(encoding="utf-8") for path in lab.root.rglob("*.j2")}
    for name, (kind, old, new, key, restarts) in CHANGES.items():
        edit(lab, kind, old, new)
        seen, actual = pending(reader), pending(lab)
        assert list(seen) == list(actual) == [key], name
        assert seen[key]["unverified"], name
        assert seen[key]["restarts"] == actual[key]["restarts"] == restarts, name
        shown = [(c["path"], c.get("old")) for c in seen[key]["changes"]]
        assert shown == [(c["path"], c.get("old")) for c in actual[key]["changes"]] != [], name
        text = reader.run("sync", "--dry-run").out
        assert "unverified" in text, name
        assert ("restarts all 4 running peers" in text) is bool(restarts), name
        for path, content in shipped.items():
            path.write_text(content, encoding="utf-8")
    assert pending(reader, code=0) == {}


def test_field_that_another_manager_took_over_unchanged_is_reported(lab: Lab, reader: Lab) -> None:
    live = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert live is not None
    metadata = {k: live["metadata"][k] for k in ("name", "namespace")}
    part = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"extra": "y"}}
    lab.cluster.apply(part, manager="other", force=True, dry_run=False)
    lab.cluster.apply({**part, "data": {"extra": "x"}}, manager="other", force=True, dry_run=False)
    assert list(pending(lab)) == list(pending(reader)) == [SPEC]
    assert "not proven to be as desired: data.extra" in reader.run("sync", "--dry-run").out


def test_saved_plan_of_a_read_only_account_is_executed_with_its_restarts(
    lab: Lab, reader: Lab, tmp_path: Path
) -> None:
    edit(lab, "statefulset", LINES[0], "")
    path = tmp_path / "plan.json"
    assert "restarts all 4" in reader.run("sync", "--dry-run", "--out", str(path)).out
    document = json.loads(path.read_text(encoding="utf-8"))
    bound = document["binding"]["objects"]
    key = next(key for key in bound if key.startswith("StatefulSet"))
    assert bound[key]["restarts"] == 4
    bound[key]["restarts"] = 0
    other = tmp_path / "without-restarts.json"
    other.write_text(json.dumps(document), encoding="utf-8")
    refused = lab.run("sync", "--plan", str(other))
    assert refused.code == 1
    assert "4 peers would restart, not 0" in refused.err
    done = lab.run("sync", "--plan", str(path))
    assert done.code == 0, done.out + done.err
    assert pending(lab, code=0) == pending(reader, code=0) == {}
