"""One source into the staging slots, through lost connections and crashes of the server."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from jobs.errors import ConnectionLostError, JobsError
from jobs.ingest.feed import Counts, Feed
from jobs.ingest.load import SourceBusyError, Stage

REMEMBERED: Final = 10_000
"""Batches whose counts can be taken back when a crash of the server makes us send them again."""


@dataclass
class Result:
    """What became of one source: `skipped` lines were in the database before, those up to `last` are now."""

    source: str
    source_id: int = 0
    skipped: int = 0
    last: int = 0
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    reconnects: int = 0
    cut_off: str | None = None


class Patience:
    """Pauses that grow, 0.1 to 2 seconds, until `limit` seconds without success are over."""

    def __init__(
        self,
        limit: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._sleep = sleep
        self.reset()

    def reset(self) -> None:
        """It went well: begin anew with the next failure."""
        self._pause = 0.1
        self._since: float | None = None

    def wait(self, error: JobsError) -> None:
        """Wait before the next try; raises `error` when patience is at its end."""
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since >= self._limit:
            raise error
        self._sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, 2.0)


class _Tally:
    """Counts batch by batch, so that those of lost batches can be taken back."""

    def __init__(self) -> None:
        self._sure = Counts()
        self._batches: deque[tuple[int, Counts]] = deque()

    def add(self, last: int, counts: Counts) -> None:
        self._batches.append((last, counts))
        if len(self._batches) > REMEMBERED:
            self._sure += self._batches.popleft()[1]

    def rewind(self, position: int) -> None:
        while self._batches and self._batches[-1][0] > position:
            self._batches.pop()

    def total(self) -> Counts:
        total = Counts()
        total += self._sure
        for _, counts in self._batches:
            total += counts
        return total


def ingest(
    feed: Feed,
    open_stage: Callable[[Feed], AbstractContextManager[Stage]],
    *,
    patience: Patience,
    progress: Callable[[int, str], None] = lambda _lines, _event: None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Stage all of `feed`, from where the database says on.

    When the connection is lost it asks again where to go on, and does so for as long as `patience` lasts
    since the last batch that went well. `progress` gets the lines of each batch, or 0 and what happened.
    Raises JobsError; what was staged before stays, and a next call goes on behind it.
    """
    result = Result(feed.name)
    tally = _Tally()
    began = clock()
    opened = False
    try:
        while True:
            try:
                with open_stage(feed) as stage:
                    if not opened:
                        result.source_id, result.skipped = stage.source_id, stage.position
                        opened = True
                    feed.seek(stage.position)
                    tally.rewind(stage.position)
                    for lines in _batches(feed, stage, tally):
                        patience.reset()
                        progress(lines, "")
                    result.last = stage.position
                    break
            except (ConnectionLostError, SourceBusyError) as error:
                # The first connection tells at once what is wrong. Later a server that restarts is waited
                # for, and our own lock, until the server has noticed that our last connection is dead.
                if not opened:
                    raise
                result.reconnects += 1
                progress(0, f"{error}; trying again")
                patience.wait(error)
    finally:
        feed.close()
        result.counts = tally.total()
        result.seconds = clock() - began
    result.cut_off = feed.cut_off()
    return result


def _batches(feed: Feed, stage: Stage, tally: _Tally) -> Iterator[int]:
    while (batch := feed.next()) is not None:
        counts = Counts()
        stage.add(batch.rows(counts))
        tally.add(stage.position, counts)
        feed.done(stage.position)
        yield len(batch.lines)
