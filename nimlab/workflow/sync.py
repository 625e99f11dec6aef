"""The last third of the program's sentence: a plan shown, or carried out and waited for.

The lock is taken for exactly what was seen; when another sync has come between, everything is looked at
again.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from nimlab import __version__, report
from nimlab.cli.report_files import write_reports
from nimlab.cli.shared_options import Output, SyncOptions
from nimlab.cli.terminal import is_one_output, print_note, print_result, show_events, wants_colour
from nimlab.cluster.apply import (
    ApplyOptions,
    Event,
    ExperimentSettled,
    Locks,
    ObjectDone,
    Outcome,
    WaitTarget,
    acquire_all,
    create_namespace,
    create_password,
    execute,
    hold_of,
    system_clock,
    wait_until_settled,
    with_reason,
)
from nimlab.errors import ExitCode, Forbidden, LockHeld, NimlabError, PreconditionFailed
from nimlab.files.spec import GRAFANA_SECRET
from nimlab.objects.applyset import PLATFORM
from nimlab.objects.manifest import WORKLOADS, ObjectKey
from nimlab.plan.kstatus import State, peers_of, status_of
from nimlab.plan.make_plan import Action, Plan
from nimlab.plan.saved_plan import SavedPlan
from nimlab.plan.snapshot import Snapshot
from nimlab.timing import stage
from nimlab.workflow.save_plan import make_saved_plan, options_of, read_saved, refuse_changed_plan, save_plan
from nimlab.workflow.session import Run, observe_and_plan, open_run, plan_text, raise_if_stopped, warnings_of

_LOCK_POLL_S = 1.0
_LOOKS = 5  # as often as another sync may come between a look and the lock


def run_sync(
    options: SyncOptions,
    *,
    lab: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    in_cluster: bool = False,
) -> int:
    """Sync, or show the plan, and return the exit code. Raises NimlabError before anything is done."""
    saved = None
    if options.plan is not None:
        saved = read_saved(options.plan)
        options = options_of(saved, options)
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        return _show_plan(run) if options.dry_run else _carry_out(run, saved)


def _show_plan(run: Run) -> int:
    _, plan = observe_and_plan(run)
    code = report.exit_code_of(
        plan, (), dry_run=True, exit_code=run.options.exit_code, strict=run.options.strict
    )
    if not write_reports(run, plan, None):
        code = ExitCode.ERROR
    _print_plan(run, plan, code)
    if run.options.out is not None:
        save_plan(run.options.out, _plan_json(run, plan, code, saved=True))
    return ExitCode.INTERRUPTED if run.stop.is_set() else code


def _print_plan(run: Run, plan: Plan, code: int) -> None:
    """Print a plan that is not carried out, in the form that was asked for."""
    if run.options.output is Output.JSON:
        print_result(_plan_json(run, plan, code, saved=False))
    else:
        print_result(plan_text(run, plan))


def _plan_json(run: Run, plan: Plan, code: int, *, saved: bool) -> str:
    """The plan as JSON; a saved one says what it is bound to."""
    binding = make_saved_plan(plan, run.options, run.cluster).to_json() if saved else None
    return report.plan_json(
        plan,
        cluster=run.target.name,
        tool_version=__version__,
        exit_code=code,
        binding=binding,
        warnings=warnings_of(run),
    )


def _carry_out(run: Run, saved: SavedPlan | None) -> int:
    """Show the plan, take the lock for exactly what was seen, act and wait.

    When another sync has come between, everything is looked at again. Raises PlanError when it isn't the
    saved plan that was asked for.
    """
    deadline_s = time.monotonic() + run.lock_timeout_s
    moved = 0
    while True:
        snapshot, plan = observe_and_plan(run)
        if saved is not None:
            refuse_changed_plan(saved, plan, run.options, run.cluster)
        if plan.refusal is not None:
            _print_plan(run, plan, plan.refusal.exit_code)
            write_reports(run, plan, None)
            return plan.refusal.exit_code
        if run.options.output is Output.TEXT:
            print_result(plan_text(run, plan))
        if not _has_writes(plan):
            return _act(run, snapshot, plan, None)
        try:
            lock = _lock(run, snapshot, plan)
        except (PreconditionFailed, LockHeld) as error:
            moved += isinstance(error, PreconditionFailed)
            if moved == _LOOKS:
                raise
            _wait_for_lock(run, snapshot, error, deadline_s)
            continue
        try:
            return _act(run, snapshot, plan, lock)
        finally:
            lock.release()


def _lock(run: Run, snapshot: Snapshot, plan: Plan) -> Locks:
    """Take the lease as it was seen, and those of former sets; create the lab's namespace if needed."""
    raise_if_stopped(run)
    home = plan.apply_set.namespace
    if plan.create_namespace:
        print_note(report.format_event(create_namespace(run.cluster, home), paint=False))
    if plan.apply_set.name == PLATFORM and (told := create_password(run.cluster, home, GRAFANA_SECRET)):
        print_note(report.format_event(told, paint=False))
    leases = [(plan.apply_set, snapshot.lease), *((one.apply_set, one.lease) for one in snapshot.former)]
    now = _server_clock(run)
    try:
        return acquire_all(run.cluster, leases, holder=_holder(), now=now, stop=run.stop)
    except (Forbidden, PreconditionFailed) as error:
        explained = with_reason(error, run.cluster, home)
        if explained is error:
            raise
        raise explained from error


