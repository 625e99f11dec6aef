"""The monitoring stack: the lab and its experiments -> the platform's manifests.

In: `templates/platform/` and the lab. Out: manifests. `config/` holds the programs' own configurations, which
are rendered first and reach the others as texts, with a checksum each; `namespaces/` is rendered once for
each namespace that has peers. No experiment's settings enter, but where experiments are and how their pods
are known. `dashboards/` says what is shown; `layout/` makes what Grafana reads of each, one after another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nimlab.cache import ValueCache
from nimlab.files.spec import Isolation, Lab, LabFiles
from nimlab.objects.applyset import COMPONENT
from nimlab.objects.manifest import Manifest, apply_order, key_of
from nimlab.render import Templates, load_templates
from nimlab.render.context import label_value
from nimlab.text import to_json_text, to_yaml_text
from nimlab.units import format_duration_ms

FOLDER: Final = "templates/platform"
PLATFORM_FOLDERS: Final = (
    FOLDER, *(f"{FOLDER}/{name}" for name in ("config", "dashboards", "layout", "namespaces")),
)  # fmt: skip
COMPONENTS: Final = (
    "prometheus", "node-exporter", "cadvisor", "loki", "log-agent", "grafana", "discovery",
)  # fmt: skip
_WHOM: Final = "the platform"
_ERRORS: Final = r"(?i)\b(err|error|fatal|panic|exception|failed)\b"
_POD_DEVICES: Final = "lo|veth.*|cali.*|cni.*|flannel.*|tunl.*|ifb.*"
_ON_HOST_NETWORK: Final = ("lab-node-exporter",)  # workloads whose pods have no network of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTemplates:
    """The platform's folders of templates."""

    config: Templates
    dashboards: Templates
    layout: Templates
    namespaces: Templates
    objects: Templates


def load_platform_templates(root: Path, value_cache: ValueCache | None = None) -> PlatformTemplates:
    """Read and compile all of them. Raises RenderError with file and line."""
    return PlatformTemplates(
        config=load_templates(root, f"{FOLDER}/config", value_cache),
        dashboards=load_templates(root, f"{FOLDER}/dashboards", value_cache),
        layout=load_templates(root, f"{FOLDER}/layout", value_cache),
        namespaces=load_templates(root, f"{FOLDER}/namespaces", value_cache),
        objects=load_templates(root, FOLDER, value_cache),
    )


def render_platform(templates: PlatformTemplates, files: LabFiles) -> tuple[Manifest, ...]:
    """Return the platform's manifests, canonical and in apply order. Raises RenderError."""
    names = _all_names(templates, files)
    found = templates.objects.compiled().fill(names, _WHOM)
    for namespace in names["namespaces"]:
        found += templates.namespaces.compiled().fill({**names, "scraped_namespace": namespace}, _WHOM)
    return tuple(sorted(found, key=lambda manifest: apply_order(key_of(manifest))))


def find_platform_template(
    templates: PlatformTemplates, files: LabFiles, kind: str, name: str
) -> tuple[str, str] | None:
    """Return path and text of the template that makes an object of the platform; None if none does."""
    return templates.objects.find(_all_names(templates, files), kind, name)


def _all_names(templates: PlatformTemplates, files: LabFiles) -> dict[str, Any]:
    """The names, with the texts that other templates of the platform make. Raises RenderError."""
    names = _names(files)
    texts = {
        name.removesuffix(".j2"): to_yaml_text(data)
        for name, data in templates.config.compiled().data(names, _WHOM).items()
    }
    names["dashboards"] = {board["uid"]: to_json_text(board) for board in render_dashboards(templates, files)}
    names["configs"] = texts
    names["checksums"] = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    return names


def render_dashboards(templates: PlatformTemplates, files: LabFiles) -> tuple[Mapping[str, Any], ...]:
    """Return the dashboards as Grafana reads them, in the order of their files. Raises RenderError."""
    names = _names(files)
    shown = templates.dashboards.compiled().data(names, _WHOM)
    layout = templates.layout.compiled()
    return tuple(
        board
        for name in sorted(shown)
        for board in layout.data({"dashboard": shown[name]}, f"dashboards/{name}").values()
    )


def _patterns(lab: Lab, own: Sequence[str]) -> dict[str, str]:
    """Regular expressions of relabelling rules; `own` are the experiments' own namespaces."""
    prefix, namespace = _literal(lab.prefix), _literal(lab.namespace)
    names = _one_of([name.removeprefix(lab.prefix) for name in own])
    return {
        "prefix_pattern": f"{prefix}.*",
        "own_namespace_pattern": f"{prefix}({names})",  # of no experiment: no namespace ends with `-`
        "pod_pattern": f"{namespace};{prefix}(.+)-[0-9]+",
        "scraped_pattern": f"container_.+;({_one_of([lab.namespace, *own])})|machine_.+;|cadvisor_.+;",
        "host_network_pattern": f"container_network_.+;{namespace};({_one_of(_ON_HOST_NETWORK)})-[a-z0-9]+",
    }


def _role_patterns(files: LabFiles) -> list[str]:
    """Patterns over namespace and pod of peers with a role, whose name has the role after the experiment's.

    One for each set of roles, exact: `green-publisher` may be an experiment as well.
    """
    lab = files.lab
    by_roles: dict[tuple[str, ...], list[str]] = {}
    for one in files.experiments:
        if one.roles and one.contract.isolation is Isolation.LABEL:
            roles = tuple(sorted(str(group.role) for group in one.roles))
            by_roles.setdefault(roles, []).append(one.name)
    start = f"{_literal(lab.namespace)};{_literal(lab.prefix)}"
    return [
        f"{start}({_one_of(names)})-(?:{_one_of(roles)})-[0-9]+" for roles, names in sorted(by_roles.items())
    ]


def _one_of(words: Iterable[str]) -> str:
    return "|".join(_literal(word) for word in words)


def _literal(text: str) -> str:
    """Return a regular expression for the text itself; a hyphen means itself where no class is."""
    return re.escape(text).replace(r"\-", "-")


def _names(files: LabFiles) -> dict[str, Any]:
    """Every name that the platform's templates can use; `templates/README.md` says what each means."""
    lab, contracts = files.lab, files.contracts.values()
    platform, images = lab.platform, lab.images
    version = {
        "prometheus": images.prometheus,
        "node-exporter": images.node_exporter,
        "cadvisor": images.cadvisor,
        "loki": images.loki,
        "log-agent": images.promtail if platform.log_agent == "promtail" else images.alloy,
        "grafana": images.grafana,
        "discovery": images.prometheus,
    }
    home = f"http://lab-{{}}.{lab.namespace}.svc:{{}}"
    own = sorted(e.namespace for e in files.experiments if e.contract.isolation is Isolation.NAMESPACE)
    return {
        "namespace": lab.namespace,
        "namespaces": [lab.namespace, *own],
        **_patterns(lab, own),
        "role_patterns": _role_patterns(files),
        "node_containers": _one_of(sorted({c.container for c in contracts})),
        "sent_words": sorted({c.logs["sent"] for c in contracts if "sent" in c.logs}),
        "delivered_patterns": sorted({c.logs["delivered"] for c in contracts if "delivered" in c.logs}),
        "error_pattern": _ERRORS,
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
                "app.kubernetes.io/version": label_value(version[name].tag),
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
        "prometheus_url": home.format("prometheus", 9090),
        "loki_url": home.format("loki", 3100),
        "loki_push_url": home.format("loki", 3100) + "/loki/api/v1/push",
    }
