"""Runs hostile cases one after another in a process of its own, and prints a line of JSON for each.

Started by the test as `python -m tests.hostile.run files|templates FOLDER`: a case that hangs, eats memory or
crashes the interpreter takes only this process with it, and its name has been printed before.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from nimlab.errors import NimlabError, SpecError
from nimlab.workflow.desired import read_desired_lab
from tests.hostile.changed import CHANGES, changed
from tests.hostile.files import REFUSED, text_file
from tests.hostile.templates import TEMPLATES
from tests.support.paths import SAMPLE_LAB

TEMPLATE = "templates/experiment/x.yaml.j2"


def cases(kind: str) -> dict[str, Callable[[Path], object]]:
    """The cases of a kind by name."""
    if kind == "files":
        return {case.name: case.lay for case in REFUSED}
    texts = TEMPLATES | {name: changed(name) for name in CHANGES}
    return {name: text_file(TEMPLATE, text) for name, text in texts.items()}


def lay_out(root: Path) -> None:
    """The shipped lab, fresh."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    shutil.copy(SAMPLE_LAB / "lab.yaml", root)
    for folder in ("contracts", "experiments", "schema", "templates"):
        shutil.copytree(SAMPLE_LAB / folder, root / folder)


def outcome(root: Path) -> dict[str, object]:
    """What the tool makes of a lab: its errors and their places, or how it crashed."""
    errors: tuple[NimlabError, ...]
    try:
        errors = read_desired_lab(root, None).errors
    except NimlabError as raised:
        errors = (raised,)
    except BaseException:  # noqa: BLE001 -- whatever it is, the test is to hear of it
        return {"crash": traceback.format_exc(limit=-4)}
    said: list[list[object]] = []
    for error in errors:
        if isinstance(error, SpecError):
            said += [[problem.code, str(problem.location), problem.what] for problem in error.problems]
        else:
            said.append([error.code, error.where, error.what])
    return {"said": said}


def peak_mb() -> float:
    """The most memory that this program has had; `getrusage` would count what started it."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert peak is not None
    return int(peak[1]) / 1024


def main() -> None:
    """Run all cases of a kind."""
    kind, root = sys.argv[1], Path(sys.argv[2])
    for name, lay in cases(kind).items():
        print(json.dumps({"begins": name}), flush=True)  # noqa: T201 -- this is its output
        lay_out(root)
        lay(root)
        started_s = time.process_time()
        found = outcome(root)
        found["cpu_s"] = time.process_time() - started_s
        found["rss_mb"] = peak_mb()
        print(json.dumps({"name": name, **found}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
