"""Rows into the staging slots: one batch is one COPY is one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from psycopg import errors, sql

from jobs import db
from jobs.db import Connection, translated
from jobs.errors import JobsError
from jobs.ingest import binary
from jobs.ingest.parse import Bad, Good, timestamp
from jobs.ingest.source import Gap, Mark, Source

OTHER_CONTENT: Final = "EAV01"
UNKNOWN_FOR: Final = 2.0
"""Seconds until a name that is no attribute is asked for again: the flush may have registered it."""
UNKNOWN_MOST: Final = 100_000

Attribute = binary.Attribute
Attributes = dict[tuple[int, str], Attribute | None]
"""By (tenant_id, name); None is known to be unknown."""

_COLUMNS: Final = sql.SQL(
    "(source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number, value_time,"
    " value_bool, value_text, attribute, reason, raw)"
)
_LOCK: Final = "hashtextextended('ingest:' || %s || ':' || %s, 0)"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def encode(rows: Iterable[Good | Bad], source_id: int, attributes: Attributes) -> bytes:
    r"""Rows in the text format of COPY, in the order of `_COLUMNS`.

    It is built here, by the line: 13 columns a row through psycopg's adapters take longer than parsing did.
    A number goes to value_number, a boolean to value_bool, a text to value_text, or to value_time if the
    attribute is a timestamp and the text is one. A name that is known to be no attribute goes along as a name.
    Raises KeyError for one that was not looked up.
    """
    lines: list[str] = []
    append = lines.append
    for row in rows:
        if type(row) is not tuple:
            assert isinstance(row, Bad)
            append(_encode_bad(row, source_id))
            continue
        offset, tenant_id, entity_id, name, observed_at, kind, text = row
        attribute = attributes[tenant_id, name]
        ids = f"{source_id}\t{offset}\t{tenant_id}\t{entity_id}"
        if attribute is None:
            place, end = "\\N", f"{name.translate(_ESCAPES)}\t\\N\t\\N\n"
        elif kind == "number":
            append(f"{ids}\t{attribute[0]}\t{observed_at}\t{text}\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n")
            continue
        else:
            place, end = str(attribute[0]), "\\N\t\\N\t\\N\n"
        if kind == "number":
            values = f"{text}\t\\N\t\\N\t\\N"
        elif kind == "boolean":
            values = f"\\N\t\\N\t{text}\t\\N"
        elif attribute is not None and attribute[1] == "timestamp" and (time_ := timestamp(text)) is not None:
            values = f"\\N\t{time_}\t\\N\t\\N"
        else:
            values = f"\\N\t\\N\t\\N\t{text.translate(_ESCAPES)}"
        append(f"{ids}\t{place}\t{observed_at}\t{values}\t{end}")
    return "".join(lines).encode()


def _encode_bad(row: Bad, source_id: int) -> str:
    tenant_id = "\\N" if row.tenant_id is None else row.tenant_id
    entity_id = "\\N" if row.entity_id is None else row.entity_id
    note = "\\N" if row.note is None else row.note.translate(_ESCAPES)
    return (
        f"{source_id}\t{row.offset}\t{tenant_id}\t{entity_id}\t\\N\t\\N\t\\N\t\\N\t\\N\t{note}\t\\N"
        f"\t{row.reason}\t\\\\x{row.raw.hex()}\n"
    )


def marks(
    connection: Connection, source: str, partition: str | None = None
) -> dict[str, tuple[int, Mark | None]]:
    """By partition of a source (or of one) its position, and what the source calls it."""
    rows = connection.execute(
        "SELECT partition, staged_through, mark, covered_until, ended FROM eav.ingest_marks(%s, %s)",
        [source, partition],
    ).fetchall()
    return {name: (at, None if mark is None else Mark(mark, *rest)) for name, at, mark, *rest in rows}


def is_free(connection: Connection, source: str, partition: str) -> bool:
    """Whether nobody ingests a partition of a source at this moment."""
    row = connection.execute(
        f"SELECT CASE WHEN pg_try_advisory_lock({_LOCK}) THEN pg_advisory_unlock({_LOCK}) ELSE false END",
        [partition, source] * 2,
    ).fetchone()
    return row == (True,)


class AttributeCache:
    """The ids of attribute names, asked for once; that a name is unknown is believed for a short while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.known: Attributes = {}
        self._clock = clock
        self._unknown: set[tuple[int, str]] = set()
        self._ask_again = 0.0

    def forget(self) -> None:
        """Have everything asked for again."""
        self.known.clear()
        self._unknown.clear()

    def forget_unknown(self) -> None:
        """Have names that were unknown a while ago asked for again: the flush may have registered them."""
        if self._unknown and (self._clock() >= self._ask_again or len(self._unknown) > UNKNOWN_MOST):
            for key in self._unknown:
                del self.known[key]
            self._unknown.clear()

    def missing(self, rows: Iterable[Good | Bad]) -> dict[int, set[str]]:
        """The names of these rows, by tenant, that `look_up` has not been asked for."""
        known = self.known
        names: dict[int, set[str]] = {}
        for row in rows:
            if type(row) is tuple and (row[1], row[3]) not in known:
                names.setdefault(row[1], set()).add(row[3])
        return names

    def look_up(self, connection: Connection, missing: Mapping[int, set[str]]) -> None:
        """Ask the database for these names, one query a tenant."""
        for tenant_id, names in missing.items():
            found = connection.execute(
                "SELECT name, attribute_id, data_type FROM eav.attribute_ids(%s, %s)", [tenant_id, [*names]]
            ).fetchall()
            self.known.update({(tenant_id, name): (number, data_type) for name, number, data_type in found})
            for name in names.difference(name for name, _, _ in found):
                if not self._unknown:
                    self._ask_again = self._clock() + UNKNOWN_FOR
                self._unknown.add((tenant_id, name))
                self.known[tenant_id, name] = None


