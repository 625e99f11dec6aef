"""From an experiment's file to the exporter's settings: the exporter accepts every value that nimlab accepts.

The exporter imports nothing from nimlab, so both programs define the limits. These tests compare the limits.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from nimlab.agents.rtt.config import Config, ConfigError, parse_config
from nimlab.agents.rtt.outcome import Method
from nimlab.errors import GuardError, Problem, SpecError
from nimlab.files.load import load_lab
from nimlab.files.spec import LabFiles
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest
from nimlab.render import load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests
from tests.support.lab import Lab
from tests.support.paths import SAMPLE_LAB

TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")
APPLY_SET = ApplySet(name="experiments", namespace="dst-lab")
OWN = {"POD_NAME": "nimp2p-exp-green-0", "POD_IP": "10.42.0.7"}
DEFAULTS = {"interval": "5s", "fanout": 8, "methods": ["tcp"]}
PING_RANGE = {"name": "net.ipv4.ping_group_range", "value": "65534 65534"}


def load_green(rtt: dict[str, Any], lab: str | None = None) -> LabFiles:
    """Return the shipped lab with one more experiment. Its file is JSON, which is valid YAML."""
    text = json.dumps(
        {
            "apiVersion": "nimlab.dev/v1",
            "kind": "Experiment",
            "metadata": {"name": "green"},
            "spec": {"contract": "nimp2p", "rtt": rtt},
        }
    )
    return load_lab(SAMPLE_LAB, {"experiments/green.yaml": text} | ({"lab.yaml": lab} if lab else {}))


def render_green(rtt: dict[str, Any]) -> list[Manifest]:
    """Return the manifests of the experiment after the guard has accepted them."""
    files = load_green(rtt)
    assert files.problems == ()
    green = next(e for e in files.experiments if e.name == "green")
    manifests = [stamp(m, APPLY_SET) for m in render_experiment(TEMPLATES, green, files.lab)]
    guard_green(manifests)
    return manifests


def guard_green(manifests: list[Manifest]) -> None:
    """Check manifests as a sync does. Raises GuardError."""
    files = load_green({})
    green = next(e for e in files.experiments if e.name == "green")
    check_manifests(manifests, green, files.lab, APPLY_SET)


def pod_of(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the spec of the pods."""
    spec: dict[str, Any] = next(m for m in manifests if m["kind"] == "StatefulSet")["spec"]["template"][
        "spec"
    ]
    return spec


