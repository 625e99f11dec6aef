"""Ages, resources and changed values as short text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.plan.resource_requests import Resources
from nimlab.report.format_value import added_texts, age_text, change_texts
from tests.support.plans import (
    field,
)


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (None, "-"), (0, "0s"), (24, "24s"), (60, "1m"), (2304, "38m24s"), (3600, "1h"), (3605, "1h"),
        (18720, "5h12m"), (273600, "3d4h"), (259200, "3d"),
    ],
)  # fmt: skip
def test_ages_have_the_format_of_nimp2p_lab(age_s: int | None, text: str) -> None:
    assert age_text(age_s) == text


@pytest.mark.parametrize(
    ("resources", "texts"),
    [
        (Resources(pods=1, cpu_m=250, memory_bytes=16 << 20), ("+1 pod", "+250m CPU", "+16Mi")),
        (Resources(memory_bytes=3_686_336 << 20), ("", "", "+3.5Ti")),
        (Resources(memory_bytes=-(3_686_336 << 20)), ("", "", "-3.5Ti")),
        (Resources(memory_bytes=1000), ("", "", "+1000")),
        (Resources(memory_bytes=(1 << 30) - 1), ("", "", "+1Gi")),
        (Resources(memory_bytes=1 << 30), ("", "", "+1Gi")),
        (Resources(cpu_m=-612_550), ("", "-612.5 CPU", "")),
        (Resources(cpu_m=9_999), ("", "+9999m CPU", "")),
    ],
)
def test_resources_are_short(resources: Resources, texts: tuple[str, str, str]) -> None:
    assert added_texts(resources) == texts


VALUES = st.text(max_size=80) | st.integers() | st.lists(st.integers(), max_size=40)


@given(old=VALUES, new=VALUES, same=st.text(max_size=60))
def test_shortened_values_still_differ(old: Any, new: Any, same: str) -> None:
    if isinstance(old, str) and isinstance(new, str):
        old, new = same + old, same + new
    if old == new:
        return
    _, a, b = change_texts(field("x", old, new), in_full=False)
    assert a != b
    assert max(len(a), len(b)) <= 32
    assert (a + b).isprintable()
