"""What the pods of each component may reach beyond themselves: the closed list of it.

In: a kind, a component, the lab. Out: its reach, which is of the node only for the three agents. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nimlab.files.spec import GRAFANA_SECRET, Image, Lab

_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What pods may run and touch; `read` and `written` are folders of the node, normalised."""

    images: frozenset[str]
    is_agent: bool = False
    is_root: bool = False
    host_fields: frozenset[str] = _NOTHING
    host_ports: frozenset[int] = frozenset()
    read: frozenset[str] = _NOTHING
    written: frozenset[str] = _NOTHING
    secrets: frozenset[str] = _NOTHING


def account_of(component: str) -> str:
    """Return the name of a component's ServiceAccount, which is that of its workload, too."""
    return f"lab-{component}"


def reach_of(kind: str, component: str, lab: Lab) -> Reach:
    """Return what the pods of this component may reach; an agent is one only as a DaemonSet."""
    images = lab.images
    if kind == "DaemonSet" and component == "node-exporter":
        return Reach(
            images=_texts(images.node_exporter),
            is_agent=True,
            host_fields=frozenset({"hostNetwork", "hostPID"}),
            host_ports=frozenset({9100}),
            read=frozenset({"/"}),
        )
    if kind == "DaemonSet" and component == "cadvisor":
        return Reach(
            images=_texts(images.cadvisor),
            is_agent=True,
            is_root=True,
            read=frozenset({"/", "/sys", lab.platform.containerd_folder.rstrip("/")}),
        )
    if kind == "DaemonSet" and component == "log-agent":
        return Reach(
            images=_texts(images.alloy, images.promtail),
            is_agent=True,
            is_root=True,
            read=frozenset({"/var/log/pods"}),
            written=frozenset({"/var/lib/nimlab/promtail"}),
        )
    return Reach(
        images=_texts(*(getattr(images, name) for name in images.__slots__)),
        secrets=frozenset({GRAFANA_SECRET}) if component == "grafana" else _NOTHING,
    )


def _texts(*images: Image) -> frozenset[str]:
    return frozenset(str(image) for image in images)
