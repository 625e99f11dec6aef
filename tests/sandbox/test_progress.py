from __future__ import annotations

import pytest

from nimlab.sandbox.build_progress import Progress, count_new_packages, is_download, is_package


@pytest.mark.parametrize("line", ["k8s.io/api/core/v1", "net/http", "unsafe@"])
def test_a_package_is_recognized(line: str) -> None:
    assert is_package(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# k8s.io/api/core/v1",
        "go: downloading a.example/b v1.0.0",
        "\tvet: x",
        "x.go:3: no good",
    ],
)
def test_notes_and_errors_are_not_packages(line: str) -> None:
    assert not is_package(line)


def test_a_download_is_distinguished_from_other_notes() -> None:
    assert is_download("go: downloading a.example/b v1.0.0")
    assert not is_download("go: finding module for package x")


def test_a_package_counts_for_the_first_program_that_needs_it() -> None:
    assert count_new_packages((frozenset("abc"), frozenset("bcd"), frozenset("a"))) == (3, 1, 0)


def test_the_remaining_time_depends_on_the_speed_and_includes_later_programs() -> None:
    progress = Progress(totals=(100, 60))
    for _ in range(40):
        progress = progress.add_package()
    assert (progress.done, progress.total) == (40, 100)
    assert progress.eta_s(80.0) == pytest.approx(2.0 * (60 + 60))
    assert progress.next_program().eta_s(80.0) == pytest.approx(2.0 * 60)


def test_there_is_no_estimate_at_the_start_of_a_build() -> None:
    progress = Progress(totals=(100,))
    assert progress.eta_s(60.0) is None
    for _ in range(50):
        progress = progress.add_package()
    assert progress.eta_s(1.0) is None


def test_the_count_never_exceeds_the_total() -> None:
    progress = Progress(totals=(1,)).add_package().add_package()
    assert progress.done == progress.total == 1
