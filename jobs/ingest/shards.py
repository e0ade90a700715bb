"""All shards of a Kinesis stream at once: a thread and a connection each, shared with other processes.

Of a shard there is one ingester at a time, which holds its lock. Whoever comes takes the shards that are free, and
those that become free later. A shard that was split or merged is read to its end before its children are begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from jobs import alive, db
from jobs.errors import ConnectionLostError, JobsError
from jobs.ingest.kinesis import SCHEME, Shard, ShardSource, StoppedError, Stream
from jobs.ingest.load import SourceBusyError, Stage, is_free, marks, open_stage
from jobs.ingest.run import Patience, Result, ingest
from jobs.ingest.source import LIMITS, Counts, Gap, GapError, Limits, Mark

TICK: Final = 1.0
"""Seconds between two looks at the shards that somebody else reads, or that wait for their parents."""
LIST_EVERY: Final = 2.0
"""Seconds until the shards are listed again: the stream may have been resharded."""
LOOK_EVERY: Final = 5.0
"""Seconds until the database is asked again how far each shard is: that reads all that is staged."""
MOST: Final = 256
"""Shards that one process reads at once, if nothing else is said: each is a connection."""


@dataclass
class Fleet:
    """The shards of one stream, as far as this process reads them. `failure` is what stopped it, if anything."""

    url: str = field(repr=False)
    stream: Stream
    name: str
    wanted: frozenset[str] = frozenset()
    """Only these shards; all if empty."""
    follow: bool = False
    at_once: int = MOST
    retry: float = 60.0
    accept_gap: bool = False
    as_binary: bool = False
    limits: Limits = LIMITS
    progress: Callable[[int, str], None] = lambda _lines, _event: None
    beat: alive.Beat = alive.silent
    """Called at every turn of the loop."""
    clock: Callable[[], float] = time.monotonic
    failure: JobsError | None = None
    interrupted: bool = False
    """Whether somebody else than a failure or the end stopped it."""
    _results: dict[str, Result] = field(default_factory=dict, init=False)
    _listed: dict[str, Shard] = field(default_factory=dict, init=False)
    _known: dict[str, tuple[int, Mark | None]] = field(default_factory=dict, init=False)
    _over: dict[str, str] = field(default_factory=dict, init=False)
    _running: dict[Future[tuple[ShardSource, Result]], str] = field(default_factory=dict, init=False)
    _connection: db.Connection | None = field(default=None, init=False)
    _patience: Patience = field(default_factory=lambda: Patience(0), init=False)
    _look_again: float = field(default=0.0, init=False)

    @property
    def results(self) -> list[Result]:
        """What became of each shard that we read."""
        return [self._results[one] for one in sorted(self._results)]

    def run(self) -> None:
        """Read until all shards are caught up, or until the stream is to stop if it is to `follow`."""
        patience = self._patience = Patience(self.retry, sleep=self.stream.sleep)
        listed_at: float | None = None
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="shard") as pool:
            try:
                while not self.stream.stop.is_set():
                    self.beat()
                    if listed_at is None or self.clock() - listed_at > LIST_EVERY:
                        self._list()
                        listed_at = self.clock()
                    started = self._start(pool)
                    if not self._running and not self.follow and not self._left() and self._still_there():
                        break
                    if started or self._running:
                        patience.reset()
                    else:
                        self._wait_for_others(patience)
                    if self._finished(TICK):
                        listed_at = None  # perhaps it has children
                self.interrupted = self.stream.stop.is_set() and self.failure is None
            except JobsError as error:
                self._fail(error)
            finally:
                self.stream.stop.set()
                while self._running:
                    self._finished(None)
                self._disconnect()

    def _list(self) -> None:
        self._listed = {shard.shard_id: shard for shard in self.stream.shards()}
        unknown = self.wanted - self._listed.keys()
        if unknown:
            raise JobsError(f"{self.name}: there is no shard {', '.join(sorted(unknown))} in the stream")

    def _left(self) -> list[str]:
        """The shards that are to be read and are not, by us, now or at their end."""
        running = set(self._running.values())
        return [
            one
            for one in self._listed
            if (not self.wanted or one in self.wanted) and one not in self._over and one not in running
        ]

    def _start(self, pool: ThreadPoolExecutor) -> int:
        """Begin shards that are free and whose parents are at their end; returns how many."""
        room = self.at_once - len(self._running)
        if room < 1 or not (self._left() or self._ask_again()):
            return 0
        try:
            connection = self._connect()
            with db.translated(self.url):
                if self.clock() >= self._look_again:
                    self._look_at(connection)
                ready = [one for one in self._left() if self._parents_ended(one)]
                free = [one for one in ready if is_free(connection, self.name, one)]
        except ConnectionLostError as error:
            self._disconnect()
            self.progress(0, f"{error}; trying again")
            return 0
        for shard_id in free[:room]:
            self._running[pool.submit(self._read, shard_id)] = shard_id
        return len(free[:room])

    def _ask_again(self) -> bool:
        """Whether it is time to look whether shards that are over still are."""
        return bool(self._over) and self.clock() >= self._look_again

    def _look_at(self, connection: db.Connection) -> None:
        """What the database has of each shard: less than it had, after a crash that emptied the slots."""
        self._known = marks(connection, self.name)
        self._look_again = self.clock() + LOOK_EVERY
        self._look_for_the_vanished(connection)
        for shard_id, state in list(self._over.items()):
            position, mark = self._known.get(shard_id, (0, None))
            ended = mark is not None and mark.ended
            if position < self._results[shard_id].last or (state == "ended" and not ended):
                del self._over[shard_id]
                self.progress(
                    0, f"{self.name}: the server lost staged lines of {shard_id}: reading them again"
                )

    def _still_there(self) -> bool:
        """Before we say that all is staged: whether it is."""
        try:
            with db.translated(self.url):
                self._look_at(self._connect())
        except ConnectionLostError as error:
            self._disconnect()
            self._patience.wait(error)
            return False
        return not self._left()

    def _parents_ended(self, shard_id: str) -> bool:
        # One that is listed no more has nothing left, one that is not known was never ours.
        return all(self._has_ended(one) or one not in self._listed for one in self._listed[shard_id].parents)

    def _has_ended(self, shard_id: str) -> bool:
        _, mark = self._known.get(shard_id, (0, None))
        return mark is not None and mark.ended

    def _since(self, shard_id: str) -> datetime | None:
        """Up to when the parents of a shard were read: what is older is in them."""
        marks_ = [self._known[one][1] for one in self._listed[shard_id].parents if one in self._known]
        return min((mark.covered_until for mark in marks_ if mark and mark.covered_until), default=None)

    def _look_for_the_vanished(self, connection: db.Connection) -> None:
        for shard_id in self._known.keys() - self._listed.keys():
            if self._has_ended(shard_id) or (self.wanted and shard_id not in self.wanted):
                continue
            position, mark = self._known[shard_id]
            begin = mark.text if mark is not None and mark.text else "the beginning"
            gap = Gap(begin, "the end of the shard", "the stream has forgotten the shard")
            error = GapError(
                f"{self.name}: {shard_id} is gone from the stream, and was read only up to {begin}"
                f" ({position} lines): to go on without the rest give --accept-gap",
                gap,
            )
            if not self.accept_gap:
                raise error
            try:
                stage = Stage(connection, self.name, partition=shard_id, marked=True, url=self.url)
            except SourceBusyError:
                continue
            stage.gap(gap)
            stage.note(Mark(mark.text if mark is not None else "", ended=True))
            stage.release()
            self.progress(0, f"{error}; recorded in eav.ingest_gaps and accepted")

    def _read(self, shard_id: str) -> tuple[ShardSource, Result]:
        source = ShardSource(
            self.stream,
            shard_id,
            self.name,
            follow=self.follow,
            limits=self.limits,
            since=self._since(shard_id),
            closed=lambda: shard_id in self._listed and self._listed[shard_id].closed,
        )
        result = ingest(
            source,
            lambda one: open_stage(self.url, one, as_binary=self.as_binary),
            patience=Patience(self.retry, sleep=self.stream.sleep),
            progress=self.progress,
            accept_gap=self.accept_gap,
        )
        return source, result

    def _finished(self, timeout: float | None) -> bool:
        """Wait for shards that end; whether one did."""
        if not self._running:
            self.stream.stop.wait(timeout or 0)
            return False
        done, _ = wait(self._running, timeout, FIRST_COMPLETED)
        if done:
            self._look_again = 0.0
        for future in done:
            shard_id = self._running.pop(future)
            try:
                source, result = future.result()
            except SourceBusyError:
                continue  # somebody was quicker
            except JobsError as error:
                self._fail(error)
                continue
            self._results[shard_id] = _merged(self._results.get(shard_id), result)
            if source.state != "stopped":
                self._over[shard_id] = source.state
        return bool(done)

    def _fail(self, error: JobsError) -> None:
        """The first failure counts, and the others stop."""
        if self.failure is None or isinstance(self.failure, StoppedError):
            self.failure = error
        self.stream.stop.set()

    def _wait_for_others(self, patience: Patience) -> None:
        """Nothing of ours is left to do: others read the rest, or hold parents of it. Raises JobsError."""
        left = ", ".join(sorted(self._left()))
        if not self.follow:
            parents = {one for shard in self._left() for one in self._listed[shard].parents}
            waits = [one for one in sorted(parents) if self.wanted and one not in self.wanted]
            hint = (
                f"their parents come first: --shard {' --shard '.join(waits)}"
                if waits
                else "wait for its end"
            )
            patience.wait(JobsError(f"{self.name}: another ingester is at {left}, or at its parents: {hint}"))

    def _connect(self) -> db.Connection:
        if self._connection is None:
            self._connection = db.connect(self.url, "eav_ingest", f"eav ingest {SCHEME}"[:63])
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with closing(self._connection):
                self._connection = None


def _merged(first: Result | None, then: Result) -> Result:
    """One result of a shard that was read twice: what the server lost in between counts once."""
    if first is None:
        return then
    lost = max(first.last - then.skipped, 0)
    counts = Counts(first.counts.staged - lost, first.counts.blank, first.counts.rejected.copy())
    counts += then.counts
    reconnects = first.reconnects + then.reconnects
    return replace(
        then,
        skipped=first.skipped,
        counts=counts,
        seconds=first.seconds + then.seconds,
        reconnects=reconnects,
    )
