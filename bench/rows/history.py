"""A partition that holds much already: flushed into, asked while it is active, compacted, and asked again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

from bench.load import LARGEST, MEDIAN
from bench.model import Bar, Figures, Line, Row, Step, at_least, at_most
from bench.rows.flush import UNIT, drain, drain_reference
from bench.server import Connection, one
from bench.sizes import ATTRIBUTES
from bench.timing import median, milliseconds, percentile
from bench.worlds import Flow, History, stage_reference

DAY = timedelta(hours=24)


class FilledRow(Row):
    """A row on the filled partition."""

    world = History

    @property
    def history(self) -> History:
        """The database."""
        return self.within(History)


class FilledLean(FilledRow):
    """The reference spared of its entity index."""

    name = "filled-lean"
    title = "flush into a partition that is full already; the reference without its entity index"
    state = "after a CHECKPOINT, each"
    reference = "reference without entity index, full partition"

    def steps(self) -> Sequence[Step]:
        """Reference, ours, and ours into an empty partition."""
        return (
            lambda: {self.reference: self._reference()},
            lambda: {"ours, full partition": self._ours()},
            lambda: {"ours, empty partition": self._ours_empty()},
        )

    def lines(self) -> Sequence[Line]:
        """For information: the reference cannot answer for an entity like this."""
        return (
            Line(
                f"flush into {self.history.rows:,} rows, the reference without its entity index",
                "ours, full partition",
                UNIT,
                self.reference,
            ),
        )

    def notes(self) -> dict[str, Any]:
        """The size of a flush."""
        return {"rows flushed each time": self.bench.sizes.flushed}

    def _ours(self) -> float:
        rows = self.bench.sizes.flushed
        with self.history.connect() as connection:
            self.history.stage(connection, rows)
            self.bench.checkpoint()
            return rows / drain(self.history, rows)

    def _ours_empty(self) -> float:
        rows = self.bench.sizes.flushed
        with self.history.connect() as connection:
            empty = one(
                connection,
                "SELECT b.partition::text FROM ops.partition_bounds('eav.entity_values_ts') AS b"
                " WHERE b.starts_at = %s",
                self.history.this_month,
            )
            connection.execute(f"TRUNCATE {empty}".encode())
            self.history.stage(connection, rows, self.history.this_month)
            self.bench.checkpoint()
            return rows / drain(self.history, rows)

    def _reference(self) -> float:
        rows = self.bench.sizes.flushed
        with self.history.connect() as connection:
            connection.execute("TRUNCATE reference.entity_values_ingest")
            self.history.stage_reference(connection, rows)
            self.bench.checkpoint()
            return rows / drain_reference(connection, rows)


class Filled(FilledLean):
    """DESIGN: flush into a partition that holds 50 M rows."""

    name = "filled"
    title = "flush into a partition that is full already"
    reference = "reference, full partition"

    def prepare(self) -> None:
        """The reference gets its entity index now."""
        self.history.add_entity_index()

    def lines(self) -> Sequence[Line]:
        """Over ours into an empty one, and over the reference."""
        rows = f"{self.history.rows:,}"
        return (
            Line(
                f"flush into a partition of {rows} rows, over an empty one",
                "ours, full partition",
                UNIT,
                "ours, empty partition",
                bar=at_least(0.75),
            ),
            Line(
                f"flush into a partition of {rows} rows, over the reference",
                "ours, full partition",
                UNIT,
                self.reference,
                bar=at_least(5),
            ),
        )


OURS_DAY = (
    "SELECT entity_id, observed_at, value_number FROM eav.entity_values_ts"
    " WHERE tenant_id = %s AND attribute_id = %s AND observed_at > %s AND observed_at <= %s"
    " ORDER BY observed_at DESC"
)
OURS_LATEST = (
    "SELECT DISTINCT ON (entity_id) entity_id, observed_at, value_number FROM eav.entity_values_ts"
    " WHERE tenant_id = %s AND attribute_id = %s AND observed_at > %s AND observed_at <= %s"
    " AND entity_id IN (SELECT unnest(%s::bigint[])) ORDER BY entity_id, observed_at DESC"
)
REFERENCE_DAY = (
    "SELECT entity_id, value_decimal FROM reference.entity_values_ts"
    " WHERE tenant_id = %s AND attribute_id = %s AND ingested_at > %s AND ingested_at <= %s"
    " ORDER BY ingested_at DESC"
)
REFERENCE_LATEST = (
    "SELECT e.entity_id, t.value_decimal"
    " FROM (SELECT %s::bigint, %s::bigint, %s::timestamptz, %s::timestamptz)"
    "   AS p (tenant_id, attribute_id, starts_at, ends_at)"
    " CROSS JOIN unnest(%s::bigint[]) AS e (entity_id)"
    " CROSS JOIN LATERAL ("
    "   SELECT v.value_decimal FROM reference.entity_values_ts AS v"
    "   WHERE v.entity_id = e.entity_id AND v.tenant_id = p.tenant_id AND v.attribute_id = p.attribute_id"
    "     AND v.ingested_at > p.starts_at AND v.ingested_at <= p.ends_at"
    "   ORDER BY v.ingested_at DESC LIMIT 1) AS t"
)


QUESTIONS: Final[Mapping[str, float | None]] = {
    "24 h of one attribute": 10.0,
    "latest value of 100 entities": 25.0,
    "latest value of 100 entities, within 24 h": None,
}
"""What is asked, and the milliseconds that the bar allows on a compacted partition. Without a window the whole
partition is looked through, which is more than the source document's query asks for."""


