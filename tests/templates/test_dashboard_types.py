"""Types of the dashboards: every field must exist in the TypeScript types of the pinned Grafana."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nimlab.files.load import load_lab
from nimlab.render.render_platform import load_platform_templates, render_dashboards
from tests.support.npm_packages import install
from tests.support.paths import SAMPLE_LAB

pytestmark = pytest.mark.process

FILES = load_lab(SAMPLE_LAB, {})
SHIPPED = render_dashboards(load_platform_templates(SAMPLE_LAB), FILES)
TYPESCRIPT = "5.9.3"
HEAD = """
import type * as dashboard from "TYPES/raw/dashboard/x/types.gen";
import type * as heatmap from "TYPES/raw/composable/heatmap/panelcfg/x/types.gen";
import type * as logs from "TYPES/raw/composable/logs/panelcfg/x/types.gen";
import type * as stat from "TYPES/raw/composable/stat/panelcfg/x/types.gen";
import type * as table from "TYPES/raw/composable/table/panelcfg/x/types.gen";
import type * as common from "TYPES/common/common.gen";
// JSON has the words of enums, where TypeScript wants the enums themselves.
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
"""
OPTIONS = {
    "heatmap": "Partial<heatmap.Options>",
    "logs": "Partial<logs.Options>",
    "stat": "Partial<stat.Options>",
    "table": "Partial<table.Options>",
    "timeseries": "common.OptionsWithLegend & common.OptionsWithTooltip",
}


def statements(boards: Any) -> Iterator[str]:
    """Yield TypeScript statements that declare the type of each part of the dashboards."""

    def is_a(kind: str, value: Any) -> str:
        return f"(({json.dumps(value)}) satisfies Json<{kind}>);"

    for board in boards:
        yield is_a("dashboard.Dashboard", {**board, "panels": []})
        for panel in board["panels"]:
            if panel["type"] == "row":
                yield is_a("dashboard.RowPanel", panel)
                continue
            yield is_a("dashboard.Panel", panel)
            yield is_a(OPTIONS[panel["type"]], panel["options"])
            if "custom" in panel["fieldConfig"]["defaults"]:
                yield is_a("common.GraphFieldConfig", panel["fieldConfig"]["defaults"]["custom"])


def complaints(boards: Any, folder: Path) -> str:
    """Return the errors of the TypeScript compiler."""
    version = FILES.lab.images.grafana.tag
    folder_of_types = install(
        f"grafana-schema-{version}", f"@grafana/schema@{version}", f"typescript@{TYPESCRIPT}"
    )
    types = folder_of_types / "node_modules" / "@grafana" / "schema" / "dist" / "types"
    source = folder / "dashboards.ts"
    text = HEAD.replace("TYPES", str(types)) + "\n".join(statements(boards))
    source.write_text(text, encoding="utf-8")
    flags = ("--noEmit", "--skipLibCheck", "--strict", "--target", "es2022", "--module", "esnext")
    process = subprocess.run(
        [
            str(folder_of_types / "node_modules" / ".bin" / "tsc"),
            *flags,
            "--moduleResolution",
            "bundler",
            str(source),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return process.stdout + process.stderr


def test_every_field_of_the_dashboards_exists_in_the_types_of_grafana(tmp_path: Path) -> None:
    assert complaints(SHIPPED, tmp_path) == ""


@pytest.mark.parametrize("place", ["board", "panel", "options", "custom", "enum"])
def test_unknown_field_is_reported(place: str, tmp_path: Path) -> None:
    board = copy.deepcopy(dict(SHIPPED[0]))
    panel = next(candidate for candidate in board["panels"] if candidate["type"] == "timeseries")
    custom = panel["fieldConfig"]["defaults"]["custom"]
    at = {"board": board, "panel": panel, "options": panel["options"], "custom": custom}
    if place == "enum":
        custom["drawStyle"] = "lines"
    else:
        at[place]["nobodysField"] = 1
    assert ('"lines"' if place == "enum" else "nobodysField") in complaints([board], tmp_path)
