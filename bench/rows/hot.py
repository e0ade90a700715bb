"""The hot projection: written by events that are each of another entity, and filtered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from bench.load import LARGEST, MEDIAN, TAG_NAMES, VOLATILE_NAMES
from bench.model import Figures, Line, Row, Step, at_least, at_most
from bench.rows.history import scope
from bench.server import Connection, one
from bench.timing import median, milliseconds, percentile
from bench.worlds import LIMIT, Entities
from local.errors import LocalError

EVENTS = "events/s"

# What a flush does with the hot values among its rows, here rows of the load.
OURS: Final = """
    SELECT eav.flush_hot(
        format(
            'SELECT e.tenant_id, e.entity_id, e.attribute_id, e.observed_at, e.value_number, e.value_text,'
            ' NULL::boolean AS value_bool, NULL::timestamptz AS value_time FROM bench.events(%%s, %%s, %%L) AS e',
            %s::bigint, %s::bigint, %s::boolean
        ),
        NULL, NULL, NULL, NULL
    )
"""
REFERENCE: Final = "SELECT reference.upsert_hot_attrs_in_bulk(%s, %s, %s)"
REFERENCE_EACH: Final = """
    SELECT count(reference.upsert_hot_attrs(
        e.tenant_id, e.entity_id,
        jsonb_build_object(e.name, coalesce(to_jsonb(e.value_number), to_jsonb(e.value_text)))
    ))
    FROM bench.events(%s, %s, %s) AS e
"""


class HotRow(Row):
    """A row on the projection."""

    world = Entities

    @property
    def entities(self) -> Entities:
        """The database."""
        return self.within(Entities)


class HotWrite(HotRow):
    """DESIGN: hot projection, every event another entity, newer-only guard on, steady."""

    name = "hot-write"
    title = "hot projection, every event another entity"
    state = "steady: after as many events without a CHECKPOINT; or after a CHECKPOINT, where said"

    def prepare(self) -> None:
        """Every figure once, not counted: what is steady has been written to since the last checkpoint."""
        for step in self.steps():
            step()

    def steps(self) -> Sequence[Step]:
        """A value that changes all the time, then a tag; each design with the same events."""
        volatile, tag = "a changing value", "a tag"
        return (
            lambda: self._pair(volatile, False, REFERENCE, OURS),
            lambda: self._pair(f"{volatile}, after a CHECKPOINT", False, REFERENCE, OURS, checkpoint=True),
            lambda: self._pair(tag, True, REFERENCE, OURS),
            lambda: self._pair(f"{volatile}, a call for each entity", False, REFERENCE_EACH, None),
        )

    def lines(self) -> Sequence[Line]:
        """Over the reference's one statement for a whole batch, which is kinder to it than a call for each."""
        size = f"{self.entities.entities:,} entities"
        return (
            Line(
                f"hot projection, {size}, every event another entity, steady",
                "ours, a changing value",
                EVENTS,
                "reference, a changing value",
                bar=at_least(1.0),
            ),
            Line(
                "the same after a CHECKPOINT",
                "ours, a changing value, after a CHECKPOINT",
                EVENTS,
                "reference, a changing value, after a CHECKPOINT",
            ),
            Line("the same, of a tag", "ours, a tag", EVENTS, "reference, a tag"),
            Line(
                "the same over the reference as described: a call for each entity",
                "ours, a changing value",
                EVENTS,
                "reference, a changing value, a call for each entity",
            ),
        )

    def notes(self) -> dict[str, Any]:
        """What an event is."""
        return {
            "events a step": self.bench.sizes.events,
            "events a call": LIMIT,
            "hot values an entity": len(TAG_NAMES) + len(VOLATILE_NAMES),
            "ours": "eav.flush_hot, as a flush calls it, newer-only",
            "reference": "one upsert a batch, no look at which is newer",
        }

    def clean(self) -> None:
        """What autovacuum would do."""
        with self.entities.connect() as connection:
            connection.execute("VACUUM ANALYZE eav.entity_jsonb, reference.entity_jsonb")

    def _pair(
        self, what: str, tag: bool, reference: str, ours: str | None, checkpoint: bool = False
    ) -> Figures:
        events = self.bench.sizes.events
        first = self.entities.event + 1
        self.entities.event += events
        found = {}
        for design, statement in (("reference", reference), ("ours", ours)):
            if statement is None:
                continue
            with self.entities.connect() as connection:
                # As both designs' flushes have it.
                connection.execute("SET synchronous_commit = off")
                if checkpoint:
                    connection.execute("CHECKPOINT")
                start = time.perf_counter()
                for begin in range(first, first + events, LIMIT):
                    connection.execute(
                        statement.encode(), (begin, min(begin + LIMIT, first + events) - 1, tag)
                    )
                found[f"{design}, {what}"] = events / (time.perf_counter() - start)
        return found


