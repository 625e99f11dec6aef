"""The port to a cluster, spoken to a real API server.

In: a `Target` (which kubeconfig, which context). Out: a `KubeCluster` that satisfies `cluster.Cluster`.
Only this package knows the HTTP library and its exceptions. `kubeconfig` reads the files, `credentials` and
`plugin` make the headers, `proxies` chooses a proxy, `access` puts them together. The REST paths are fixed
(no discovery but for `survey`), and bodies stay plain dicts. `answers` maps the server's answers to errors,
`refusals` explains missing ones.
"""

from __future__ import annotations

from nimlab.cluster.kube.client import KubeCluster
from nimlab.cluster.kube.connect import Target, connect
from nimlab.cluster.kube.kubeconfig import list_contexts

__all__ = ["KubeCluster", "Target", "connect", "list_contexts"]
