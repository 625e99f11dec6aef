"""The HTTP client for a Kubernetes API server.

In: a `Target` (a kubeconfig and a context). Out: a `KubeCluster`, which implements
`cluster.interface.Cluster`. Only this package imports the HTTP library and handles its exceptions. These are
the modules, in the order of a request:

- `kubeconfig` reads the files, `credentials` and `exec_plugin` produce the headers, `proxies` chooses the
  proxy, and `resolve_connection` combines them with the `tls` settings.
- `api_client` builds the requests with `rest_paths`, and `transport` sends them and retries.
- `response_checks` checks the bodies, and `status_errors` translates error responses. `connection_errors`
  explains missing responses, and `retry` decides whether a request is repeated.

The bodies of requests and responses are plain dicts. Discovery is used only to list all objects of a
namespace.
"""

from __future__ import annotations

from nimlab.cluster.kube.api_client import KubeCluster
from nimlab.cluster.kube.connect import Target, connect
from nimlab.cluster.kube.kubeconfig import list_contexts

__all__ = ["KubeCluster", "Target", "connect", "list_contexts"]
