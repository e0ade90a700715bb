"""A load that runs by itself: producers that rewind, flushers, chores; and what must be there at the end.

Every value tells where it comes from: its number is the offset, its entity belongs to one partition of one
source. So the table itself answers whether each offset is there exactly once, whatever happened meanwhile.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg

from jobs.db import lost
from local.server import become
from tests.conftest import Connection, Database
from tests.jobs.waiting import until
from tests.sql.staging import NOW, Row, copy, flush, scalar

BASE = NOW - timedelta(minutes=10)
SPAN = 1_000_000
"""Entities of partition p are p * SPAN and up."""
BAD_EVERY = 50
"""With every so many offsets comes a value that must be rejected."""
TENANT = 1


def observed_at(partition: int, offset: int) -> datetime:
    """In an order of its own, with ties: the last value sent is not the latest one."""
    return BASE + timedelta(milliseconds=(offset * 7919 + partition) % 10_007)


def entity(partition: int, offset: int) -> int:
    """Ten at a time, new ones all along: the flush registers them."""
    return partition * SPAN + offset // 500 * 10 + offset % 10


@dataclass
class Report:
    """What the producers saw."""

    rewinds: int = 0
    lost: list[tuple[int, int, int]] = field(default_factory=list)
    """(partition, first, last) offsets of the durable lane that were acknowledged, and then missing."""


class Load:
    """Producers, one a partition, flushers and chores on a database that may go away and come back.

    Threads end by themselves when `stop` is called; an error that is not a lost connection is kept and raised.
    `dawdling` is the share (0 to 0.85) of the batches whose transaction stays open while others commit and are flushed.
    """

    def __init__(
        self,
        database: Database,
        *,
        seed: int,
        replayable: int = 4,
        durable: int = 2,
        flushers: int = 2,
        flusher: Callable[[Connection, int], int] = flush,
        chores: Sequence[str] = (),
        dawdling: float = 0.1,
    ) -> None:
        self.database = database
        self.dawdling = dawdling
        self.dice = random.Random(seed)
        self.halt = threading.Event()
        self.report = Report()
        self.flushed = 0
        self._errors: list[BaseException] = []
        self._flush = flusher
        with database.session() as connection:
            scalar(connection, "SELECT eav.tenant_add('load', %s, true)", TENANT)
            self.attribute: int = scalar(
                connection,
                "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot) VALUES (%s, 'seq', 'number', true)"
                " RETURNING attribute_id",
                TENANT,
            )
        self.producers = [
            Producer(self, number, durable=number > replayable)
            for number in range(1, replayable + durable + 1)
        ]
        self._jobs: list[Callable[[], None]] = [
            *(producer.work for producer in self.producers),
            *[self._flush_for_ever] * flushers,
            *map(self._chore, chores),
        ]

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Runs inside the block, and again in the next one; raises what went wrong in a thread."""
        self.halt.clear()
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in self._jobs]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.halt.set()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a thread of the load hangs"
        if self._errors:
            raise self._errors[0]

    def acknowledged(self) -> int:
        """How many offsets the producers count as being in the database."""
        return sum(producer.acked for producer in self.producers)

    def await_progress(self) -> None:
        """Until a producer has staged something more, and a flusher moved something."""
        sent, moved = sum(producer.batches for producer in self.producers), self.flushed
        until(
            lambda: (
                bool(self._errors)
                or (sum(producer.batches for producer in self.producers) > sent and self.flushed > moved)
            )
        )

    def connect(self, role: str) -> Connection:
        """Waits for no server: raises OperationalError if there is none now."""
        connection = self.database.connect(connect_timeout=5)
        try:
            become(connection, role)
        except BaseException:
            connection.close()
            raise
        return connection

    # ---- the threads --------------------------------------------------------------------------------------

    def _guarded(self, job: Callable[[], None]) -> None:
        """`job` again and again through lost connections."""
        while not self.halt.is_set():
            try:
                job()
            except psycopg.Error as error:
                if not lost(error):
                    self._fail(error)
                    return
                self.halt.wait(0.02)
            except BaseException as error:  # noqa: BLE001  (raised again by `running`)
                self._fail(error)
                return

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        self.halt.set()

    def _flush_for_ever(self) -> None:
        dice = random.Random(self.dice.random())
        with closing(self.connect("eav_jobs")) as connection:
            while not self.halt.is_set():
                moved = self._flush(connection, dice.choice((30, 1000, 50_000)))
                self.flushed += moved
                if not moved:
                    self.halt.wait(0.005)

    def _chore(self, statement: str) -> Callable[[], None]:
        def work() -> None:
            with closing(self.database.connect(connect_timeout=5)) as connection:
                while not self.halt.wait(0.05):
                    connection.execute(statement.encode())

        return work

    # ---- the end ------------------------------------------------------------------------------------------

    def settle(self, database: Database | None = None) -> None:
        """After the run: every producer sends again what was lost, and all is flushed."""
        database = database or self.database
        with database.session("eav_ingest") as ingester, database.session("eav_jobs") as flusher:
            for connection in (ingester, flusher):
                connection.execute("SET lock_timeout = '10s'")
            for producer in self.producers:
                producer.resume(ingester)
            while self._flush(flusher, 50_000):
                pass

    def check(self, database: Database | None = None) -> None:
        """Each offset of each partition is there once, each bad value was rejected once, hot is the latest."""
        database = database or self.database
        stored = {
            int(partition): offsets
            for partition, offsets in database.all(
                "SELECT entity_id / %s, array_agg(value_number::bigint) FROM eav.entity_values_ts GROUP BY 1",
                SPAN,
            )
        }
        bad = {
            int(partition): offsets
            for partition, offsets in database.all(
                "SELECT entity_id / %s, array_agg(source_offset) FROM eav.entity_values_rejected GROUP BY 1",
                SPAN,
            )
        }
        for producer in self.producers:
            number, sent = producer.number, range(1, producer.sent + 1)
            same(f"partition {number}, stored", stored.get(number, []), sent)
            same(
                f"partition {number}, rejected",
                bad.get(number, []),
                [offset for offset in sent if offset % BAD_EVERY == 0],
            )
            position = database.one("SELECT eav.ingest_position(%s, %s)", producer.source, producer.partition)
            assert position == producer.sent, (
                f"partition {number}: the position is {position}, {producer.sent} were sent"
            )
        assert set(stored) <= {producer.number for producer in self.producers}
        hot = {
            entity_id: int(value)
            for entity_id, value in database.all("SELECT entity_id, hot_attrs -> 'seq' FROM eav.entity_jsonb")
        }
        assert hot == self._latest()
        assert not self.report.lost, f"acknowledged on the durable lane and lost: {self.report.lost}"

    def _latest(self) -> dict[int, int]:
        latest: dict[int, tuple[datetime, int]] = {}
        for producer in self.producers:
            for offset in range(1, producer.sent + 1):
                key, event = (
                    entity(producer.number, offset),
                    (observed_at(producer.number, offset), offset),
                )
                latest[key] = max(latest.get(key, event), event)
        return {key: value for key, (_, value) in latest.items()}


