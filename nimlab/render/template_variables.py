"""The variables of an experiment's templates, in the terms of Kubernetes and of the contract's image.

In: an experiment and the lab. Out: plain values. They do not depend on the commit, the time, the version of
nimlab, the machine or other experiments. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from nimlab.files.spec import (
    HTTP_PORTS,
    RTT_ECHO_PORT,
    RTT_METRICS_PORT,
    Contract,
    EnvVar,
    Experiment,
    Isolation,
    Lab,
    Network,
    PeerGroup,
    PodSettings,
    Rollout,
    Setting,
)
from nimlab.units import canonical_quantity, format_cpu_m, format_memory_bytes, format_number
from nimlab.yaml_and_json import to_json_text

RTT_GROUP: Final = 65534  # the group of the RTT exporter; with ICMP, only this group may send echoes
_DEFAULT_FANOUT: Final = 8  # default of the exporter, whose default limit on peer series is twice this number
_DEFAULT_METHODS: Final = ("tcp",)  # default of the exporter
ROLE: Final = "role"
"""Label of a role's StatefulSet and pods, in addition to the labels of all peers."""
_NOT_IN_LABEL_VALUE: Final = re.compile(r"[^A-Za-z0-9._-]")


def template_contexts(experiment: Experiment, lab: Lab) -> Iterator[dict[str, Any]]:
    """Yield the variables of the templates, once for each group of peers."""
    shared = _shared_variables(experiment, lab)
    for group in experiment.groups:
        yield shared | _group_variables(experiment, group)


def _group_variables(experiment: Experiment, group: PeerGroup) -> dict[str, Any]:
    """Return the variables that differ between groups of peers."""
    role = {} if group.role is None else {ROLE: group.role}
    selector = {"experiment": experiment.name, **role}
    settings = experiment.settings if group.role is None else {**experiment.settings, "role": group.role}
    contract_env = _env(experiment.contract, settings)
    return {
        "role": group.role,
        "workload": experiment.workload_of(group),
        "workload_selector": selector,
        "role_labels": role,
        "peers": group.peers,
        "cpu": format_cpu_m(group.cpu_m),
        "memory": format_memory_bytes(group.memory_bytes),
        "env": [*contract_env, *({"name": name, "value": value} for name, value in group.pod.env.items())],
        "pod": _pod(group, selector),
    }


def _pod(group: PeerGroup, selector: Mapping[str, str]) -> dict[str, Any]:
    """Return a group's pod settings in the terms of Kubernetes; unused settings are empty or None."""
    pod = group.pod
    return {
        "args": list(pod.args),
        "node_selector": dict(pod.node_selector),
        "tolerations": [dict(toleration) for toleration in pod.tolerations],
        "priority_class": pod.priority_class,
        "pull_secrets": [{"name": name} for name in pod.pull_secrets],
        "pull_policy": pod.pull_policy,
        "spread": [
            {
                "labelSelector": {"matchLabels": dict(selector)},
                "maxSkew": rule.max_skew,
                "topologyKey": rule.topology_key,
                "whenUnsatisfiable": rule.when_unsatisfiable,
            }
            for rule in pod.spread
        ],
        "stagger": [f"--step-ms={pod.stagger_ms}", f"--first={group.first}"] if pod.stagger_ms else [],
    }


def _recorded_groups(experiment: Experiment) -> dict[str, str]:
    """Return the ConfigMap's entry with roles and pod settings; empty if the experiment uses none."""
    if not experiment.roles and experiment.pod == PodSettings():
        return {}
    groups = [{**asdict(group), "workload": experiment.workload_of(group)} for group in experiment.groups]
    return {"groups.json": to_json_text(groups)}


def _shared_variables(experiment: Experiment, lab: Lab) -> dict[str, Any]:
    """Return the variables shared by all groups of peers; `templates/README.md` describes each."""
    contract = experiment.contract
    network = experiment.network
    return {
        "name": experiment.name,
        "full_name": experiment.full_name,
        "namespace": experiment.namespace,
        "own_namespace": contract.isolation is Isolation.NAMESPACE,
        "lab_namespace": lab.namespace,
        "service": experiment.service,
        "labels": _labels(experiment, lab),
        "selector": {"experiment": experiment.name},
        "container": contract.container,
        "image": str(experiment.image),
        "ports": [
            {
                "name": _port_name(port.name, protocol, port.protocols),
                "port": port.port,
                "protocol": protocol,
            }
            for port in contract.ports
            for protocol in port.protocols
        ],
        "scraped_ports": _scraped_ports(experiment),
        "rollout_together": experiment.rollout is Rollout.TOGETHER,
        "network": {
            "method": network.method,
            "downlink": _quantity(network.downlink_bit_per_s),
            "uplink": _quantity(network.uplink_bit_per_s),
        },
        "shape": _shape(network),
        "rtt": _rtt(experiment),
        "nimlab_image": str(lab.images.nimlab),
        "spec_as_run": {
            "contract": contract.name,
            "experiment.json": to_json_text(experiment.document),
            "image": str(experiment.image),
            "settings.json": to_json_text(dict(sorted(experiment.settings.items()))),
            "sha256": experiment.digest,
            **_recorded_groups(experiment),
        },
    }


