"""Waiting for a condition, which must come true, instead of for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.conftest import Database

Found = TypeVar("Found")


def until(condition: Callable[[], Found], timeout: float = 60.0) -> Found:
    """The first true answer of `condition`; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def waits_for(database: Database, pid: int, holder: int | None = None) -> Callable[[], bool]:
    """Whether the backend `pid` waits for a lock that another one holds, or `holder` and nobody else."""
    if holder is None:
        return lambda: bool(database.one("SELECT pg_blocking_pids(%s) <> '{}'", pid))
    return lambda: database.one("SELECT pg_blocking_pids(%s)", pid) == [holder]
