"""Queries to the lab's Prometheus, sent as Grafana sends them: through its Service."""

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
