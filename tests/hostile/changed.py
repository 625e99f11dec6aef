"""Hostile templates with exactly one violation: a valid base template in which one text is replaced.

The reported problem must therefore be this violation, not another fault of the template.
"""

from __future__ import annotations

from typing import Final

_METADATA: Final = (
    "metadata: {name: {{ (full_name ~ '-x') | json }}, namespace: {{ namespace | json }}, "
    "labels: {{ labels | json }}}\n"
)
_SHAPER: Final = (
    "{name: shape, image: {{ nimlab_image | json }}, command: [python3, -m, nimlab.agents.shape], "
    "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [NET_ADMIN]}}}"
)
_CONTAINER: Final = (
    "{name: c, image: 'a:1', env: [{name: A, value: b}], ports: [{containerPort: 1}], "
    "livenessProbe: {httpGet: {path: /, port: 1}}, lifecycle: {preStop: {tcpSocket: {port: 1}}}, "
    "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}"
)
_POD: Final = (
    "{automountServiceAccountToken: false, securityContext: {seccompProfile: {type: RuntimeDefault}}, "
    "volumes: [{name: v, emptyDir: {}}], "
    f"initContainers: [{_SHAPER}], containers: [{_CONTAINER}]}}"
)
BASES: Final = {
    "pod": (
        f"apiVersion: apps/v1\nkind: StatefulSet\n{_METADATA}"
        "spec: {selector: {matchLabels: {{ selector | json }}}, "
        f"template: {{metadata: {{labels: {{{{ labels | json }}}}}}, spec: {_POD}}}}}\n"
    ),
    "service": (
        f"apiVersion: v1\nkind: Service\n{_METADATA}"
        "spec: {type: ClusterIP, selector: {{ selector | json }}, ports: [{port: 1}]}\n"
    ),
    "policy": (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n{_METADATA}"
        "spec: {podSelector: {matchLabels: {{ selector | json }}}, policyTypes: [Ingress]}\n"
    ),
    "budget": (
        f"apiVersion: policy/v1\nkind: PodDisruptionBudget\n{_METADATA}"
        "spec: {minAvailable: 1, selector: {matchLabels: {{ selector | json }}}}\n"
    ),
    "config": f"apiVersion: v1\nkind: ConfigMap\n{_METADATA}",
}
"""Valid templates of an experiment."""

_AUTOMOUNT: Final = "automountServiceAccountToken: false"
_ENV: Final = "env: [{name: A, value: b}]"
_VOLUME: Final = "emptyDir: {}"
_DROP: Final = "capabilities: {drop: [ALL]}"
_TYPE: Final = "type: ClusterIP"

