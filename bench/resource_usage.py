"""Run one program and write its resource usage, including its children: wall clock, CPU time, peak memory.

Usage: `python -I -S resource_usage.py RESULT PROGRAM ARGUMENT…`. This is a separate process, because on Linux
the recorded peak memory of a child is at least the memory of its parent. The parent must therefore be small.
For the same reason, this module imports only the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main(result: str, argv: list[str]) -> int:
    """Run the program, write the result as JSON, and return the program's exit code."""
    began_s = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.perf_counter() - began_s
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    code = os.waitstatus_to_exitcode(status)
    cost = {
        "code": code,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * unit,
    }
    with open(result, "w", encoding="ascii") as file:  # noqa: PTH123 -- pathlib needs too much memory
        json.dump(cost, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