def _scraped_ports(experiment: Experiment) -> list[int]:
    """Return the ports that pods of the lab's namespace may reach: `metrics`, `publish` and RTT metrics."""
    ports = [p.port for p in experiment.contract.ports if p.name in HTTP_PORTS]
    return [*ports, RTT_METRICS_PORT] if experiment.rtt.enabled else ports


def _shape(network: Network) -> list[str]:
    """Return the flags of `python -m nimlab.agents.shape`; empty if the pod does not shape its link."""
    if network.method != "tc":
        return []
    limits: dict[str, float | None] = {
        "downlink-bit-per-s": network.downlink_bit_per_s,
        "uplink-bit-per-s": network.uplink_bit_per_s,
        "latency-ms": network.latency_ms,
        "jitter-ms": network.jitter_ms,
        "loss-ratio": network.loss_ratio,
    }
    return [f"--{name}={format_number(value)}" for name, value in limits.items() if value is not None]


def _rtt(experiment: Experiment) -> dict[str, Any] | None:
    """Return the settings of `python -m nimlab.agents.rtt` (docs/rtt.md), or None if peers are not probed.

    Defaults are omitted: adding them would change the pod template and restart all peers.
    """
    rtt = experiment.rtt
    if not rtt.enabled:
        return None
    env = {
        "SERVICE": experiment.service,
        "INTERVAL_S": _seconds(rtt.interval_ms),
        "FANOUT": str(rtt.fanout),
    }
    if rtt.fanout > _DEFAULT_FANOUT:
        env["MAX_PEER_SERIES"] = str(2 * rtt.fanout)
    if rtt.methods != _DEFAULT_METHODS:
        env["PROBE_METHODS"] = ",".join(rtt.methods)
    return {
        "metrics_port": RTT_METRICS_PORT,
        "echo_port": RTT_ECHO_PORT,
        "ping_group": RTT_GROUP if "icmp" in rtt.methods else None,
        "env": env,
    }


def _labels(experiment: Experiment, lab: Lab) -> dict[str, str]:
    """Return the labels of all objects and pods. Scrape rules, log rules and dashboards use them."""
    return {
        "app.kubernetes.io/component": "peer",
        "app.kubernetes.io/managed-by": "nimlab",
        "app.kubernetes.io/name": experiment.contract.name,
        "app.kubernetes.io/part-of": lab.prefix.rstrip("-"),
        "app.kubernetes.io/version": label_value(experiment.image.tag),
        "experiment": experiment.name,
        "prefix": experiment.full_name,
    }


def label_value(text: str) -> str:
    """Return the text as a valid label value: at most 63 characters, the first and last alphanumeric."""
    return _NOT_IN_LABEL_VALUE.sub("-", text)[:63].strip("-._") or "none"


def _quantity(value: int | None) -> str | None:
    return None if value is None else canonical_quantity(str(value))


def _port_name(name: str, protocol: str, protocols: tuple[str, ...]) -> str:
    return name if len(protocols) == 1 else f"{name}-{protocol.lower()}"


def _env(contract: Contract, settings: Mapping[str, Setting]) -> list[dict[str, str]]:
    """Return the contract's env, in its order. Variables without a value are omitted."""
    return [
        {"name": variable.name, "value": value}
        for variable in contract.env
        if (value := _env_value(variable, settings)) is not None
    ]


def _env_value(variable: EnvVar, settings: Mapping[str, Setting]) -> str | None:
    """Return a variable's text: the contract's fixed value, or the setting in the unit of the image."""
    if variable.source is None:
        return variable.value
    value = settings.get(variable.source)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if variable.unit == "s" and isinstance(value, int):
        return _seconds(value)
    return value if isinstance(value, str) else format_number(value)


def _seconds(duration_ms: int) -> str:
    """Return the duration in seconds, as an integer if possible."""
    return format_number(duration_ms // 1000 if duration_ms % 1000 == 0 else duration_ms / 1000)
