"""`lab.yaml` -> `Lab`.

In: a document that fits its schema and passed `value_relations.lab_problems`. Out: a `Lab`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nimlab.files.load.parse_units import PARSERS, image_of, parse_optional
from nimlab.files.load.source_document import Document
from nimlab.files.spec import Images, Lab, Limits, Platform, SyncSettings


def build_lab(document: Document) -> Lab:
    """Return the lab that a valid `lab.yaml` describes. Pure."""
    spec = document.data["spec"]
    limits, sync = spec.get("limits", {}), spec.get("sync", {})
    prune = sync.get("maxPrune", {})
    return Lab(
        id=document.data.get("metadata", {}).get("id"),
        namespace=spec["namespace"],
        prefix=spec.get("prefix", "nimp2p-exp-"),
        images=_images(spec["images"]),
        platform=_platform(spec.get("platform", {})),
        defaults=spec.get("defaults", {}),
        limits=Limits(
            peers_per_experiment=limits.get("peersPerExperiment", 10_000),
            peers_total=limits.get("peers"),
            cpu_m_total=parse_optional("cpu", limits.get("cpu")),
            memory_bytes_total=parse_optional("memory", limits.get("memory")),
        ),
        sync=SyncSettings(
            max_prune_objects=prune.get("objects", 20),
            max_prune_percent=prune.get("percent", 50),
            timeout_s=PARSERS["duration"](sync.get("timeout", "10m")) // 1000,
            parallel=sync.get("parallel", 8),
        ),
        source=document.path,
    )


def _platform(platform: Mapping[str, Any]) -> Platform:
    metrics, logs = platform.get("metrics", {}), platform.get("logs", {})
    return Platform(
        log_agent=platform.get("logAgent", "alloy"),
        cadvisor=platform.get("cadvisor", "daemonset"),
        containerd_folder=platform.get("containerdFolder", "/run/k3s/containerd"),
        metrics_retention_s=PARSERS["duration"](metrics.get("retention", "720h")) // 1000,
        metrics_storage=metrics.get("storage"),
        logs_retention_s=PARSERS["duration"](logs.get("retention", "168h")) // 1000,
        logs_storage=logs.get("storage"),
    )


def _images(images: Mapping[str, str]) -> Images:
    return Images(
        nimlab=image_of(images["nimlab"]),
        prometheus=image_of(images["prometheus"]),
        node_exporter=image_of(images["nodeExporter"]),
        cadvisor=image_of(images["cadvisor"]),
        loki=image_of(images["loki"]),
        alloy=image_of(images["alloy"]),
        promtail=image_of(images["promtail"]),
        grafana=image_of(images["grafana"]),
    )
