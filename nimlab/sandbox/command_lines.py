"""The command lines of the five parts. Pure: a folder and the ports go in, argument lists come out.

Every part names a file in the sandbox's `pki` folder as `--flag=…/pki/…`: by that a stray process
is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nimlab.sandbox.state import PART_NAMES, Layout

SERVICE_RANGE: Final = "10.96.0.0/16"

# RFC 2544 addresses: they look like pods and nodes, and lead nowhere.
_POD_RANGE: Final = "198.18.0.1/16"
_NODE_IP: Final = "198.19.0.1"


def format_command(name: str, program: Path, layout: Layout, ports: Mapping[str, int]) -> tuple[str, ...]:
    """Return the part's command line; `name` is one of PART_NAMES."""
    makers = dict(zip(PART_NAMES, (_etcd, _api_server, _manager, _scheduler, _kwok), strict=True))
    flags = makers[name](layout, ports)
    return (str(program), *(f"--{flag}={value}" for flag, value in flags.items()))


def _etcd(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    client = f"https://127.0.0.1:{ports['etcd']}"
    peer = "https://127.0.0.1:0"  # there is no peer; etcd wants an address all the same
    crt, key, ca = (str(layout.pki / n) for n in ("etcd.crt", "etcd.key", "ca.crt"))
    return {
        "name": "sandbox",
        "data-dir": str(layout.data),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"sandbox={peer}",
        "cert-file": crt,
        "key-file": key,
        "trusted-ca-file": ca,
        "client-cert-auth": "true",
        "peer-cert-file": crt,
        "peer-key-file": key,
        "peer-trusted-ca-file": ca,
        "peer-client-cert-auth": "true",
        "log-level": "warn",
        "unsafe-no-fsync": "true",  # a killed process loses nothing; a power cut may
        "auto-compaction-retention": "0",  # the API server compacts
    }


def _api_server(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    pki = layout.pki
    return {
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",  # else it looks for a default route, which may be missing
        "secure-port": str(ports["kube-apiserver"]),
        "endpoint-reconciler-type": "none",  # loopback may not be an endpoint, and no pod is real
        "etcd-servers": f"https://127.0.0.1:{ports['etcd']}",
        "etcd-cafile": str(pki / "ca.crt"),
        "etcd-certfile": str(pki / "etcd-client.crt"),
        "etcd-keyfile": str(pki / "etcd-client.key"),
        "tls-cert-file": str(pki / "kube-apiserver.crt"),
        "tls-private-key-file": str(pki / "kube-apiserver.key"),
        "cert-dir": str(pki),
        "client-ca-file": str(pki / "ca.crt"),
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "kubelet-preferred-address-types": "InternalIP",  # nothing is looked up
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICE_RANGE,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": str(pki / "service-accounts.pub"),
        "service-account-signing-key-file": str(pki / "service-accounts.key"),
    }


def _manager(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig knows
    return {
        "kubeconfig": str(layout.pki / "kube-controller-manager.kubeconfig"),
        "root-ca-file": str(layout.pki / "ca.crt"),
        "service-account-private-key-file": str(layout.pki / "service-accounts.key"),
        "use-service-account-credentials": "true",  # its own role alone may do too little
        "secure-port": "0",
        "leader-elect": "false",
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
        "concurrent-statefulset-syncs": "20",
        # else each of ten thousand pods that starts has all of them written anew into their Service's slices
        "endpoint-updates-batch-period": "2s",
        "endpointslice-updates-batch-period": "2s",
    }


def _scheduler(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig knows
    return {
        "config": layout.scheduler.name,  # it is started in the folder
        "kubeconfig": str(layout.pki / "kube-scheduler.kubeconfig"),  # the same; by this a stray is known
        "secure-port": "0",
    }


def _kwok(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig knows
    return {
        "kubeconfig": str(layout.pki / "kwok.kubeconfig"),
        "config": layout.stages.name,  # a list, so no comma; it is started in the folder
        "manage-all-nodes": "true",
        "node-lease-duration-seconds": "40",
        "node-ip": _NODE_IP,
        "cidr": _POD_RANGE,
        "v": "WARN",
    }
