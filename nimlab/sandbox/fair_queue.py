"""Controllers wait in a queue: what they ask for is served a few at a time, so that who looks on is answered.

Else ten thousand pods that start are hundreds of requests that all wait for the same cores, a reader's beside
them. Source: the Kubernetes docs, API Priority and Fairness; administrators are exempt from it.
"""

from __future__ import annotations

from typing import Any, Final

from nimlab.sandbox.client import Api, expect

_GROUP: Final = "flowcontrol.apiserver.k8s.io/v1"
_NAME: Final = "nimlab-sandbox-controllers"
_SHARES: Final = 3  # of about 250, and of 600 requests at a time: eight
_LENGTH: Final = 10_000  # whoever finds it full has to come again, a second later
_PRECEDENCE: Final = 190  # before the server's own rules for the same controllers, the first of which has 200


def ensure_queue(api: Api) -> None:
    """Make the queue, and have all controllers use it, unless that has been done. Raises SandboxError."""
    for plural, kind, spec in (
        ("prioritylevelconfigurations", "PriorityLevelConfiguration", _make_level()),
        ("flowschemas", "FlowSchema", _make_flow()),
    ):
        body = {"apiVersion": _GROUP, "kind": kind, "metadata": {"name": _NAME}, "spec": spec}
        expect(api.call("POST", f"/apis/{_GROUP}/{plural}", body), f"create {kind} {_NAME}", or_status=409)


def _make_level() -> dict[str, Any]:
    queuing = {"queues": 128, "handSize": 6, "queueLengthLimit": _LENGTH}
    return {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": _SHARES,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        },
    }


def _make_flow() -> dict[str, Any]:
    users = ("system:kube-controller-manager", "system:kube-scheduler")
    subjects = [{"kind": "User", "user": {"name": name}} for name in users]
    subjects.append({"kind": "Group", "group": {"name": "system:serviceaccounts:kube-system"}})
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    rule = {
        "subjects": subjects,
        "resourceRules": [{**everything, "namespaces": ["*"], "clusterScope": True}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    return {
        "priorityLevelConfiguration": {"name": _NAME},
        "matchingPrecedence": _PRECEDENCE,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [rule],
    }
