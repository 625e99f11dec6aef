"""Fixtures of the rig's tests: the session's rig, and the lab whose experiments run in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig.prepared import find_home, read_prepared
from tests.rig.real_node import Node
from tests.rig.running_rig import Rig, RigLab
from tests.support.lab import make_lab

PURPLE = (
    "{contract: nimp2p, peers: 5, connectTo: 2, message: {size: 1440B, interval: 2000ms}, "
    "resources: {cpu: 50m, memory: 96Mi}, network: {downlink: 16Mbit, uplink: 16Mbit}, "
    "rtt: {enabled: true, interval: 1s, fanout: 8}}"
)
BLUE = PURPLE.replace("peers: 5", "peers: 4")
APART = PURPLE.replace("peers: 5", "peers: 3").replace("contract: nimp2p", "contract: apart")


@pytest.fixture(scope="session")
def rig(pytestconfig: pytest.Config) -> Iterator[Rig]:
    """Start the rig; the kernel removes it together with the namespaces of this session."""
    folder = find_home()
    if folder is None:
        pytest.fail("these tests need namespaces of their own: run `make test-lab`")
    started_s = time.monotonic()
    node = Node(folder, read_prepared(folder))
    try:
        node.start()
        _report(pytestconfig, f"rig  up after {time.monotonic() - started_s:.0f} s; logs in {folder}/logs")
        yield Rig(node)
    finally:
        node.stop()


def _report(config: pytest.Config, text: str) -> None:
    """Print a line between the tests."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)


@pytest.fixture(scope="session")
def lab(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> RigLab:
    """Return the shipped lab with purple and blue running.

    The additional contract `apart` gives each experiment its own namespace.
    """
    root: Path = make_lab(tmp_path_factory.mktemp("rig") / "lab", "dst-lab", experiments=())
    contract = (root / "contracts" / "nimp2p.yaml").read_text(encoding="utf-8")
    isolated = "isolation: namespace\n  workload: pod\n  service: nimp2p-service"
    for old, new in (("name: nimp2p\n", "name: apart\n"), ("isolation: label", isolated)):
        assert old in contract
        contract = contract.replace(old, new, 1)
    (root / "contracts" / "apart.yaml").write_text(contract, encoding="utf-8")
    lab = RigLab(root, rig)
    lab.write("purple", PURPLE)
    lab.write("blue", BLUE)
    answer = lab.run("sync", "--timeout", "120s")
    assert answer.code == 0, answer.out + answer.err
    return lab


@pytest.fixture(scope="session")
def platform(lab: RigLab) -> RigLab:
    """Sync the monitoring stack without the log store and the log agent, which the rig does not build.

    The rig does not build images of cAdvisor and Grafana either. The kubelet's cAdvisor is used instead, and
    Grafana never starts.
    """
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    assert "cadvisor: daemonset" in text
    path.write_text(text.replace("cadvisor: daemonset", "cadvisor: kubelet"), encoding="utf-8")
    for pattern in ("loki-*.yaml.j2", "log-agent-*.yaml.j2"):
        for template in (lab.root / "templates" / "platform").glob(pattern):
            template.unlink()
    answer = lab.run("sync", "platform", "--timeout", "100s", "--output", "json")
    unsettled = [workload for workload in json.loads(answer.out)["peers"] if not workload["settled"]]
    assert [workload["experiment"] for workload in unsettled] == ["grafana"], answer.out + answer.err
    assert "docker.io/grafana/grafana" in unsettled[0]["troubles"][0]["message"]
    return lab


@pytest.fixture(scope="session")
def synced(lab: RigLab) -> Callable[[], None]:
    """Return a function that syncs the lab and requires success."""

    def sync() -> None:
        answer = lab.run("sync", "--timeout", "120s")
        assert answer.code == 0, answer.out + answer.err

    return sync


@pytest.fixture(scope="module")
def apart(lab: RigLab, synced: Callable[[], None]) -> Iterator[None]:
    """Run two experiments that have their own namespaces."""
    for name in ("green", "red"):
        lab.write(name, APART)
    synced()
    yield
    for name in ("green", "red"):
        lab.remove(name)
    answer = lab.run("sync", "--max-prune", "100%")
    assert answer.code == 0, answer.out + answer.err
