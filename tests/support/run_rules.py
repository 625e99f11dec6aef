"""Rules for a test run: which tests may start programs or an API server, and which tests run alone.

- A test without the marks `live` and `process` may start no program except Git.
- A test without the mark `live` may not use the API server.
- A test with the mark `serial` runs while no other worker of pytest-xdist runs a test.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

_ITEM: Final = pytest.StashKey[pytest.Item]()
_LOCKS: Final = pytest.StashKey[Path]()
_LIVE_FIXTURE: Final = "sandbox"
_NODE_TESTS: Final = Path(__file__).parents[1] / "rig"
_PROGRAMS_OF_FAST_TESTS: Final = frozenset({"git"})


def pytest_configure(config: pytest.Config) -> None:
    """Check every program that a test starts from here on."""
    start = subprocess.Popen.__init__

    def checked(self: subprocess.Popen[Any], args: Any, *others: Any, **options: Any) -> None:
        item = config.stash.get(_ITEM, None)
        if item is not None:
            check_program(item, args)
        start(self, args, *others, **options)

    subprocess.Popen.__init__ = checked  # type: ignore[method-assign]
    config.add_cleanup(lambda: setattr(subprocess.Popen, "__init__", start))


def check_program(item: pytest.Item, arguments: str | os.PathLike[str] | Sequence[Any]) -> None:
    """Fail a test that starts a program without the mark for it."""
    first = arguments if isinstance(arguments, str | os.PathLike) else arguments[0]
    name = Path(os.fsdecode(first)).name
    if has_mark(item, "live", "process") or name in _PROGRAMS_OF_FAST_TESTS:
        return
    pytest.fail(f"{item.nodeid} starts {name}; hint: mark it with @pytest.mark.process")


def has_mark(item: pytest.Item, *names: str) -> bool:
    """Return True if a test has at least one of these marks."""
    return any(item.get_closest_marker(name) is not None for name in names)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the API server or a real node, and order the tests.

    Tests with a timeout of their own take the longest and are run first. Tests that run alone are run last.
    """
    for item in items:
        if _LIVE_FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.live)
        if _NODE_TESTS in item.path.parents:
            item.add_marker(pytest.mark.process)
    items.sort(key=lambda item: (has_mark(item, "serial"), not has_mark(item, "timeout")))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Fail a test that gets the API server from `request.getfixturevalue` and has no mark for it."""
    item = request.config.stash.get(_ITEM, None)
    if fixturedef.argname == _LIVE_FIXTURE and (item is None or not has_mark(item, "live")):
        # Reset the fixture; otherwise pytest would repeat this failure in every later test that uses it.
        fixturedef.cached_result = (None, None, None)
        fixturedef.finish(request)  # type: ignore[arg-type]
        refuse_api_server(item)


def refuse_api_server(item: pytest.Item | None) -> NoReturn:
    """Fail a test that uses the API server without the mark for it."""
    name = "a test" if item is None else item.nodeid
    pytest.fail(f"{name} needs an API server; hint: use the fixture as an argument, or mark the test `live`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record which test is running, and prevent other workers from running tests during a serial test."""
    item.config.stash[_ITEM] = item
    with turn(worker_locks(item.config), exclusive=has_mark(item, "serial")):
        result = yield
    del item.config.stash[_ITEM]
    return result


@contextmanager
def turn(locks: Path | None, *, exclusive: bool) -> Generator[None]:
    """Hold the lock of the test run: shared for an ordinary test, exclusive for a serial test.

    A second lock prevents other tests from starting while a serial test waits for the first lock.
    """
    if locks is None:
        yield
        return
    with (locks / "queue").open("w") as queue, (locks / "running").open("w") as running:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        if not exclusive:
            fcntl.flock(queue, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each worker the folder of the locks (in the process that starts the workers)."""
    config = node.config
    if _LOCKS not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="nimlab-test-locks-")
        config.stash[_LOCKS] = Path(folder.name)
        config.add_cleanup(folder.cleanup)
    node.workerinput["locks"] = str(config.stash[_LOCKS])


def worker_locks(config: pytest.Config) -> Path | None:
    """Return the folder of the locks in a worker; None in a run without workers."""
    workerinput: dict[str, Any] = getattr(config, "workerinput", {})
    return Path(workerinput["locks"]) if workerinput else None
