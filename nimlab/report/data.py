"""The same for programs: JSON with a version, described in docs/plan-json.md.

Keys are stable; new ones may be added. A field that isn't there has no key, rather than null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nimlab.apply.events import Event, ExperimentSettled, ExperimentStuck, ObjectDone
from nimlab.change import Action, Change
from nimlab.diff import ABSENT, FieldChange, mask
from nimlab.errors import NimlabError, Problem
from nimlab.overview import Detail, Row
from nimlab.plan import Plan
from nimlab.status import Trouble

SCHEMA_VERSION: Final = 1


def plan_json(plan: Plan, *, cluster: str, tool_version: str, exit_code: int) -> str:
    """Return a plan that was not carried out."""
    return _text(_plan(plan, cluster, tool_version, exit_code))


def run_json(plan: Plan, events: Sequence[Event], *, cluster: str, tool_version: str, exit_code: int) -> str:
    """Return a plan with what became of each object and experiment."""
    done = {e.key: e for e in events if isinstance(e, ObjectDone)}
    value = _plan(plan, cluster, tool_version, exit_code)
    for entry, change in zip(value["objects"], plan.changes, strict=True):
        event = done.get(change.key)
        if event is not None:
            entry["outcome"] = event.outcome.value
            entry |= {"error": _error(event.error)} if event.error else {}
        elif change.action is Action.KEEP:
            entry["outcome"] = "unchanged"
    value["peers"] = [_ended(e) for e in events if isinstance(e, ExperimentSettled | ExperimentStuck)]
    return _text(value)


def problems_json(problems: Sequence[Problem]) -> str:
    """Return the problems of all files."""
    return _text(
        {
            "schemaVersion": SCHEMA_VERSION,
            "problems": [
                {
                    "code": p.code,
                    "what": p.what,
                    "path": p.location.path,
                    "line": p.location.line,
                    "column": p.location.column,
                    "pointer": p.pointer,
                    **({"hint": p.hint} if p.hint else {}),
                }
                for p in problems
            ],
        }
    )


def rows_json(rows: Sequence[Row]) -> str:
    """Return the rows of `list`."""
    return _text({"schemaVersion": SCHEMA_VERSION, "experiments": [_row(row) for row in rows]})


def detail_json(detail: Detail) -> str:
    """Return what `status` shows."""
    return _text(
        {
            "schemaVersion": SCHEMA_VERSION,
            **_row(detail.row),
            **({"source": detail.source} if detail.source else {}),
            "objects": [_change(change, None) for change in detail.changes],
            "peers": [
                {
                    "name": pod.name,
                    "state": pod.state,
                    "node": pod.node,
                    "restarts": pod.restarts,
                    **({"trouble": _trouble(pod.trouble)} if pod.trouble else {}),
                }
                for pod in detail.pods
            ],
            "troubles": [_trouble(trouble) for trouble in detail.troubles],
            "events": [
                {
                    "at": e.at,
                    "object": f"{e.kind}/{e.name}",
                    "reason": e.reason,
                    "message": e.message,
                }
                for e in detail.events
            ],
        }
    )


def sandbox_json(
    *,
    running: bool,
    server: str | None,
    nodes: int,
    parts: Sequence[tuple[str, int | None, bool, str]],
) -> str:
    """Return the sandbox's state."""
    return _text(
        {
            "schemaVersion": SCHEMA_VERSION,
            "running": running,
            **({"server": server} if server else {}),
            "nodes": nodes,
            "parts": [
                {"name": name, **({"pid": pid} if pid else {}), "alive": alive, "log": log}
                for name, pid, alive, log in parts
            ],
        }
    )


def _plan(plan: Plan, cluster: str, tool_version: str, exit_code: int) -> dict[str, Any]:
    sources = {one.name: one.source for one in plan.experiments}
    commit = plan.commit
    return {
        "schemaVersion": SCHEMA_VERSION,
        "tool": f"nimlab/{tool_version}",
        "cluster": cluster,
        "applySet": plan.apply_set.name,
        "namespace": plan.apply_set.namespace,
        **({"commit": {"sha": commit.sha, "dirty": commit.dirty}} if commit else {}),
        "exitCode": exit_code,
        "summary": {action.value: plan.count(action) for action in Action},
        "experiments": [
            {
                "name": one.name,
                **({"source": one.source} if one.source else {}),
                "added": {
                    "pods": one.added.pods,
                    "cpu_m": one.added.cpu_m,
                    "memory_bytes": one.added.memory_bytes,
                },
            }
            for one in plan.experiments
        ],
        "objects": [_change(change, sources.get(change.experiment)) for change in plan.changes],
        "broken": [{"name": b.name, "source": b.source} for b in plan.broken],
        "stops": [{"code": s.code, "what": s.what, "hint": s.hint} for s in plan.stops],
        **({"refusal": _error(plan.refusal)} if plan.refusal else {}),
    }


def _change(change: Change, source: str | None) -> dict[str, Any]:
    metadata: Mapping[str, Any] = (change.live or {}).get("metadata", {})
    return {
        "key": str(change.key),
        "experiment": change.experiment,
        **({"source": source} if source else {}),
        "action": change.action.value,
        **({"reason": change.reason} if change.reason else {}),
        "changes": [_field(f) for f in change.fields],
        "foreign": [{"path": f.text, "manager": f.manager, "value": mask(f.value)} for f in change.foreign],
        **({"error": _error(change.error)} if change.error else {}),
        **({"restarts": change.restarts} if change.restarts else {}),
        **({"unverified": True} if change.unverified else {}),
        **({"uid": metadata["uid"]} if "uid" in metadata else {}),
        **({"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}),
    }


def _field(change: FieldChange) -> dict[str, Any]:
    return {
        "path": change.path,
        **({} if change.old is ABSENT else {"old": change.old}),
        **({} if change.new is ABSENT else {"new": change.new}),
    }


def _error(error: NimlabError) -> dict[str, Any]:
    return {
        "code": error.code,
        "what": error.what,
        **({"where": error.where} if error.where else {}),
        **({"hint": error.hint} if error.hint else {}),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "experiment": row.experiment,
        "fullName": row.full_name,
        "scale": row.scale,
        "running": row.running,
        **({"startedAt": row.started_at} if row.started_at else {}),
        **({"age_s": row.age_s} if row.age_s is not None else {}),
        "state": row.state.value,
    }


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return {
        "pod": trouble.pod,
        "reason": trouble.reason,
        "message": trouble.message,
        "fatal": trouble.fatal,
    }


def _ended(event: ExperimentSettled | ExperimentStuck) -> dict[str, Any]:
    if isinstance(event, ExperimentSettled):
        return {"experiment": event.experiment, "running": event.running, "settled": True}
    return {
        "experiment": event.experiment,
        "running": event.running,
        "wanted": event.wanted,
        "settled": False,
        "timedOut": event.timed_out,
        "troubles": [_trouble(trouble) for trouble in event.troubles],
    }


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