def same(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Fails with what is missing and what is there too often."""
    have, want = Counter(found), Counter(expected)
    missing, extra = sorted((want - have).elements()), sorted((have - want).elements())
    assert not missing + extra, (
        f"{what}: {len(missing)} of {len(expected)} missing {missing[:10]}, {len(extra)} too many {extra[:10]}"
    )


class Producer:
    """One partition of a source that can be read again from any offset.

    `acked` is the last offset known to be in the database, `sent` the last that ever was tried.
    """

    def __init__(self, load: Load, number: int, *, durable: bool) -> None:
        self.number = number
        self.durable = durable
        self.source = "kept" if durable else "log"
        self.partition = str(number)
        self.acked = 0
        self.sent = 0
        self.batches = 0
        self._load = load
        self._dice = random.Random(load.dice.random())

    def work(self) -> None:
        """Sends until halted, or until it pleases itself to connect anew. Raises psycopg.Error."""
        with closing(self._load.connect("eav_ingest")) as connection:
            origin = self._open(connection)
            if origin is None:
                self._load.halt.wait(0.01)  # the server has not noticed yet that our last connection is dead
                return
            while not self._load.halt.is_set() and self._dice.random() > 0.02:
                self._batch(connection, origin, self.acked + self._dice.choice((1, 3, 20, 100)))
                self._load.halt.wait(self._dice.choice((0, 0, 0.01)))

    def resume(self, connection: Connection) -> None:
        """Everything that was ever tried is sent."""
        origin = self._open(connection)
        assert origin is not None, "the producer's connection is still open"
        while self.acked < self.sent:
            self._batch(connection, origin, self.sent)

    def _open(self, connection: Connection) -> int | None:
        """Takes the source, as an ingester does, and goes to where the database says; the source's id."""
        key = f"ingest:{self.partition}:{self.source}"
        if not scalar(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key):
            return None
        connection.execute(f"SET synchronous_commit = {'on' if self.durable else 'off'}".encode())
        origin = int(
            scalar(
                connection, "SELECT eav.ingest_source(%s, %s, %s)", self.source, self.partition, self.durable
            )
        )
        position = int(scalar(connection, "SELECT eav.ingest_position(%s, %s)", self.source, self.partition))
        assert position <= self.sent, f"{self.source}/{self.partition}: {position}, {self.sent} were sent"
        if position < self.acked:
            self._load.report.rewinds += 1
            if self.durable:
                self._load.report.lost.append((self.number, position + 1, self.acked))
        self.acked = position
        return origin

    def _batch(self, connection: Connection, origin: int, last: int) -> None:
        dice = self._dice
        rows = [
            row
            for offset in range(self.acked + 1, last + 1)
            for row in self._rows(origin, offset, named=False)
        ]
        if dice.random() < 0.2:  # by name, as an ingester that does not know the id
            rows = [
                row
                for offset in range(self.acked + 1, last + 1)
                for row in self._rows(origin, offset, named=True)
            ]
        self.sent = max(self.sent, last)
        fate = dice.random()
        with connection.transaction(force_rollback=fate < 0.05):
            if fate > 0.9:  # a savepoint: the rows' own transaction is a part of another
                with connection.transaction():
                    copy(connection, rows[::2], origin)
                copy(connection, rows[1::2], origin)
            else:
                copy(connection, rows, origin)
            if 0.9 - self._load.dawdling < fate < 0.9:
                self._load.halt.wait(0.03)
        if fate >= 0.05:
            self.acked = last
            self.batches += 1

    def _rows(self, origin: int, offset: int, *, named: bool) -> Iterator[Row]:
        key, at = entity(self.number, offset), observed_at(self.number, offset)
        attribute, name = (None, "seq") if named else (self._load.attribute, None)
        yield Row(origin, offset, TENANT, key, attribute, at, value_number=offset, attribute=name)
        if offset % BAD_EVERY == 0:
            yield Row(origin, offset, TENANT, key, attribute, at, value_text="no number", attribute=name)