class ColdActive(FilledRow):
    """The cold queries before the partition is compacted."""

    name = "cold-active"
    title = "cold queries on an active partition"
    state = "steady, after VACUUM"
    kind = "active"

    def prepare(self) -> None:
        """What autovacuum would have done."""
        self.history.add_entity_index()
        self.history.vacuum()
        self.choose()

    def choose(self) -> None:
        """The hundred entities of each tenant that are asked for."""
        self._entities = {tenant: self.history.entities_of(tenant, 100) for tenant in (LARGEST, MEDIAN)}

    def steps(self) -> Sequence[Step]:
        """Each query of each design, for the largest and the median tenant."""
        return tuple(
            lambda design=design, tenant=tenant: self._ask(design, tenant)
            for tenant in (LARGEST, MEDIAN)
            for design in ("reference", "ours")
        )

    def lines(self) -> Sequence[Line]:
        """By itself in milliseconds, and over the reference."""
        found = []
        for what, bar in QUESTIONS.items():
            for tenant in ("largest", "median"):
                name = f"{what}, {tenant} tenant"
                if tenant == "largest":
                    found.append(
                        Line(
                            f"{name}, p95, {self._partition()}", f"ours, {name}, p95", "ms", bar=self.bar(bar)
                        )
                    )
                found.append(
                    Line(f"{name}, {self._partition()}", f"ours, {name}", "ms", f"reference, {name}")
                )
        return tuple(found)

    def bar(self, limit: float | None) -> Bar | None:
        """None: the bars are for compacted partitions."""
        return None

    def notes(self) -> dict[str, Any]:
        """What is asked."""
        return {
            "ours, 24 h": OURS_DAY,
            "ours, latest": OURS_LATEST,
            "reference, 24 h": REFERENCE_DAY,
            "reference, latest": REFERENCE_LATEST,
            "as": "ours as eav_app under row-level security; the reference without it; both prepared",
        }

    def _partition(self) -> str:
        return f"{self.kind} partition of {self.history.rows:,} rows"

    def _ask(self, design: str, tenant: int) -> Figures:
        which = {LARGEST: "largest", MEDIAN: "median"}[tenant]
        found: dict[str, float] = {}
        with self.history.connect("eav_app" if design == "ours" else None) as connection:
            scope(connection, tenant)
            for what, query in self._queries(design):
                taken = milliseconds(
                    connection,
                    query,
                    partial(self._parameters, tenant, what),
                    self.bench.sizes.queries,
                )
                name = f"{design}, {what}, {which} tenant"
                found |= {name: median(taken), f"{name}, p95": percentile(taken, 0.95)}
        return found

    def _queries(self, design: str) -> tuple[tuple[str, str], ...]:
        day, latest = (OURS_DAY, OURS_LATEST) if design == "ours" else (REFERENCE_DAY, REFERENCE_LATEST)
        return tuple((what, latest if what.startswith("latest") else day) for what in QUESTIONS)

    def _parameters(self, tenant: int, what: str, number: int) -> tuple[Any, ...]:
        """Another attribute each time; up to the end of what was filled in."""
        attribute = (tenant - 1) * ATTRIBUTES + number * 37 % ATTRIBUTES + 1
        until = self.history.filled_to
        since = self.history.month if what == "latest value of 100 entities" else until - DAY
        found: tuple[Any, ...] = (tenant, attribute, since, until)
        return (*found, self._entities[tenant]) if what.startswith("latest") else found


