"""Every name that a template can use: one experiment in the words of Kubernetes and of its node's image.

In: an experiment and the lab. Out: plain values. Nothing else enters: not the commit, the time, the tool's
version, the machine or another experiment. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from nimlab.files.spec import (
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
from nimlab.text import to_json_text
from nimlab.units import canonical_quantity, format_cpu_m, format_memory_bytes, format_number

RTT_GROUP: Final = 65534  # the exporter's: with ICMP, a pod allows its echoes to this group alone
_USUAL_FANOUT: Final = 8  # the exporter's own, with room for as many peers that have left
_USUAL_METHODS: Final = ("tcp",)  # the exporter's own
ROLE: Final = "role"
"""Label of a role's StatefulSet and pods, beside those of every peer."""
_LABEL_VALUE: Final = re.compile(r"[^A-Za-z0-9._-]")


def contexts_of(experiment: Experiment, lab: Lab) -> Iterator[dict[str, Any]]:
    """Yield the names that templates can use, once for each group of peers."""
    shared = context_of(experiment, lab)
    for group in experiment.groups:
        yield shared | _group_names(experiment, group)


def _group_names(experiment: Experiment, group: PeerGroup) -> dict[str, Any]:
    """The names that differ from one group of peers to the next."""
    role = {} if group.role is None else {ROLE: group.role}
    selector = {"experiment": experiment.name, **role}
    settings = experiment.settings if group.role is None else {**experiment.settings, "role": group.role}
    own = _env(experiment.contract, settings)
    return {
        "role": group.role,
        "workload": experiment.workload_of(group),
        "workload_selector": selector,
        "role_labels": role,
        "peers": group.peers,
        "cpu": format_cpu_m(group.cpu_m),
        "memory": format_memory_bytes(group.memory_bytes),
        "env": [*own, *({"name": name, "value": value} for name, value in group.pod.env.items())],
        "pod": _pod(group, selector),
    }


def _pod(group: PeerGroup, selector: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a group's pods in the words of Kubernetes; empty or none where nothing was asked."""
    pod = group.pod
    return {
        "args": list(pod.args),
        "node_selector": dict(pod.node_selector),
        "tolerations": [dict(one) for one in pod.tolerations],
        "priority_class": pod.priority_class,
        "pull_secrets": [{"name": name} for name in pod.pull_secrets],
        "pull_policy": pod.pull_policy,
        "spread": [
            {
                "labelSelector": {"matchLabels": dict(selector)},
                "maxSkew": one.max_skew,
                "topologyKey": one.topology_key,
                "whenUnsatisfiable": one.when_unsatisfiable,
            }
            for one in pod.spread
        ],
        "stagger": [f"--step-ms={pod.stagger_ms}", f"--first={group.first}"] if pod.stagger_ms else [],
    }


def _groups_as_run(experiment: Experiment) -> dict[str, str]:
    """What the ConfigMap records of roles and pod settings; nothing where none are used."""
    if not experiment.roles and experiment.pod == PodSettings():
        return {}
    groups = [{**asdict(group), "workload": experiment.workload_of(group)} for group in experiment.groups]
    return {"groups.json": to_json_text(groups)}


def context_of(experiment: Experiment, lab: Lab) -> dict[str, Any]:
    """Return the names that all groups of peers share; `templates/README.md` says what each means."""
    contract = experiment.contract
    full = experiment.full_name
    network = experiment.network
    return {
        "name": experiment.name,
        "full_name": full,
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
            **_groups_as_run(experiment),
        },
    }


def _scraped_ports(experiment: Experiment) -> list[int]:
    """What the lab's own pods may reach: the node's metrics and commands, and the times between peers."""
    ports = [p.port for p in experiment.contract.ports if p.name in ("metrics", "publish")]
    return [*ports, RTT_METRICS_PORT] if experiment.rtt.enabled else ports


def _shape(network: Network) -> list[str]:
    """The flags of `python -m nimlab.agents.shape`; none where the pod itself sets no limits."""
    if network.method != "tc":
        return []
    asked: dict[str, float | None] = {
        "downlink-bit-per-s": network.downlink_bit_per_s,
        "uplink-bit-per-s": network.uplink_bit_per_s,
        "latency-ms": network.latency_ms,
        "jitter-ms": network.jitter_ms,
        "loss-ratio": network.loss_ratio,
    }
    return [f"--{name}={format_number(value)}" for name, value in asked.items() if value is not None]


def _rtt(experiment: Experiment) -> dict[str, Any] | None:
    """Settings of `python -m nimlab.agents.rtt`, named as in docs/rtt.md; None if peers are not probed.

    What the exporter does by itself is left unsaid: to say it would restart the peers of every lab.
    """
    rtt = experiment.rtt
    if not rtt.enabled:
        return None
    env = {
        "SERVICE": experiment.service,
        "INTERVAL_S": _seconds(rtt.interval_ms),
        "FANOUT": str(rtt.fanout),
    }
    if rtt.fanout > _USUAL_FANOUT:
        env["MAX_PEER_SERIES"] = str(2 * rtt.fanout)
    if rtt.methods != _USUAL_METHODS:
        env["PROBE_METHODS"] = ",".join(rtt.methods)
    return {
        "metrics_port": RTT_METRICS_PORT,
        "echo_port": RTT_ECHO_PORT,
        "ping_group": RTT_GROUP if "icmp" in rtt.methods else None,
        "env": env,
    }


def _labels(experiment: Experiment, lab: Lab) -> dict[str, str]:
    """The labels of every object and pod: scrape rules, log rules and dashboards select by the same."""
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
    """Return the text as a label value: at most 63 of its allowed characters, ends alphanumeric."""
    return _LABEL_VALUE.sub("-", text)[:63].strip("-._") or "none"


def _quantity(value: int | None) -> str | None:
    return None if value is None else canonical_quantity(str(value))


def _port_name(name: str, protocol: str, protocols: tuple[str, ...]) -> str:
    return name if len(protocols) == 1 else f"{name}-{protocol.lower()}"


def _env(contract: Contract, settings: Mapping[str, Setting]) -> list[dict[str, str]]:
    """The env that the contract lists, in its order; what nothing feeds is left to the image's default."""
    return [
        {"name": variable.name, "value": value}
        for variable in contract.env
        if (value := _env_value(variable, settings)) is not None
    ]


def _env_value(variable: EnvVar, settings: Mapping[str, Setting]) -> str | None:
    """A variable's text: fixed by the contract, or the setting that feeds it in the image's unit."""
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
    """The duration in seconds, as a whole number where it is one."""
    return format_number(duration_ms // 1000 if duration_ms % 1000 == 0 else duration_ms / 1000)