def _server_clock(run: Run) -> Callable[[], datetime]:
    """Return the clock of the server: all syncs share it, however wrong their own clocks are."""
    ahead = timedelta(seconds=run.cluster.ahead_s())
    own = system_clock().now
    return lambda: own() + ahead


def _act(run: Run, snapshot: Snapshot, plan: Plan, lock: Locks | None) -> int:
    """Carry the plan out, tell what happens, and sum it up."""
    blocked = frozenset(change.key for change in plan.changes if change.error is not None)
    shown = blocked if run.options.output is Output.TEXT else frozenset()
    events = list(show_events(_events(run, snapshot, plan, lock), shown=shown))
    code = report.exit_code_of(plan, events, dry_run=False, exit_code=False, strict=run.options.strict)
    if not write_reports(run, plan, events):
        code = ExitCode.ERROR
    if lock is not None and lock.is_lost:
        print_note("lock     it has run out, and another sync may be at work: stopped")
        code = ExitCode.ERROR
    elif run.stop.is_set():
        code = ExitCode.INTERRUPTED
    if run.options.output is Output.JSON:
        print_result(
            report.run_json(
                plan,
                events,
                cluster=run.target.name,
                tool_version=__version__,
                exit_code=code,
                warnings=warnings_of(run),
            )
        )
    else:
        elapsed_s = time.monotonic() - run.started_s
        paint = wants_colour(sys.stdout)
        print_result(
            report.format_outcome(plan, events, elapsed_s=elapsed_s, paint=paint, has_events=is_one_output())
        )
    return code


def _events(run: Run, snapshot: Snapshot, plan: Plan, lock: Locks | None) -> Iterator[Event]:
    """Act, give the lock back, then wait for the peers of whatever was done."""
    failed: set[str] = set()
    withheld: set[ObjectKey] = set()
    if lock is not None:
        settings = run.intent.files.lab.sync
        options = ApplyOptions(
            parallel=settings.parallel,
            take_ownership=run.options.take_ownership,
            timeout_s=run.timeout_s,
            version=__version__,
        )
        with stage("act"):
            for event in execute(plan, run.cluster.fenced(lock.check), options, stop=run.stop):
                if isinstance(event, ObjectDone) and event.outcome is not Outcome.PRUNED and event.error:
                    failed.add(event.experiment)
                if isinstance(event, ObjectDone) and event.outcome is not Outcome.PRUNED:
                    withheld.add(event.key)
                yield event
        lock.release()
    if run.options.wait and not run.stop.is_set():
        settled, awaited = split_awaited(plan, snapshot, frozenset(failed), frozenset(withheld))
        yield from settled
        with stage("wait"):
            yield from wait_until_settled(
                run.cluster,
                awaited,
                plan.apply_set,
                timeout_s=run.timeout_s,
                clock=system_clock(),
                stop=run.stop,
            )