CHANGES: Final[dict[str, tuple[str, str, str, str]]] = {
    # name: base, text to replace, replacement, and part of the expected message
    "host network": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, hostNetwork: true", "pods: hostNetwork"),
    "host PID": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, hostPID: true", "pods: hostPID"),
    "host IPC": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, hostIPC: true", "pods: hostIPC"),
    "host users": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, hostUsers: true", "pods: hostUsers"),
    "node name": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, nodeName: n", "pods: nodeName"),
    "priority": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, priorityClassName: system-node-critical", "pods: priorityClassName"),
    "runtime": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, runtimeClassName: r", "pods: runtimeClassName"),
    "scheduler": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, schedulerName: s", "pods: schedulerName"),
    "devices": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, resourceClaims: [{{name: d}}]", "pods: resourceClaims"),
    "service account": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, serviceAccountName: admin", "serviceAccountName"),
    "token": ("pod", "automountServiceAccountToken: false", "hostAliases: []", "automountServiceAccountToken"),
    "token requested": ("pod", "Token: false", "Token: true", "automountServiceAccountToken must be false"),
    "ephemeral": ("pod", _AUTOMOUNT, f"{_AUTOMOUNT}, ephemeralContainers: [{{name: e}}]", "ephemeralContainers"),
    "host path": ("pod", _VOLUME, "hostPath: {path: /}", "a volume of type `hostPath`"),
    "secret volume": ("pod", _VOLUME, "secret: {secretName: s}", "a volume of type `secret`"),
    "projected token": ("pod", _VOLUME, "projected: {sources: [{serviceAccountToken: {path: t}}]}", "a volume of type `projected`"),
    "claim": ("pod", _VOLUME, "persistentVolumeClaim: {claimName: c}", "a volume of type `persistentVolumeClaim`"),
    "driver": ("pod", _VOLUME, "csi: {driver: d}", "a volume of type `csi`"),
    "file server": ("pod", _VOLUME, "nfs: {server: s, path: /}", "a volume of type `nfs`"),
    "seccomp, the shaper's": ("pod", "{add: [NET_ADMIN]}", "{add: [NET_ADMIN]}, seccompProfile: {type: Unconfined}", "[shape]: seccomp"),
    "seccomp, one container's": ("pod", _DROP, f"{_DROP}, seccompProfile: {{type: Unconfined}}", "containers[c]: seccomp"),
    "sysctl": ("pod", "{seccompProfile", "{sysctls: [{name: kernel.msgmax, value: '1'}], seccompProfile", "sysctls are not"),
    "SELinux": ("pod", "{seccompProfile", "{seLinuxOptions: {type: t}, seccompProfile", "seLinuxOptions is not allowed"),
    "privileged": ("pod", _DROP, "privileged: true", "containers[c]: privileged is not allowed"),
    "privileged shaper": ("pod", "{add: [NET_ADMIN]}", "{add: [NET_ADMIN]}, privileged: true", "initContainers[shape]: privileged is not allowed"),
    "capability": ("pod", "{drop: [ALL]}", "{add: [SYS_ADMIN]}", "containers[c]: additional capabilities"),
    "net admin": ("pod", "{drop: [ALL]}", "{add: [NET_ADMIN]}", "containers[c]: additional capabilities"),
    "another shaper's image": ("pod", "{{ nimlab_image | json }}", "a:1", "initContainers[shape]: additional capabilities"),
    "another shaper's program": ("pod", "[python3, -m, nimlab.agents.shape]", "[sh]", "initContainers[shape]: additional capabilities"),
    "another shaper's modules": ("pod", "{name: shape,", "{name: shape, workingDir: /x,", "initContainers[shape]: additional capabilities"),
    "more for the shaper": ("pod", "{add: [NET_ADMIN]}", "{add: [NET_ADMIN, SYS_ADMIN]}", "initContainers[shape]: additional capabilities"),
    "escalation": ("pod", f"false, {_DROP}", f"true, {_DROP}", "containers[c]: allowPrivilegeEscalation"),
    "escalation not set": ("pod", f"allowPrivilegeEscalation: false, {_DROP}", _DROP, "allowPrivilegeEscalation"),
    "proc mount": ("pod", _DROP, f"{_DROP}, procMount: Unmasked", "securityContext: procMount"),
    "host port": ("pod", "{containerPort: 1}", "{containerPort: 1, hostPort: 1}", "hostPort is not allowed"),
    "duplicate port": ("pod", "{containerPort: 1}", "{containerPort: 1}, {containerPort: 1}", "duplicate entry"),
    "secret env": ("pod", _ENV, "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "env must not refer to"),
    "node's address": ("pod", _ENV, "env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]", "env must not refer to"),
    "env of a secret": ("pod", _ENV, "envFrom: [{secretRef: {name: s}}]", "env must not refer to"),
    "duplicate env": ("pod", _ENV, "env: [{name: A, value: b}, {name: A, value: c}]", "duplicate entry"),
    "probe of another": ("pod", "{path: /, port: 1}", "{path: /, port: 1, host: 169.254.169.254}", "probes and hooks must not set host"),
    "hook to another": ("pod", "tcpSocket: {port: 1}", "tcpSocket: {port: 1, host: h}", "probes and hooks must not set host"),
    "claims": ("pod", "spec: {selector", "spec: {volumeClaimTemplates: [{metadata: {name: v}}], selector", "volumeClaimTemplates"),
    "pods of others": ("pod", "{matchLabels: {{ selector | json }}}", "{matchLabels: {experiment: o}}", "spec.selector must contain"),
    "unlabelled pods": ("pod", "{labels: {{ labels | json }}}, spec", "{labels: {a: b}}, spec", "pods: the label `experiment` must be"),
    "AppArmor": (
        "pod", "{labels: {{ labels | json }}}, spec",
        "{annotations: {container.apparmor.security.beta.kubernetes.io/c: unconfined}, labels: {{ labels | json }}}, spec",
        "AppArmor",
    ),
    "load balancer": ("service", _TYPE, "type: LoadBalancer", "spec.type must be ClusterIP"),
    "node port": ("service", _TYPE, "type: NodePort", "spec.type must be ClusterIP"),
    "external name": ("service", _TYPE, f"{_TYPE}, externalName: example.org", "spec.externalName"),
    "external IPs": ("service", _TYPE, f"{_TYPE}, externalIPs: [192.0.2.1]", "spec.externalIPs"),
    "address": ("service", _TYPE, f"{_TYPE}, loadBalancerIP: 192.0.2.1", "spec.loadBalancerIP"),
    "selector of others": ("service", "{{ selector | json }}", "{experiment: other}", "spec.selector must contain"),
    "policy for all": ("policy", "{matchLabels: {{ selector | json }}}", "{}", "elector must contain"),
    "policy for others": ("policy", "{{ selector | json }}", "{experiment: other}", "elector must contain"),
    "budget for all": ("budget", "{matchLabels: {{ selector | json }}}", "{}", "elector must contain"),
    "other namespace": ("config", "{{ namespace | json }}", "kube-system", "metadata.namespace must be"),
    "other name": ("config", "{{ (full_name ~ '-x') | json }}", "nimp2p-exp-other", "metadata.name must be"),
    "system name": ("config", "{{ (full_name ~ '-x') | json }}", "coredns", "metadata.name must be"),
    "same object as another": ("config", "'-x'", "'-spec'", "two templates render this object"),
    "no experiment label": ("config", "{{ labels | json }}", "{a: b}", "the label `experiment` must be"),
    "another experiment's label": ("config", "{{ labels | json }}", "{experiment: other}", "the label `experiment` must be"),
    "protect": ("config", "labels:", "annotations: {nimlab.dev/protect: 'true'}, labels:", "nimlab.dev/protect] is reserved"),
    "another tool's": ("config", "labels:", "annotations: {argocd.argoproj.io/x: 'y'}, labels:", "is reserved"),
    "owner references": ("config", "labels:", "ownerReferences: [{uid: x}], labels:", "metadata.ownerReferences"),
    "finalizers": ("config", "labels:", "finalizers: [x/y], labels:", "metadata.finalizers"),
    "managed fields": ("config", "labels:", "managedFields: [{manager: x}], labels:", "metadata.managedFields"),
    "generated name": ("config", "labels:", "generateName: x, labels:", "metadata.generateName"),
    "uid": ("config", "labels:", "uid: x, labels:", "metadata.uid"),
    "resource version": ("config", "labels:", "resourceVersion: '1', labels:", "metadata.resourceVersion"),
    "other apiVersion": ("config", "apiVersion: v1", "apiVersion: v2", "apiVersion must be"),
}  # fmt: skip
"""Templates with one violation each."""


def changed(name: str) -> str:
    """Return the template of a case."""
    base, old, new, _ = CHANGES[name]
    text = BASES[base]
    assert old in text, (name, old)
    return text.replace(old, new, 1)
