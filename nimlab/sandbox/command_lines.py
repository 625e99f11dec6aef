"""The command lines of the control plane's five parts. In: a folder and the ports. Out: argument lists. Pure.

Every command line contains a path in the sandbox's `pki` folder as `--flag=…/pki/…`.
`daemon_process.find_strays` uses this path to find unrecorded processes of the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.state_values import PART_NAMES

SERVICE_RANGE: Final = "10.96.0.0/16"

# Addresses of simulated pods and nodes. RFC 2544 reserves this range for benchmarks, so no real host has
# such an address.
_POD_RANGE: Final = "198.18.0.1/16"
_NODE_IP: Final = "198.19.0.1"


def format_command(name: str, program: Path, layout: Layout, ports: Mapping[str, int]) -> tuple[str, ...]:
    """Return the part's command line; `name` is one of PART_NAMES."""
    flags_of = dict(zip(PART_NAMES, (_etcd, _api_server, _manager, _scheduler, _kwok), strict=True))
    flags = flags_of[name](layout, ports)
    return (str(program), *(f"--{flag}={value}" for flag, value in flags.items()))


def _etcd(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    client = f"https://127.0.0.1:{ports['etcd']}"
    peer = "https://127.0.0.1:0"  # etcd requires an address even without other members
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
        "unsafe-no-fsync": "true",  # only a power failure can cause a loss of data
        "auto-compaction-retention": "0",  # the API server compacts the data
    }


def _api_server(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    pki = layout.pki
    return {
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",  # otherwise the API server needs a default route
        "secure-port": str(ports["kube-apiserver"]),
        "endpoint-reconciler-type": "none",  # a loopback address is not a valid endpoint
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
        "kubelet-preferred-address-types": "InternalIP",  # avoids DNS queries for node names
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICE_RANGE,
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": str(pki / "service-accounts.pub"),
        "service-account-signing-key-file": str(pki / "service-accounts.key"),
    }


def _manager(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig contains the address
    return {
        "kubeconfig": str(layout.pki / "kube-controller-manager.kubeconfig"),
        "root-ca-file": str(layout.pki / "ca.crt"),
        "service-account-private-key-file": str(layout.pki / "service-accounts.key"),
        "use-service-account-credentials": "true",  # its own user has too few permissions
        "secure-port": "0",
        "leader-elect": "false",
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
        "concurrent-statefulset-syncs": "20",
        # Without a batch period, each starting pod rewrites the EndpointSlices of its Service.
        "endpoint-updates-batch-period": "2s",
        "endpointslice-updates-batch-period": "2s",
    }


def _scheduler(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig contains the address
    return {
        "config": layout.scheduler.name,  # relative: the process is started in the sandbox's folder
        "kubeconfig": str(
            layout.pki / "kube-scheduler.kubeconfig"
        ),  # `config` contains it too; find_strays needs it here
        "secure-port": "0",
    }


def _kwok(layout: Layout, ports: Mapping[str, int]) -> dict[str, str]:
    del ports  # the kubeconfig contains the address
    return {
        "kubeconfig": str(layout.pki / "kwok.kubeconfig"),
        "config": layout.stages.name,  # kwok splits this value at commas, which an absolute path may contain
        "manage-all-nodes": "true",
        "node-lease-duration-seconds": "40",
        "node-ip": _NODE_IP,
        "cidr": _POD_RANGE,
        "v": "WARN",
    }
