"""Lab and experiments -> manifests of the platform, which is the monitoring stack.

In: `templates/platform/` and the lab's files. Out: manifests. `config/` contains the configurations of the
programs. They are rendered first; the other templates receive them as texts with checksums. `namespaces/` is
rendered once per namespace with peers. `dashboards/` describes the contents of each dashboard, and `layout/`
converts each description to Grafana's format. Of each experiment, only the namespace, the name and the roles
are used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nimlab.files.spec import Isolation, Lab, LabFiles
from nimlab.objects.applyset import COMPONENT
from nimlab.objects.manifest import Manifest, apply_order, key_of
from nimlab.render import Templates, load_templates
from nimlab.render.template_variables import label_value
from nimlab.units import format_duration_ms
from nimlab.value_cache import ValueCache
from nimlab.yaml_and_json import to_json_text, to_yaml_text

FOLDER: Final = "templates/platform"
PLATFORM_FOLDERS: Final = (
    FOLDER, *(f"{FOLDER}/{name}" for name in ("config", "dashboards", "layout", "namespaces")),
)  # fmt: skip
COMPONENTS: Final = (
    "prometheus", "node-exporter", "cadvisor", "loki", "log-agent", "grafana", "discovery",
)  # fmt: skip
_SUBJECT: Final = "the platform"
_ERROR_PATTERN: Final = r"(?i)\b(err|error|fatal|panic|exception|failed)\b"
_POD_DEVICES: Final = "lo|veth.*|cali.*|cni.*|flannel.*|tunl.*|ifb.*"
_HOST_NETWORK_WORKLOADS: Final = ("lab-node-exporter",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTemplates:
    """The templates of the platform, by folder."""

    config: Templates
    dashboards: Templates
    layout: Templates
    namespaces: Templates
    objects: Templates


def load_platform_templates(root: Path, value_cache: ValueCache | None = None) -> PlatformTemplates:
    """Read and compile all templates of the platform. Raises RenderError with file and line."""
    return PlatformTemplates(
        config=load_templates(root, f"{FOLDER}/config", value_cache),
        dashboards=load_templates(root, f"{FOLDER}/dashboards", value_cache),
        layout=load_templates(root, f"{FOLDER}/layout", value_cache),
        namespaces=load_templates(root, f"{FOLDER}/namespaces", value_cache),
        objects=load_templates(root, FOLDER, value_cache),
    )


def render_platform(templates: PlatformTemplates, files: LabFiles) -> tuple[Manifest, ...]:
    """Return the platform's manifests, canonical and in apply order. Raises RenderError."""
    variables = _all_variables(templates, files)
    manifests = templates.objects.compiled().render_manifests(variables, _SUBJECT)
    for namespace in variables["namespaces"]:
        manifests += templates.namespaces.compiled().render_manifests(
            {**variables, "scraped_namespace": namespace}, _SUBJECT
        )
    return tuple(sorted(manifests, key=lambda manifest: apply_order(key_of(manifest))))


def find_platform_template(
    templates: PlatformTemplates, files: LabFiles, kind: str, name: str
) -> tuple[str, str] | None:
    """Return the path and the source of the template that renders an object of the platform, or None."""
    return templates.objects.find(_all_variables(templates, files), kind, name)


def _all_variables(templates: PlatformTemplates, files: LabFiles) -> dict[str, Any]:
    """Return all variables, including the rendered configurations and dashboards. Raises RenderError."""
    variables = _variables(files)
    configs = {
        name.removesuffix(".j2"): to_yaml_text(document)
        for name, document in templates.config.compiled().render_documents(variables, _SUBJECT).items()
    }
    dashboards = render_dashboards(templates, files)
    return {
        **variables,
        "dashboards": {dashboard["uid"]: to_json_text(dashboard) for dashboard in dashboards},
        "configs": configs,
        "checksums": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in configs.items()},
    }


def render_dashboards(templates: PlatformTemplates, files: LabFiles) -> tuple[Mapping[str, Any], ...]:
    """Return the dashboards in Grafana's format, in the order of their files. Raises RenderError."""
    descriptions = templates.dashboards.compiled().render_documents(_variables(files), _SUBJECT)
    layout = templates.layout.compiled()
    return tuple(
        dashboard
        for name, description in sorted(descriptions.items())
        for dashboard in layout.render_documents({"dashboard": description}, f"dashboards/{name}").values()
    )


