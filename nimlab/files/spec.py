"""What the user asked for: the lab, its contracts and its experiments as frozen values.

In these values every number is in the unit of its name, every default is filled in, and every check that
the files allow has passed. Nothing here reads files, decides defaults or knows Kubernetes objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from nimlab.errors import Problem

Setting: TypeAlias = bool | int | float | str
"""One value of a spec in its base unit: bytes, milliseconds, bits per second, a ratio, a count, or a word."""


RTT_METRICS_PORT: Final = 9105
RTT_ECHO_PORT: Final = 9106  # TCP and UDP
RTT_PORT_NAMES: Final = frozenset({"rtt-metrics", "rtt-echo", "rtt-echo-udp"})
POD_CONTAINERS: Final = frozenset({"shape", "rtt"})
"""Containers that templates/experiment/ adds to a peer's pod; like the ports above, no contract has them."""

GRAFANA_SECRET: Final = "lab-grafana-admin"  # noqa: S105 -- its name
"""The Secret with Grafana's password: the only one that a pod of ours is given."""


class Isolation(Enum):
    """How experiments under a contract are kept apart."""

    LABEL = "label"  # all in the lab's namespace, told apart by name and label
    NAMESPACE = "namespace"  # a namespace of its own, with the fixed names that its node's code expects


class ConnectLimit(Enum):
    """How `connectTo` relates to `peers` for a node image."""

    AT_MOST_PEERS = "at-most-peers"
    LESS_THAN_PEERS = "less-than-peers"


class Rollout(Enum):
    """What a changed pod template does to running peers."""

    TOGETHER = "together"  # all peers of the old revision are deleted at once: a new run
    ROLLING = "rolling"  # the StatefulSet controller replaces one after another


class OnImmutableChange(Enum):
    """What may be done when a change can't be made in place."""

    FAIL = "fail"
    ORPHAN = (
        "orphan"  # the object is deleted, its pods stay: the new one adopts, and restarts what has changed
    )
    RECREATE = "recreate"  # the object and its pods are deleted, then made anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image; `digest` (`sha256:…`) pins it when it is known."""

    name: str
    tag: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVar:
    """One environment variable that a node image reads.

    Either `source` names the spec field (`message.interval`) that feeds it, in `unit`
    (`ms`, `s`, `bytes`, `count`, `word`, `flag`), or `value` is fixed by the contract.
    """

    name: str
    source: str | None
    unit: str
    value: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port that the node listens on; `name` is at most 11 characters so that `-udp` still fits 15."""

    name: str
    port: int
    protocols: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Env names or arguments that a contract lets experiments add: one text, or its start before `*`."""

    pattern: str
    description: str

    def covers(self, text: str) -> bool:
        """Return True when the text is allowed by this pattern."""
        if self.pattern.endswith("*"):
            return text.startswith(self.pattern[:-1])
        return text == self.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a node image understands: the facts that manifests, scrape rules and log rules are made from.

    `fields` are the spec fields that this image can deliver, dotted (`message.size`); `required` of them
    have no default in the image. `host_name` is the pattern that the image parses its ordinal out of:
    `any`, or `pod-<ordinal>`. `start_delay_s` is how long the node waits by itself before it dials.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One topology spread rule over the peers of a group."""

    topology_key: str
    max_skew: int
    when_unsatisfiable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What a cluster has to know about a group's pods, beyond their resources.

    `tolerations` have the fields of Kubernetes. `env` and `args` are checked against the contract.
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
    """Peers that are alike: all of an experiment (`role` is None), or those of one role.

    `first` is the number of peers in the roles before it.
    """

    role: str | None
    first: int
    peers: int
    cpu_m: int
    memory_bytes: int
    pod: PodSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Limits of one peer's link; None where nothing was asked. `method` is `tc`, `cni` or `none`."""

    method: str
    downlink_bit_per_s: int | None
    uplink_bit_per_s: int | None
    latency_ms: int | None
    jitter_ms: int | None
    loss_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtt:
    """Round-trip probing: every `interval_ms`, each peer probes `fanout` others by each of the methods.

    `methods` are some of `tcp`, `udp` and `icmp`, in this order.
    """

    enabled: bool
    interval_ms: int
    fanout: int
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment, checked and complete.

    `settings` holds what the contract passes on to the image, by dotted field name, in base units; `peers`
    and `connectTo` are among them. `peers` is the sum over all roles; `cpu_m`, `memory_bytes` and `pod` are
    those of a peer without a role. `digest` is the sha256 of the file's content, whatever its key order,
    comments and spacing. `full_name` is prefix + name.
    """

    name: str
    full_name: str
    owner: str
    description: str
    contract: Contract
    image: Image
    peers: int
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
    def groups(self) -> tuple[PeerGroup, ...]:
        """The roles in their order, or all peers as one group; each is a StatefulSet."""
        if self.roles:
            return self.roles
        alone = PeerGroup(
            role=None,
            first=0,
            peers=self.peers,
            cpu_m=self.cpu_m,
            memory_bytes=self.memory_bytes,
            pod=self.pod,
        )
        return (alone,)

    @property
    def workload(self) -> str:
        """Name of the StatefulSet: `pod` where the node parses `pod-<ordinal>`, else the full name.

        With roles it is the start of each StatefulSet's name.
        """
        return "pod" if self.contract.isolation is Isolation.NAMESPACE else self.full_name

    def workload_of(self, group: PeerGroup) -> str:
        """Return the name of a group's StatefulSet."""
        return self.workload if group.role is None else f"{self.workload}-{group.role}"

    @property
    def service(self) -> str:
        """Name of the headless Service through which peers find each other."""
        if self.contract.isolation is Isolation.NAMESPACE:
            return "nimp2p-service"
        return self.full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the lab allows: per experiment, and for all together. None is no limit."""

    peers_per_experiment: int
    peers_total: int | None
    cpu_m_total: int | None
    memory_bytes_total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """How a sync behaves where the command line says nothing."""

    max_prune_objects: int
    max_prune_percent: int
    timeout_s: int
    parallel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Every image that isn't a contract's: the only place where they are named."""

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
    """What the monitoring stack is made of; storage is a quantity, None for what a restart may lose.

    `log_agent` is `alloy` or `promtail`, `cadvisor` is `daemonset` or `kubelet`; `containerd_folder` holds
    containerd's socket on every node.
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
    """The lab as a whole: where it lives, what it runs, what it allows, how it syncs.

    `id` identifies it in the cluster where Git cannot, None if the file has none.
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
class Broken:
    """A file in `experiments/` that can't be used; `name` is what it would be called, as far as is known.

    `cause` is another file whose problem is the reason: the experiment's contract.
    """

    name: str
    source: str
    cause: str | None = None

    def __str__(self) -> str:
        if self.cause is None:
            return f"{self.source} can't be used"
        return f"{self.source} can't be used before {self.cause} is corrected"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabFiles:
    """All that was read: what is usable, what is not, and why.

    `experiments` are sorted by name and free of problems; `broken` names the files left out; `problems`
    is empty exactly when `broken` is and the lab and all contracts are usable. `warnings` are about files
    that are used.
    """

    lab: Lab
    contracts: Mapping[str, Contract]
    experiments: tuple[Experiment, ...]
    broken: tuple[Broken, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
