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
from jobs.ingest.load import SourceBusyError, Stage
from jobs.ingest.source import Counts, Gap, GapError, Source

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
    partition: str = "0"


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
    source: Source,
    open_stage: Callable[[Source], AbstractContextManager[Stage]],
    *,
    patience: Patience,
    progress: Callable[[int, str], None] = lambda _lines, _event: None,
    accept_gap: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Stage all of `source`, from where the database says on.

    When the connection is lost it asks again where to go on, and does so for as long as `patience` lasts
    since the last batch that went well. `progress` gets the lines of each batch, or 0 and what happened.
    Raises JobsError, GapError unless gaps are accepted, which records them; what was staged before stays, and
    a next call goes on behind it.
    """
    result = Result(source.name, partition=source.partition)
    tally = _Tally()
    began = clock()
    opened = False
    try:
        while True:
            try:
                with open_stage(source) as stage:
                    tally.rewind(stage.position)
                    work = _Work(source, stage, tally, accept_gap, progress)
                    # Later it may begin further on: blank lines at the end of a batch have no place in the database.
                    expected = None if opened else stage.position + 1
                    if not opened:
                        result.source_id, result.skipped = stage.source_id, stage.position
                        opened = True
                    if work.seek():
                        expected = None
                    for lines in work.batches(expected):
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
        source.close()
        result.counts = tally.total()
        result.seconds = clock() - began
    result.cut_off = source.cut_off()
    return result


@dataclass
class _Work:
    """One source on one connection."""

    source: Source
    stage: Stage
    tally: _Tally
    accept_gap: bool
    progress: Callable[[int, str], None]

    def seek(self) -> bool:
        """Go on behind what the database has; says whether there is a gap, which is accepted."""
        gap = False
        while True:
            try:
                self.source.seek(self.stage.position, self.stage.mark)
            except GapError as error:
                self._accept(error)
                gap = True
            else:
                return gap

    def batches(self, expected: int | None) -> Iterator[int]:
        """Stage all there is, from line `expected` on if that is known; yields the lines of each batch that is in."""
        while True:
            try:
                batch = self.source.next()
            except GapError as error:
                self._accept(error)
                self.seek()
                continue
            if batch is None:
                return
            if expected is not None and batch.first != expected:
                self._jump(expected, batch.first)
            expected = batch.last + 1
            counts = Counts()
            if batch.lines:
                self.stage.add(batch.rows(counts), batch.mark)
            elif batch.mark is not None:
                self.stage.note(batch.mark)
            self.tally.add(self.stage.position, counts)
            self.source.done(self.stage.position)
            yield len(batch.lines)

    def _jump(self, expected: int, first: int) -> None:
        """Lines that the source left out: noticed, and accepted by a person or not at all."""
        name = self.source.name
        if first < expected:
            raise JobsError(f"{name}: line {first} came again behind line {expected - 1}: nothing was staged")
        gap = Gap(str(expected), str(first - 1), "the source left them out")
        text = f"{name}: lines {gap.begin} to {gap.end} are missing: to go on without them give --accept-gap"
        error = GapError(text, gap)
        if not self.accept_gap:
            raise error
        self._record(error)

    def _accept(self, error: GapError) -> None:
        if not self.accept_gap:
            raise error
        self._record(error)
        self.source.accept(error.gap)

    def _record(self, error: GapError) -> None:
        self.stage.gap(error.gap)
        self.progress(0, f"{error}; recorded in eav.ingest_gaps and accepted")
