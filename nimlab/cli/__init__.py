"""The command line: arguments -> workflow -> stdout, stderr, exit code.

Results go to stdout. Progress and errors go to stderr. Only this package prints. `main` catches every
exception. It prints errors that a user can fix, and errors of the operating system, such as a full disk. Any
other exception is a bug: `main` saves a report about it in a file.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence

from nimlab.cli import signals

_GC_THRESHOLD = 50_000  # loading files creates many objects but little garbage


def main(argv: Sequence[str] | None = None, *, on_ready: Callable[[], None] | None = None) -> int:
    """Run one command and return its exit code; errors of the command are printed, not raised.

    `on_ready` is called after the imports that every command needs.
    """
    from nimlab.cli.app import app  # imported after `entry` has set the signal handlers
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
        _write_error("interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:
        if not _is_refused_by_system(error):
            return _report_bug(error, arguments)
        print_error(NimlabError(error.strerror or str(error), where=error.filename, hint=_SYSTEM_HINT))
        return ExitCode.ERROR
    except Exception as error:  # noqa: BLE001 -- the only place that reports bugs
        return _report_bug(error, arguments)
    return 0


_SYSTEM_HINT = "the operating system refused this: check the file, its permissions and the free disk space"


def entry() -> None:
    """Run the `nimlab` program and end the process.

    The process ends without the usual shutdown of the interpreter. That shutdown would restore the default
    action of each signal, and would wait for threads that wait for a server.
    """
    signals.end_at_once()
    code = signals.INTERRUPTED
    try:
        code = _run()
    except signals.SignalReceived:  # the signal arrived while handlers were exchanged
        signals.write_line("interrupted")
    signals.ignore()
    atexit._run_exitfuncs()  # some exit handlers remove temporary files
    os._exit(code)


def _run() -> int:
    """Run one command with streams that never raise; return its exit code. A lost result is an error."""
    import gc

    from nimlab.cli.streams import STREAMS

    gc.set_threshold(_GC_THRESHOLD)
    STREAMS.protect()
    signals.redeliver_swallowed()
    code = main(on_ready=signals.raise_interrupt)
    signals.end_at_once()
    return STREAMS.exit_code_after(code, signals.write_line)


def _is_refused_by_system(error: OSError) -> bool:
    """Return True if the error concerns a file or an exhausted resource, such as memory."""
    import errno

    exhausted = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)
    return error.errno is not None and (error.filename is not None or error.errno in exhausted)


def _write_error(text: str) -> None:
    sys.stderr.write(text + "\n")


def _report_bug(error: Exception, arguments: Sequence[str]) -> int:
    import platform
    import tempfile
    import traceback

    from nimlab import __version__
    from nimlab.errors import ExitCode
    from nimlab.objects.mask_secrets import redact_credentials

    text = "\n".join(
        (
            f"nimlab {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {list(arguments)}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    text = redact_credentials(text)
    _write_error(redact_credentials(f"bug in nimlab: {type(error).__name__}: {error}"))
    try:
        handle, name = tempfile.mkstemp(prefix="nimlab-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as save_error:
        _write_error(
            f"  the report cannot be saved ({save_error.strerror}); please open an issue with this text:"
        )
        _write_error(text)
    else:
        _write_error(f"  a report is in {name}; please attach it to a bug report")
    return ExitCode.BUG
