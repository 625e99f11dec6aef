"""Links, anchors and paths in Markdown files lead to existing files and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

REPOSITORY = Path(__file__).parents[2]
IGNORED_FOLDERS = {"node_modules", "build"}  # all folders whose names begin with a dot are ignored too

FENCE = re.compile(r"^ *```")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$")
INLINE_CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)<>\s]+)>?(?: +\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]: +<?(\S+?)>?(?: |$)")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
PATH = re.compile(r"`(?:[^` ]+ )*((?:bench|contracts|docs|nimlab|schema|templates|tests)/[a-z_][\w./-]*)`")
MODULE = re.compile(r"`([a-z_/]+\.py|[a-z_]+/[a-z_/]+/)`")


def markdown_files(root: Path) -> list[Path]:
    """Return the Markdown files below a folder, without those of installed packages and caches."""
    return sorted(
        path
        for path in root.rglob("*.md")
        if not any(part.startswith(".") or part in IGNORED_FOLDERS for part in path.relative_to(root).parts)
    )


def prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a Markdown text outside fenced code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(text: str) -> set[str]:
    """Return the anchors that GitLab and GitHub give to the headings of a Markdown text."""
    found: set[str] = set()
    for _, line in prose_lines(text):
        heading = HEADING.match(line)
        if heading is None:
            continue
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
        anchor = base = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        repeated = 0
        while anchor in found:
            repeated += 1
            anchor = f"{base}-{repeated}"
        found.add(anchor)
    return found


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield each relative link of a Markdown text with its line."""
    for number, line in prose_lines(text):
        targets = LINK.findall(INLINE_CODE.sub("code", line)) + REFERENCE.findall(line)
        yield from ((number, target) for target in targets if not EXTERNAL.match(target))


def broken_links(path: Path, root: Path) -> list[str]:
    """Return one message for each link of a file whose file or heading does not exist."""
    messages = []
    for number, target in links(path.read_text(encoding="utf-8")):
        name, _, anchor = unquote(target).partition("#")
        destination = (path.parent / name).resolve() if name else path
        place = f"{path.relative_to(root)}:{number}: `{target}`"
        if not destination.is_relative_to(root) or not destination.exists():
            messages.append(f"{place}: the file does not exist in the repository")
        elif anchor and anchor not in anchors(destination.read_text(encoding="utf-8")):
            messages.append(f"{place}: the file has no such heading")
    return messages


DOCUMENTS = markdown_files(REPOSITORY)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_of_documents_lead_to_existing_files_and_headings(path: Path) -> None:
    assert broken_links(path, REPOSITORY) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_paths_in_documents_exist(path: Path) -> None:
    names = [name for _, line in prose_lines(path.read_text(encoding="utf-8")) for name in PATH.findall(line)]
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


def test_modules_in_the_architecture_exist() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = {name for _, line in prose_lines(text) for name in MODULE.findall(line)}
    assert names
    assert [
        n for n in sorted(names) if not (REPOSITORY / n).exists() and not (REPOSITORY / "nimlab" / n).exists()
    ] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](other.md)", []),
        ("[a](other.md#two-words) and [b](#here)\n\n# Here", []),
        ('[a](other.md#two-words-1 "a title")', []),
        (
            "[ADR `5`, [sic]](missing.md)",
            ["page.md:1: `missing.md`: the file does not exist in the repository"],
        ),
        ("\n[a](other.md#three)", ["page.md:2: `other.md#three`: the file has no such heading"]),
        ("[a](#there)", ["page.md:1: `#there`: the file has no such heading"]),
        ("[a]: gone.md", ["page.md:1: `gone.md`: the file does not exist in the repository"]),
        (
            "[a](../../outside.md)",
            ["page.md:1: `../../outside.md`: the file does not exist in the repository"],
        ),
        ("`[a](code.md)`\n```\n[a](fenced.md)\n```\n[a](https://example.org/x#y)", []),
    ],
)
def test_broken_links_are_found(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "other.md").write_text("# Two words!\n## Two `words`\n```\n# three\n```\n", encoding="utf-8")
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert broken_links(tmp_path / "page.md", tmp_path) == expected
