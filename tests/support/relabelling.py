"""Relabelling as in Prometheus and Promtail, so that tests can apply the rendered rules to rendered pods.

In: labels, and rules from a configuration. Out: the new labels, or None if a rule drops the target. Only the
actions that the lab's rules use are supported; any other action raises KeyError. Pure.

Source: prometheus.io/docs/prometheus/latest/configuration/configuration, "relabel_config".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nimlab.objects.manifest import Manifest


def relabelled(labels: Mapping[str, str], rules: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """Return a target's labels after all rules, except `__…` labels; None if a rule drops the target."""
    kept = stored(labels, rules)
    return None if kept is None else {n: value for n, value in kept.items() if not n.startswith("__")}


def stored(labels: Mapping[str, str], rules: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """Return a series' labels after all rules, including `__name__`; None if a rule drops the series."""
    kept = dict(labels)
    for rule in rules:
        separator = rule.get("separator", ";")
        value = separator.join(kept.get(name, "") for name in rule.get("source_labels", ()))
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        action = rule.get("action", "replace")
        if action == "keep" and match is None:
            return None
        if action == "drop" and match is not None:
            return None
        if action == "replace" and match is not None:
            kept[rule["target_label"]] = match.expand(
                re.sub(r"\$(\d)", r"\\\1", rule.get("replacement", "$1"))
            )
        elif action == "labeldrop":
            kept = {n: value for n, value in kept.items() if not re.fullmatch(rule["regex"], n)}
        elif action not in ("keep", "drop", "replace"):
            raise KeyError(action)
    return {name: value for name, value in kept.items() if value}


def targets_of(workload: Manifest) -> Iterator[dict[str, str]]:
    """Yield the service-discovery labels of each port of a workload's first pod, including sidecars."""
    template = workload["spec"]["template"]
    pod_labels = {
        "__meta_kubernetes_namespace": workload["metadata"]["namespace"],
        "__meta_kubernetes_pod_name": f"{workload['metadata']['name']}-0",
        "__meta_kubernetes_pod_node_name": "node-1",
        "__meta_kubernetes_pod_host_ip": "192.0.2.1",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_uid": "0f5c",
        **{
            f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9]', '_', name)}": value
            for name, value in template["metadata"]["labels"].items()
        },
    }
    for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
        ports: list[dict[str, Any]] = container.get("ports") or [{}]
        for port in ports:
            yield {
                **pod_labels,
                "__address__": f"192.0.2.7:{port.get('containerPort', 80)}",
                "__meta_kubernetes_pod_container_name": container["name"],
                "__meta_kubernetes_pod_container_port_name": port.get("name", ""),
            }
