"""A run: scan for old items, archive, prove, delete; stop in time, and go on where an earlier run stopped.

For each archive object, in this order: its manifest is written; the object is written, read back and compared with the
items; it is registered in the state table, together with the position that the scan goes on at; its items are deleted
(see `archiver.deletes`); its manifest says so. Whatever ends in between leaves each item in the table, or in a
verified object, or in both, and the next run knows which.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from archiver import age, conditions, documents
from archiver.aws import Aws, Patience, code, describe, explained
from archiver.deletes import Deletes, OvertakenError
from archiver.documents import Manifest, Source
from archiver.errors import ArchiverError, VerificationError
from archiver.items import Item, Types, encode
from archiver.settings import Settings
from archiver.state import Progress, Same, Scan, State
from archiver.store import Store, sha256

log = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=60)
"""How long a run that was killed keeps others out."""
PAGES_BETWEEN_NOTES: Final = 100
"""Pages (a megabyte each) after which the scan notes where it is, even if an object is not full."""


@dataclass
class Stats:
    """What a run did, or would do (`dry_run`)."""

    scanned: int = 0
    archived: int = 0
    deleted: int = 0
    kept: int = 0
    """Archived, and then changed or deleted by others: they did not leave by our hand."""
    unreadable: int = 0
    """Matched by DynamoDB, but their time attribute says no time, or one that is not old: left alone."""
    unsafe: int = 0
    """With too many attributes for a condition: left alone."""
    errors: int = 0
    objects: int = 0
    bytes: int = 0


@dataclass
class Result:
    """How a run over one table ended."""

    table: str
    stats: Stats
    finished: bool = False
    """The pass is over: nothing older than its cutoff is left to do."""
    reason: str = ""
    """Why it is not, in a few words."""
    began: float = 0.0
    """Seconds since 1970; 0 for a table whose turn it was not."""
    seconds: float = 0.0
    api_calls: int = 0
    """Requests sent for it, retries included."""
    problems: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass
class Context:
    """What a run is given: clients, settings, the clock, and when to stop."""

    aws: Aws
    settings: Settings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    time_left: Callable[[], float] = lambda: float("inf")
    """Seconds until the time limit."""
    stopped: Callable[[], bool] = lambda: False
    workers: int | None = None
    """Threads; None: one a segment."""
    progressed: Callable[[str, Stats], None] = lambda table, stats: None
    traced: Callable[[str], AbstractContextManager[object]] = lambda table: nullcontext()
    """Around the work at a table."""
    sleep: Callable[[float], object] = time.sleep

    @property
    def store(self) -> Store:
        """The archive bucket."""
        return Store(self.aws.s3, self.settings.archive_bucket, self.settings.kms_key_id, self.sleep)

    def out_of_time(self) -> str:
        """Why to stop now, empty if there is no reason."""
        if self.stopped():
            return "stopped"
        return "time limit" if self.time_left() < self.settings.time_reserve else ""


def run(context: Context) -> list[Result]:
    """All source tables, one after the other; a table that fails does not keep the others from their turn."""
    tables = [TableRun(context, name) for name in context.settings.source_tables]
    for table in in_turn(tables) if len(tables) > 1 and not context.settings.dry_run else tables:
        _measured(context, table)
    return [table.result for table in tables]


def _measured(context: Context, table: TableRun) -> None:
    """One table, and what it took."""
    result, began, calls = table.result, time.monotonic(), context.aws.calls.total()
    result.began = context.clock().timestamp()
    try:
        with context.traced(table.table):
            table.run()
    except ArchiverError as error:
        table.failed(error)
    finally:
        result.seconds = round(time.monotonic() - began, 3)
        result.api_calls = context.aws.calls.total() - calls


def in_turn(tables: Sequence[TableRun]) -> list[TableRun]:
    """The tables that are due, in the order of their need.

    Those whose pass is under way come first. As long as there are any, a table that came to its end since then has had
    its turn: else a run that never has time for all would begin with the same one each time.
    """
    begun: dict[str, datetime] = {}
    ended: dict[str, datetime] = {}
    for table in tables:
        try:
            scan, finished = table.state.scan(), table.state.finished_at()
        except ArchiverError:
            continue  # it will say so itself
        if scan:
            begun[table.table] = scan.begun_at
        if finished:
            ended[table.table] = finished
    oldest = min(begun.values(), default=None)
    due = []
    for table in tables:
        if oldest and table.table not in begun and table.table in ended and ended[table.table] >= oldest:
            table.result.finished, table.result.reason = True, "had its turn"
        else:
            due.append(table)
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(
        due, key=lambda one: (one.table not in begun, begun.get(one.table) or ended.get(one.table) or never)
    )


def source_of(aws: Aws, table: str, settings: Settings) -> Source:
    """A source table, and its key. Raises ArchiverError."""
    found = describe(aws.dynamodb, table)
    if found.replicated and not settings.global_table:
        raise ArchiverError(
            f"{table} has replicas in other regions: what is written there meanwhile may be lost. If it is written in"
            " this region only, say so with GLOBAL_TABLE=true"
        )
    return Source(table, tuple(found.key), settings.time_attribute, settings.time_format)


class Stop(Exception):  # noqa: N818  (no error)
    """This pass is to end here, cleanly. `ours`: there is time to note where it is, and nobody else is at it."""

    def __init__(self, reason: str, *, ours: bool = True) -> None:
        super().__init__(reason)
        self.ours = ours


class TableRun:
    """One run over one table."""

    def __init__(self, context: Context, table: str) -> None:
        self.context = context
        self.settings = context.settings
        self.store = context.store
        self.table = table
        self.state = State(context.aws.dynamodb, self.settings.state_table, table, context.sleep)
        self.result = Result(table, Stats())
        self.owner = f"run {secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._locked_until = datetime.min.replace(tzinfo=UTC)
        self._names: Counter[str] = Counter()
        """Every attribute name seen, and on how many items."""

    # ---- the whole ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises ArchiverError if it could not even begin."""
        source = source_of(self.context.aws, self.table, self.settings)
        if self.settings.dry_run:
            scan = self._new_scan(source)
            self.result.finished = self._segments(source, scan)
            return
        holder = self._renew()
        if holder:
            self.result.reason = f"locked by {holder}"
            return
        try:
            self._locked(source)
        finally:
            self.state.unlock(self.owner)
            if self.result.stats.unsafe:
                log.warning(
                    "items have too many attributes to be deleted safely",
                    extra={"table": self.table, "items": self.result.stats.unsafe},
                )

    def _locked(self, source: Source) -> None:
        unfinished = list(self.state.unfinished())
        if unfinished:
            # Names that came into use since their items were read.
            self.sample({})
        for progress in unfinished:
            try:
                self._go_on(source, progress)
            except Stop as reason:
                self.result.reason = str(reason)
                return
            except ArchiverError as error:
                # Seen to by a person; what else there is to do does not wait for that.
                self.failed(error)
        new = self._new_scan(source)
        scan = self.state.scan()
        if scan and scan.settings != new.settings:
            # What that pass was to take is not what is to be taken now.
            self.state.end_scan(scan)
            scan = None
        scan = scan or self.state.begin_scan(new)
        if self._segments(source, scan):
            self.state.end_scan(scan)
            if len(self.settings.source_tables) > 1:
                self.state.finish(self.context.clock())
            self.result.finished = not self.result.problems

    def _new_scan(self, source: Source) -> Scan:
        now, chosen = self.context.clock(), self.settings.filter
        settings = {
            "days": self.settings.archive_days,
            "source": source.facts(),
            "filter": chosen and [chosen.expression, chosen.names, encode(chosen.values)],
        }
        cutoff = now - timedelta(days=self.settings.archive_days)
        text = orjson.dumps(settings, option=orjson.OPT_SORT_KEYS).decode()
        return Scan(cutoff, self.settings.segments, text, now, {})

    def sample(self, segment: Mapping[str, Any]) -> None:
        """Look at a page of items of any age for the names of their attributes: see `conditions.unchanged`."""
        with explained(f"could not scan {self.table}"):
            page = self.context.aws.dynamodb.scan(TableName=self.table, **segment)
        self.saw(page["Items"])

    def _segments(self, source: Source, scan: Scan) -> bool:
        """All that are not at their end yet; whether they are now."""
        todo = [n for n in range(scan.segments) if scan.positions.get(n, {}) is not None]
        workers = min(self.context.workers or scan.segments, len(todo) or 1)
        if workers == 1:
            return False not in [self._ended(source, scan, number) for number in todo]
        with ThreadPoolExecutor(workers, "segment") as pool:
            return False not in list(pool.map(lambda number: self._ended(source, scan, number), todo))

    def _ended(self, source: Source, scan: Scan, number: int) -> bool:
        """One segment, and whether it came to its end; what goes wrong ends this one alone."""
        try:
            Segment(self, source, scan, number).run()
        except Stop as reason:
            with self._lock:
                self.result.reason = self.result.reason or str(reason)
            return False
        except ArchiverError as error:
            self.failed(error)
            return False
        return True

    def failed(self, error: ArchiverError) -> None:
        """Note what went wrong; once, if it goes wrong for each segment."""
        with self._lock:
            self.result.stats.errors += 1
            if str(error) in self.result.problems:
                return
            self.result.problems.append(str(error))
        log.error("%s", error, extra={"table": self.table})

    def count(self, **numbers: int) -> None:
        """Add to the statistics, from any thread."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self.result.stats, name, getattr(self.result.stats, name) + number)
        self.context.progressed(self.table, self.result.stats)

    def saw(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Items of the table: which attributes there are."""
        names = Counter(name for item in found for name in item)
        with self._lock:
            self._names.update(names)

    def _guarded(self) -> list[str]:
        """Names that no item may have got, as many as may fit into a condition, the most frequent first."""
        with self._lock:
            return [name for name, _ in self._names.most_common(conditions.MOST_OPERATORS)]

    # ---- when to stop ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Between any two steps. Raises Stop."""
        reason = self.context.out_of_time()
        if reason:
            raise Stop(reason)
        if self.settings.dry_run:
            return
        with self._lock:
            due = self.context.clock() > self._locked_until - LEASE * 2 / 3
            holder = self._renew() if due else None
        if holder:
            raise Stop(f"lock lost to {holder}", ours=False)

    def _renew(self) -> str | None:
        now = self.context.clock()
        holder = self.state.lock(self.owner, now, now + LEASE)
        if not holder:
            self._locked_until = now + LEASE
        return holder

    # ---- an archive object ----------------------------------------------------------------------------------

    def _go_on(self, source: Source, progress: Progress) -> None:
        """With an object that an earlier run began to delete the items of."""
        body = self.store.get_verified(progress.key, progress.digest, progress.size)
        archive = documents.read_archive(progress.key, body)
        if archive.source is None or archive.source.key != source.key:
            raise ArchiverError(
                f"{self.table} has another key than when s3://{self.store.bucket}/{progress.key} was written: its"
                " deletes are not gone on with"
            )
        log.info("going on with an object", extra={"table": self.table, "object": progress.key})
        self.saw(archive.items)
        manifest = archive.manifest(progress.key, progress.digest, progress.size)
        self.delete(source, manifest, archive.manifest_name, archive.items, progress)

    def delete(
        self, source: Source, manifest: Manifest, name: str, archived: tuple[Item, ...], progress: Progress
    ) -> None:
        """The items of a registered object; then its manifest, which is called `name`, is completed."""
        deletes = Deletes(
            self.context.aws.dynamodb,
            self.state,
            source,
            archived,
            progress,
            self.settings.batch_size,
            self._guarded(),
            self.owner,
            self.context.sleep,
        )
        while not deletes.done:
            self.check()
            kept = len(deletes.progress.kept)
            try:
                deleted = deletes.step()
            except OvertakenError:
                found = self.state.progress(progress.key)
                if found is None:
                    self._completed_by_others(name, progress.key)
                    return
                deletes.progress = found
                continue
            self.count(deleted=deleted, kept=len(deletes.progress.kept) - kept)
        done = manifest.completed(deletes.progress.kept)
        self.store.put_verified(name, done.body(), once=False)
        self.state.complete(progress.key)

    def _completed_by_others(self, name: str, key: str) -> None:
        try:
            complete = documents.read_manifest(name, self.store.get(name)).status == "complete"
        except KeyError:
            complete = False
        if not complete:
            raise ArchiverError(
                f"the row of {key} is gone from the state table {self.settings.state_table}, and its manifest is not"
                " complete: which of its items have left is not known (python -m archiver restore --unproven)"
            )

    def archive(
        self, source: Source, scan: Scan, number: int, batch: Batch, position: Mapping[str, Any] | Same | None
    ) -> None:
        """Write, read back, register and delete the items of a batch. Raises ArchiverError, Stop."""
        at, days = self.context.clock(), self.settings.archive_days
        # Of an item's versions each is read after the one before it was deleted, and so has the larger number.
        order = self.state.next_order(at)
        key = documents.archive_key(
            self.settings.archive_prefix, self.table, at, number, order, secrets.token_hex(4)
        )
        name = documents.manifest_key(key, self.settings.archive_prefix, self.settings.manifest_prefix)
        body = documents.write_archive(source, batch.encoded, batch.types, at, scan.cutoff, days, name)
        wanted = documents.Archive(tuple(batch.items), source, age.iso(at), age.iso(scan.cutoff), days, name)
        manifest = wanted.manifest(key, sha256(body), len(body))
        # First of all, so that an object of ours without a manifest is one whose manifest was lost.
        self.store.put_verified(name, manifest.body(), once=True)
        found = documents.read_archive(key, self.store.put_verified(key, body, once=True))
        if found != wanted:
            raise VerificationError(f"s3://{self.store.bucket}/{key} does not say what its items were")
        archived = wanted.items
        # Four times as large as what is needed from here on.
        batch.clear()
        del body, found, wanted
        progress = Progress(key, manifest.digest, manifest.size, 0, {})
        self._register(progress, scan.cutoff, number, position)
        self.count(archived=len(archived), objects=1, bytes=manifest.size)
        log.info(
            "archived",
            extra={"table": self.table, "object": key, "items": len(archived), "bytes": manifest.size},
        )
        self.delete(source, manifest, name, archived, progress)

    def _register(
        self, progress: Progress, cutoff: datetime, number: int, position: Mapping[str, Any] | Same | None
    ) -> None:
        arguments = self.state.register(progress, cutoff, number, position)
        patience = Patience(self.context.sleep)
        while True:
            try:
                with explained(f"could not register {progress.key}"):
                    self.context.aws.dynamodb.transact_write_items(**arguments)
                return
            except ArchiverError as error:
                if self.state.progress(progress.key):
                    return  # its answer was lost
                if code(error.__cause__) != "TransactionCanceledException":
                    raise
                patience.wait(error)


@dataclass
class Batch:
    """Items for one archive object."""

    items: list[Item] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    types: dict[int, Types] = field(default_factory=dict)
    size: int = 0
    """Bytes."""

    def add(self, item: Item) -> None:
        """One more."""
        plain, types = encode(item)
        self.take(item, orjson.dumps(plain), types)

    def take(self, item: Item, encoded: bytes, types: Types | None) -> None:
        """One more, in both of its forms."""
        if types:
            self.types[len(self.items)] = types
        self.items.append(item)
        self.encoded.append(encoded)
        self.size += len(encoded)

    def cut(self, items: int) -> Batch:
        """Take out the first `items`."""
        head, rest = Batch(), Batch()
        for index, (item, encoded) in enumerate(zip(self.items, self.encoded, strict=True)):
            (head if index < items else rest).take(item, encoded, self.types.get(index))
        self.items, self.encoded, self.types, self.size = rest.items, rest.encoded, rest.types, rest.size
        return head

    def clear(self) -> None:
        """Let go of all."""
        self.items, self.encoded, self.types, self.size = [], [], {}, 0


@dataclass
class Segment:
    """A segment of the scan, from where it is to its end."""

    run_: TableRun
    source: Source
    scan: Scan
    number: int

    def run(self) -> None:
        """Page by page. Raises ArchiverError, Stop; a clean stop keeps what was collected."""
        self._batch, self._pages_since, self._behind = Batch(), 0, dict[str, Any]()
        if not self.run_.settings.dry_run:
            self.run_.sample({"Segment": self.number, "TotalSegments": self.scan.segments})
        try:
            for found, scanned, position in self._pages():
                self.run_.count(scanned=scanned)
                self._page(found, position)
                self._behind = position or {}
        except Stop as reason:
            if reason.ours and self._behind and not self.run_.settings.dry_run:
                self._close(self._behind)
            raise

    def _page(self, found: list[Item], position: Mapping[str, Any] | None) -> None:
        """An object is closed at the end of a page, so that the scan can go on behind it; a page may fill several."""
        settings, batch = self.run_.settings, self._batch
        for item in found:
            self._take(item, batch)
        self.run_.saw(found)
        self._pages_since += 1
        if settings.dry_run:
            self.run_.count(archived=len(batch.items), bytes=batch.size)
            batch.clear()
            return
        while len(batch.items) > settings.object_items:
            self.run_.archive(self.source, self.scan, self.number, batch.cut(settings.object_items), Same())
        full = len(batch.items) >= settings.object_items or batch.size >= settings.object_bytes
        # Also where there is little that is old: a run that is killed is not to have scanned for nothing.
        if full or position is None or self._pages_since >= PAGES_BETWEEN_NOTES:
            self._close(position)

    def _close(self, position: Mapping[str, Any] | None) -> None:
        """Archive what was collected, and note that the scan is behind it."""
        batch, self._batch, self._pages_since, self._behind = self._batch, Batch(), 0, {}
        if batch.items:
            self.run_.archive(self.source, self.scan, self.number, batch, position)
        else:
            self.run_.state.advance(self.scan.cutoff, self.number, position)

    def _pages(self) -> Iterator[tuple[list[Item], int, dict[str, Any] | None]]:
        """Items, how many were looked at, and the position behind them: None at the end."""
        position: Any = self.scan.positions.get(self.number) or None
        settings = self.run_.settings
        arguments: dict[str, Any] = scan_arguments(settings, self.source.table, self.scan.cutoff)
        while True:
            self.run_.check()
            start: dict[str, Any] = {"ExclusiveStartKey": position} if position else {}
            with explained(f"could not scan {self.source.table}"):
                page: Any = self.run_.context.aws.dynamodb.scan(
                    **arguments, **start, Segment=self.number, TotalSegments=self.scan.segments
                )
            position = page.get("LastEvaluatedKey")
            yield page["Items"], page["ScannedCount"], position
            if not position:
                return

    def _take(self, item: Item, batch: Batch) -> None:
        table = self.run_
        moment = age.of(item.get(self.source.time_attribute), self.source.time_format)
        if moment is None or moment >= self.scan.cutoff:
            table.count(unreadable=1)
            return
        if conditions.unchanged(item) is None:
            table.count(unsafe=1)
            return
        batch.add(item)


def scan_arguments(settings: Settings, table: str, cutoff: datetime) -> dict[str, Any]:
    """What is asked of DynamoDB's Scan: whole pages, of which it returns what is old and matches the filter."""
    expression = "#eav_time < :eav_cutoff"
    names = {"#eav_time": settings.time_attribute}
    values = {":eav_cutoff": age.condition_value(cutoff, settings.time_format)}
    if settings.filter:
        expression = f"{expression} AND ({settings.filter.expression})"
        names |= settings.filter.names
        values |= settings.filter.values
    return {
        "TableName": table,
        "FilterExpression": expression,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        # A page that is a moment old would only make more conditions fail, at half the price.
        "ConsistentRead": False,
    }
