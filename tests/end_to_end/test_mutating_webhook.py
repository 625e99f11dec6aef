"""A mutating webhook that always changes the lab's objects is reported, but causes no endless changes."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.lab import Lab, Sandbox

pytestmark = pytest.mark.live

# In every Service, the webhook changes a field that nimlab owns and adds another field.
PATCH = [
    {"op": "add", "path": "/spec/publishNotReadyAddresses", "value": False},
    {"op": "add", "path": "/spec/sessionAffinity", "value": "ClientIP"},
]


class _Webhook(BaseHTTPRequestHandler):
    """A webhook that answers every admission review with the patch."""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        patch = base64.b64encode(json.dumps(PATCH).encode()).decode()
        allowed = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        body = json.dumps({**review, "response": allowed}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        del format, args


@pytest.fixture
def webhook(lab: Lab, sandbox: Sandbox) -> Iterator[None]:
    """Run a webhook for the lab's namespace, with a certificate of the sandbox's CA."""
    pki = sandbox.home / "pki"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "kube-apiserver.crt", pki / "kube-apiserver.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Webhook)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    ca_bundle = base64.b64encode((pki / "ca.crt").read_bytes()).decode()
    hook = {
        "name": "opinion.example.org",
        "clientConfig": {"url": f"https://127.0.0.1:{server.server_port}/", "caBundle": ca_bundle},
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["services"],
                "operations": ["CREATE", "UPDATE"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    config = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": lab.namespace},
        "webhooks": [hook],
    }
    path = lab.root.parent / "webhook.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    lab.kubectl("create", "namespace", lab.namespace)
    lab.kubectl("apply", "-f", str(path))
    trial = ("create", "service", "clusterip", "trial", "--tcp=80", "--dry-run=server", "-o", "json")
    deadline_s = time.monotonic() + 20
    while "ClientIP" not in lab.kubectl(*trial):  # the API server uses the webhook only after a delay
        assert time.monotonic() < deadline_s, "the API server does not call the webhook"
    try:
        yield
    finally:
        lab.kubectl("delete", "-f", str(path))
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.usefixtures("webhook")
def test_field_that_a_webhook_always_rewrites_is_reported_and_is_not_a_change(lab: Lab) -> None:
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    dry = lab.run("sync", "--dry-run", "--exit-code", "--strict")
    assert dry.code == 0, dry.out
    lines = [line for line in dry.out.splitlines() if "the server keeps its own" in line]
    assert [line.split()[-1] for line in lines] == ["spec.publishNotReadyAddresses"] * 2
    assert "→" not in dry.out
    again = lab.run("sync")
    assert "0 created, 0 updated, 0 pruned, 8 unchanged" in again.out
    assert "in sync" in lab.run("list").out
    lab.kubectl("label", "service", "nimp2p-exp-blue", "experiment=red", "--overwrite")
    drifted = lab.run("sync", "--dry-run", "--exit-code")
    assert drifted.code == 3, "a real change must still be detected"
    assert "experiment" in drifted.out
