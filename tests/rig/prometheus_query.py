"""Queries to the lab's Prometheus through its Service, as Grafana sends them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.rig.running_rig import Rig

NAMESPACE = "dst-lab"


def prometheus(rig: Rig, path: str, **query: str) -> Any:
    """Send a query to the running Prometheus, and return the data of its response."""
    base = f"/api/v1/namespaces/{NAMESPACE}/services/lab-prometheus:http/proxy/api/v1"
    return json.loads(rig.node.get(f"{base}/{path}?{urlencode(query)}"))["data"]
