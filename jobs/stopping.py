"""Being asked to stop: SIGTERM and SIGINT as an event that threads can wait for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Set once this process has been asked to stop; the handlers before are there again at the end.

    The handler leaves the setting to a thread. It runs in the main thread, between any two steps of that, and would
    wait for ever for the event's lock where the main thread has it: whoever waits for an event takes its lock.
    """
    stop = threading.Event()
    asked: SimpleQueue[bool] = SimpleQueue()  # a handler may put into one at any moment

    def relay() -> None:
        if asked.get():
            stop.set()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.put(True)

    thread = threading.Thread(target=relay, name="asked to stop", daemon=True)
    thread.start()
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.put(False)
        thread.join()