def split_awaited(
    plan: Plan, snapshot: Snapshot, failed: frozenset[str], withheld: frozenset[ObjectKey] = frozenset()
) -> tuple[tuple[ExperimentSettled, ...], tuple[WaitTarget, ...]]:
    """Tell the experiments that stand as they should from those to wait for.

    What the snapshot shows settled and the plan leaves alone needs no further request. Objects that were
    deleted are awaited until they are gone, whatever their kind; `withheld` were not deleted.
    """
    noun = plan.apply_set.noun
    settled: list[ExperimentSettled] = []
    awaited: list[WaitTarget] = []
    for one in plan.experiments:
        if one.name in failed or one.held:
            continue
        workloads = [
            c for c in one.changes if c.desired and c.key.kind in WORKLOADS and not c.outdated_peers_kept
        ]
        pruned = [] if plan.stops else [c for c in one.changes if c.action is Action.PRUNE]
        leaving = [c for c in pruned if c.key not in withheld] + [c for c in one.changes if c.leaving]
        uids = {c.key: c.live["metadata"]["uid"] for c in leaving if c.live is not None}
        live = [snapshot.live.get(c.key) for c in workloads if c.action is Action.KEEP]
        done = [s for s in live if s and status_of(s).state is State.CURRENT]
        if len(done) == len(workloads) and not leaving:
            running = sum(peers_of(s).running for s in done)
            if workloads:
                settled.append(
                    ExperimentSettled(experiment=one.name, running=running, after_s=0.0, noun=noun)
                )
        else:
            awaited.append(
                WaitTarget(
                    experiment=one.name,
                    workloads=frozenset(c.key for c in workloads),
                    leaving=frozenset(c.key for c in leaving),
                    noun=noun,
                    uids=uids,
                    needs_pods=len(done) < len(workloads),
                )
            )
    return tuple(settled), tuple(awaited)


def _has_writes(plan: Plan) -> bool:
    """True when carrying out the plan changes something; a scope alone is no reason to make a parent."""
    pruning = not plan.stops
    is_worth_a_parent = plan.before.version is not None or plan.after.commit is not None
    return (
        bool(plan.retired)
        or (pruning and is_worth_a_parent and plan.after != plan.before)
        or any(
            c.action is not Action.KEEP and c.error is None and (pruning or c.action is not Action.PRUNE)
            for one in plan.experiments
            if not one.held
            for c in one.changes
        )
    )


def _wait_for_lock(run: Run, snapshot: Snapshot, error: NimlabError, deadline_s: float) -> None:
    """Wait until all leases are free, at most until the deadline; raise `error` then."""
    sets = (snapshot.apply_set, *(one.apply_set for one in snapshot.former))
    told = False
    now = _server_clock(run)
    while True:
        holds = (hold_of(run.cluster.get(one.lease_key), now()) for one in sets)
        hold = next((found for found in holds if found is not None), None)
        if hold is None:
            return
        raise_if_stopped(run)
        if time.monotonic() > deadline_s:
            raise error
        if not told:
            print_note(report.format_note("lock", f"waiting for {hold.holder}", paint=False))
            told = True
        run.stop.wait(_LOCK_POLL_S)


def _holder() -> str:
    """Say who is at work, so that a person can find it: user, machine, process or pipeline job."""
    job = os.environ.get("CI_JOB_URL")
    return job or f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()} (pid {os.getpid()})"