class SizeActive(FilledRow):
    """Bytes a value of the full partition, as it was filled: indexes built in bulk and packed tightly."""

    name = "filled-size"
    title = "bytes a value of a full partition, indexes built in bulk"
    state = "after VACUUM"
    once = True
    kind = "active"

    def prepare(self) -> None:
        """The reference has all of its indexes."""
        self.history.add_entity_index()
        self.history.vacuum()

    def steps(self) -> Sequence[Step]:
        """Sizes on disk."""
        return (self._sizes,)

    def lines(self) -> Sequence[Line]:
        """Over the reference without its entity index, the smaller of its two forms."""
        return (
            Line(
                f"bytes a value of {self.history.rows:,}, active, indexes built in bulk",
                "ours, active",
                "bytes",
                "reference without entity index",
            ),
        )

    def _sizes(self) -> Figures:
        with self.history.connect() as connection:
            ours = sizes(connection, self.history.ours)
            reference = sizes(connection, self.history.reference)
        return {
            f"ours, {self.kind}": ours["total"] / ours["rows"],
            f"ours, {self.kind}, indexes": ours["indexes"] / ours["rows"],
            "reference": reference["total"] / reference["rows"],
            "reference, indexes": reference["indexes"] / reference["rows"],
            "reference without entity index": (reference["total"] - reference["entity"]) / reference["rows"],
        }


class Compaction(FilledRow):
    """What compaction costs; after it the partition is compacted."""

    name = "compact"
    title = "compaction of a closed partition"
    state = "after a CHECKPOINT"
    once = True

    def steps(self) -> Sequence[Step]:
        """`python -m jobs run compact`."""
        return (self._compact,)

    def lines(self) -> Sequence[Line]:
        """For information."""
        return (Line(f"compaction of {self.history.rows:,} rows", "ours, compaction", UNIT),)

    def _compact(self) -> Figures:
        self.bench.checkpoint()
        with self.history.connect() as connection:
            rows = int(one(connection, f"SELECT count(*) FROM {self.history.ours}"))
        start = time.perf_counter()
        self.bench.run(self.history.database, "jobs", "run", "compact")
        seconds = time.perf_counter() - start
        self.history.compacted = True
        self.history.vacuum()
        return {"ours, compaction": rows / seconds}


class ColdCompacted(ColdActive):
    """DESIGN: 24 h of one attribute, and the latest cold value of 100 entities, on a compacted partition."""

    name = "cold"
    title = "cold queries on a compacted partition"
    kind = "compacted"

    def missing(self) -> str | None:
        """It must have been compacted."""
        return None if self.history.compacted else "the partition was not compacted"

    def prepare(self) -> None:
        """The row before left it vacuumed."""
        self.choose()

    def bar(self, limit: float | None) -> Bar | None:
        """At most so many milliseconds."""
        return None if limit is None else at_most(limit)


class SizeCompacted(SizeActive):
    """DESIGN: index bytes of a compacted partition."""

    name = "compacted-size"
    title = "bytes a value and index bytes of a compacted partition"
    kind = "compacted"

    def missing(self) -> str | None:
        """It must have been compacted."""
        return None if self.history.compacted else "the partition was not compacted"

    def lines(self) -> Sequence[Line]:
        """Over the reference in the form that is named."""
        return (
            Line(
                f"bytes a value of {self.history.rows:,}, compacted; the reference's indexes built in bulk",
                "ours, compacted",
                "bytes",
                "reference without entity index",
            ),
            Line(
                f"index bytes of a compacted partition of {self.history.rows:,} rows",
                "ours, compacted, indexes",
                "bytes a value",
                "reference, indexes",
                bar=at_most(1 / 1000),
            ),
        )


