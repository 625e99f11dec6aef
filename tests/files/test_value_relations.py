"""A value that is out of range, or that contradicts another value, is reported once, at its position."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.errors import Problem, SpecError
from nimlab.files.load import load_lab
from nimlab.files.spec import POD_CONTAINERS, RTT_PORT_NAMES, LabFiles
from nimlab.render import load_templates, render_experiment
from tests.support.examples import examples
from tests.support.paths import SAMPLE_LAB

LAB = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
NIMP2P = (SAMPLE_LAB / "contracts" / "nimp2p.yaml").read_text(encoding="utf-8")
COUNTS = ("d", "dLow", "dHigh", "dScore", "dOut", "dLazy")
UNITS = {
    "peers": "count",
    "connectTo": "count",
    "message.size": "bytes",
    "message.interval": "ms",
    "muxer": "word",
    "fragments": "count",
    "maxConnections": "count",
    "selfTrigger": "flag",
    "startDelay": "s",
    **{f"gossipsub.{name}": "count" for name in COUNTS},
    "gossipsub.heartbeat": "ms",
    "gossipsub.pruneBackoff": "s",
    "gossipsub.floodPublish": "flag",
    "gossipsub.gossipFactor": "ratio",
}
EVERYTHING = "\n".join(
    (
        "apiVersion: nimlab.dev/v1",
        "kind: Contract",
        "metadata: {name: all}",
        "spec:",
        "  image: a/b:v1",
        "  container: node",
        "  isolation: label",
        "  hostName: any",
        "  connectTo: at-most-peers",
        "  env:",
        *(
            f"    - {{name: V{index}, from: {field}, as: {unit}, description: one}}"
            for index, (field, unit) in enumerate(UNITS.items())
        ),
        "  ports:",
        "    - {name: p2p, port: 5000, protocols: [TCP, UDP]}",
        "",
    )
)
ISOLATED = "isolation: namespace\n  workload: node\n  service: nodes"
HEAD = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n" + (
    "spec:\n  contract: all\n  peers: 9\n"
)


def load(overlay: dict[str, str | None]) -> LabFiles | tuple[Problem, ...]:
    """Load the shipped lab with some files replaced; return its problems if there are any."""
    try:
        files = load_lab(SAMPLE_LAB, overlay)
    except SpecError as error:
        return error.problems
    return files.problems or files


def load_green(*lines: str, contract: str = EVERYTHING) -> LabFiles | tuple[Problem, ...]:
    """Load the shipped lab with an experiment of these lines, whose contract supports every field."""
    text = HEAD + "".join(f"  {line}\n" for line in lines)
    return load({"contracts/all.yaml": contract, "experiments/green.yaml": text})


def only(result: LabFiles | tuple[Problem, ...]) -> Problem:
    """Return the problem; assert that there is exactly one."""
    assert isinstance(result, tuple), "no problem was found"
    (problem,) = result
    return problem


@pytest.mark.parametrize(
    ("line", "pointer"),
    [
        ("gossipsub: {d: 6, dLow: 7}", "gossipsub.dLow"),
        ("gossipsub: {d: 6, dHigh: 5}", "gossipsub.d"),
        ("gossipsub: {dLow: 6, dHigh: 5}", "gossipsub.dLow"),
        ("gossipsub: {d: 6, dLow: 9, dHigh: 8}", "gossipsub.dLow"),
        ("gossipsub: {d: 6, dScore: 7}", "gossipsub.dScore"),
        ("gossipsub: {dHigh: 6, dScore: 7}", "gossipsub.dScore"),
        ("gossipsub: {d: 6, dOut: 4}", "gossipsub.dOut"),
        ("gossipsub: {d: 12, dLow: 4, dOut: 4}", "gossipsub.dOut"),
        ("gossipsub: {d: 5, dOut: 3}", "gossipsub.dOut"),
        ("gossipsub: {d: 6, dLow: 2, dOut: 5}", "gossipsub.dOut"),
        ("gossipsub: {d: 0, dOut: 1}", "gossipsub.dOut"),
        ("gossipsub: {d: 1000001}", "gossipsub.d"),
        ("gossipsub: {heartbeat: 0ms}", "gossipsub.heartbeat"),
        ("gossipsub: {heartbeat: 0h}", "gossipsub.heartbeat"),
        ("gossipsub: {heartbeat: 2h}", "gossipsub.heartbeat"),
        ("gossipsub: {pruneBackoff: 0s}", "gossipsub.pruneBackoff"),
        ("gossipsub: {heartbeat: 2s, pruneBackoff: 1s}", "gossipsub.heartbeat"),
        ("maxConnections: 1", "maxConnections"),  # connectTo is 2 by default
        ("connectTo: 5\n  maxConnections: 4", "connectTo"),
        ("gossipsub: {d: 6}\n  maxConnections: 5", "gossipsub.d"),
        ("gossipsub: {dLow: 6}\n  maxConnections: 5", "gossipsub.dLow"),
        ("maxConnections: 999999999999999999", "maxConnections"),
        ("fragments: 1000\n  message: {size: 999B}", "fragments"),
        ("message: {size: 0B}", "message.size"),
        ("message: {size: 0.0GiB}", "message.size"),
        ("message: {size: 900GB}", "message.size"),
        ("message: {size: 16MiB}", "message.size"),  # the peer has 16 MiB of memory
        ("message: {interval: 0ms}", "message.interval"),
        ("message: {interval: 0h}", "message.interval"),
        ("message: {interval: 25h}", "message.interval"),
        ("startDelay: 999999999h", "startDelay"),
        ("resources: {memory: 1k}", "resources.memory"),
        ("resources: {memory: 1Ki}", "resources.memory"),
        ("resources: {memory: 0Mi}", "resources.memory"),
        ("resources: {memory: 6143Ki}", "resources.memory"),
        ("resources: {memory: 25Ti}", "resources.memory"),
        ("resources: {memory: 999999999999999Ti}", "resources.memory"),
        ("resources: {cpu: 0m}", "resources.cpu"),
        ('resources: {cpu: "0"}', "resources.cpu"),
        ('resources: {cpu: "1025"}', "resources.cpu"),
        ("network: {latency: 5ms, jitter: 6ms}", "network.jitter"),
        ("network: {jitter: 6ms}", "network.jitter"),
        ("network: {method: none, downlink: 1Mbit}", "network.downlink"),
        ("network: {method: none, loss: 1%}", "network.loss"),
        ("network: {method: cni, jitter: 6ms}", "network.jitter"),
        ("network: {downlink: 0Mbit}", "network.downlink"),
        ("rtt: {interval: 0ms}", "rtt.interval"),
    ],
)
def test_contradiction_is_reported_once_at_its_position(line: str, pointer: str) -> None:
    problem = only(load_green(line))
    assert problem.code == "bad-value"
    assert problem.pointer == f"spec.{pointer}"
    assert problem.location.path == "experiments/green.yaml"
    assert problem.location.line > 6
    assert f"`{pointer}`" in problem.what or f"`{pointer.rpartition('.')[2]}`" in problem.what


@pytest.mark.parametrize(
    "line",
    [
        "gossipsub: {d: 6, dLow: 6, dHigh: 6, dScore: 6, dOut: 3}",
        "gossipsub: {d: 6, dLow: 4, dHigh: 8, dScore: 4, dOut: 2, dLazy: 6, heartbeat: 1s}",
        "gossipsub: {d: 0, dLow: 0, dHigh: 0, dScore: 0, dOut: 0, dLazy: 100}",  # for a bootstrap node
        "gossipsub: {d: 100}",  # the image's defaults for the other fields are unknown
        "gossipsub: {heartbeat: 1ms, pruneBackoff: 1ms}",
        "maxConnections: 2",
        "connectTo: 0",
        "message: {size: 1B, interval: 1ms}",
        "message: {size: 1GiB}\n  resources: {memory: 2Gi}",
        "resources: {cpu: 10m, memory: 6Mi}",
        "network: {latency: 5ms, jitter: 5ms}",
        "network: {method: none}",
        "network: {method: cni, latency: 0ms}",
        "network: {loss: 100%}",
        "rtt: {enabled: false, interval: 50ms, fanout: 64}",
        "startDelay: 0ms",
    ],
)
def test_values_at_the_bounds_are_valid(line: str) -> None:
    files = load_green(line)
    assert isinstance(files, LabFiles)
    assert files.warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [
        ("interval: 2000ms", "interval: 0ms", "defaults.message.interval"),
        ("memory: 16Mi", "memory: 1Ki", "defaults.resources.memory"),
        ("interval: 5s", "interval: 2h", "defaults.rtt.interval"),
        ("    peers: 2\n", "    peers: 20000\n", "defaults.peers"),
        ("connectTo: 2", "maxConnections: 3\n    connectTo: 4", "defaults.connectTo"),
        ("connectTo: 2", "gossipsub: {dLow: 8, d: 6}", "defaults.gossipsub.dLow"),
        ("size: 1440B", "size: 20MiB", "defaults.message.size"),
        ("method: tc", "method: cni, latency: 1ms", "defaults.network.latency"),
        ("method: tc", "method: tc, jitter: 1ms", "defaults.network.jitter"),
        ("peersPerExperiment: 10000", "peersPerExperiment: 999999999999", "limits.peersPerExperiment"),
        ("peersPerExperiment: 10000", "cpu: 0m", "limits.cpu"),
        ("peersPerExperiment: 10000", "memory: 1Mi", "limits.memory"),
        ("peersPerExperiment: 10000", "peers: 1", "defaults.peers"),
        ("timeout: 10m", "timeout: 0s", "sync.timeout"),
        ("timeout: 10m", "timeout: 500ms", "sync.timeout"),
        ("timeout: 10m", "timeout: 1500ms", "sync.timeout"),
        ("timeout: 10m", "timeout: 999999h", "sync.timeout"),
        ("retention: 720h", "retention: 0h", "platform.metrics.retention"),
        ("retention: 720h", "retention: 720h, storage: 1k", "platform.metrics.storage"),
        ("retention: 168h", "retention: 999999999h", "platform.logs.retention"),
        ("retention: 168h", "retention: 168h, storage: 0Gi", "platform.logs.storage"),
    ],
)
def test_contradiction_in_lab_yaml_is_reported_once(old: str, new: str, pointer: str) -> None:
    assert old in LAB
    problem = only(load({"lab.yaml": LAB.replace(old, new, 1)}))
    assert (problem.code, problem.pointer) == ("bad-value", f"spec.{pointer}")
    assert problem.location.path == "lab.yaml"
    assert problem.location.line > 5


def test_message_on_a_contradiction_with_a_default_names_lab_yaml() -> None:
    problem = only(load_green("maxConnections: 1"))
    assert problem.what == "`connectTo` is `2`, and must be at most `maxConnections`, `1`"
    assert problem.hint is not None
    assert problem.hint.endswith("`connectTo`: see the defaults in lab.yaml")


def test_unsupported_setting_is_the_only_problem() -> None:
    problem = only(load_green("maxConnections: 1", contract=NIMP2P.replace("name: nimp2p", "name: all", 1)))
    assert (problem.code, problem.pointer) == ("contract", "spec.maxConnections")


@pytest.mark.parametrize(
    ("line", "pointer"),
    [
        ("resources: {memory: 900Gi}", "resources.memory"),
        ('resources: {cpu: "65"}', "resources.cpu"),
        ("resources: {cpu: 9m}", "resources.cpu"),
    ],
)
def test_unusual_value_is_a_warning(line: str, pointer: str) -> None:
    files = load_green(line)
    assert isinstance(files, LabFiles)
    (warning,) = files.warnings
    assert warning.is_warning
    assert warning.pointer == f"spec.{pointer}"
    assert str(warning).startswith("experiments/green.yaml:7:")
    assert ": warning[bad-value]: " in str(warning)
    assert "green" in [e.name for e in files.experiments]


def test_unusual_default_is_one_warning() -> None:
    files = load({"lab.yaml": LAB.replace("memory: 16Mi", "memory: 900Gi")})
    assert isinstance(files, LabFiles)
    assert [(w.location.path, w.pointer) for w in files.warnings] == [
        ("lab.yaml", "spec.defaults.resources.memory")
    ]


PORTS = "    - {name: p2p, port: 5000, protocols: [TCP, UDP]}\n"


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [
        ("container: node", "container: rtt", "container"),
        ("container: node", "container: shape", "container"),
        ("port: 5000", "port: 9105", "ports[0].port"),
        ("port: 5000", "port: 9106", "ports[0].port"),
        ("port: 5000, protocols: [TCP, UDP]", "port: 9106, protocols: [UDP]", "ports[0].port"),
        (PORTS, PORTS + "    - {name: other, port: 5000, protocols: [UDP]}\n", "ports[1].port"),
        (PORTS, PORTS + "    - {name: p2p, port: 5001, protocols: [TCP]}\n", None),
        (PORTS, PORTS + "    - {name: p2p-tcp, port: 5001, protocols: [TCP]}\n", "ports[1].name"),
        (
            "name: p2p, port: 5000, protocols: [TCP, UDP]",
            "name: rtt-echo, port: 1, protocols: [TCP]",
            "ports[0].name",
        ),
        (
            "name: p2p, port: 5000, protocols: [TCP, UDP]",
            "name: rtt-metrics, port: 1, protocols: [TCP]",
            "ports[0].name",
        ),
        ("name: p2p", 'name: "123"', "ports[0].name"),
        ("name: p2p", "name: p--p", "ports[0].name"),
        (
            "name: p2p, port: 5000, protocols: [TCP, UDP]",
            "name: metrics, port: 1, protocols: [UDP]",
            "ports[0].protocols",
        ),
        (PORTS, PORTS + "  metrics: [libp2p_peers]\n", "metrics"),
        ("from: message.size, as: bytes", "from: message.size, as: ms", "env[2].as"),
        ("from: muxer, as: word", "from: muxer, as: count", "env[4].as"),
        ("from: startDelay, as: s", "from: startDelay, as: bytes", "env[8].as"),
        ("from: peers, as: count", 'value: "1", as: count', "env[0].as"),
        ("hostName: any", "hostName: any\n  startDelay: 1500ms", "startDelay"),
        ("hostName: any", "hostName: any\n  startDelay: 999h", "startDelay"),
    ],
)
def test_contradiction_in_a_contract_is_one_problem(old: str, new: str, pointer: str | None) -> None:
    assert old in EVERYTHING
    problem = only(load_green(contract=EVERYTHING.replace(old, new, 1)))
    assert problem.location.path == "contracts/all.yaml"
    assert problem.code in ("contract", "bad-name", "bad-value")
    if pointer is not None:
        assert problem.pointer == f"spec.{pointer}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("isolation: label", "isolation: namespace", [("missing-key", "spec"), ("missing-key", "spec")]),
        ("isolation: label", "isolation: label\n  workload: node", [("contract", "spec.workload")]),
        ("isolation: label", "isolation: label\n  service: nodes", [("contract", "spec.service")]),
        ("isolation: label", ISOLATED.replace("node\n", "-node\n"), [("bad-name", "spec.workload")]),
        ("isolation: label", ISOLATED.replace("node\n", f"{'n' * 53}\n"), [("bad-name", "spec.workload")]),
        ("isolation: label", ISOLATED.replace("nodes", "5nodes"), [("bad-name", "spec.service")]),
        ("isolation: label", ISOLATED.replace("nodes", "n" * 64), [("bad-name", "spec.service")]),
        ("isolation: label", ISOLATED.replace("nodes", "Nodes"), [("bad-name", "spec.service")]),
        (
            "isolation: label\n  hostName: any",
            f"{ISOLATED}\n  hostName: pod-<ordinal>",
            [("contract", "spec.workload")],
        ),
    ],
)
def test_fixed_names_require_a_namespace_per_experiment_and_are_valid(
    old: str, new: str, expected: list[tuple[str, str]]
) -> None:
    problems = load_green(contract=EVERYTHING.replace(old, new, 1))
    assert isinstance(problems, tuple)
    assert [(p.code, p.pointer) for p in problems] == expected
    assert {p.location.path for p in problems} == {"contracts/all.yaml"}


def test_contract_names_statefulset_and_service_of_isolated_experiments() -> None:
    files = load_green(contract=EVERYTHING.replace("isolation: label", ISOLATED))
    assert isinstance(files, LabFiles)
    green = next(e for e in files.experiments if e.name == "green")
    assert (green.namespace, green.workload, green.service) == ("nimp2p-exp-green", "node", "nodes")
    manifests = render_experiment(load_templates(SAMPLE_LAB, "templates/experiment"), green, files.lab)
    names = {m["kind"]: m["metadata"]["name"] for m in manifests}
    assert (names["StatefulSet"], names["Service"]) == ("node", "nodes")


def test_length_limit_applies_to_the_fixed_name_together_with_the_role() -> None:
    isolated = ISOLATED.replace("node\n", f"{'n' * 46}\n")
    contract = EVERYTHING.replace("isolation: label", isolated)
    lines = ("roles: [{name: short, peers: 2}, {name: longer, peers: 2}]",)
    text = HEAD.replace("  peers: 9\n", "") + "".join(f"  {line}\n" for line in lines)
    problem = only(load({"contracts/all.yaml": contract, "experiments/green.yaml": text}))
    assert (problem.code, problem.pointer) == ("bad-name", "spec.roles[1].name")


@pytest.mark.parametrize(("muxer", "protocol"), [("quic", "TCP"), ("yamux", "UDP"), ("mplex", "UDP")])
def test_muxer_needs_a_port_of_its_protocol(muxer: str, protocol: str) -> None:
    contract = EVERYTHING.replace("[TCP, UDP]", f"[{protocol}]")
    problem = only(load_green(f"muxer: {muxer}", contract=contract))
    assert (problem.code, problem.pointer) == ("contract", "spec.muxer")


def test_own_namespace_of_an_experiment_differs_from_the_labs_namespace() -> None:
    contract = EVERYTHING.replace("isolation: label", ISOLATED)
    text = f"{HEAD}  connectTo: 1\n"
    lab = LAB.replace("namespace: dst-lab", "namespace: nimp2p-exp-green")
    files = {"contracts/all.yaml": contract, "experiments/green.yaml": text}
    assert isinstance(load({**files}), LabFiles)
    problem = only(load({**files, "lab.yaml": lab}))
    assert (problem.code, problem.pointer) == ("bad-name", "metadata.name")


def test_reserved_names_are_the_names_in_the_rendered_pod() -> None:
    files = load_green("rtt: {enabled: true, methods: [tcp, udp, icmp]}", "network: {loss: 1%}")
    assert isinstance(files, LabFiles)
    green = next(e for e in files.experiments if e.name == "green")
    templates = load_templates(SAMPLE_LAB, "templates/experiment")
    pod = next(
        manifest["spec"]["template"]["spec"]
        for manifest in render_experiment(templates, green, files.lab)
        if manifest["kind"] == "StatefulSet"
    )
    assert {container["name"] for container in pod["initContainers"]} == POD_CONTAINERS
    ports = {port["name"] for container in pod["initContainers"] for port in container.get("ports", ())}
    assert ports == RTT_PORT_NAMES


@given(st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 12), min_size=1))
@settings(max_examples=examples(200), deadline=None)
def test_gossipsub_allows_every_accepted_mesh(mesh: dict[str, int]) -> None:
    line = ", ".join(f"{name}: {number}" for name, number in mesh.items())
    result = load_green(f"gossipsub: {{{line}}}")
    d, low, high = mesh.get("d"), mesh.get("dLow"), mesh.get("dHigh")
    out, score = mesh.get("dOut"), mesh.get("dScore")
    known = [number for number in (low, d, high) if number is not None]
    allowed = (
        known == sorted(known)
        and (score is None or d is None or score <= d)
        and (score is None or d is not None or high is None or score <= high)
        and (not out or low is None or out < low)
        and (not out or d is None or 2 * out <= d)
    )
    assert isinstance(result, LabFiles) == allowed
    if isinstance(result, tuple):
        assert len({problem.pointer for problem in result}) == len(result)


def test_invalid_resources_of_a_role_are_reported_at_the_role() -> None:
    text = (SAMPLE_LAB / "experiments" / "purple.yaml").read_text(encoding="utf-8")
    head = text[: text.index("  peers:")]
    roles = "  roles:\n    - {name: one, peers: 1, resources: {memory: 1Mi}}\n    - {name: two, peers: 1}\n"
    files = load_lab(SAMPLE_LAB, {"experiments/purple.yaml": head + roles})
    (problem,) = files.problems
    assert "`resources.memory` is `1Mi`" in problem.what
    assert problem.location.line == head.count("\n") + 2
