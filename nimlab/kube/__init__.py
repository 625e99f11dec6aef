"""The port to a cluster, spoken to a real API server.

In: a `Target` (which kubeconfig, which context). Out: a `KubeCluster` that satisfies `cluster.Cluster`.
This is the only room that knows the Kubernetes client and its exceptions; the library reads the
kubeconfig, verifies TLS and authenticates, the REST paths are fixed ones (no discovery but for `survey`),
and bodies stay plain dicts. What the answers mean is told by `answers`.
"""

from __future__ import annotations

from nimlab.kube.client import KubeCluster
from nimlab.kube.config import Target, connect, list_contexts

__all__ = ["KubeCluster", "Target", "connect", "list_contexts"]
