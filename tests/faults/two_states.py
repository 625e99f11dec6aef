"""Two states of a lab between which a sync creates, updates, restarts, replaces and prunes; and a bystander.

State A and state B are each other's change: a sync from either to the other has writes of every kind. The
bystander is somebody else's object that carries our labels, and has to survive all of it untouched.
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
    """A lab that can be put into either state, and what must not be touched."""

    lab: Lab
    bystander: ObjectKey

    def ask_for(self, state: str) -> None:
        """Write the files of a state."""
        folder = self.lab.root / "experiments"
        for path in folder.iterdir():
            path.unlink()
        for name, (peers, interval) in STATES[state].items():
            self.lab.write(name, EXPERIMENT.format(name=name, peers=peers, interval=interval))
        git(self.lab.root, "add", "-A")
        git(self.lab.root, "commit", "-q", "--allow-empty", "-m", state)

    def names(self) -> dict[str, list[str]]:
        """What of ours is in the cluster, by kind; the bystander isn't."""
        return {kind: [n for n in self.lab.names(kind) if n.startswith("nimp2p-exp-")] for kind in KINDS}

    def sign_of_life(self) -> tuple[str, str]:
        """The bystander's identity and version."""
        live = self.lab.cluster.get(self.bystander)
        assert live is not None, "the bystander is gone"
        return live["metadata"]["uid"], live["metadata"]["resourceVersion"]

    def assert_is(self, state: str) -> None:
        """The cluster is as the state says, by the server's own word and by looking; nothing is left over."""
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
    """A workload's environment."""
    return {e["name"]: e["value"] for e in workload["spec"]["template"]["spec"]["containers"][0]["env"]}


def find_world(lab: Lab) -> World:
    """Return the world of a lab that `make_world` has prepared."""
    return World(lab, ObjectKey("ConfigMap", lab.namespace, "bystander"))


def make_world(lab: Lab) -> World:
    """Put a lab into state A, with a template whose workload can't always be changed in place."""
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
    world.ask_for("A")
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    ours = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert ours is not None
    metadata = {k: ours["metadata"][k] for k in ("labels", "annotations")}
    copy = {"name": world.bystander.name, "namespace": lab.namespace, **metadata}
    lab.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": copy, "data": {"a": "b"}})
    return world