def exporter_of(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the sidecar container."""
    exporter: dict[str, Any] = next(c for c in pod["initContainers"] if c["name"] == "rtt")
    return exporter


def settings_of(rtt: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the exporter."""
    env = exporter_of(pod_of(render_green(rtt)))["env"]
    return {var["name"]: var["value"] if "value" in var else OWN[var["name"]] for var in env}


def config_of(rtt: dict[str, Any]) -> Config:
    """Return the exporter's settings for this environment. Raises ConfigError."""
    return parse_config([], settings_of(rtt))


def problems_of(rtt: dict[str, Any]) -> tuple[Problem, ...]:
    """Return the problems that nimlab reports."""
    return load_green(rtt).problems


@pytest.mark.parametrize(
    ("interval", "fanout", "methods"),
    [
        *product(
            (("50ms", 0.05), ("1337ms", 1.337), ("1h", 3600)),
            (1, 8, 9, 64),
            (["tcp"], ["icmp"], ["udp", "tcp"], ["tcp", "udp", "icmp"]),
        )
    ],
)
def test_the_exporter_accepts_what_nimlab_accepts(
    interval: tuple[str, float], fanout: int, methods: list[str]
) -> None:
    config = config_of({"interval": interval[0], "fanout": fanout, "methods": methods})
    assert config.interval_s == interval[1]
    assert config.fanout == fanout
    assert {method.value for method in config.probe_methods} == {*methods}
    assert config.max_peer_series == max(16, 2 * fanout)  # there may be as many former targets as targets
    assert config.timeout_s <= config.interval_s


@pytest.mark.parametrize(
    ("rtt", "setting", "what"),
    [
        ({"interval": "49ms"}, {"INTERVAL_S": "0.049"}, "must be from `50ms` to `1h`"),
        ({"interval": "3600001ms"}, {"INTERVAL_S": "3600.001"}, "must be from `50ms` to `1h`"),
        ({"fanout": 0}, {"FANOUT": "0"}, "must be at least 1"),
        ({"fanout": 65}, {"FANOUT": "65"}, "must be at most 64"),
        ({"methods": ["libp2p"]}, {"PROBE_METHODS": "libp2p"}, "`libp2p` is not allowed"),
    ],
)
def test_nimlab_rejects_what_the_exporter_rejects(
    rtt: dict[str, Any], setting: dict[str, str], what: str
) -> None:
    (problem,) = problems_of(rtt)
    assert what in problem.what
    assert problem.location.path == "experiments/green.yaml"
    with pytest.raises(ConfigError) as caught:
        parse_config([], {"SERVICE": "green", **OWN, **setting})
    assert next(iter(setting)) in caught.value.problems[0]


@pytest.mark.parametrize(
    ("methods", "what"),
    [([], "must have at least 1"), (["tcp", "tcp"], "contains duplicate items"), ("tcp", "must be a list")],
)
def test_methods_must_not_be_empty_or_repeated(methods: Any, what: str) -> None:
    (problem,) = problems_of({"methods": methods})
    assert what in problem.what


def test_a_default_of_the_lab_has_the_same_limits() -> None:
    text = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_green({}, text.replace("interval: 5s", "interval: 2h"))
    (problem,) = caught.value.problems
    assert problem.location.path == "lab.yaml", "the problem is reported once, at its cause"
    assert "rtt.interval` is `2h`" in problem.what


def test_an_experiment_replaces_the_labs_default_methods() -> None:
    text = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    assert "methods: [tcp]" in text
    lab = text.replace("methods: [tcp]", "methods: [udp, icmp]")
    labs = [load_green(rtt, lab).experiments for rtt in ({}, {"methods": ["tcp"]})]
    green, replaced = (next(e.rtt.methods for e in experiments if e.name == "green") for experiments in labs)
    assert (green, replaced) == (("udp", "icmp"), ("tcp",))


def test_defaults_of_the_exporter_are_omitted() -> None:
    """Adding them would change the pod template and restart every peer of every lab."""
    assert {*settings_of(DEFAULTS)} == {*OWN, "SERVICE", "INTERVAL_S", "FANOUT"}
    config = config_of(DEFAULTS)
    assert (config.probe_methods, config.max_peer_series) == ((Method.TCP,), 16)


def test_the_order_of_methods_does_not_change_the_pod() -> None:
    first, second = (pod_of(render_green({"methods": m})) for m in (["icmp", "tcp"], ["tcp", "icmp"]))
    assert first == second


@pytest.mark.parametrize("methods", [["tcp"], ["tcp", "udp"], ["icmp"], ["tcp", "udp", "icmp"]])
def test_icmp_is_permitted_for_the_exporters_group_if_used(methods: list[str]) -> None:
    pod = pod_of(render_green({"methods": methods}))
    context = exporter_of(pod)["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    if "icmp" in methods:
        assert pod["securityContext"]["sysctls"] == [PING_RANGE]
        # Set explicitly, because the group would be 0 if the image does not define the user.
        assert context["runAsGroup"] == 65534
    else:
        assert "sysctls" not in pod["securityContext"]
        assert "runAsGroup" not in context


@pytest.mark.parametrize(
    "sysctl",
    [
        {"name": "net.ipv4.ip_forward", "value": "1"},
        {"name": "net.ipv4.ping_group_range", "value": "0 2147483647"},
        "net.ipv4.ip_forward=1",
    ],
)
def test_the_guard_rejects_other_sysctls(sysctl: Any) -> None:
    manifests = render_green({"methods": ["icmp"]})
    pod_of(manifests)["securityContext"]["sysctls"].append(sysctl)
    with pytest.raises(GuardError, match="sysctls are not allowed"):
        guard_green(manifests)


def test_the_network_policy_allows_every_method_between_peers() -> None:
    """The ports of a NetworkPolicy cannot specify ICMP, so the rule between peers has no ports."""
    manifests = render_green({"methods": ["tcp", "udp", "icmp"]})
    (policy,) = (m["spec"] for m in manifests if m["kind"] == "NetworkPolicy")
    own = [{"podSelector": {"matchLabels": {"experiment": "green"}}}]
    assert {"from": own} in policy["ingress"]
    assert {"to": own} in policy["egress"]
    (service,) = (m["spec"] for m in manifests if m["kind"] == "Service")
    assert {(p["name"], p["port"], p["protocol"]) for p in service["ports"]} >= {
        ("rtt-echo", 9106, "TCP"),
        ("rtt-echo-udp", 9106, "UDP"),
    }


@pytest.mark.live
def test_a_real_server_accepts_every_method_without_drift(lab: Lab) -> None:
    lab.edit("purple", "fanout: 8}", "fanout: 64, methods: [tcp, udp, icmp]}")
    answer = lab.run("sync", "purple")
    assert answer.code == 0, answer.out + answer.err
    live = lab.get("Pod", "nimp2p-exp-purple-0")
    assert live is not None
    assert live["spec"]["securityContext"]["sysctls"] == [PING_RANGE]
    again = lab.run("sync", "purple", "--dry-run", "--exit-code")
    assert again.code == 0, again.out + again.err
