"""Test cases -> a JUnit document as GitLab reads it.

In: cases. Out: XML in ASCII, without characters that XML 1.0 forbids. GitLab shows the content of an element
and not its `message`, so the content contains the reason too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from nimlab.report.styled_text import escape, flat

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_TOOL: Final = "nimlab"
# GitLab turns this mark into a link to a file of the job, so text of users or servers must not contain it.
_ATTACHMENT: Final = ("[[ATTACHMENT|", "[ [ATTACHMENT|")


class Element(Enum):
    """The XML element of a case that does not pass."""

    FAILURE = "failure"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The reason why a case does not pass: the XML element, a code for programs, and a text on one line."""

    element: Element
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JunitCase:
    """A test case; without a verdict it passes."""

    name: str
    text: str = ""
    file: str | None = None
    verdict: Verdict | None = None
    time_s: float = 0.0


def write_document(suite_name: str, cases: Sequence[JunitCase]) -> str:
    """Return a document with one suite; its name is also the class of the cases."""
    from xml.etree import ElementTree as ET  # imported here, because only --junit needs it

    elements = Counter(case.verdict.element for case in cases if case.verdict)
    time = f"{sum(case.time_s for case in cases):.3f}"
    counts = {
        "tests": str(len(cases)),
        "failures": str(elements[Element.FAILURE]),
        "errors": str(elements[Element.ERROR]),
    }
    root = ET.Element("testsuites", _attributes(name=_TOOL, **counts, time=time))
    counts["skipped"] = str(elements[Element.SKIPPED])
    suite = ET.SubElement(root, "testsuite", _attributes(name=suite_name, **counts, time=time))
    for case in cases:
        file = {} if case.file is None else {"file": case.file}
        attributes = _attributes(classname=suite_name, name=case.name, **file, time=f"{case.time_s:.3f}")
        _add_content(ET.SubElement(suite, "testcase", attributes), case)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="us-ascii", short_empty_elements=False)
    return _DECLARATION + text.decode("ascii")


def _add_content(element: ET.Element, case: JunitCase) -> None:
    if case.verdict is not None:
        reason = escape(flat(case.verdict.reason)) or case.verdict.code
        # The prefix is required, because `file` and `symbol` alone have a special meaning for GitLab.
        attributes = _attributes(type=f"{_TOOL}.{case.verdict.code}", message=reason)
        text = case.text if reason in case.text else f"{reason}\n{case.text}".rstrip()
        _append(element, case.verdict.element.value, attributes, text)
    elif case.text:
        _append(element, "system-out", {}, case.text)


def _append(parent: ET.Element, name: str, attributes: dict[str, str], text: str) -> None:
    child = parent.makeelement(name, attributes)
    child.text = _safe(text)
    parent.append(child)


def _attributes(**values: str) -> dict[str, str]:
    return {name: _safe(escape(value)) for name, value in values.items()}


def _safe(text: str) -> str:
    """Return the text without characters that XML 1.0 forbids, and without GitLab's attachment mark."""
    return "\n".join(map(escape, text.split("\n"))).replace(*_ATTACHMENT)
