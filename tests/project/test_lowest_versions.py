"""Constraints of `make test-lowest`: one per dependency, at its lower bound."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.support.lowest_versions import lowest_versions
from tests.support.paths import REPOSITORY


def project(*dependencies: str, **extras: list[str]) -> dict[str, Any]:
    """Return the table `project` of a pyproject.toml."""
    return {"name": "own", "dependencies": list(dependencies), "optional-dependencies": extras}


def test_every_dependency_is_pinned_to_its_lower_bound() -> None:
    table = project("typer>=0.15,<0.29", "a-b[c]>=1", dev=["own[extra]", "ruff>=0.17"])
    assert list(lowest_versions(table)) == ["typer==0.15", "a-b==1", "ruff==0.17"]


def test_dependency_without_a_lower_bound_is_rejected() -> None:
    with pytest.raises(ValueError, match="rich has no lower bound; hint: write rich>=VERSION"):
        list(lowest_versions(project("rich")))


def test_all_dependencies_of_this_project_have_a_lower_bound() -> None:
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(list(lowest_versions(table))) >= len(table["dependencies"])
