"""Arguments -> calls -> stdout, stderr, exit code. Each command lives in a module of its own.

stdout is the result; stderr is progress and errors. This is the only package that prints, and `main` the
only place where every exception ends: what a user can mend is said in full, anything else is a bug and is
saved in a report.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nimlab import __version__
from nimlab.errors import ExitCode, NimlabError

_OBJECTS: Final = 50_000  # files and LISTs become many objects and no garbage: Python's 700 look too often


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; raises nothing."""
    from nimlab.cli.app import app  # an import that fails is reported like any bug
    from nimlab.cli.terminal import print_error

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except NimlabError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 -- the one place where a bug becomes a report
        return _report_bug(error, arguments)
    return 0


def entry() -> None:
    """Run as the `nimlab` program."""
    gc.set_threshold(_OBJECTS)
    sys.exit(main())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _report_bug(error: Exception, arguments: Sequence[str]) -> int:
    from nimlab.masking import conceal

    text = "\n".join(
        (
            f"nimlab {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {list(arguments)}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    handle, name = tempfile.mkstemp(prefix="nimlab-bug-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(conceal(text))
    _say(conceal(f"bug in nimlab: {type(error).__name__}: {error}"))
    _say(f"  a report is in {Path(name)}; please file it with what you did")
    return ExitCode.BUG
