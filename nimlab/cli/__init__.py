"""Arguments -> calls -> stdout, stderr, exit code. Each command has a module of its own.

stdout is the result; stderr is progress and errors. Only this package prints. Every exception ends in `main`:
an error that a user can fix is printed in full. A fault of the machine, such as a full disk, is one of them.
Anything else is a bug and is saved in a report.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence

from nimlab.cli import signals

_OBJECTS = 50_000  # files and LISTs become many objects and no garbage: Python's 700 look too often


def main(argv: Sequence[str] | None = None, *, on_ready: Callable[[], None] | None = None) -> int:
    """Run one command and return its exit code; raises nothing.

    `on_ready` is called once everything is imported that each command needs.
    """
    from nimlab.cli.app import app  # an import that fails is reported like any bug
    from nimlab.cli.terminal import print_error
    from nimlab.errors import ExitCode, NimlabError

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if on_ready is not None:
            on_ready()
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except NimlabError as error:
        print_error(error)
        return error.exit_code
    except (KeyboardInterrupt, signals.SignalReceived):
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:
        if not _is_of_the_machine(error):
            return _report_bug(error, arguments)
        print_error(NimlabError(error.strerror or str(error), where=error.filename, hint=_MACHINE_HINT))
        return ExitCode.ERROR
    except Exception as error:  # noqa: BLE001 -- the one place where a bug becomes a report
        return _report_bug(error, arguments)
    return 0


_MACHINE_HINT = "the system refuses this, not nimlab: see that the file, the disk and the rights allow it"


def entry() -> None:
    """Run as the `nimlab` program; doesn't return.

    The interpreter isn't taken down: that would restore the default of each signal for its last moments, and
    would wait for threads that still wait for a server.
    """
    signals.end_at_once()
    code = signals.INTERRUPTED
    try:
        code = _run()
    except signals.SignalReceived:  # at the very moment of a change between two ways to treat signals
        signals.write_line("interrupted")
    signals.ignore()
    atexit._run_exitfuncs()  # the Kubernetes library removes its temporary key files
    os._exit(code)


def _run() -> int:
    """Run with streams that never raise; return the exit code, which tells of a result that was lost."""
    import gc

    from nimlab.cli.streams import STREAMS

    gc.set_threshold(_OBJECTS)
    STREAMS.protect()
    signals.redeliver_swallowed()
    code = main(on_ready=signals.raise_interrupt)
    signals.end_at_once()
    return STREAMS.exit_code_after(code, signals.write_line)


def _is_of_the_machine(error: OSError) -> bool:
    """True for a refusal by the system that concerns a file, or a resource that is used up."""
    import errno

    used_up = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)
    return error.errno is not None and (error.filename is not None or error.errno in used_up)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _report_bug(error: Exception, arguments: Sequence[str]) -> int:
    import platform
    import tempfile
    import traceback

    from nimlab import __version__
    from nimlab.errors import ExitCode
    from nimlab.objects.masking import conceal

    text = "\n".join(
        (
            f"nimlab {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {list(arguments)}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    text = conceal(text)
    _say(conceal(f"bug in nimlab: {type(error).__name__}: {error}"))
    try:
        handle, name = tempfile.mkstemp(prefix="nimlab-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as refused:
        _say(f"  the report can't be saved ({refused.strerror}); please file this text with what you did:")
        _say(text)
    else:
        _say(f"  a report is in {name}; please file it with what you did")
    return ExitCode.BUG