class Size(Row):
    """DESIGN: bytes a value, table and indexes, active; compacted."""

    name = "size"
    title = "bytes a value of partitions that each design's own flush has filled"
    state = "after VACUUM"
    world = Flow
    once = True
    MOST = 1_000_000

    @property
    def flow(self) -> Flow:
        """The database."""
        return self.within(Flow)

    @property
    def rows(self) -> int:
        """How many are flushed."""
        return min(self.bench.sizes.staged, self.MOST)

    def steps(self) -> Sequence[Step]:
        """Filled, measured, compacted, measured."""
        return (self._sizes,)

    def lines(self) -> Sequence[Line]:
        """Over the reference without its entity index, the smaller of its two forms."""
        return tuple(
            Line(
                f"bytes a value, table and indexes, {kind}",
                f"ours, {kind}",
                "bytes",
                "reference without entity index",
                bar=at_most(limit),
            )
            for kind, limit in (("active", 0.75), ("compacted", 0.55))
        )

    def notes(self) -> dict[str, Any]:
        """How many."""
        return {"rows flushed": self.rows, "of": "last month, so that ours can be compacted"}

    def clean(self) -> None:
        """The tables are emptied."""
        with self.flow.connect() as connection:
            connection.execute("TRUNCATE eav.entity_values_ts, reference.entity_values_ts")

    def _sizes(self) -> Figures:
        with self.flow.connect() as connection:
            month = one(connection, "SELECT date_trunc('month', now()) - interval '1 month'")
            ours = str(
                one(
                    connection,
                    "SELECT b.partition::text FROM ops.partition_bounds('eav.entity_values_ts') AS b"
                    " WHERE b.starts_at = %s",
                    month,
                )
            )
            reference = f"reference.entity_values_ts_{month:%Y_%m}"
            connection.execute(
                "TRUNCATE eav.entity_values_ts, reference.entity_values_ts, reference.entity_values_ingest"
            )
            begin = month - self.flow.staged * timedelta(milliseconds=1)
            stage_reference(connection, self.flow.staged, self.rows, begin)
            drain_reference(connection, self.rows)
            self.flow.stage(connection, self.rows, begin)
            drain(self.flow, self.rows)
            connection.execute(f"VACUUM ANALYZE {ours}, {reference}".encode())
            of_reference, active = sizes(connection, reference), sizes(connection, ours)
            found = {
                "reference": of_reference["total"] / self.rows,
                "reference without entity index": (of_reference["total"] - of_reference["entity"])
                / self.rows,
                "ours, active": active["total"] / self.rows,
            }
            self.bench.run(self.flow.database, "jobs", "run", "compact")
            connection.execute(f"VACUUM ANALYZE {ours}".encode())
            found["ours, compacted"] = sizes(connection, ours)["total"] / self.rows
        return found


def scope(connection: Connection, tenant: int) -> None:
    """From now on the session is of that tenant."""
    connection.execute("SELECT set_config('app.tenant_id', %s, false)", (str(tenant),))


def sizes(connection: Connection, table: str) -> dict[str, int]:
    """Rows and bytes of one partition: all, its indexes, and the index that has an entity before an attribute."""
    row = connection.execute(
        """
        SELECT
            (SELECT count(*) FROM %(table)s),
            pg_total_relation_size('%(table)s'),
            pg_indexes_size('%(table)s'),
            coalesce((
                SELECT sum(pg_relation_size(i.indexrelid))
                FROM pg_index AS i
                WHERE i.indrelid = '%(table)s'::regclass
                    AND pg_get_indexdef(i.indexrelid) LIKE '%%(tenant_id, entity_id, attribute_id, ingested_at)'
            ), 0)
        """.replace("%(table)s", table)
        .replace("%%", "%")
        .encode()
    ).fetchone()
    assert row is not None
    return dict(zip(("rows", "total", "indexes", "entity"), map(int, row), strict=True))
