"""One thing (a test server) shared by several processes of one test run, cleared by the last of them.

Locks are the kernel's (flock): they end with their process, however it ends, so a killed run leaves no lock
behind and the next run can tell that its leftovers belong to nobody. Each user holds a shared lock, which is
why this is not a library for exclusive locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

Facts = dict[str, str]


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone; waits for it."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(
    prefix: str, run: str, start: Callable[[Path], Facts], stop: Callable[[Path, Facts], None]
) -> Iterator[Facts]:
    """The facts that `start(folder)` returned in the first process of `run`; the last to leave calls `stop`.

    What other runs with the same prefix left behind (they were killed) is stopped first. `folder` is mode
    0711, in the system's temporary folder, and removed after `stop`.
    """
    prefix = f"{prefix}-{os.geteuid()}-"
    base = Path(tempfile.gettempdir())
    for leftover in base.glob(f"{prefix}*"):
        if leftover.name != prefix + run:
            _clear_if_left(leftover, stop)
    folder = base / (prefix + run)
    with contextlib.ExitStack() as stack:
        users = _enter(folder, start, stack)
        facts = _read(folder)
        assert facts is not None
        try:
            yield facts
        finally:
            _leave(folder, users, stop)


def _enter(folder: Path, start: Callable[[Path], Facts], stack: contextlib.ExitStack) -> IO[str]:
    """Join the users of `folder`, as its first one start the thing; returns the file with our shared lock."""
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o711)
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                raise PermissionError(f"{folder} belongs to somebody else: remove it")
            folder.chmod(0o711)
            gate = (folder / "gate.lock").open("a")
        except FileNotFoundError:
            continue  # the last user of before has just removed the folder
        with gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            if not _same(gate, folder / "gate.lock"):
                continue  # the same, while we waited
            users = stack.enter_context((folder / "users.lock").open("a"))
            fcntl.flock(users, fcntl.LOCK_SH)
            if _read(folder) is None:
                try:
                    facts = start(folder)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                staged = folder / "facts.new"
                with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                    json.dump(facts, out)
                staged.replace(folder / "facts.json")
            return users


def _leave(folder: Path, users: IO[str], stop: Callable[[Path, Facts], None]) -> None:
    with (folder / "gate.lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # others still use it
        _clear(folder, stop)


def _clear_if_left(folder: Path, stop: Callable[[Path, Facts], None]) -> None:
    with contextlib.ExitStack() as stack:
        try:
            for name in ("gate.lock", "users.lock"):
                stream = stack.enter_context((folder / name).open("a"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or somebody else clears it just now
            return
        _clear(folder, stop)


def _clear(folder: Path, stop: Callable[[Path, Facts], None]) -> None:
    try:
        stop(folder, _read(folder) or {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Facts | None:
    try:
        facts: Facts = json.loads((folder / "facts.json").read_text())
    except FileNotFoundError:
        return None
    return facts


def _same(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
