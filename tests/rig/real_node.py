"""A Kubernetes cluster of one real node, started in the current Linux namespaces.

In: a folder, and the prepared programs and images. Out: running processes, each with a log in the folder. The
addresses come from the range for benchmarks (RFC 2544): pods 198.18.0.0/16, the node 198.19.0.1. `stop` ends
only the processes that this module started. The kernel ends their children together with the namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from ssl import create_default_context
from typing import Final

from tests.rig.node_certificates import NODE, make_pki
from tests.rig.node_images import PAUSE
from tests.rig.node_programs import RigError
from tests.rig.prepared import Prepared, cgroup_roots

POD_RANGE: Final = "198.18.0.0/16"
NAME: Final = "node1"
DOMAIN: Final = "cluster.local"

_PORT: Final = 6443
_ETCD: Final = "http://127.0.0.1:2379"
_USERS: Final = {  # name of the kubeconfig (also used as the token) -> user, group
    "admin": ("rig-admin", "system:masters"),
    "manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
    "dns": ("rig-dns", "system:masters"),
}
_READY_WITHIN_S: Final = 120.0
_UNUSED_PLUGINS: Final = tuple(
    f"io.containerd.{name}.v1.{kind}"
    for name, kind in (
        ("snapshotter", "aufs"), ("snapshotter", "btrfs"), ("snapshotter", "devmapper"),
        ("snapshotter", "zfs"), ("tracing.processor", "otlp"),
    )
)  # fmt: skip
_POD_LOGS: Final = Path("/var/log/pods")  # log agents read this path on every node


class Node:
    """The processes of the node and its control plane; `kubeconfig` has administrator rights."""

    def __init__(self, folder: Path, prepared: Prepared) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"
        self._prepared = prepared
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything and wait until the node can run pods. Raises RigError with the end of a log."""
        for name in ("logs", "pki", "etcd", "cni", "containerd", "kubelet", "pods"):
            (self.folder / name).mkdir()
        self._make_network()
        _POD_LOGS.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(self.folder / "pods"), str(_POD_LOGS))
        make_pki(self.folder / "pki")
        for name in _USERS:
            self._write_kubeconfig(name)
        self._start_control_plane()
        self._start_containerd()
        self._start_kubelet()
        self._start("kube-proxy", [f"--config={self._write_json('proxy.json', self._proxy_config())}"])
        self._start_dns()
        self._wait("node", self._is_ready)

    def stop(self) -> None:
        """Kill the processes; their children end together with the namespaces."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        """Return the end of a process's log."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def get(self, path: str) -> bytes:
        """Send a GET request to the API server as its administrator. Raises RigError."""
        return self._request(path, None)

    def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """Send a POST request to the API server as its administrator. Raises RigError."""
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, body: bytes | None) -> bytes:
        headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
        request = urllib.request.Request(f"https://127.0.0.1:{_PORT}{path}", data=body, headers=headers)
        context = create_default_context(cafile=str(self.folder / "pki" / "ca.crt"))
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as response:  # noqa: S310
                data: bytes = response.read()
        except urllib.error.HTTPError as error:
            with error:
                message = error.read()[:500].decode(errors="replace")
            raise RigError(f"{path}: status {error.code}: {message}") from None
        return data

    def _make_network(self) -> None:
        for command in (
            "ip link set lo up",
            "ip link add node0 type veth peer name node1",
            f"ip addr add {NODE}/24 dev node0",
            "ip link set node0 up",
            "ip link set node1 up",
            "ip route add default dev node0",
        ):
            _run(*command.split())
        for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
            path = Path("/proc/sys") / name
            if path.exists():
                path.write_text("1", encoding="ascii")

    def _start_control_plane(self) -> None:
        pki = self.folder / "pki"
        tokens = "".join(
            f"{name},{user},{name}{group and ','}{group}\n" for name, (user, group) in _USERS.items()
        )
        (self.folder / "tokens.csv").write_text(tokens, encoding="ascii")
        self._start("etcd", [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ])  # fmt: skip
        self._start("kube-apiserver", [
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            f"--secure-port={_PORT}",
            f"--advertise-address={NODE}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={pki / 'accounts.key'}",
            f"--service-account-signing-key-file={pki / 'accounts.key'}",
            f"--kubelet-client-certificate={pki / 'client.crt'}",
            f"--kubelet-client-key={pki / 'client.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ])  # fmt: skip
        self._wait("kube-apiserver", lambda: self.get("/readyz") == b"ok")
        self._start("kube-controller-manager", [
            f"--kubeconfig={self.folder / 'manager.kubeconfig'}", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'accounts.key'}", f"--root-ca-file={pki / 'ca.crt'}",
            "--leader-elect=false",
        ])  # fmt: skip
        self._start(
            "kube-scheduler", [f"--kubeconfig={self.folder / 'scheduler.kubeconfig'}", "--leader-elect=false"]
        )

    def _start_containerd(self) -> None:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self.folder / "cni" / "leases"),
        }
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": ipam,
        }
        plugins = [bridge, {"type": "bandwidth", "capabilities": {"bandwidth": True}}]
        self._write_json("cni/10-rig.conflist", {"cniVersion": "0.4.0", "name": "rig", "plugins": plugins})
        root = self.folder / "containerd"
        config = f"""version = 2
root = "{root / "root"}"
state = "{root / "state"}"
disabled_plugins = [{", ".join(f'"{name}"' for name in _UNUSED_PLUGINS)}]
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder / "cni"}"
"""
        (self.folder / "containerd.toml").write_text(config, encoding="utf-8")
        self._start("containerd", [f"--config={self.folder / 'containerd.toml'}"])
        self._wait("containerd", lambda: bool(self._ctr("version")))
        for archive in self._prepared.images:
            self._ctr("--namespace", "k8s.io", "images", "import", str(archive))

    def _ctr(self, *arguments: str) -> str:
        return _run("ctr", "--address", str(self._socket), *arguments)

    def _start_kubelet(self) -> None:
        for root in cgroup_roots():
            (root / self.folder.name).mkdir()
        config = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": NODE,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.folder / "pki" / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self.folder / "pki" / "kubelet.crt"),
            "tlsPrivateKeyFile": str(self.folder / "pki" / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.folder.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "enforceNodeAllocatable": [],
            "clusterDNS": [NODE],
            "clusterDomain": DOMAIN,
            "resolvConf": "",
            "volumePluginDir": str(self.folder / "kubelet" / "plugins"),
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "maxPods": 200,
            "registerNode": True,
        }
        self._start("kubelet", [
            f"--config={self._write_json('kubelet.json', config)}",
            f"--kubeconfig={self.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NAME}",
            f"--node-ip={NODE}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--containerd={self._socket}",  # the kubelet's cAdvisor reads containers from this socket
            "--housekeeping-interval=5s",
        ])  # fmt: skip

    def _start_dns(self) -> None:
        corefile = f"""{DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {NODE}
    errors
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {self.folder / "dns.kubeconfig"}
        pods insecure
        ttl 5
    }}
}}
"""
        (self.folder / "Corefile").write_text(corefile, encoding="utf-8")
        self._start("coredns", ["-conf", str(self.folder / "Corefile")])

    def _proxy_config(self) -> dict[str, object]:
        # With the value 0, kube-proxy does not change the kernel's conntrack settings.
        unchanged = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
        return {
            "kind": "KubeProxyConfiguration",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "mode": "iptables",
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": NAME,
            "clientConnection": {"kubeconfig": str(self.folder / "proxy.kubeconfig")},
            "conntrack": unchanged,
        }

    @property
    def _socket(self) -> Path:
        return self.folder / "containerd.sock"

    def _is_ready(self) -> bool:
        node = json.loads(self.get(f"/api/v1/nodes/{NAME}"))
        self.get("/api/v1/namespaces/default/serviceaccounts/default")
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])

    def _write_kubeconfig(self, name: str) -> None:
        cluster = {
            "server": f"https://127.0.0.1:{_PORT}",
            "certificate-authority": str(self.folder / "pki" / "ca.crt"),
        }
        self._write_json(f"{name}.kubeconfig", {
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{"name": "rig", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": name}}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": name}}],
        })  # fmt: skip

    def _write_json(self, name: str, value: Mapping[str, object]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(value, indent=1), encoding="utf-8")
        return path

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        program = self._prepared.programs.get(name, Path(name))
        with (self.folder / "logs" / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(program), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        """Wait until the check succeeds. Raises RigError on a timeout, or if any process exits."""
        deadline_s = time.monotonic() + _READY_WITHIN_S
        last_error: Exception | None = None
        while time.monotonic() < deadline_s:
            for part, process in self._processes.items():
                if process.poll() is not None:
                    what = f"{part} exited with code {process.returncode}"
                    raise RigError(f"{what}; the end of its log:\n{self.log(part)}")
            try:
                if is_ready():
                    return
            except (OSError, RigError) as error:
                last_error = error
            time.sleep(0.2)
        log_end = self.log("kubelet" if name == "node" else name)
        what = f"{name} is not ready after {_READY_WITHIN_S:.0f} s ({last_error})"
        raise RigError(f"{what}; the end of its log:\n{log_end}")


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise RigError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    return result.stdout
