"""Whether processes of this machine have ended, collected by their parent or not."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil


def lives(process: psutil.Process) -> bool:
    """False for ended ones, and for those ended but not yet collected by their parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended; returns those that still live after `seconds`."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if lives(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return alive
