"""Plans, events, problems and rows -> JSON for programs, as described in docs/plan-json.md.

In: plans, events, problems, rows, details. Out: JSON text with a schema version, and with keys in a fixed
order. If there is no value, the key is omitted; a `null` is the value of a field in an object. The text is
ASCII, so it cannot move the cursor of a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from nimlab.errors import NimlabError, Problem
from nimlab.files.git_history import Commit
from nimlab.objects.takeover import Takeover
from nimlab.plan.change import Change
from nimlab.plan.diff import ABSENT, FieldChange
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_restarts import caveats_of
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.resource_requests import Resources
from nimlab.plan.sync_events import Event, ObjectDone, Outcome
from nimlab.report.experiment_detail import Detail, PodLine
from nimlab.report.experiment_events import EventLine
from nimlab.report.list_rows import Row
from nimlab.report.outcomes_by_object import SyncResult, result_of
from nimlab.report.totals import sum_resources, totals_of

SCHEMA_VERSION: Final = 1


def plan_json(
    plan: Plan,
    *,
    cluster: str,
    tool_version: str,
    exit_code: int,
    binding: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """Return a plan that was not carried out; a plan with a `binding` can be carried out later."""
    document = _plan(plan, cluster, tool_version, exit_code)
    return _text({**document, **_present(warnings=list(warnings) or None, binding=binding)})


def run_json(
    plan: Plan,
    events: Sequence[Event],
    *,
    cluster: str,
    tool_version: str,
    exit_code: int,
    warnings: Sequence[str] = (),
) -> str:
    """Return a plan with the outcome of each object and the last known state of the peers."""
    result = result_of(plan, events)
    document = _plan(plan, cluster, tool_version, exit_code) | _present(warnings=list(warnings) or None)
    for entry, change in zip(document["objects"], plan.changes, strict=True):
        entry |= _outcome(result.outcomes[change.key])
    counts = result.outcome_counts
    document["outcomes"] = {outcome.value: counts[outcome] for outcome in Outcome}
    document["peers"] = _peers(result)
    return _text(document)


def problems_json(problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> str:
    """Return the problems and the warnings of all files."""
    return _text(
        {
            "problems": [_problem(problem) for problem in problems],
            "warnings": [_problem(warning) for warning in warnings],
        }
    )


def rows_json(rows: Sequence[Row]) -> str:
    """Return the rows of `list`."""
    return _text({"experiments": [_row(row) for row in rows]})


def detail_json(detail: Detail) -> str:
    """Return the content of `status`."""
    return _text(_detail(detail))


def platform_json(details: Sequence[Detail]) -> str:
    """Return the content of `status platform`."""
    return _text({"components": [_detail(detail) for detail in details]})


def _detail(detail: Detail) -> dict[str, Any]:
    plan = detail.plan
    return {
        **_row(detail.row),
        **_present(source=detail.source),
        "objects": [_change(change, plan.source) for change in plan.changes] if plan else [],
        "peers": [_pod(pod) for pod in detail.pods],
        "peersNotRead": detail.unread,
        "troubles": [_trouble(trouble) for trouble in detail.troubles],
        "events": [_event(event) for event in detail.events],
    }


def sandbox_json(
    *,
    running: bool,
    server: str | None,
    nodes: int,
    parts: Sequence[tuple[str, int | None, bool, str]],
) -> str:
    """Return the state of the sandbox; each of `parts` is a tuple (name, pid, alive, log)."""
    return _text(
        {
            "running": running,
            **_present(server=server),
            "nodes": nodes,
            "parts": [
                {"name": name, **_present(pid=pid), "alive": alive, "log": log}
                for name, pid, alive, log in parts
            ],
        }
    )


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps({"schemaVersion": SCHEMA_VERSION, **document}, indent=2)


def _present(**values: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _plan(plan: Plan, cluster: str, tool_version: str, exit_code: int) -> dict[str, Any]:
    sources = {experiment.name: experiment.source for experiment in plan.experiments}
    return {
        "tool": f"nimlab/{tool_version}",
        "cluster": cluster,
        "applySet": plan.apply_set.name,
        "namespace": plan.apply_set.namespace,
        "createsNamespace": plan.create_namespace,
        **_present(commit=_commit(plan.commit), lastSyncedCommit=plan.recorded_commit),
        "narrowed": plan.narrowed,
        "exitCode": exit_code,
        "summary": asdict(totals_of(plan)),
        "added": _added(sum_resources(experiment.added for experiment in plan.experiments)),
        "experiments": [_experiment(experiment) for experiment in plan.experiments],
        "objects": [_change(change, sources.get(change.experiment)) for change in plan.changes],
        "broken": [{"name": broken.name, "source": broken.source} for broken in plan.broken],
        "fileErrors": plan.file_errors,
        "retired": [str(former.apply_set.parent_key) for former in plan.retired],
        "unchecked": list(plan.unchecked),
        "stops": [{"code": stop.code, "what": stop.what, "hint": stop.hint} for stop in plan.stops],
        **_present(refusal=_error(plan.refusal)),
    }


def _commit(commit: Commit | None) -> dict[str, Any] | None:
    if commit is None:
        return None
    return {"sha": commit.sha, **_present(branch=commit.branch), "dirty": commit.dirty}


def _experiment(experiment: ExperimentPlan) -> dict[str, Any]:
    return {
        "name": experiment.name,
        **_present(source=experiment.source),
        "held": experiment.held,
        "added": _added(experiment.added),
    }


def _added(resources: Resources) -> dict[str, int]:
    return {
        "pods": resources.pods,
        "cpuMillicores": resources.cpu_m,
        "memoryBytes": resources.memory_bytes,
    }


def _change(change: Change, source: str | None) -> dict[str, Any]:
    metadata: Mapping[str, Any] = (change.live or {}).get("metadata", {})
    replace_by = change.replace_by.value if change.replace_by else None
    return {
        "key": str(change.key),
        "kind": change.key.kind,
        **({"namespace": change.key.namespace} if change.key.namespace else {}),
        "name": change.key.name,
        "experiment": change.experiment,
        **_present(source=source),
        "action": change.action.value,
        **({"reason": change.reason} if change.reason else {}),
        "changes": [_field(field) for field in change.fields],
        "foreign": [{"manager": f.manager, "path": f.text, "value": f.shown} for f in change.foreign],
        "taken": [{"manager": c.manager, "path": c.field.lstrip(".")} for c in change.reclaimed_fields],
        **_present(handover=_takeover(change.takeover)),  # programs use this key, so it keeps its old name
        **_present(error=_error(change.error), replaceBy=replace_by),
        **_present(formerNamespace=change.former.namespace if change.former else None),
        "restarts": change.restarts,
        "restartSeconds": change.restart_s,
        "unverified": change.unverified,
        "caveats": list(caveats_of(change.desired)),
        **_present(uid=metadata.get("uid"), resourceVersion=metadata.get("resourceVersion")),
    }


def _takeover(takeover: Takeover | None) -> dict[str, Any] | None:
    if takeover is None:
        return None
    removed = [{"manager": f.manager, "path": f.text} for f in takeover.removed]
    return {"managers": list(takeover.managers), "removed": removed}


def _field(field: FieldChange) -> dict[str, Any]:
    values = {"old": field.old, "new": field.new}
    return {"path": field.path, **{k: v for k, v in values.items() if v is not ABSENT}}


def _error(error: NimlabError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "what": error.what, **_present(where=error.where, hint=error.hint)}


def _outcome(done: ObjectDone) -> dict[str, Any]:
    return {"outcome": done.outcome.value, **_present(error=_error(done.error))}


def _peers(result: SyncResult) -> list[dict[str, Any]]:
    troubles = {name: event.troubles for name, event in result.stuck.items()}
    return [
        {
            "experiment": name,
            "running": peers.running,
            "wanted": peers.wanted,
            "settled": peers.settled,
            "waitedSeconds": round(peers.waited_s, 3),
            "troubles": [_trouble(trouble) for trouble in troubles.get(name, ())],
        }
        for name, peers in sorted(result.peers.items())
    ]


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "what": problem.what,
        "path": problem.location.path,
        "line": problem.location.line,
        "column": problem.location.column,
        "pointer": problem.pointer,
        **_present(hint=problem.hint),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "experiment": row.experiment,
        **({"fullName": row.full_name} if row.full_name else {}),
        **_present(scale=row.scale, running=row.running),
        **_present(startedAt=row.started_at, ageSeconds=row.age_s),
        "state": row.state.value,
        "health": row.verdict.health.value,
        **({"healthReason": row.verdict.reason} if row.verdict.reason else {}),
        **({"healthMessage": row.verdict.message} if row.verdict.message else {}),
    }


def _pod(pod: PodLine) -> dict[str, Any]:
    return {
        "name": pod.name,
        "state": pod.state,
        "running": pod.is_running,
        **({"node": pod.node} if pod.node else {}),
        "restarts": pod.restarts,
        **_present(ageSeconds=pod.age_s),
    }


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return {
        **({"kind": trouble.kind} if trouble.kind != "Pod" else {}),
        "pod": trouble.pod,
        "reason": trouble.reason,
        "message": trouble.message,
        **_present(since=trouble.since),
        "fatal": trouble.fatal,
    }


def _event(event: EventLine) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": event.kind,
        "name": event.name,
        "reason": event.reason,
        "message": event.message,
        "warning": event.is_warning,
        "times": event.times,
    }
