"""One machine's worth of Kubernetes, started in the namespaces that it is in.

In: a folder and what was prepared. Out: running parts, each with a log in the folder. Addresses are those
for benchmarks (RFC 2544): pods 198.18.0.0/16, the node 198.19.0.1. What the parts have started isn't stopped
here: it dies with its namespaces.
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

from tests.rig.images import PAUSE
from tests.rig.pki import NODE, make_pki
from tests.rig.programs import RigError
from tests.rig.ready import Ready, cgroups

POD_RANGE: Final = "198.18.0.0/16"
NAME: Final = "node1"
DOMAIN: Final = "cluster.local"

_PORT: Final = 6443
_ETCD: Final = "http://127.0.0.1:2379"
_USERS: Final = {  # token and name: user, group
    "admin": ("rig-admin", "system:masters"),
    "manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
    "dns": ("rig-dns", "system:masters"),
}
_START_S: Final = 120.0
_UNUSED_PLUGINS: Final = tuple(
    f"io.containerd.{name}.v1.{kind}"
    for name, kind in (
        ("snapshotter", "aufs"), ("snapshotter", "btrfs"), ("snapshotter", "devmapper"),
        ("snapshotter", "zfs"), ("tracing.processor", "otlp"),
    )
)  # fmt: skip
_POD_LOGS: Final = Path("/var/log/pods")  # where log agents look on every node


class Node:
    """The parts, and how they are reached: `kubeconfig` has all rights."""

    def __init__(self, folder: Path, ready: Ready) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"
        self._ready = ready
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Bring everything up until the node is ready for pods. Raises RigError with a log's end."""
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
        self._start("kube-proxy", [f"--config={self._write_json('proxy.json', self._proxy())}"])
        self._start_dns()
        self._wait("node", self._is_ready)

    def stop(self) -> None:
        """End the parts; what they have started ends with the namespaces."""
        for part in reversed(self._parts.values()):
            part.kill()
            part.wait()

    def log(self, name: str) -> str:
        """Return the end of a part's log."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def get(self, path: str) -> bytes:
        """Ask the API server as its administrator."""
        return self._ask(path, None)

    def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """Create an object as the administrator."""
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> bytes:
        headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
        request = urllib.request.Request(f"https://127.0.0.1:{_PORT}{path}", data=body, headers=headers)
        context = create_default_context(cafile=str(self.folder / "pki" / "ca.crt"))
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:  # noqa: S310 -- https
                data: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()[:500].decode(errors="replace")
            raise RigError(f"{path}: {error.code}: {said}") from None
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
        addresses = {
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
            "ipam": addresses,
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
        for archive in self._ready.images:
            self._ctr("--namespace", "k8s.io", "images", "import", str(archive))

    def _ctr(self, *arguments: str) -> str:
        return _run("ctr", "--address", str(self._socket), *arguments)

    def _start_kubelet(self) -> None:
        for controller in cgroups():
            (controller / self.folder.name).mkdir()
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
            f"--containerd={self._socket}",  # where its own cAdvisor looks for containers
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

    def _proxy(self) -> dict[str, object]:
        none = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
        return {
            "kind": "KubeProxyConfiguration",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "mode": "iptables",
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": NAME,
            "clientConnection": {"kubeconfig": str(self.folder / "proxy.kubeconfig")},
            "conntrack": none,
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
        program = self._ready.programs.get(name, Path(name))
        with (self.folder / "logs" / f"{name}.log").open("wb") as log:
            self._parts[name] = subprocess.Popen(
                [str(program), *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        ends_s = time.monotonic() + _START_S
        error: Exception | None = None
        while time.monotonic() < ends_s:
            for part, process in self._parts.items():
                if process.poll() is not None:
                    raise RigError(
                        f"{part} ended with {process.returncode}; the end of its log:\n{self.log(part)}"
                    )
            try:
                if is_there():
                    return
            except (OSError, RigError) as later:
                error = later
            time.sleep(0.2)
        last = self.log("kubelet" if name == "node" else name)
        raise RigError(f"{name} isn't ready after {_START_S:.0f} s ({error}); the end of its log:\n{last}")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RigError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout
