"""Producers in processes of their own, a reader that sees when their batches become visible, and what moves them.

A batch of a producer ends with a marker: a value of an attribute that nothing else has, the number of the batch. The
producer writes down when its COMMIT returned, the reader when it first saw the marker in the history: the difference
is the lag from commit to visible. A producer has at most `window` batches that are not visible yet, then it waits:
without that the fastest of the three would decide how long the queue gets.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, Final, Protocol

import numpy as np
import psycopg

from bench.load import LARGEST, tenant_slots
from bench.server import ROOT, Bench, Connection, one
from bench.sizes import ATTRIBUTES
from bench.timing import percentile
from bench.worlds import World
from local.errors import LocalError

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Where PostgreSQL's times begin."""
PRODUCERS: Final = 2
MARKERS: Final = 10
"""The last attributes of each tenant are for markers."""
POLL: Final = 0.005
PATIENCE: Final = 60.0
"""Seconds without anything new after which a marker is taken for lost."""
SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)


@dataclass(frozen=True)
class Order:
    """What one producer does."""

    url: str = field(repr=False)
    kind: str
    number: int
    source_id: int
    entities: int
    batch: int
    window: int
    seconds: float
    rate: float | None = None
    """Rows a second of this producer, None: as fast as it can."""
    first_batch: int = 0

    @property
    def marker(self) -> int:
        """The attribute of its markers, of the largest tenant."""
        return LARGEST * ATTRIBUTES - self.number


class Sender(Protocol):
    """Sends one batch with its marker, in one transaction that has committed when it returns."""

    def __call__(self, connection: Connection, number: int, at: datetime) -> None:
        """Batch `number`; its times end with `at`."""


@dataclass
class Traffic:
    """What was seen."""

    rows: int
    seconds: float
    """From the first commit until the last batch was visible."""
    lags: list[float]
    """Seconds, one for each batch that was seen."""

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def lag(self, share: float) -> float:
        """Milliseconds that this share of the batches does not exceed."""
        return percentile(self.lags, share) * 1000


def copy_buffers(order: Order, columns: tuple[str, ...]) -> Sender:
    """Batches as binary COPY, put together from one prepared array: only offsets and times change."""
    fields: list[tuple[str, str]] = [("count", ">i2")]
    for name in columns:
        fields.append((f"{name}_length", ">i4"))
        if name == "value":
            fields += [(f"value_{part}", ">i2") for part in ("digits", "weight", "sign", "scale", "d0", "d1")]
        else:
            fields.append((name, ">i8"))
    rows = np.zeros(order.batch, dtype=np.dtype(fields))
    rows["count"] = len(columns)
    for name in columns:
        rows[f"{name}_length"] = 12 if name == "value" else 8
    random = np.random.default_rng(order.number)
    entities = random.integers(0, order.entities, order.batch)
    tenants = np.array(tenant_slots())[entities % len(tenant_slots())]
    entities[-1], tenants[-1] = 0, LARGEST
    rows["entity"] = entities + 1
    rows["tenant"] = tenants
    rows["attribute"] = (tenants - 1) * ATTRIBUTES + random.integers(1, ATTRIBUTES - MARKERS + 1, order.batch)
    rows["attribute"][-1] = order.marker
    # numeric: base 10000, here one digit before the point and one behind it
    rows["value_digits"], rows["value_scale"] = 2, 1
    rows["value_d0"] = random.integers(1, 100, order.batch)
    rows["value_d1"] = random.integers(0, 10, order.batch) * 1000
    if "source" in columns:
        rows["source"] = order.source_id
    behind = np.arange(order.batch) - (order.batch - 1)

    def send(connection: Connection, number: int, at: datetime) -> None:
        if "offset" in columns:
            rows["offset"] = number * order.batch + 1 + np.arange(order.batch)
        rows["time"] = (at - EPOCH) // timedelta(microseconds=1) + behind
        # A marker needs more than one digit: the batch's number in base 10000.
        rows["value_d0"][-1], rows["value_d1"][-1] = divmod(number, 10000)
        rows["value_weight"][-1], rows["value_scale"][-1] = 1, 0
        with connection.transaction():
            target = copy_target(connection, order)
            with connection.cursor().copy(f"COPY {target} FROM STDIN (FORMAT binary)".encode()) as copy:
                copy.write(SIGNATURE)
                copy.write(rows.tobytes())
                copy.write(b"\xff\xff")

    return send


def copy_target(connection: Connection, order: Order) -> str:
    """Table and columns, in the order of the buffers."""
    if order.kind == "reference":
        return (
            "reference.entity_values_ingest (tenant_id, entity_id, attribute_id, ingested_at, value_decimal)"
        )
    slot = one(connection, "SELECT eav.ingest_target(%s)", order.source_id)
    return f"{slot} (source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number)"


OURS_COLUMNS: Final = ("source", "offset", "tenant", "entity", "attribute", "time", "value")
REFERENCE_COLUMNS: Final = ("tenant", "entity", "attribute", "time", "value")

LOADED: Final = (
    # Of the attributes for markers no value but a marker: the reader would take it for one, and those before as seen.
    " SELECT n, tenant_id, entity_id,"
    f"   attribute_id - {MARKERS} * (attribute_id > tenant_id * {ATTRIBUTES} - {MARKERS})::integer AS attribute_id,"
    "   observed_at, value FROM bench.load(%(first)s, %(last)s, %(start)s, '1 us')"
    " UNION ALL SELECT %(last)s + 1, %(tenant)s, 1, %(marker)s, %(at)s, %(number)s"
)


def inserted(order: Order) -> Sender:
    """The same rows made inside the server, for what cannot be copied into: a statement a batch."""

    def send(connection: Connection, number: int, at: datetime) -> None:
        first = (number * PRODUCERS + order.number) * order.batch + 1
        last = first + order.batch - 2
        parameters = {
            "first": first,
            "last": last,
            "start": at - last * timedelta(microseconds=1),
            "tenant": LARGEST,
            "marker": order.marker,
            "at": at,
            "number": number,
            "source": order.source_id,
        }
        with connection.transaction():
            if order.kind == "pgq":
                connection.execute(
                    "SELECT count(pgq.insert_event('bench', 'value', concat_ws(',', r.tenant_id, r.entity_id,"
                    f" r.attribute_id, r.observed_at, r.value))) FROM ({LOADED}) AS r".encode(),
                    parameters,
                )
            else:
                slot = one(connection, "SELECT eav.ingest_target(%s)", order.source_id)
                connection.execute(
                    f"INSERT INTO {slot} (source_id, source_offset, tenant_id, entity_id, attribute_id,"
                    " observed_at, value_number) SELECT %(source)s, r.n, r.tenant_id, r.entity_id, r.attribute_id,"
                    f" r.observed_at, r.value FROM ({LOADED}) AS r".encode(),
                    parameters,
                )

    return send


SENDERS: Final[dict[str, Callable[[Order], Sender]]] = {
    "ours": lambda order: copy_buffers(order, OURS_COLUMNS),
    "reference": lambda order: copy_buffers(order, REFERENCE_COLUMNS),
    "ours-inserted": inserted,
    "pgq": inserted,
}


def produce(
    order: Order, visible: Synchronized[int], stop: Event, sent: multiprocessing.Queue[tuple[int, int, float]]
) -> None:
    """A producer's process: batches until the time is over, then a last message (number, -1, 0)."""
    number = order.first_batch
    with contextlib.suppress(KeyboardInterrupt, psycopg.OperationalError):
        send = SENDERS[order.kind](order)
        with psycopg.connect(order.url, autocommit=True, application_name="bench producer") as connection:
            connection.execute("SET synchronous_commit = off")
            start = moved_on = time.monotonic()
            while not stop.is_set() and time.monotonic() - start < order.seconds:
                due = start
                if order.rate is not None:
                    due += (number - order.first_batch) * order.batch / order.rate
                now = time.monotonic()
                full = number - visible.value >= order.window
                # The reference loses rows, markers among them, which nobody will ever see.
                if full and order.kind == "reference" and now - moved_on > 2:
                    full = False
                if full or now < due:
                    time.sleep(0.001)
                    continue
                send(connection, number + 1, datetime.now(UTC))
                number += 1
                moved_on = time.monotonic()
                sent.put((order.number, number, time.time()))
    sent.put((order.number, -1, 0.0))


@dataclass
class Reader:
    """Sees markers in a table of the history, in the order of their times."""

    world: World
    table: str
    time_column: str
    value_column: str
    on_seen: Callable[[int, int, float], None] | None = None

    def watch(
        self, orders: list[Order], visible: list[Synchronized[int]], done: threading.Event, since: datetime
    ) -> dict[tuple[int, int], float]:
        """When each (producer, batch) was first seen, until `done`."""
        seen: dict[tuple[int, int], float] = {}
        newest = [since for _ in orders]
        query = (
            f"SELECT {self.time_column}, {self.value_column}::bigint FROM {self.table}"
            f" WHERE tenant_id = {LARGEST} AND attribute_id = %s AND {self.time_column} > %s"
            f" ORDER BY {self.time_column}"
        ).encode()
        with self.world.connect(prepare_threshold=None, application_name="bench reader") as connection:
            while not done.is_set():
                for index, order in enumerate(orders):
                    for at, number in connection.execute(query, (order.marker, newest[index])).fetchall():
                        now = time.time()
                        newest[index] = max(newest[index], at)
                        if seen.setdefault((order.number, int(number)), now) == now and self.on_seen:
                            self.on_seen(order.number, int(number), now)
                        visible[index].value = max(visible[index].value, int(number))
                done.wait(POLL)
        return seen


def run_traffic(
    world: World,
    orders: list[Order],
    reader: Reader,
    on_sent: Callable[[int, int, float], None] | None = None,
) -> Traffic:
    """Start the producers, wait until they have ended and all they sent is visible. Leaves no process."""
    context = multiprocessing.get_context("spawn")
    visible = [context.Value("q", order.first_batch) for order in orders]
    stop = context.Event()
    sent: multiprocessing.Queue[tuple[int, int, float]] = context.Queue()
    done = threading.Event()
    seen: dict[tuple[int, int], float] = {}
    with world.connect() as connection:
        since = one(connection, "SELECT clock_timestamp()") - timedelta(seconds=1)

    def watch() -> None:
        seen.update(reader.watch(orders, visible, done, since))

    watcher = threading.Thread(target=watch, daemon=True)
    processes = [
        context.Process(target=produce, args=(order, visible[index], stop, sent), daemon=True)
        for index, order in enumerate(orders)
    ]
    committed: dict[tuple[int, int], float] = {}
    try:
        watcher.start()
        for process in processes:
            process.start()
        for producer, number, at in _messages(sent, processes):
            committed[producer, number] = at
            if on_sent:
                on_sent(producer, number, at)
        last = {order.number: order.first_batch for order in orders}
        for producer, number in committed:
            last[producer] = max(last[producer], number)
        # The reference loses rows, and the last marker may be one of them.
        loses = orders[0].kind == "reference"
        deadline = time.monotonic() + (min(5.0, 2 * orders[0].seconds) if loses else PATIENCE)
        while time.monotonic() < deadline and any(
            visible[index].value < last[order.number] for index, order in enumerate(orders)
        ):
            time.sleep(0.005)
    finally:
        stop.set()
        done.set()
        for process in processes:
            _end(process)
        watcher.join(10)
    if not committed:
        raise LocalError("python -m bench: the producers sent nothing")
    both = committed.keys() & seen.keys()
    if len(both) < len(committed) and not loses:
        raise LocalError(
            f"python -m bench: of {len(committed)} batches {len(committed) - len(both)} were never seen"
        )
    first = min(committed.values())
    return Traffic(
        rows=len(committed) * orders[0].batch,
        seconds=max(max(seen.values(), default=first), max(committed.values())) - first,
        lags=[max(0.0, seen[key] - committed[key]) for key in both],
    )


def _messages(
    sent: multiprocessing.Queue[tuple[int, int, float]], processes: list[SpawnProcess]
) -> Iterator[tuple[int, int, float]]:
    """What the producers say, until each has said that it is done. Raises LocalError if one ends without."""
    running = len(processes)
    while running:
        try:
            producer, number, at = sent.get(timeout=1)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                raise LocalError("python -m bench: the producers ended before they were done") from None
            continue
        if number < 0:
            running -= 1
        else:
            yield producer, number, at


def _end(process: SpawnProcess) -> None:
    if process.pid is None:
        return
    process.join(5)
    if process.is_alive():
        process.terminate()
        process.join()


@contextlib.contextmanager
def worker(bench: Bench, world: World) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m jobs worker`, as it runs everywhere; on leaving it is asked to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "worker", "--json"],
        cwd=ROOT,
        env=bench.environment(world.database),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        with world.connect() as connection:
            while not one(connection, "SELECT count(*) FROM ops.job_runs WHERE job LIKE 'flush%'"):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise LocalError("python -m bench: `python -m jobs worker` did not begin to flush")
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def repeating(world: World, step: Callable[[Connection], Any], pause: float) -> Iterator[None]:
    """A thread that does `step` again and again, `pause` seconds from the start of one to that of the next."""
    stop = threading.Event()
    failures: list[Exception] = []

    def loop() -> None:
        try:
            with world.connect() as connection:
                while not stop.is_set():
                    start = time.monotonic()
                    step(connection)
                    stop.wait(max(0.0, pause - (time.monotonic() - start)))
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    problem: LocalError | None = None
    try:
        yield
    except LocalError as error:
        problem = error
    finally:
        stop.set()
        thread.join(60)
    # What went wrong here is why nothing came out there.
    if failures:
        raise failures[0] from problem
    if problem is not None:
        raise problem
