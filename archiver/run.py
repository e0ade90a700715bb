"""A run: scan for old items, archive, prove, delete; stop in time, and go on where an earlier run stopped.

For each archive object, in this order: the object is written; read back and compared with the items; its manifest is
written; it is registered in the state table, together with the position that the scan goes on at; its items are deleted
(see `archiver.deletes`); its manifest says so. Whatever ends in between leaves each item in the table, or in a
verified object, or in both, and the next run knows which.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from botocore.exceptions import ClientError

from archiver import age, conditions, documents
from archiver.aws import Aws, code, explained
from archiver.deletes import Deletes, OvertakenError, jitter
from archiver.documents import Manifest, Source
from archiver.errors import ArchiverError, VerificationError
from archiver.items import Item, Types, encode
from archiver.settings import Settings
from archiver.state import Progress, Scan, State
from archiver.store import Store, sha256

log = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=60)
"""How long a run that was killed keeps others out."""
PAGES_BETWEEN_NOTES: Final = 20
"""Pages without anything old, after which the scan notes where it is."""


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
    sleep: Callable[[float], object] = time.sleep

    @property
    def store(self) -> Store:
        """The archive bucket."""
        return Store(self.aws.s3, self.settings.archive_bucket, self.settings.kms_key_id)

    def out_of_time(self) -> str:
        """Why to stop now, empty if there is no reason."""
        if self.stopped():
            return "stopped"
        return "time limit" if self.time_left() < self.settings.time_reserve else ""


def run(context: Context) -> list[Result]:
    """All source tables, one after the other; a table that fails does not keep the others from their turn."""
    results = []
    for name in context.settings.source_tables:
        table = TableRun(context, name)
        try:
            table.run()
        except ArchiverError as error:
            table.failed(error)
        results.append(table.result)
    return results


def describe(aws: Aws, table: str, settings: Settings) -> Source:
    """The key of a table. Raises ArchiverError."""
    with explained(f"could not describe the table {table}"):
        found = aws.dynamodb.describe_table(TableName=table)["Table"]
    by_kind = {one["KeyType"]: one["AttributeName"] for one in found["KeySchema"]}
    key = tuple(by_kind[kind] for kind in ("HASH", "RANGE") if kind in by_kind)
    return Source(table, key, settings.time_attribute, settings.time_format)


class Stop(Exception):  # noqa: N818  (no error)
    """This pass is to end here, cleanly."""


class TableRun:
    """One run over one table."""

    def __init__(self, context: Context, table: str) -> None:
        self.context = context
        self.settings = context.settings
        self.store = context.store
        self.table = table
        self.state = State(context.aws.dynamodb, self.settings.state_table, table)
        self.result = Result(table, Stats())
        self.owner = f"run {secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._locked_until = datetime.min.replace(tzinfo=UTC)
        self._names: set[str] = set()
        """Every attribute name seen. It only grows."""

    # ---- the whole ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises ArchiverError if it could not even begin."""
        source = describe(self.context.aws, self.table, self.settings)
        if self.settings.dry_run:
            scan = Scan(self._cutoff(), self.settings.segments, {})
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

    def _locked(self, source: Source) -> None:
        for progress in list(self.state.unfinished()):
            try:
                self._go_on(source, progress)
            except Stop as reason:
                self.result.reason = str(reason)
                return
            except ArchiverError as error:
                # Seen to by a person; what else there is to do does not wait for that.
                self.failed(error)
        scan = self.state.scan() or self.state.begin_scan(self._cutoff(), self.settings.segments)
        if self._segments(source, scan):
            self.state.end_scan(scan.cutoff)
            self.result.finished = not self.result.problems

    def _cutoff(self) -> datetime:
        return self.context.clock() - timedelta(days=self.settings.archive_days)

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
        """Note what went wrong."""
        log.error("%s", error, extra={"table": self.table})
        with self._lock:
            self.result.stats.errors += 1
            self.result.problems.append(str(error))

    def count(self, **numbers: int) -> None:
        """Add to the statistics, from any thread."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self.result.stats, name, getattr(self.result.stats, name) + number)
        self.context.progressed(self.table, self.result.stats)

    def saw(self, names: set[str]) -> None:
        """Attribute names of the table."""
        if not names <= self._names:
            # A new set: others may be going over the old one.
            with self._lock:
                self._names = self._names | names

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
            raise Stop(f"lock lost to {holder}")

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
        manifest = archive.manifest(progress.key, progress.digest, progress.size)
        log.info("going on with %s", progress.key, extra={"table": self.table, "next": progress.next})
        self.saw({name for item in archive.items for name in item})
        self.delete(source, manifest, archive.items, progress)

    def delete(
        self, source: Source, manifest: Manifest, archived: tuple[Item, ...], progress: Progress
    ) -> None:
        """The items of a registered object; then its manifest is completed."""
        deletes = Deletes(
            self.context.aws.dynamodb,
            self.state,
            source,
            archived,
            progress,
            self.settings.batch_size,
            self._names,
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
                    return
                deletes.progress = found
                continue
            self.count(deleted=deleted, kept=len(deletes.progress.kept) - kept)
        done = manifest.completed(deletes.progress.kept)
        self.store.put_verified(self._manifest_name(manifest), done.body(), once=False)
        self.state.complete(progress.key)

    def _manifest_name(self, manifest: Manifest) -> str:
        return documents.manifest_key(
            manifest.key, self.settings.archive_prefix, self.settings.manifest_prefix
        )

    def archive(
        self, source: Source, scan: Scan, number: int, batch: Batch, position: Mapping[str, Any] | None
    ) -> None:
        """Write, read back, register and delete the items of a batch. Raises ArchiverError, Stop."""
        at = self.context.clock()
        body = documents.write_archive(
            source, batch.encoded, batch.types, at, scan.cutoff, self.settings.archive_days
        )
        key = documents.archive_key(
            self.settings.archive_prefix, self.table, at, f"{number}-{secrets.token_hex(4)}"
        )
        found = documents.read_archive(key, self.store.put_verified(key, body, once=True))
        if list(found.items) != batch.items:
            raise VerificationError(f"s3://{self.store.bucket}/{key} does not say what its items were")
        manifest = found.manifest(key, sha256(body), len(body))
        self.store.put_verified(self._manifest_name(manifest), manifest.body(), once=True)
        progress = Progress(key, manifest.digest, manifest.size, 0, {})
        self._register(progress, scan.cutoff, number, position)
        self.count(archived=len(batch.items), objects=1, bytes=len(body))
        log.info(
            "archived",
            extra={"table": self.table, "object": key, "items": len(batch.items), "bytes": len(body)},
        )
        self.delete(source, manifest, found.items, progress)

    def _register(
        self, progress: Progress, cutoff: datetime, number: int, position: Mapping[str, Any] | None
    ) -> None:
        for attempt in range(5):
            with explained(f"could not register {progress.key}"):
                try:
                    self.context.aws.dynamodb.transact_write_items(
                        **self.state.register(progress, cutoff, number, position)
                    )
                    return
                except ClientError as error:
                    if code(error) != "TransactionCanceledException":
                        raise
                    reasons = [one.get("Code") for one in error.response.get("CancellationReasons", [])]
                    if self.state.progress(progress.key):
                        return  # its answer was lost
                    if "ConditionalCheckFailed" in reasons:
                        raise Stop("another run has ended this pass") from None
                    if attempt == 4:
                        raise
            self.context.sleep(jitter(attempt))


@dataclass
class Batch:
    """Items for one archive object."""

    items: list[Item] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    types: dict[int, Types] = field(default_factory=dict)
    bytes: int = 0

    def add(self, item: Item) -> None:
        """One more."""
        plain, types = encode(item)
        if types:
            self.types[len(self.items)] = types
        self.items.append(item)
        self.encoded.append(orjson.dumps(plain))
        self.bytes += len(self.encoded[-1])


@dataclass
class Segment:
    """A segment of the scan, from where it is to its end."""

    run_: TableRun
    source: Source
    scan: Scan
    number: int

    def run(self) -> None:
        """Page by page; an object is closed at the end of a page, so that the scan can go on behind it."""
        table, settings = self.run_, self.run_.settings
        batch, empty = Batch(), 0
        if not settings.dry_run:
            self._sample()
        for found, scanned, position in self._pages():
            table.count(scanned=scanned)
            for item in found:
                self._take(item, batch)
            full = len(batch.items) >= settings.object_items or batch.bytes >= settings.object_bytes
            if settings.dry_run:
                table.count(archived=len(batch.items), bytes=batch.bytes)
                batch = Batch()
            elif batch.items and (full or position is None):
                table.archive(self.source, self.scan, self.number, batch, position)
                batch, empty = Batch(), 0
            elif not batch.items:
                empty += 1
                if position is None or empty % PAGES_BETWEEN_NOTES == 0:
                    table.state.advance(self.scan.cutoff, self.number, position)

    def _sample(self) -> None:
        """Look at a page of items of any age for the names of their attributes: see `conditions.unchanged`."""
        with explained(f"could not scan {self.source.table}"):
            page = self.run_.context.aws.dynamodb.scan(
                TableName=self.source.table, Segment=self.number, TotalSegments=self.scan.segments
            )
        self.run_.saw({name for item in page["Items"] for name in item})

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
            log.warning("an item has too many attributes", extra={"table": table.table})
            table.count(unsafe=1)
            return
        table.saw(set(item))
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
