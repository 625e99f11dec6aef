"""Access of each platform component: the images, node folders, ports and Secrets that its pods may use.

In: a kind, a component, the lab. Out: a `ComponentAccess`. Only the three agents may access the node. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nimlab.files.spec import GRAFANA_SECRET, Image, Lab

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentAccess:
    """Access of a component's pods.

    The pods may mount the node folders in `read` if the mount is read-only. They may write to the folders in
    `written`. All paths are normalized.
    """

    images: frozenset[str]
    is_agent: bool = False
    is_root: bool = False
    host_fields: frozenset[str] = _NONE
    host_ports: frozenset[int] = frozenset()
    read: frozenset[str] = _NONE
    written: frozenset[str] = _NONE
    secrets: frozenset[str] = _NONE


def account_of(component: str) -> str:
    """Return the name of a component's workload and ServiceAccount."""
    return f"lab-{component}"


def access_of(kind: str, component: str, lab: Lab) -> ComponentAccess:
    """Return the access of a component's pods. An agent gets access to the node only if it is a DaemonSet."""
    images = lab.images
    if kind == "DaemonSet" and component == "node-exporter":
        return ComponentAccess(
            images=_texts(images.node_exporter),
            is_agent=True,
            host_fields=frozenset({"hostNetwork", "hostPID"}),
            host_ports=frozenset({9100}),
            read=frozenset({"/"}),
        )
    if kind == "DaemonSet" and component == "cadvisor":
        return ComponentAccess(
            images=_texts(images.cadvisor),
            is_agent=True,
            is_root=True,
            read=frozenset({"/", "/sys", lab.platform.containerd_folder.rstrip("/")}),
        )
    if kind == "DaemonSet" and component == "log-agent":
        return ComponentAccess(
            images=_texts(images.alloy, images.promtail),
            is_agent=True,
            is_root=True,
            read=frozenset({"/var/log/pods"}),
            written=frozenset({"/var/lib/nimlab/promtail"}),
        )
    return ComponentAccess(
        images=_texts(*(getattr(images, name) for name in images.__slots__)),
        secrets=frozenset({GRAFANA_SECRET}) if component == "grafana" else _NONE,
    )


def _texts(*images: Image) -> frozenset[str]:
    return frozenset(str(image) for image in images)
