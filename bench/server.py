"""A fresh API server that counts: the sandbox in a temporary folder, and an account for whoever is measured.

The requests of that account, and of nobody else, fall into flow schemas of their own, one a verb, at the
priority that is never queued; the server's own metrics then tell how many of each it has dispatched. What
controllers do meanwhile isn't among them, nor what is asked here, which is asked as another user.
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
from nimlab.cache import default_cache
from nimlab.sandbox.client import Answer, Api, expect
from nimlab.sandbox.state import Layout, load_record, make_layout, write_private

_ACCOUNT: Final = "bench"
_HOME: Final = "default"  # the account's namespace
_FLOWS: Final = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
_BINDINGS: Final = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
_ACCOUNTS: Final = f"/api/v1/namespaces/{_HOME}/serviceaccounts"
_TOKEN_S: Final = 24 * 3600
_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_DISCOVERY: Final = "discovery"
_PRECEDENCE: Final = 100  # before all but the server's own exempt one
_COUNT: Final = re.compile(
    r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="bench-(\w+)",[^}]*\} (\S+)$',
    re.MULTILINE,
)
_DRY: Final = re.compile(r'^apiserver_request_total\{[^}]*dry_run="[^"]+"[^}]*\} (\S+)$', re.MULTILINE)
_SIZE: Final = re.compile(  # the server tells it of these verbs alone
    r'^apiserver_response_sizes_sum\{[^}]*verb="(?:GET|LIST)"[^}]*\} (\S+)$', re.MULTILINE
)
_QUIET_SHARE: Final = 0.15  # of one core; an idle control plane takes about 0.05
_LOOK_S: Final = 0.5
_SETTLE_S: Final = 120.0
_GONE_S: Final = 900.0


class ServerError(Exception):
    """The API server doesn't do what it has to be asked before anything can be measured."""


class Server:
    """The running server: its counters, and what has to be arranged between two turns."""

    def __init__(self, state: sandbox.SandboxState, layout: Layout, api: Api, kubeconfig: Path) -> None:
        self.version = state.version
        self.kubeconfig = kubeconfig
        self._layout = layout
        self._api = api
        self._processes = [psutil.Process(part.pid) for part in state.parts if part.pid is not None]

    def counts(self) -> Mapping[str, int]:
        """Return what the account has asked for until now, by verb.

        `dry run` is a share of the patches; `bytes` is what the server has answered to the GETs and LISTs of
        everybody.
        """
        answer = self._api.call("GET", "/metrics")
        if not answer.ok or not isinstance(answer.body, str):
            raise ServerError(f"the server's metrics can't be read ({answer.status})")
        text = answer.body
        counts = {verb: int(float(number)) for verb, number in _COUNT.findall(text)}
        counts["dry run"] = sum(int(float(number)) for number in _DRY.findall(text))
        counts["bytes"] = sum(int(float(number)) for number in _SIZE.findall(text))
        return counts

    def settle(self) -> None:
        """Wait until the control plane is idle: what one turn left to do must not slow the next one."""
        deadline_s = time.monotonic() + _SETTLE_S
        before_s, since_s = self._cpu_s(), time.monotonic()
        while since_s < deadline_s:
            time.sleep(_LOOK_S)
            now_s = time.monotonic()
            spent_s = self._cpu_s()
            if (spent_s - before_s) / (now_s - since_s) < _QUIET_SHARE:
                return
            before_s, since_s = spent_s, now_s

    def make_namespace(self, name: str) -> None:
        """Create a namespace."""
        self._expect("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self._wait(f"/api/v1/namespaces/{name}/serviceaccounts/default", there=True)

    def remove_namespaces(self, names: tuple[str, ...]) -> None:
        """Delete namespaces and wait until all that was in them is gone."""
        for name in names:
            self._expect("DELETE", f"/api/v1/namespaces/{name}")
        for name in names:
            self._wait(f"/api/v1/namespaces/{name}", there=False)

    def objects(self, collection: str) -> list[dict[str, Any]]:
        """Return all objects at a path, without those that are being deleted."""
        items: list[dict[str, Any]] = self._expect("GET", collection).body["items"]
        return [one for one in items if "deletionTimestamp" not in one["metadata"]]

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return float(sum(t.user + t.system for t in times))

    def _wait(self, path: str, *, there: bool) -> None:
        deadline_s = time.monotonic() + _GONE_S
        while self._api.call("GET", path).ok != there:
            if time.monotonic() > deadline_s:
                raise ServerError(f"{path} is still {'not ' if there else ''}there after {_GONE_S:.0f} s")
            time.sleep(_LOOK_S)

    def _expect(self, method: str, path: str, body: object = None) -> Answer:
        return _expect(self._api, method, path, body)


@contextmanager
def fresh_server(folder: Path, *, nodes: int = 1) -> Iterator[Server]:
    """Start a control plane in the folder; it is gone afterwards. Raises ServerError, SandboxError."""
    home = folder / "sandbox"
    state = sandbox.up(home, nodes=nodes, cache=default_cache(), report=_quiet)
    try:
        layout = make_layout(home)
        record = load_record(layout)
        if record is None:
            raise ServerError("the sandbox has no record")
        with Api(layout, record.ports["kube-apiserver"], timeout_s=60) as api:
            kubeconfig = folder / "kubeconfig"
            _make_account(api)
            _write_kubeconfig(kubeconfig, api, layout, state.server or "")
            yield Server(state, layout, api, kubeconfig)
    finally:
        sandbox.down(home, report=_quiet)


def _make_account(api: Api) -> None:
    _expect(api, "POST", _ACCOUNTS, {"metadata": {"name": _ACCOUNT}})
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _HOME}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    _expect(api, "POST", _BINDINGS, {"metadata": {"name": _ACCOUNT}, "roleRef": role, "subjects": [subject]})
    everywhere = {"apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    for index, verb in enumerate(_VERBS):
        rule = {"resourceRules": [{"verbs": [verb], **everywhere}]}
        _expect(api, "POST", _FLOWS, _flow(verb, _PRECEDENCE + index, rule))
    rule = {"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
    _expect(api, "POST", _FLOWS, _flow(_DISCOVERY, _PRECEDENCE + len(_VERBS), rule))


def _flow(name: str, precedence: int, rule: Mapping[str, object]) -> dict[str, object]:
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": _ACCOUNT, "namespace": _HOME}}
    return {
        "metadata": {"name": f"bench-{name}"},
        "spec": {
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": precedence,
            "rules": [{"subjects": [account], **rule}],
        },
    }


def _write_kubeconfig(path: Path, api: Api, layout: Layout, server: str) -> None:
    asked = {"spec": {"expirationSeconds": _TOKEN_S}}
    token = _expect(api, "POST", f"{_ACCOUNTS}/{_ACCOUNT}/token", asked).body["status"]["token"]
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


def _expect(api: Api, method: str, path: str, body: object = None) -> Answer:
    return expect(api.call(method, path, body), f"{method} {path}")


def _quiet(step: sandbox.Step) -> None:
    del step
