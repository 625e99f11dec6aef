"""Specs: the lab, its contracts and its experiments as frozen values.

Every number is in the unit that its name contains. Defaults are filled in, and all checks have passed. This
module reads no files, chooses no defaults and contains no Kubernetes objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from nimlab.errors import Problem

Setting: TypeAlias = bool | int | float | str
"""A setting in its base unit: bytes, milliseconds, bits per second, a ratio, a count, a flag, or a word."""

RTT_METRICS_PORT: Final = 9105
RTT_ECHO_PORT: Final = 9106  # TCP and UDP
RTT_PORT_NAMES: Final = frozenset({"rtt-metrics", "rtt-echo", "rtt-echo-udp"})
POD_CONTAINERS: Final = frozenset({"shape", "rtt"})
"""Containers that templates/experiment/ adds to each peer's pod; contracts cannot use their names."""
HTTP_PORTS: Final = ("metrics", "publish")
"""Names of the ports on which a node serves HTTP: its metrics, and requests to publish a message."""

GRAFANA_SECRET: Final = "lab-grafana-admin"  # noqa: S105 -- the Secret's name, not its content
"""Name of the Secret with Grafana's password. Pods of the platform may use no other Secret."""


class Isolation(Enum):
    """The separation between experiments of a contract."""

    LABEL = "label"  # all experiments are in the lab's namespace; names and labels distinguish them
    # Each experiment has its own namespace. Its objects have the fixed names that the node's code expects.
    NAMESPACE = "namespace"


class ConnectLimit(Enum):
    """Upper bound of `connectTo` for a node image."""

    AT_MOST_PEERS = "at-most-peers"
    LESS_THAN_PEERS = "less-than-peers"


class Rollout(Enum):
    """The way in which running peers are restarted after a change of the pod template."""

    TOGETHER = "together"  # all outdated peers are deleted at once, so that the peers form a new network
    ROLLING = "rolling"  # the StatefulSet controller replaces one peer after another


