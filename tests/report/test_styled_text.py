"""Text from files and the cluster is escaped in every output."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nimlab import report
from nimlab.errors import (
    OwnershipConflict,
)
from nimlab.files.spec import (
    BrokenFile,
)
from nimlab.plan.change import Action
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.prune_limits import PruneBlocked
from nimlab.plan.sync_events import (
    Event,
    Notice,
)
from nimlab.report.git_state import GitState
from nimlab.report.styled_text import escape
from tests.support.plans import (
    COMMIT,
    DEBUG,
    STUCK,
    change,
    done_events,
    events_text,
    experiment,
    field,
    plan,
    pod,
    problem,
    row,
    status_detail,
    text_of,
)


def test_control_characters_are_escaped_everywhere() -> None:
    evil = "a\x1b[31mb\u202ec\u2066\nd\x07\ud800"
    smuggled = replace(DEBUG, text=f"spec.{evil}", manager=evil)
    bad = change(
        Action.UPDATE, "Service", "x", fields=(field(f"data[{evil}]", evil, "b"),), foreign=(smuggled,),
        error=OwnershipConflict(evil, where=evil, hint=evil),
    )  # fmt: skip
    wrong_file = problem(evil, 1, 3, "x", evil, excerpt=evil, hint=evil)
    planned = plan(
        replace(experiment(evil, bad), source=evil),
        broken=(BrokenFile(name=evil, source=evil),),
        stops=(PruneBlocked(code="x", what=evil, hint=evil),),
    )
    events: list[Event] = [
        *done_events(planned),
        Notice(text=evil),
        replace(STUCK, experiment=evil, troubles=(
            Trouble(pod=evil, reason=evil, message=evil, since=evil, fatal=True),)),
    ]  # fmt: skip
    texts = [
        text_of(planned),
        events_text(events, paint=False),
        report.format_summary(planned, events, elapsed_s=1.0, paint=False),
        report.format_problems([wrong_file], files=1, paint=False),
        report.format_rows([row(evil, GitState.DRIFTED)]),
        report.format_status(
            replace(status_detail(), source=evil, pods=(replace(pod(1), name=evil, node=evil),)), paint=False
        ),
        report.format_sandbox(running=True, server=evil, nodes=1, parts=[(evil, 1, True, evil)]),
        report.format_header(evil, evil, replace(COMMIT, branch=evil)),
    ]  # fmt: skip
    for text in texts:
        assert all(char.isprintable() for char in text.replace("\n", "")), text
        assert r"\u202e" in text


@given(st.text())
def test_escaped_text_is_printable_and_is_not_escaped_again(text: str) -> None:
    assert escape(text).isprintable()
    assert escape(escape(text)) == escape(text)