class Stage:
    """A source (and partition) of values, open for staging on this connection and on no other meanwhile.

    `position` is the last offset that the database has, 0 if none; `mark`, if the source is `marked`, what the
    source calls it, None if it was never marked. Raises SourceBusyError if somebody else ingests the source
    now, JobsError if it was ingested with other content before.
    """

    def __init__(
        self,
        connection: Connection,
        source: str,
        *,
        partition: str = "0",
        durable: bool = False,
        marked: bool = False,
        as_binary: bool = False,
        fingerprint: Callable[[str | None], str | None] = lambda known: known,
        cache: AttributeCache | None = None,
        url: str = "",
    ) -> None:
        self.position = 0
        self.mark: Mark | None = None
        self.source_id = 0
        self._connection = connection
        self._as_binary = as_binary
        self._encode = binary.encode if as_binary else encode
        self._cache = cache or AttributeCache()
        # A crash or a failover can take back what was registered last: the id may be another attribute's now.
        self._cache.forget()
        self._url = url
        with translated(url):
            # Rows of a replayable source do not survive a crash before they are flushed: nothing is gained by
            # waiting for the disk. What is acknowledged to a source that cannot be replayed must be on it.
            connection.execute(f"SET synchronous_commit = {'on' if durable else 'off'}")
            self._locked = [partition, source]
            self._lock(source, partition)
            known = connection.execute(
                "SELECT eav.ingest_fingerprint(%s, %s)", [source, partition]
            ).fetchone()
            assert known is not None
            try:
                row = connection.execute(
                    "SELECT eav.ingest_source(%s, %s, %s, %s)",
                    [source, partition, durable, fingerprint(known[0])],
                ).fetchone()
            except errors.Error as error:
                if error.sqlstate != OTHER_CONTENT:
                    raise
                raise JobsError(
                    f"{source}: ingested before with other content: choose another name with --source"
                ) from None
            assert row is not None
            self.source_id = row[0]
            # In a transaction of its own: an older snapshot would miss rows that a flush moves.
            if marked:
                self.position, self.mark = marks(connection, source, partition)[partition]
                return
            row = connection.execute("SELECT eav.ingest_position(%s, %s)", [source, partition]).fetchone()
            assert row is not None
            self.position = row[0]

    def _lock(self, source: str, partition: str) -> None:
        """Hold the source for the session: two ingesters of one source would stage its lines twice."""
        row = self._connection.execute(
            f"SELECT pg_try_advisory_lock({_LOCK})", [partition, source]
        ).fetchone()
        assert row is not None
        if not row[0]:
            raise SourceBusyError(
                f"{source}: another ingester is at it now: wait for its end, or give --source"
            )

    def release(self) -> None:
        """Let others have the source, for who keeps the connection; it is of no use any more."""
        with translated(self._url):
            self._connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", self._locked)

    def note(self, mark: Mark) -> None:
        """Mark the position that there is, without staging anything."""
        with translated(self._url):
            self._note(self.position, mark)
        self.mark = mark

    def gap(self, gap: Gap) -> None:
        """Record what is missing behind the position, on disk when this returns."""
        with translated(self._url), self._connection.transaction():
            self._connection.execute("SET LOCAL synchronous_commit = on")
            self._connection.execute(
                "SELECT eav.ingest_gap(%s, %s, %s, %s, %s)",
                [self.source_id, self.position, gap.begin, gap.end, gap.why],
            )

    def _note(self, position: int, mark: Mark) -> None:
        self._connection.execute(
            "SELECT eav.ingest_mark(%s, %s, %s, %s, %s)",
            [self.source_id, position, mark.text, mark.covered_until, mark.ended],
        )

    def add(self, rows: Iterable[Sequence[Good | Bad]], mark: Mark | None = None) -> None:
        """Stage rows, all or none; they are in the database when this returns, `position` is the last one.

        `mark` is what the source calls that position: the two become true together.

        They come in pieces, each made when the server already works on the one before. Names not seen before
        cannot be asked for in the middle of a COPY: their pieces wait for a second one in the transaction.
        """
        connection = self._connection
        self._cache.forget_unknown()
        waiting: list[Sequence[Good | Bad]] = []
        last = self.position

        def known() -> Iterator[bytes]:
            nonlocal last
            for piece in rows:
                if piece:
                    last = piece[-1][0] if isinstance(piece[-1], tuple) else piece[-1].offset
                try:
                    yield self._encode(piece, self.source_id, self._cache.known)
                except KeyError:
                    waiting.append(piece)

        with translated(self._url), connection.transaction():
            # Asked for once a batch: the slot that it is in stays until the batch ends.
            row = connection.execute("SELECT eav.ingest_target(%s)", [self.source_id]).fetchone()
            assert row is not None
            self._copy(row[0], known())
            if waiting:
                missing = self._cache.missing(row for piece in waiting for row in piece)
                self._cache.look_up(connection, missing)
                encoded = (self._encode(piece, self.source_id, self._cache.known) for piece in waiting)
                self._copy(row[0], encoded)
            if mark is not None:
                self._note(last, mark)
        self.position = last
        self.mark = mark

    def _copy(self, target: str, pieces: Iterable[bytes]) -> None:
        # The target is a qualified name of ours, quoted where that is needed.
        form = sql.SQL(" (FORMAT binary)" if self._as_binary else "")
        statement = sql.SQL("COPY {} {} FROM STDIN{}").format(sql.SQL(target), _COLUMNS, form)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            if self._as_binary:
                copy.write(binary.HEADER)
            for piece in pieces:
                copy.write(piece)
            if self._as_binary:
                copy.write(binary.TRAILER)


@contextmanager
def open_stage(
    url: str, source: Source, cache: AttributeCache | None = None, *, as_binary: bool = False
) -> Iterator[Stage]:
    """A stage for a source, on a connection of its own that is closed at the end."""
    name = f"eav ingest {source.name} {source.partition}" if source.marked else f"eav ingest {source.name}"
    with db.translated(url), db.connect(url, "eav_ingest", name[:63]) as connection:
        yield Stage(
            connection,
            source.name,
            partition=source.partition,
            durable=not source.replayable,
            marked=source.marked,
            as_binary=as_binary,
            fingerprint=source.fingerprint,
            cache=cache,
            url=url,
        )


class SourceBusyError(JobsError):
    """Somebody else ingests the source now."""