class OnImmutableChange(Enum):
    """The reaction of a sync to a change of an immutable field."""

    FAIL = "fail"
    ORPHAN = "orphan"  # only the object is deleted; the new object adopts the pods and restarts outdated pods
    RECREATE = "recreate"  # the object and its pods are deleted and created again


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Container image; `digest` (`sha256:…`) is None if the file specifies none."""

    name: str
    tag: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVar:
    """Environment variable that a node image reads.

    If `value` is not None, it is a fixed value. Otherwise `source` is the name of the spec field that
    provides the value, such as `message.interval`. `unit` is the unit in which the image reads the value:
    `ms`, `s`, `bytes`, `count`, `ratio`, `word` or `flag`.
    """

    name: str
    source: str | None
    unit: str
    value: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Port on which the node listens.

    `name` has at most 11 characters, because Kubernetes limits the longer name `<name>-udp` to 15 characters.
    """

    name: str
    port: int
    protocols: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Pattern of variables or arguments that experiments may add: an exact text, or a prefix and a `*`."""

    pattern: str
    description: str

    def covers(self, text: str) -> bool:
        """Return True if the pattern allows the text."""
        if self.pattern.endswith("*"):
            return text.startswith(self.pattern[:-1])
        return text == self.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Interface of a node image: all that the manifests, scrape rules and log rules need to know about it.

    `fields` are the spec fields that the image reads, by dotted name (`message.size`); `required` are the
    fields without a default in the image. `host_name` is `any`, or `pod-<ordinal>` if the node derives its
    number from its host name. `workload` and `service` are the names of the StatefulSet and the Service that
    the node's code expects; None means the experiment's full name. `start_delay_s` is the time that the node
    waits before it dials other peers.
    """

    name: str
    description: str
    image: Image
    container: str
    isolation: Isolation
    host_name: str
    connect_limit: ConnectLimit
    env: tuple[EnvVar, ...]
    ports: tuple[Port, ...]
    fields: frozenset[str]
    required: frozenset[str]
    start_delay_s: int
    logs: Mapping[str, str]
    metrics: tuple[str, ...]
    source: str
    extra_env: tuple[Extra, ...] = ()
    extra_args: tuple[Extra, ...] = ()
    workload: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Topology spread constraint for the pods of a group of peers."""

    topology_key: str
    max_skew: int
    when_unsatisfiable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """Settings of the pods of a group of peers, except their resources.

    Each item of `tolerations` has the fields of a Kubernetes toleration. `env` and `args` contain only
    entries that the contract allows. `stagger_ms` is the delay between the starts of two consecutive peers; 0
    means no delay.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str | None = None
    pull_secrets: tuple[str, ...] = ()
    pull_policy: str = "IfNotPresent"
    spread: tuple[Spread, ...] = ()
    stagger_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGroup:
    """Peers with equal settings: the peers of one role, or all peers of an experiment without roles.

    `role` is the name of the role, or None. `first` is the number of peers in the preceding roles.
    """

    role: str | None
    first: int
    peers: int
    cpu_m: int
    memory_bytes: int
    pod: PodSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Limits of each peer's link; None means no limit.

    `method` is `tc` if nimlab's shaper in the pod enforces the limits, `cni` if the network plugin enforces
    them, and `none` if there are no limits.
    """

    method: str
    downlink_bit_per_s: int | None
    uplink_bit_per_s: int | None
    latency_ms: int | None
    jitter_ms: int | None
    loss_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtt:
    """Round-trip time probes: every `interval_ms`, each peer probes `fanout` other peers with each method.

    `methods` is a subset of `tcp`, `udp` and `icmp`, in this order.
    """

    enabled: bool
    interval_ms: int
    fanout: int
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A valid and complete experiment.

    `settings` maps dotted field names, such as `message.size` and `peers`, to the values for the image, in
    base units. `cpu_m`, `memory_bytes` and `pod` apply to peers without a role. `document` is the file's
    data. `digest` is the sha256 of this data, so it does not depend on key order, comments and spacing.
    `full_name` is the lab's prefix followed by `name`.
    """

    name: str
    full_name: str
    owner: str
    description: str
    contract: Contract
    image: Image
    settings: Mapping[str, Setting]
    cpu_m: int
    memory_bytes: int
    network: Network
    rtt: Rtt
    rollout: Rollout
    on_immutable_change: OnImmutableChange
    namespace: str
    source: str
    digest: str
    document: Mapping[str, Any]
    pod: PodSettings = field(default_factory=PodSettings)
    roles: tuple[PeerGroup, ...] = ()

    @property
    def peers(self) -> int:
        """Number of peers, the sum over all roles."""
        return int(self.settings["peers"])

    @property
    def groups(self) -> tuple[PeerGroup, ...]:
        """The roles in their order, or all peers as one group. Each group has its own StatefulSet."""
        if self.roles:
            return self.roles
        all_peers = PeerGroup(
            role=None,
            first=0,
            peers=self.peers,
            cpu_m=self.cpu_m,
            memory_bytes=self.memory_bytes,
            pod=self.pod,
        )
        return (all_peers,)

    @property
    def workload(self) -> str:
        """Name of the StatefulSet. If there are roles, the names of all StatefulSets begin with it."""
        return self.contract.workload or self.full_name

    def workload_of(self, group: PeerGroup) -> str:
        """Return the name of a group's StatefulSet: `<workload>`, or `<workload>-<role>`."""
        return self.workload if group.role is None else f"{self.workload}-{group.role}"

    @property
    def service(self) -> str:
        """Name of the headless Service through which peers find each other."""
        return self.contract.service or self.full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the lab, per experiment and for all experiments together. None means no limit."""

    peers_per_experiment: int
    peers_total: int | None
    cpu_m_total: int | None
    memory_bytes_total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """Defaults for the options of a sync on the command line."""

    max_prune_objects: int
    max_prune_percent: int
    timeout_s: int
    parallel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images of nimlab and the monitoring stack. Contracts and experiments set the node images."""

    nimlab: Image
    prometheus: Image
    node_exporter: Image
    cadvisor: Image
    loki: Image
    alloy: Image
    promtail: Image
    grafana: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Settings of the monitoring stack.

    `log_agent` is `alloy` or `promtail`, and `cadvisor` is `daemonset` or `kubelet`. `containerd_folder`
    contains containerd's socket on every node. `metrics_storage` and `logs_storage` are Kubernetes
    quantities; None means that the data is deleted together with the pod.
    """

    log_agent: str
    cadvisor: str
    containerd_folder: str
    metrics_retention_s: int
    metrics_storage: str | None
    logs_retention_s: int
    logs_storage: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The lab: its namespace, images, platform, defaults, limits and sync options.

    `id` identifies the lab in the cluster independently of Git; None if the file does not set it.
    """

    id: str | None
    namespace: str
    prefix: str
    images: Images
    platform: Platform
    defaults: Mapping[str, Any]
    limits: Limits
    sync: SyncSettings
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenFile:
    """A file that cannot be used. `name` is `metadata.name`, or the file's stem if the name is unknown.

    If the problem is in the experiment's contract, `cause` is the contract's file or the folder `contracts`.
    Otherwise `cause` is None.
    """

    name: str
    source: str
    cause: str | None = None

    def __str__(self) -> str:
        if self.cause is None:
            return f"{self.source} cannot be used"
        return f"{self.source} cannot be used until {self.cause} is corrected"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabFiles:
    """Result of reading the lab's folder.

    `experiments` contains the usable experiments, sorted by name. `broken` lists the experiment files that
    cannot be used. `problems` contains all problems, even a problem that makes no file unusable, such as a
    limit that all experiments together exceed. `warnings` report probable mistakes in usable files.
    """

    lab: Lab
    contracts: Mapping[str, Contract]
    experiments: tuple[Experiment, ...]
    broken: tuple[BrokenFile, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
