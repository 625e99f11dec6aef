"""Certificates of one rig: for the API server, the kubelet, and the API server as a client of the kubelet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trustme

NODE: Final = "198.19.0.1"
SERVICE: Final = "10.96.0.1"


def make_pki(folder: Path) -> None:
    """Write `ca.crt`, and a `.crt` and a `.key` for each server, the client and the ServiceAccount signer."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    _write(authority.issue_cert("127.0.0.1", NODE, SERVICE, *names), folder / "apiserver")
    _write(authority.issue_cert(NODE, "node1"), folder / "kubelet")
    client = authority.issue_cert(
        "apiserver", common_name="kube-apiserver", organization_name="system:masters"
    )
    _write(client, folder / "client")
    _write(authority.issue_cert("accounts"), folder / "accounts")


def _write(certificate: trustme.LeafCert, path: Path) -> None:
    certificate.cert_chain_pems[0].write_to_path(path.with_suffix(".crt"))
    certificate.private_key_pem.write_to_path(path.with_suffix(".key"))
