"""The port to a cluster, spoken to a real API server.

In: a `Target` (which kubeconfig, which context). Out: a `KubeCluster` that satisfies `cluster.Cluster`.
This is the only room that knows the Kubernetes client and its exceptions; the library reads any kubeconfig
but a plain one and authenticates by plugins, the REST paths are fixed ones (no discovery but for `survey`),
and bodies stay plain dicts. What the answers mean is told by `answers`.
"""

from __future__ import annotations

from nimlab.kube.client import KubeCluster
from nimlab.kube.config import Target, connect, list_contexts

__all__ = ["KubeCluster", "Target", "connect", "list_contexts"]
