"""The JUnit document contains any text as valid XML."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nimlab.report.junit_xml import Element, JunitCase, Verdict, write_document
from tests.support.gitlab_reports import junit_cases


@given(st.text(alphabet=st.characters(codec=None), min_size=1, max_size=30))
def test_any_text_of_a_case_is_valid_xml(text: str) -> None:
    verdict = Verdict(element=Element.ERROR, code="x", reason=text)
    cases = [
        JunitCase(name="a", text=text),
        JunitCase(name=f"b{text}", file=text, text=text, verdict=verdict),
    ]
    assert [case.status for case in junit_cases(write_document("suite", cases))] == ["success", "error"]
