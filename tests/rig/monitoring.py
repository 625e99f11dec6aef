"""What the lab's Prometheus and Loki say, asked as Grafana asks: through their Services."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.rig.cluster import Rig

NAMESPACE = "dst-lab"


def prometheus(rig: Rig, path: str, **query: str) -> Any:
    """Ask the running Prometheus."""
    base = f"/api/v1/namespaces/{NAMESPACE}/services/lab-prometheus:http/proxy/api/v1"
    return json.loads(rig.node.get(f"{base}/{path}?{urlencode(query)}"))["data"]


def loki(rig: Rig, path: str, **query: str) -> Any:
    """Ask the running Loki."""
    base = f"/api/v1/namespaces/{NAMESPACE}/services/lab-loki:http/proxy/loki/api/v1"
    return json.loads(rig.node.get(f"{base}/{path}?{urlencode(query)}"))["data"]["result"]
