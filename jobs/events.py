"""What a long-running command says while it works: a line an event, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TextIO


class Events:
    """Writes events, from any thread. As JSON each is an object with `at`, `event`, `text` and its facts."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self._as_json = as_json
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def say(self, event: str, text: str, **facts: object) -> None:
        """One event: `text` is for people, `event` and `facts` for programs."""
        now = datetime.now(UTC)
        if self._as_json:
            line = json.dumps({"at": now.isoformat(), "event": event, "text": text, **facts}, default=str)
        else:
            line = f"{now:%H:%M:%S} {text}"
        with self._lock:
            print(line, file=self._stream, flush=True)


class Progress(logging.Handler):
    """What jobs log while they run, as events."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.INFO)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one event."""
        job = record.name.rpartition(".")[2]
        self._events.say("progress", f"{job}: {record.getMessage()}", job=job)
