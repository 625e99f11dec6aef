"""Run hostile cases in a separate process and print one line of JSON per case.

The test starts this module as `python -m tests.hostile.run files|templates FOLDER`. A case that hangs, uses
all memory or crashes the interpreter ends only this process. The name of each case is printed before it runs.
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
from nimlab.workflow.desired_lab import read_desired_lab
from tests.hostile.changed import CHANGES, changed
from tests.hostile.files import REFUSED, text_file
from tests.hostile.templates import TEMPLATES
from tests.support.paths import SAMPLE_LAB

TEMPLATE = "templates/experiment/x.yaml.j2"


def cases(kind: str) -> dict[str, Callable[[Path], object]]:
    """Return a map from names to the cases of this kind."""
    if kind == "files":
        return {case.name: case.write for case in REFUSED}
    texts = TEMPLATES | {name: changed(name) for name in CHANGES}
    return {name: text_file(TEMPLATE, text) for name, text in texts.items()}


def lay_out(root: Path) -> None:
    """Create a new copy of the shipped lab."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    shutil.copy(SAMPLE_LAB / "lab.yaml", root)
    for folder in ("contracts", "experiments", "schema", "templates"):
        shutil.copytree(SAMPLE_LAB / folder, root / folder)


def outcome(root: Path) -> dict[str, object]:
    """Return the reported errors with their positions, or the traceback of a crash."""
    errors: tuple[NimlabError, ...]
    try:
        errors = read_desired_lab(root, None).errors
    except NimlabError as raised:
        errors = (raised,)
    except BaseException:  # noqa: BLE001 -- any failure must be reported to the test
        return {"crash": traceback.format_exc(limit=-4)}
    reported: list[list[object]] = []
    for error in errors:
        if isinstance(error, SpecError):
            reported += [[problem.code, str(problem.location), problem.what] for problem in error.problems]
        else:
            reported.append([error.code, error.where, error.what])
    return {"reported": reported}


def peak_mb() -> float:
    """Return the peak memory of this process; `getrusage` would include the parent before the fork."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert peak is not None
    return int(peak[1]) / 1024


def main() -> None:
    """Run all cases of one kind."""
    kind, root = sys.argv[1], Path(sys.argv[2])
    for name, write in cases(kind).items():
        print(json.dumps({"begins": name}), flush=True)  # noqa: T201 -- the output of this program
        lay_out(root)
        write(root)
        started_s = time.process_time()
        result = outcome(root)
        result["cpu_s"] = time.process_time() - started_s
        result["rss_mb"] = peak_mb()
        print(json.dumps({"name": name, **result}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