def _patterns(lab: Lab, own_namespaces: Sequence[str]) -> dict[str, str]:
    """Return the regular expressions for the relabelling rules."""
    prefix, namespace = _literal(lab.prefix), _literal(lab.namespace)
    names = _any_of([name.removeprefix(lab.prefix) for name in own_namespaces])
    with_peers = _any_of([lab.namespace, *own_namespaces])
    on_host_network = _any_of(_HOST_NETWORK_WORKLOADS)
    return {
        "prefix_pattern": f"{prefix}.*",
        "own_namespace_pattern": f"{prefix}({names})",  # without names, the expression matches no namespace
        "pod_pattern": f"{namespace};{prefix}(.+)-[0-9]+",
        "scraped_pattern": f"container_.+;({with_peers})|machine_.+;|cadvisor_.+;",
        "host_network_pattern": f"container_network_.+;{namespace};({on_host_network})-[a-z0-9]+",
    }


def _role_patterns(files: LabFiles) -> list[str]:
    """Return regular expressions that match `namespace;pod` for peers with a role.

    The pod names of such peers contain the role after the experiment's name. There is one expression per set
    of roles. It lists the exact names, because `green-publisher` can also be the name of an experiment.
    """
    lab = files.lab
    by_roles: dict[tuple[str, ...], list[str]] = {}
    for experiment in files.experiments:
        if experiment.roles and experiment.contract.isolation is Isolation.LABEL:
            roles = tuple(sorted(str(group.role) for group in experiment.roles))
            by_roles.setdefault(roles, []).append(experiment.name)
    start = f"{_literal(lab.namespace)};{_literal(lab.prefix)}"
    return [
        f"{start}({_any_of(names)})-(?:{_any_of(roles)})-[0-9]+" for roles, names in sorted(by_roles.items())
    ]


def _any_of(words: Iterable[str]) -> str:
    return "|".join(_literal(word) for word in words)


def _literal(text: str) -> str:
    """Return a regular expression that matches only this text. Hyphens are not escaped, which is valid."""
    return re.escape(text).replace(r"\-", "-")


def _variables(files: LabFiles) -> dict[str, Any]:
    """Return the variables that do not depend on other templates; `templates/README.md` describes each."""
    lab, contracts = files.lab, files.contracts.values()
    platform, images = lab.platform, lab.images
    main_images = {
        "prometheus": images.prometheus,
        "node-exporter": images.node_exporter,
        "cadvisor": images.cadvisor,
        "loki": images.loki,
        "log-agent": images.promtail if platform.log_agent == "promtail" else images.alloy,
        "grafana": images.grafana,
        "discovery": images.prometheus,
    }
    url = f"http://lab-{{}}.{lab.namespace}.svc:{{}}"
    own_namespaces = sorted(
        e.namespace for e in files.experiments if e.contract.isolation is Isolation.NAMESPACE
    )
    return {
        "namespace": lab.namespace,
        "namespaces": [lab.namespace, *own_namespaces],
        **_patterns(lab, own_namespaces),
        "role_patterns": _role_patterns(files),
        "node_containers": _any_of(sorted({c.container for c in contracts})),
        "sent_words": sorted({c.logs["sent"] for c in contracts if "sent" in c.logs}),
        "delivered_patterns": sorted({c.logs["delivered"] for c in contracts if "delivered" in c.logs}),
        "error_pattern": _ERROR_PATTERN,
        "pod_devices": _POD_DEVICES,
        "pod_jobs": [["nimp2p", "metrics"], ["rtt", "rtt-metrics"]],
        "images": {
            "prometheus": str(images.prometheus),
            "node_exporter": str(images.node_exporter),
            "cadvisor": str(images.cadvisor),
            "loki": str(images.loki),
            "alloy": str(images.alloy),
            "promtail": str(images.promtail),
            "grafana": str(images.grafana),
        },
        "labels": {
            name: {
                "app.kubernetes.io/managed-by": "nimlab",
                "app.kubernetes.io/name": name,
                "app.kubernetes.io/part-of": "nimlab-platform",
                "app.kubernetes.io/version": label_value(main_images[name].tag),
                COMPONENT: name,
            }
            for name in COMPONENTS
        },
        "selectors": {name: {COMPONENT: name} for name in COMPONENTS},
        "cadvisor": platform.cadvisor,
        "log_agent": platform.log_agent,
        "containerd_folder": platform.containerd_folder,
        "metrics_retention": format_duration_ms(platform.metrics_retention_s * 1000),
        "metrics_storage": platform.metrics_storage,
        "logs_retention": format_duration_ms(platform.logs_retention_s * 1000),
        "logs_storage": platform.logs_storage,
        "prometheus_url": url.format("prometheus", 9090),
        "loki_url": url.format("loki", 3100),
        "loki_push_url": url.format("loki", 3100) + "/loki/api/v1/push",
    }