class HotWriteSteady(HotWrite):
    """Its first figure alone, for the curves."""

    def steps(self) -> Sequence[Step]:
        """A value that changes all the time."""
        return (lambda: self._pair("a changing value", False, REFERENCE, OURS),)


OURS_FILTER: Final = (
    "SELECT entity_id, attrs FROM eav.find_entities("
    "%s::jsonb, p_limit => 10000, p_return => '{status, priority}')"
)
OURS_COUNT: Final = "SELECT eav.count_entities(%s::jsonb)"
REFERENCE_FILTER: Final = (
    "SELECT entity_id, hot_attrs ->> 'status', hot_attrs ->> 'priority' FROM reference.entity_jsonb"
    " WHERE tenant_id = %s AND hot_attrs @> %s::jsonb"
)
REFERENCE_COUNT: Final = (
    "SELECT count(*) FROM reference.entity_jsonb WHERE tenant_id = %s AND hot_attrs @> %s::jsonb"
)
WHO: Final = {MEDIAN: "median tenant", LARGEST: "largest tenant"}


class HotRead(HotRow):
    """DESIGN: selective filter, and counting half of a tenant."""

    name = "hot-read"
    title = "filters of hot values; ours as eav_app under row-level security, the reference without it"
    state = "steady, after VACUUM; prepared, from the ninth execution on"

    def prepare(self) -> None:
        """Both must find the same."""
        for tenant in WHO:
            for number in range(3):
                counts = []
                for design, query in (("reference", REFERENCE_COUNT), ("ours", OURS_COUNT)):
                    with self._session(design, tenant) as connection:
                        counts.append(
                            one(connection, query, *self._parameters(design, tenant, selective(number)))
                        )
                if len(set(counts)) != 1:
                    raise LocalError(
                        f"python -m bench: the designs count {counts[0]} and {counts[1]} entities"
                    )

    def steps(self) -> Sequence[Step]:
        """Each question for each tenant, the designs in turn."""
        return tuple(
            lambda design=design, tenant=tenant: self._ask(design, tenant)
            for tenant in WHO
            for design in ("reference", "ours")
        )

    def lines(self) -> Sequence[Line]:
        """As DESIGN has them, the count for the median tenant raised (docs/decisions.md)."""
        size = f"{self.entities.entities:,} entities"
        bars = {MEDIAN: (1 / 50, 1 / 15), LARGEST: (1 / 10, 1 / 3.5)}
        return tuple(
            Line(
                f"{what}, {size}, {who}",
                f"ours, {what}, {who}",
                "ms",
                f"reference, {what}, {who}",
                bar=at_most(bars[tenant][number]),
            )
            for number, what in enumerate(("hot selective filter", "hot count of half"))
            for tenant, who in WHO.items()
        )

    def notes(self) -> dict[str, Any]:
        """What is asked."""
        return {
            "selective filter": selective(0),
            "half": HALF,
            "ours": [OURS_FILTER, OURS_COUNT],
            "reference": [REFERENCE_FILTER, REFERENCE_COUNT],
        }

    def _session(self, design: str, tenant: int) -> Connection:
        connection = self.entities.connect("eav_app" if design == "ours" else None)
        scope(connection, tenant)
        return connection

    def _parameters(self, design: str, tenant: int, wanted: dict[str, Any]) -> tuple[Any, ...]:
        text = json.dumps(wanted)
        return (text,) if design == "ours" else (tenant, text)

    def _asked(
        self, design: str, tenant: int, wanted: Callable[[int], dict[str, Any]], number: int
    ) -> tuple[Any, ...]:
        return self._parameters(design, tenant, wanted(number))

    def _ask(self, design: str, tenant: int) -> Figures:
        found: dict[str, float] = {}
        asked: tuple[tuple[str, str, Callable[[int], dict[str, Any]], int], ...] = (
            (
                "hot selective filter",
                OURS_FILTER if design == "ours" else REFERENCE_FILTER,
                selective,
                self.bench.sizes.queries,
            ),
            # The same question every time: half is half. Each takes long, so that fewer will do.
            (
                "hot count of half",
                OURS_COUNT if design == "ours" else REFERENCE_COUNT,
                lambda _: HALF,
                max(5, self.bench.sizes.queries // 5),
            ),
        )
        with self._session(design, tenant) as connection:
            for what, query, wanted, times in asked:
                taken = milliseconds(
                    connection,
                    query,
                    partial(self._asked, design, tenant, wanted),
                    times,
                )
                name = f"{design}, {what}, {WHO[tenant]}"
                found |= {name: median(taken), f"{name}, p95": percentile(taken, 0.95)}
        return found


HALF: Final = {"status": "online"}


def selective(number: int) -> dict[str, Any]:
    """One entity in 5000."""
    return {"rack": f"rack-{number * 997 % 5000}"}
