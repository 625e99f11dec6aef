"""Two states of a lab, and a bystander object.

A sync from one state to the other creates, updates, restarts, replaces and prunes objects, in both
directions. The bystander is a foreign object with the lab's labels; no sync may change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nimlab.objects.manifest import Manifest, ObjectKey
from tests.support.lab import Lab, git

EXPERIMENT = """\
apiVersion: nimlab.dev/v1
kind: Experiment
metadata: {{name: {name}}}
spec:
  contract: nimp2p
  peers: {peers}
  connectTo: 1
  message: {{size: 1440B, interval: {interval}}}
  onImmutableChange: recreate
"""
STATES = {
    "A": {"blue": (2, "2s"), "black": (2, "2s"), "purple": (5, "2s"), "red": (3, "2s"), "white": (3, "1s")},
    "B": {"green": (2, "2s"), "yellow": (2, "2s"), "purple": (6, "1s"), "red": (4, "2s"), "white": (3, "2s")},
}
OTHER = {"A": "B", "B": "A"}
KINDS = ("ConfigMap", "Service", "NetworkPolicy", "StatefulSet")


@dataclass(frozen=True, slots=True)
class World:
    """A lab that can be changed to both states, and the bystander."""

    lab: Lab
    bystander: ObjectKey

    def write_files(self, state: str) -> None:
        """Write and commit the files of a state."""
        folder = self.lab.root / "experiments"
        for path in folder.iterdir():
            path.unlink()
        for name, (peers, interval) in STATES[state].items():
            self.lab.write(name, EXPERIMENT.format(name=name, peers=peers, interval=interval))
        git(self.lab.root, "add", "-A")
        git(self.lab.root, "commit", "-q", "--allow-empty", "-m", state)

    def names(self) -> dict[str, list[str]]:
        """Return the names of the lab's objects in the cluster, by kind, without the bystander."""
        return {
            kind: [name for name in self.lab.names(kind) if name.startswith("nimp2p-exp-")] for kind in KINDS
        }

    def bystander_version(self) -> tuple[str, str]:
        """Return the uid and the resourceVersion of the bystander."""
        live = self.lab.cluster.get(self.bystander)
        assert live is not None, "the bystander was deleted"
        return live["metadata"]["uid"], live["metadata"]["resourceVersion"]

    def assert_is(self, state: str) -> None:
        """Assert that the cluster matches the state, by a dry run and by reading the objects."""
        dry = self.lab.run("sync", "--dry-run", "--exit-code", "--output", "json")
        assert dry.code == 0, dry.out + dry.err
        full = sorted(f"nimp2p-exp-{name}" for name in STATES[state])
        specs = sorted(f"{name}-spec" for name in full)
        assert self.names() == {
            "ConfigMap": specs, "Service": full, "NetworkPolicy": full, "StatefulSet": full,
        }  # fmt: skip
        for name, (peers, interval) in STATES[state].items():
            live = self.lab.get("StatefulSet", f"nimp2p-exp-{name}")
            assert live is not None
            assert live["spec"]["replicas"] == peers
            assert env_of(live)["MSGRATE"] == {"2s": "2000", "1s": "1000"}[interval]


def env_of(workload: Manifest) -> dict[str, Any]:
    """Return the environment variables of a workload."""
    return {
        variable["name"]: variable["value"]
        for variable in workload["spec"]["template"]["spec"]["containers"][0]["env"]
    }


def find_world(lab: Lab) -> World:
    """Return the `World` of a lab that `make_world` has prepared."""
    return World(lab, ObjectKey("ConfigMap", lab.namespace, "bystander"))


def make_world(lab: Lab) -> World:
    """Sync a lab to state A, with a template whose workload cannot always be changed in place."""
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    rule = 'podManagementPolicy: {{ ("OrderedReady" if peers == 4 else "Parallel") | json }}'
    assert "podManagementPolicy: Parallel" in text
    template.write_text(text.replace("podManagementPolicy: Parallel", rule), encoding="utf-8")
    settings = lab.root / "lab.yaml"
    text = settings.read_text(encoding="utf-8")
    assert "maxPrune: {objects: 20, percent: 50}" in text
    settings.write_text(text.replace("percent: 50", "percent: 90"), encoding="utf-8")
    world = find_world(lab)
    git(lab.root, "init", "-q", "-b", "main")
    world.write_files("A")
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    own = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert own is not None
    metadata = {field: own["metadata"][field] for field in ("labels", "annotations")}
    copy = {"name": world.bystander.name, "namespace": lab.namespace, **metadata}
    lab.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": copy, "data": {"a": "b"}})
    return world
