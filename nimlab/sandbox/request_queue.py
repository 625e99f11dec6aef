"""Limit the controllers' API concurrency (API Priority and Fairness) so that interactive requests stay fast.

Without the limit, 10,000 starting pods cause hundreds of concurrent requests, which compete with the user's
requests for CPU time. Administrators are exempt.
Source: the Kubernetes docs, API Priority and Fairness.
"""

from __future__ import annotations

from typing import Any, Final

from nimlab.sandbox.http_client import SandboxClient, require_success

_API_VERSION: Final = "flowcontrol.apiserver.k8s.io/v1"
_NAME: Final = "nimlab-sandbox-controllers"
# The server divides 600 concurrent requests among about 250 shares, so 3 shares allow about eight requests.
_SHARES: Final = 3
_QUEUE_LENGTH: Final = 10_000  # a full queue rejects requests, which the controllers repeat a second later
_PRECEDENCE: Final = 190  # lower numbers match first; the server's own rules for controllers begin at 200


def ensure_queue(client: SandboxClient) -> None:
    """Create the priority level, and the FlowSchema that assigns all controllers to it, unless they exist.

    Raises SandboxError.
    """
    for plural, kind, spec in (
        ("prioritylevelconfigurations", "PriorityLevelConfiguration", _make_priority_level()),
        ("flowschemas", "FlowSchema", _make_flow_schema()),
    ):
        body = {"apiVersion": _API_VERSION, "kind": kind, "metadata": {"name": _NAME}, "spec": spec}
        response = client.request("POST", f"/apis/{_API_VERSION}/{plural}", body)
        require_success(response, f"create {kind} {_NAME}", or_status=409)


def _make_priority_level() -> dict[str, Any]:
    queuing = {"queues": 128, "handSize": 6, "queueLengthLimit": _QUEUE_LENGTH}
    return {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": _SHARES,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        },
    }


def _make_flow_schema() -> dict[str, Any]:
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
