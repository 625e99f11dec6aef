"""Certificates and kubeconfigs of one sandbox, created once and valid for the loopback interface only.

The private key of the certificate authority is never written to disk, so no more certificates can be signed
later. Folders have mode 0700 and files 0600. This module starts no process and sends no request.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nimlab.sandbox.folder_layout import Layout, write_private

CONTEXT: Final = "nimlab-sandbox"

_LIFETIME: Final = timedelta(days=3650)
_SERVICE_IP: Final = (
    "10.96.0.1"  # the API server's Service has the first address of command_lines.SERVICE_RANGE
)
_DNS_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_SERVERS: Final = {
    "kube-apiserver": [ExtendedKeyUsageOID.SERVER_AUTH],
    # etcd is also a client of itself.
    "etcd": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "etcd-client": [ExtendedKeyUsageOID.CLIENT_AUTH],  # the API server uses it to connect to etcd
}
# The user and group in each kubeconfig. kwok needs system:masters, because it acts as every kubelet.
_USERS: Final = {
    "admin": ("nimlab-sandbox-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kwok": ("nimlab-sandbox-kwok", "system:masters"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def is_complete(folder: Path) -> bool:
    """Return True if no key or certificate is missing; the user may have removed some files."""
    pairs = {f"{name}.{suffix}" for name in (*_SERVERS, *_USERS) for suffix in ("crt", "key")}
    single = {"ca.crt", "service-accounts.key", "service-accounts.pub"}
    return all((folder / name).is_file() for name in pairs | single)


def make_pki(layout: Layout) -> None:
    """Create new keys and certificates; the folder is replaced atomically."""
    fresh = layout.pki.with_name(layout.pki.name + ".new")
    for folder in (fresh, layout.pki):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    authority = _make_authority()
    write_private(fresh / "ca.crt", _pem(authority.certificate))
    for name, purposes in _SERVERS.items():
        _write_pair(fresh, name, authority, name, None, purposes)
    for name, (user, group) in _USERS.items():
        _write_pair(fresh, name, authority, user, group, [ExtendedKeyUsageOID.CLIENT_AUTH])
    signer = ec.generate_private_key(ec.SECP256R1())
    write_private(fresh / "service-accounts.key", _private_pem(signer))
    write_private(fresh / "service-accounts.pub", _public_pem(signer))
    fresh.rename(layout.pki)


def write_kubeconfigs(layout: Layout, port: int) -> None:
    """Write the kubeconfigs of the user and of the parts, if they are missing or outdated."""
    for name in _USERS:
        path = layout.kubeconfig if name == "admin" else layout.pki / f"{name}.kubeconfig"
        content = _format_kubeconfig(layout.pki, name, port)
        if not path.is_file() or path.read_bytes() != content:
            write_private(path, content)


def _format_kubeconfig(pki: Path, name: str, port: int) -> bytes:
    """Return a kubeconfig as JSON, which is valid YAML."""
    user = {
        "client-certificate-data": _base64(pki / f"{name}.crt"),
        "client-key-data": _base64(pki / f"{name}.key"),
    }
    cluster = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority-data": _base64(pki / "ca.crt"),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "current-context": CONTEXT,
    }
    return json.dumps(document, indent=2).encode()


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _make_authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("nimlab sandbox CA", None)
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(name, name, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate=certificate, key=key)


def _write_pair(
    folder: Path,
    name: str,
    authority: _Authority,
    user: str,
    group: str | None,
    purposes: list[x509.ObjectIdentifier],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    builder = (
        _builder(_name(user, group), issuer, key.public_key(), authority.key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    )
    if ExtendedKeyUsageOID.SERVER_AUTH in purposes:
        addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", _SERVICE_IP)]
        names = [x509.DNSName(n) for n in _DNS_NAMES]
        builder = builder.add_extension(x509.SubjectAlternativeName([*addresses, *names]), critical=False)
    write_private(folder / f"{name}.crt", _pem(builder.sign(authority.key, hashes.SHA256())))
    write_private(folder / f"{name}.key", _private_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    """Return a certificate builder with the key identifiers that strict clients (Python 3.13) require."""
    now = datetime.now(UTC)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # valid even if the clock is set back
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_id, critical=False)
    )


def _name(user: str, group: str | None) -> x509.Name:
    organisation = [] if group is None else [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)]
    return x509.Name([*organisation, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
