"""Golden cases: folders with inputs and expected outputs."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def cases(kind: str) -> list[Path]:
    """Return the sorted folders of all cases of this kind; a folder's name is the id of its test."""
    folders = sorted(path for path in (GOLDEN / kind).iterdir() if path.is_dir())
    assert folders, f"no cases in {GOLDEN / kind}"
    return folders


def overlay_of(case: Path) -> dict[str, str | None]:
    """Return the files with which a case replaces files of the tests' lab, by path relative to the lab."""
    return {
        path.relative_to(case).as_posix(): path.read_bytes().decode()
        for path in sorted(case.rglob("*.y*ml"))
        if not path.name.startswith("expected")
    }


def assert_golden(path: Path, text: str, *, update: bool) -> None:
    """Assert that a text equals the expected file; if `update` is True, first write the text to the file."""
    if update:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; hint: run with --update-golden, then review the file"
    assert text == path.read_text(encoding="utf-8")
