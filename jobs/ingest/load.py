"""Rows into the staging slots: one batch is one COPY is one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from psycopg import errors, sql

from jobs.db import Connection, translated
from jobs.errors import JobsError
from jobs.ingest.parse import Bad, Good, timestamp

OTHER_CONTENT: Final = "EAV01"
UNKNOWN_FOR: Final = 2.0
"""Seconds until a name that is no attribute is asked for again: the flush may have registered it."""
UNKNOWN_MOST: Final = 100_000

Attribute = tuple[int, str]
"""attribute_id, data_type."""
Attributes = dict[tuple[int, str], Attribute | None]
"""By (tenant_id, name); None is known to be unknown."""

_COLUMNS: Final = sql.SQL(
    "(source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number, value_time,"
    " value_bool, value_text, attribute, reason, raw)"
)
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

    `position` is the last offset that the database has, 0 if none. Raises SourceBusyError if somebody else
    ingests the source now, JobsError if it was ingested with other content before.
    """

    def __init__(
        self,
        connection: Connection,
        source: str,
        *,
        partition: str = "0",
        durable: bool = False,
        fingerprint: Callable[[str | None], str | None] = lambda known: known,
        cache: AttributeCache | None = None,
        url: str = "",
    ) -> None:
        self.position = 0
        self.source_id = 0
        self._connection = connection
        self._cache = cache or AttributeCache()
        # A crash or a failover can take back what was registered last: the id may be another attribute's now.
        self._cache.forget()
        self._url = url
        with translated(url):
            # Rows of a replayable source do not survive a crash before they are flushed: nothing is gained by
            # waiting for the disk. What is acknowledged to a source that cannot be replayed must be on it.
            connection.execute(f"SET synchronous_commit = {'on' if durable else 'off'}")
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
            row = connection.execute("SELECT eav.ingest_position(%s, %s)", [source, partition]).fetchone()
            assert row is not None
            self.position = row[0]

    def _lock(self, source: str, partition: str) -> None:
        """Hold the source for the session: two ingesters of one source would stage its lines twice."""
        row = self._connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended('ingest:' || %s || ':' || %s, 0))",
            [partition, source],
        ).fetchone()
        assert row is not None
        if not row[0]:
            raise SourceBusyError(
                f"{source}: another ingester is at it now: wait for its end, or give --source"
            )

    def add(self, rows: Iterable[Sequence[Good | Bad]]) -> None:
        """Stage rows, all or none; they are in the database when this returns, `position` is the last one.

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
                    yield encode(piece, self.source_id, self._cache.known)
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
                self._copy(row[0], (encode(piece, self.source_id, self._cache.known) for piece in waiting))
        self.position = last

    def _copy(self, target: str, pieces: Iterable[bytes]) -> None:
        # The target is a qualified name of ours, quoted where that is needed.
        statement = sql.SQL("COPY {} {} FROM STDIN").format(sql.SQL(target), _COLUMNS)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for piece in pieces:
                copy.write(piece)


class SourceBusyError(JobsError):
    """Somebody else ingests the source now."""
