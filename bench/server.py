"""A new API server that counts requests: a sandbox in a temporary folder, with an account for the tools.

Only the requests of this account match the benchmark's flow schemas. There is one flow schema per verb, and
their priority level has no queue. The server's metrics therefore report the number of requests per verb. The
requests of controllers and of this module are not counted, because they use other accounts.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from nimlab import sandbox
from nimlab.sandbox.folder_layout import Layout, make_layout, write_private
from nimlab.sandbox.http_client import Response, SandboxClient, require_success
from nimlab.sandbox.saved_processes import load_record
from nimlab.value_cache import default_cache

_ACCOUNT: Final = "bench"
_ACCOUNT_NAMESPACE: Final = "default"
_FLOW_SCHEMAS: Final = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
_ROLE_BINDINGS: Final = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
_ACCOUNTS: Final = f"/api/v1/namespaces/{_ACCOUNT_NAMESPACE}/serviceaccounts"
_TOKEN_LIFETIME_S: Final = 24 * 3600
_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_DISCOVERY: Final = "discovery"
_PRECEDENCE: Final = 100  # matches before all flow schemas of the server except `exempt`
_REQUESTS_METRIC: Final = re.compile(
    r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="bench-(\w+)",[^}]*\} (\S+)$',
    re.MULTILINE,
)
_DRY_RUN_METRIC: Final = re.compile(
    r'^apiserver_request_total\{[^}]*dry_run="[^"]+"[^}]*\} (\S+)$', re.MULTILINE
)
_SIZE_METRIC: Final = re.compile(  # the server reports the sizes of responses only for these verbs
    r'^apiserver_response_sizes_sum\{[^}]*verb="(?:GET|LIST)"[^}]*\} (\S+)$', re.MULTILINE
)
_IDLE_SHARE: Final = 0.15  # of one core; an idle control plane uses about 0.05
_POLL_S: Final = 0.5
_IDLE_WITHIN_S: Final = 120.0
_DELETED_WITHIN_S: Final = 900.0


class ServerError(Exception):
    """The API server does not provide what the benchmark needs; the message states the reason."""


class Server:
    """A running API server that counts requests and is prepared before each turn."""

    def __init__(
        self, state: sandbox.SandboxState, layout: Layout, client: SandboxClient, kubeconfig: Path
    ) -> None:
        self.version = state.version
        self.kubeconfig = kubeconfig
        self._layout = layout
        self._client = client
        self._processes = [psutil.Process(part.pid) for part in state.parts if part.pid is not None]

    def counts(self) -> Mapping[str, int]:
        """Return the number of requests that the account has sent so far, by verb.

        The key `dry run` contains the number of dry runs, which the verbs count too. The key `bytes` contains
        the total size of all responses to GET and LIST, including responses to other users.
        """
        response = self._client.request("GET", "/metrics")
        if not response.ok or not isinstance(response.body, str):
            raise ServerError(f"the server's metrics cannot be read (status {response.status})")
        text = response.body
        counts = {verb: int(float(number)) for verb, number in _REQUESTS_METRIC.findall(text)}
        counts["dry run"] = sum(int(float(number)) for number in _DRY_RUN_METRIC.findall(text))
        counts["bytes"] = sum(int(float(number)) for number in _SIZE_METRIC.findall(text))
        return counts

    def wait_until_idle(self) -> None:
        """Wait until the control plane is idle; otherwise one turn could slow down the next turn.

        After the timeout, return even if it is not idle.
        """
        deadline_s = time.monotonic() + _IDLE_WITHIN_S
        before_s, since_s = self._cpu_s(), time.monotonic()
        while since_s < deadline_s:
            time.sleep(_POLL_S)
            now_s = time.monotonic()
            cpu_s = self._cpu_s()
            if (cpu_s - before_s) / (now_s - since_s) < _IDLE_SHARE:
                return
            before_s, since_s = cpu_s, now_s

    def make_namespace(self, name: str) -> None:
        """Create a namespace and wait for its default ServiceAccount."""
        self._request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self._wait(f"/api/v1/namespaces/{name}/serviceaccounts/default", exists=True)

    def remove_namespaces(self, names: tuple[str, ...]) -> None:
        """Delete namespaces and wait until they and their objects no longer exist."""
        for name in names:
            self._request("DELETE", f"/api/v1/namespaces/{name}")
        for name in names:
            self._wait(f"/api/v1/namespaces/{name}", exists=False)

    def objects(self, collection: str) -> list[dict[str, Any]]:
        """Return all objects at a path, except those that are being deleted."""
        items: list[dict[str, Any]] = self._request("GET", collection).body["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return float(sum(t.user + t.system for t in times))

    def _wait(self, path: str, *, exists: bool) -> None:
        deadline_s = time.monotonic() + _DELETED_WITHIN_S
        while self._client.request("GET", path).ok != exists:
            if time.monotonic() > deadline_s:
                state = "does not exist" if exists else "still exists"
                raise ServerError(f"{path} {state} after {_DELETED_WITHIN_S:.0f} s")
            time.sleep(_POLL_S)

    def _request(self, method: str, path: str, body: object = None) -> Response:
        return _request(self._client, method, path, body)


@contextmanager
def start_server(folder: Path, *, nodes: int = 1) -> Iterator[Server]:
    """Start a control plane in the folder and stop it afterwards. Raises ServerError or SandboxError."""
    home = folder / "sandbox"
    state = sandbox.up(home, nodes=nodes, cache=default_cache(), report=_ignore)
    try:
        layout = make_layout(home)
        record = load_record(layout)
        if record is None:
            raise ServerError("the sandbox has no record")
        with SandboxClient(layout, record.ports["kube-apiserver"], timeout_s=60) as client:
            kubeconfig = folder / "kubeconfig"
            _make_account(client)
            _write_kubeconfig(kubeconfig, client, layout, state.server or "")
            yield Server(state, layout, client, kubeconfig)
    finally:
        sandbox.down(home, report=_ignore)


def _make_account(client: SandboxClient) -> None:
    """Create the tools' administrator account and its flow schemas."""
    _request(client, "POST", _ACCOUNTS, {"metadata": {"name": _ACCOUNT}})
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _ACCOUNT_NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": _ACCOUNT}, "roleRef": role, "subjects": [subject]}
    _request(client, "POST", _ROLE_BINDINGS, binding)
    everywhere = {"apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    for index, verb in enumerate(_VERBS):
        rule = {"resourceRules": [{"verbs": [verb], **everywhere}]}
        _request(client, "POST", _FLOW_SCHEMAS, _flow_schema(verb, _PRECEDENCE + index, rule))
    rule = {"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
    _request(client, "POST", _FLOW_SCHEMAS, _flow_schema(_DISCOVERY, _PRECEDENCE + len(_VERBS), rule))


def _flow_schema(name: str, precedence: int, rule: Mapping[str, object]) -> dict[str, object]:
    account = {
        "kind": "ServiceAccount",
        "serviceAccount": {"name": _ACCOUNT, "namespace": _ACCOUNT_NAMESPACE},
    }
    return {
        "metadata": {"name": f"bench-{name}"},
        "spec": {
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": precedence,
            "rules": [{"subjects": [account], **rule}],
        },
    }


def _write_kubeconfig(path: Path, client: SandboxClient, layout: Layout, server: str) -> None:
    token_request = {"spec": {"expirationSeconds": _TOKEN_LIFETIME_S}}
    response = _request(client, "POST", f"{_ACCOUNTS}/{_ACCOUNT}/token", token_request)
    token = response.body["status"]["token"]
    authority = base64.b64encode((layout.pki / "ca.crt").read_bytes()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "bench", "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    }
    write_private(path, json.dumps(document).encode())


def _request(client: SandboxClient, method: str, path: str, body: object = None) -> Response:
    return require_success(client.request(method, path, body), f"{method} {path}")


def _ignore(step: sandbox.Step) -> None:
    del step
