"""Whatever is staged, flushed, rejected, replayed, switched and retired in whatever order: a small model knows the end.

Invariants 2, 3 and 4 as properties. Several producers keep transactions open, two flushers do so too; where one
of them would have to wait for another, its attempt is given up, as a timeout would. More examples, others each time:
EAV_EXAMPLES=1000 .venv/bin/python -m pytest tests/sql/test_model.py
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Connection, Database
from tests.sql.staging import NOW, Row, copy, flush, minutes, scalar

EXAMPLES = int(os.environ.get("EAV_EXAMPLES", "15"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + EXAMPLES * 10)]

NOBODY, STRANGER = 99, 7_777_777
"""An entity that is registered late, if at all; a tenant that never is."""
TOO_OLD, IN_FUTURE = -600_000, 3_000
"""Minutes from now."""
PRODUCERS = range(5)
FLUSHERS = range(2)
Then = Literal["commit", "leave open", "roll back"]


@dataclass(frozen=True)
class Item:
    """A staged value. `order` is its producer transaction's."""

    uid: int
    lane: int
    source: int | None
    order: int
    tenant_id: int
    entity: int
    name: str
    attribute_id: int | None
    """None: it was staged by name."""
    at: int
    value: int | str | None


@dataclass
class Attribute:
    """What the catalogue says."""

    attribute_id: int
    data_type: str
    is_hot: bool
    retired: bool = False


@dataclass
class Verdict:
    """What a flush made of an item: stored under an attribute, or rejected with a reason."""

    item: Item
    attribute_id: int | None = None
    name: str = ""
    hot: bool = False
    reason: str | None = None


@dataclass
class Producer:
    """A source and its connection; what it has written in a transaction that is open."""

    connection: Connection
    source: int | None
    lane: int
    pending: list[Item] | None = None


@dataclass
class Flusher:
    """A connection, and what it has flushed in a transaction that is open."""

    connection: Connection
    flushed: list[Verdict] | None = None


Hot = dict[tuple[int, str], tuple[int, Any]]
"""(minute, value) by (entity, attribute)."""


@dataclass
class Model:
    """What must be in the database."""

    attributes: dict[str, Attribute] = field(default_factory=dict)
    entities: set[int] = field(default_factory=lambda: {1, 2, 3})
    staged: list[Item] = field(default_factory=list)
    stored: list[Verdict] = field(default_factory=list)
    rejected: list[Verdict] = field(default_factory=list)
    hot: Hot = field(default_factory=dict)
    """Of `cpu`, which is always hot."""
    set_by_hand: Hot = field(default_factory=dict)
    doubtful: set[tuple[int, str]] = field(default_factory=set)
    """Set by hand before the attribute turned cold: gone or not, that depends on whether it was tidied up."""
    position: Counter[int] = field(default_factory=Counter)
    checkpoint: Counter[int] = field(default_factory=Counter)

    def judge(self, item: Item, tenant_id: int) -> Verdict:
        """What a flush must make of it now."""
        if item.tenant_id != tenant_id:
            return Verdict(item, reason="unknown_tenant")
        found = [
            (name, one)
            for name, one in self.attributes.items()
            if (one.attribute_id == item.attribute_id if item.attribute_id else name == item.name)
        ]
        if not found:
            return Verdict(item, reason="unknown_attribute")
        ((name, attribute),) = found
        reason = None
        if attribute.retired:
            reason = "retired_attribute"
        elif item.value is None:
            reason = "missing_field"
        elif isinstance(item.value, int) != (attribute.data_type == "number"):
            reason = "wrong_type"
        elif isinstance(item.value, int) and item.value > 100:
            reason = "out_of_range"
        elif item.at == TOO_OLD:
            reason = "too_old"
        elif item.at == IN_FUTURE:
            reason = "in_future"
        elif item.entity not in self.entities:
            reason = "unknown_entity"
        if reason:
            return Verdict(item, reason=reason)
        return Verdict(item, attribute.attribute_id, name, attribute.is_hot)

    def settled(self) -> Hot:
        """The hot values once the safety net has gone over the whole history."""
        hot: Hot = {}
        for one in self.stored:
            if self.attributes[one.name].is_hot:
                latest(hot, one.item.entity, one.name, one.item.at, one.item.value)
        for (entity, name), (at, value) in self.set_by_hand.items():
            if self.attributes[name].is_hot:
                latest(hot, entity, name, at, value)
        return hot


def latest(hot: Hot, entity: int, name: str, at: int, value: Any) -> None:
    """The later one wins; of the same moment the greater."""
    hot[entity, name] = max(hot.get((entity, name), (at, value)), (at, value))


ROW = st.fixed_dictionaries(
    {
        "entity": st.sampled_from([1, 2, 3, 3, 2, 1, NOBODY]),
        "name": st.sampled_from(["cpu", "cpu", "cpu", "cpu", "mode", "mode", "flag", "spare", "ghost"]),
        "by_name": st.booleans(),
        "at": st.sampled_from([*range(-9, 1), *range(-9, 1), TOO_OLD, IN_FUTURE]),
        "value": st.sampled_from([*range(4), *range(4), *range(4), "a", "b", 1000, None]),
        "stranger": st.sampled_from([False] * 19 + [True]),
    }
)
REASON = st.sampled_from([None, "unknown_entity", "unknown_attribute", "retired_attribute", "too_old"])
MINUTE, NUMBER = st.integers(-9, 0), st.integers(0, 3)


ROWS = st.lists(ROW, min_size=1, max_size=6)
THEN = st.sampled_from(["commit", "commit", "commit", "leave open", "leave open", "roll back"])
NEW = {
    "mode": ("number", True),
    "flag": ("text", False),
    "spare": ("number", False),
    "ghost": ("number", False),
}
LIMIT = st.sampled_from([1, 2, 5, 50_000, 50_000])
STEPS: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {
    # how often, of a hundred or so, and with what
    "stage": (
        30,
        {"n": st.sampled_from([*PRODUCERS, 3, 4]), "rows": ROWS, "then": THEN, "nested": st.booleans()},
    ),
    "finish_staging": (6, {"n": st.sampled_from(PRODUCERS), "commit": st.booleans()}),
    "flush": (25, {"n": st.sampled_from(FLUSHERS), "limit": LIMIT, "then": THEN}),
    "finish_flush": (6, {"n": st.sampled_from(FLUSHERS), "commit": st.booleans()}),
    "turn_a_slot": (3, {"lane": st.integers(0, 4)}),
    "ask_for_position": (4, {"n": st.integers(0, 3)}),
    "set_by_hand": (
        5,
        {
            "entity": st.integers(1, 3),
            "name": st.sampled_from(["cpu", "mode"]),
            "at": MINUTE,
            "value": NUMBER,
        },
    ),
    "switch_hot": (5, {"name": st.sampled_from(["mode", "flag"])}),
    "switch_volatile": (3, {"name": st.sampled_from(["cpu", "mode", "flag"])}),
    "backfill": (3, {"times": st.integers(1, 3)}),
    "reconcile": (4, {}),
    "retire": (4, {"name": st.sampled_from(["mode", "flag"])}),
    "replay": (5, {"reason": REASON}),
    "define_what_was_unknown": (2, {}),
    "register_who_was_unknown": (1, {}),
    "try_to_drop_an_attribute": (3, {"name": st.sampled_from(["cpu", "spare", "ghost"])}),
    "try_to_delete_values": (1, {}),
}
STEP = st.sampled_from([name for name, (often, _) in STEPS.items() for _ in range(often)]).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(STEPS[name][1]))
)


class Platform(RuleBasedStateMachine):
    """Everything that producers, flushers and administrators do, in any order."""

    numbers = itertools.count(1)
    """Offsets, transactions and names: never the same twice in one database."""

    def __init__(self, database: Database, connections: list[Connection]) -> None:
        super().__init__()
        self.database = database
        self.admin, *others = connections
        self._begin_anew(connections)
        self.model = Model()
        self.number = next(self.numbers)
        self.tenant_id = int(scalar(self.admin, "SELECT eav.tenant_add(%s)", f"tenant {self.number}"))
        self.producers = [self._producer(n, others[n]) for n in PRODUCERS]
        self.flushers = [Flusher(connection) for connection in others[len(PRODUCERS) :]]
        self.dirty = True

    def _begin_anew(self, connections: list[Connection]) -> None:
        """What an example that failed has left open and staged is none of this one's."""
        for connection in connections:
            connection.execute("ROLLBACK")
        slots = ", ".join(f"eav.staging_{lane}_{slot}" for lane in range(5) for slot in range(3))
        if scalar(self.admin, "SELECT EXISTS (SELECT FROM eav.entity_values_ingest)"):
            self.admin.execute(f"TRUNCATE {slots}".encode())
        # Nor does it go over what all the others have left: past the guards, so that a thousand examples stay quick.
        self.admin.execute("SET session_replication_role = replica")
        for table in (
            "entity_values_rejected",
            "entity_jsonb",
            "hot_backfill",
            "entities",
            "attributes",
            "tenants",
        ):
            self.admin.execute(f"DELETE FROM eav.{table}".encode())
        self.admin.execute("RESET session_replication_role")

    def _producer(self, n: int, connection: Connection) -> Producer:
        if n == 4:  # as whoever stages without a source
            return Producer(connection, None, 0)
        source = scalar(
            self.admin, "SELECT eav.ingest_source(%s, '0', %s)", f"source {self.number}.{n}", n == 3
        )
        return Producer(
            connection,
            source,
            scalar(self.admin, "SELECT lane FROM eav.ingest_sources WHERE source_id = %s", source),
        )

    @initialize()
    def define_all(self) -> None:
        self.admin.execute(
            "INSERT INTO eav.entities (tenant_id, entity_id) SELECT %s, generate_series(1, 3)",
            (self.tenant_id,),
        )
        for name, (data_type, is_hot) in {"cpu": ("number", True), **NEW}.items():
            if name != "ghost":
                self._define(name, data_type, is_hot)

    def _define(self, name: str, data_type: str, is_hot: bool) -> None:
        attribute_id = scalar(
            self.admin,
            "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot, validation)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING attribute_id",
            self.tenant_id,
            name,
            data_type,
            is_hot,
            '{"max": 100}' if data_type == "number" else "{}",
        )
        self.model.attributes[name] = Attribute(attribute_id, data_type, is_hot)

    @rule(step=STEP)
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        """One rule for all: left to choose among rules, most examples had none of those that matter."""
        method, arguments = step
        getattr(self, method)(**arguments)

    # ---- producers ----------------------------------------------------------------------------------------

    def stage(self, n: int, rows: list[dict[str, Any]], then: Then, nested: bool) -> None:
        producer = self.producers[n]
        if producer.pending is None:
            producer.connection.execute("BEGIN")
            producer.pending = []
        order = producer.pending[0].order if producer.pending else next(self.numbers)
        items = [self._item(producer, order, **row) for row in rows]
        # A savepoint gives the rows an id of their own; copy() opens one in a transaction in any case.
        for batch in [items[:1], items[1:]] if nested else [items]:
            copy(producer.connection, [self._row(item) for item in batch], producer.source)
        producer.pending += items
        if then != "leave open":
            self.finish_staging(n, then == "commit")

    def _item(
        self, producer: Producer, order: int, *, name: str, by_name: bool, stranger: bool, **row: Any
    ) -> Item:
        known = self.model.attributes.get(name)
        return Item(
            next(self.numbers),
            producer.lane,
            producer.source,
            order,
            STRANGER if stranger else self.tenant_id,
            name=name,
            attribute_id=None if by_name or known is None else known.attribute_id,
            **row,
        )

    def _row(self, item: Item) -> Row:
        return Row(
            item.source,
            item.uid,
            item.tenant_id,
            item.entity,
            item.attribute_id,
            NOW + minutes(item.at),
            value_number=item.value if isinstance(item.value, int) else None,
            value_text=item.value if isinstance(item.value, str) else None,
            attribute=item.name if item.attribute_id is None else None,
        )

    def finish_staging(self, n: int, commit: bool) -> None:
        producer = self.producers[n]
        if producer.pending is None:
            return
        producer.connection.execute("COMMIT" if commit else "ROLLBACK")
        if commit:
            self.model.staged += producer.pending
            if producer.source is not None:
                self.model.position[producer.source] = producer.pending[-1].uid
        producer.pending = None

    def ask_for_position(self, n: int) -> None:
        with self.no_waiting():
            found = scalar(self.admin, "SELECT eav.ingest_position(%s)", f"source {self.number}.{n}")
            source = self.producers[n].source
            assert source is not None
            assert found == self.model.position[source]

    # ---- flushers -----------------------------------------------------------------------------------------

    def flush(self, n: int, limit: int, then: Then) -> None:
        flusher, other = self.flushers[n], self.flushers[1 - n]
        if flusher.flushed is not None:
            return
        connection = flusher.connection
        connection.execute(
            "SELECT setseed(0)"
        )  # lanes are taken at random: the same again when this is run again
        connection.execute("BEGIN")
        try:
            count = flush(connection, limit)
            left = {
                uid
                for (uid,) in connection.execute(
                    "SELECT source_offset FROM eav.entity_values_ingest"
                ).fetchall()
            }
        except psycopg.errors.LockNotAvailable:
            # The other one is at the same entities, or has emptied a slot: this one's turn is over.
            assert other.flushed is not None
            connection.execute("ROLLBACK")
            return
        held = {one.item.uid for one in other.flushed or ()}
        available = [item for item in self.model.staged if item.uid not in held]
        moved = [item for item in available if item.uid not in left]
        assert count == len(moved)
        self._check_what_moved(available, moved, limit)
        if limit == 50_000 and other.flushed is None:
            assert moved == available
        flusher.flushed = [self.model.judge(item, self.tenant_id) for item in moved]
        if then != "leave open":
            self.finish_flush(n, then == "commit")

    def _check_what_moved(self, available: list[Item], moved: list[Item], limit: int) -> None:
        """Of each producer what came first, in whole transactions; no more than asked for, but one of each lane."""
        orders = {item.order for item in moved}
        assert [item for item in available if item.order in orders] == moved
        for producer in self.producers:
            own = [
                item.order
                for item in available
                if (item.source, item.lane) == (producer.source, producer.lane)
            ]
            if producer.source is not None:
                assert sorted(own, key=lambda order: order not in orders) == own
        sizes = Counter((item.lane, item.order) for item in moved)
        spare = sum(
            max(size for (lane, _), size in sizes.items() if lane == one)
            for one in {lane for lane, _ in sizes}
        )
        assert len(moved) <= limit + spare

    def finish_flush(self, n: int, commit: bool) -> None:
        flusher = self.flushers[n]
        if flusher.flushed is None:
            return
        flusher.connection.execute("COMMIT" if commit else "ROLLBACK")
        if commit:
            gone = {one.item.uid for one in flusher.flushed}
            self.model.staged = [item for item in self.model.staged if item.uid not in gone]
            for one in flusher.flushed:
                (self.model.rejected if one.reason else self.model.stored).append(one)
                if one.name == "cpu":
                    latest(self.model.hot, one.item.entity, "cpu", one.item.at, one.item.value)
                if one.item.source is not None:
                    at = self.model.checkpoint[one.item.source]
                    self.model.checkpoint[one.item.source] = max(at, one.item.uid)
            self.dirty = True
        flusher.flushed = None

    def turn_a_slot(self, lane: int) -> None:
        """As when it is full, or after a crash, which lets a sequence skip."""
        self.admin.execute("SELECT nextval(%s::regclass)", (f"eav.staging_turn_{lane}",))

    # ---- administrators -----------------------------------------------------------------------------------

    def replay(self, reason: str | None) -> None:
        taken = [
            one
            for one in self.model.rejected
            if one.item.tenant_id == self.tenant_id and reason in (None, one.reason)
        ]
        assert scalar(self.admin, "SELECT eav.replay_rejected(%s, %s)", self.tenant_id, reason) == len(taken)
        order = next(self.numbers)
        self.model.rejected = [one for one in self.model.rejected if one not in taken]
        self.model.staged += [replace(one.item, lane=0, order=order) for one in taken]
        self.dirty = True

    def retire(self, name: str) -> None:
        attribute = self.model.attributes[name]
        attribute.retired = not attribute.retired
        if attribute.retired:
            self.admin.execute("SELECT eav.retire_attribute(%s)", (attribute.attribute_id,))
        else:
            self.admin.execute(
                "UPDATE eav.attributes SET retired_at = NULL WHERE attribute_id = %s",
                (attribute.attribute_id,),
            )

    def switch_hot(self, name: str) -> None:
        attribute = self.model.attributes[name]
        with self.no_waiting():
            self.admin.execute(
                "UPDATE eav.attributes SET is_hot = NOT is_hot WHERE attribute_id = %s",
                (attribute.attribute_id,),
            )
            attribute.is_hot = not attribute.is_hot
            if not attribute.is_hot:
                self.model.doubtful |= {key for key in self.model.set_by_hand if key[1] == name}

    def switch_volatile(self, name: str) -> None:
        with self.no_waiting():
            self.admin.execute(
                "UPDATE eav.attributes SET is_volatile = NOT is_volatile WHERE attribute_id = %s",
                (self.model.attributes[name].attribute_id,),
            )

    def define_what_was_unknown(self) -> None:
        for name in ("ghost", "spare"):
            if name not in self.model.attributes:
                self._define(name, *NEW[name])

    def register_who_was_unknown(self) -> None:
        self.admin.execute(
            "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (self.tenant_id, NOBODY),
        )
        self.model.entities.add(NOBODY)

    def try_to_drop_an_attribute(self, name: str) -> None:
        """Possible without values only; waits for a flush, which might be storing the first."""
        attribute = self.model.attributes.get(name)
        if attribute is None:
            return
        with self.no_waiting():
            drop = ("DELETE FROM eav.attributes WHERE attribute_id = %s", (attribute.attribute_id,))
            if name == "cpu" and not any(one.name == name for one in self.model.stored):
                return
            if any(one.attribute_id == attribute.attribute_id for one in self.model.stored):
                with pytest.raises(psycopg.errors.RestrictViolation):
                    self.admin.execute(*drop)
            else:
                self.admin.execute(*drop)
                del self.model.attributes[name]

    def try_to_delete_values(self) -> None:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            self.admin.execute("DELETE FROM eav.entity_values_ts WHERE tenant_id = %s", (self.tenant_id,))

    def set_by_hand(self, entity: int, name: str, at: int, value: int) -> None:
        arguments = (self.tenant_id, entity, f'{{"{name}": {value}}}', NOW + timedelta(minutes=at))
        statement = "SELECT eav.upsert_hot_attrs(%s, %s, %s, %s)"
        with self.no_waiting():
            attribute = self.model.attributes[name]
            if attribute.retired or not attribute.is_hot:
                with pytest.raises(psycopg.errors.InvalidParameterValue):
                    self.admin.execute(statement, arguments)
                return
            self.admin.execute(statement, arguments)
            latest(self.model.set_by_hand, entity, name, at, value)
            if self.model.set_by_hand[entity, name] == (at, value):
                self.model.doubtful.discard((entity, name))
            if name == "cpu":
                latest(self.model.hot, entity, name, at, value)
            self.dirty = True

    def reconcile(self) -> None:
        with self.no_waiting():
            self.admin.execute("SELECT eav.reconcile_hot_attrs('-infinity')")
            self.dirty = True
            self._check_hot()

    def backfill(self, times: int) -> None:
        # It waits for a flush under way longer than a test should.
        if any(flusher.flushed is not None for flusher in self.flushers):
            return
        with self.no_waiting():
            for _ in range(times):
                self.admin.execute("SELECT eav.backfill_hot()")
            self.dirty = True

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """What an open flush holds up is not done this time; without one nothing is held up."""
        try:
            yield
        except psycopg.errors.LockNotAvailable:
            if all(flusher.flushed is None for flusher in self.flushers):
                raise

    # ---- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def the_database_is_what_the_model_says(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        assert self._stored() == Counter(
            (one.item.entity, one.attribute_id, one.item.at, one.item.value) for one in self.model.stored
        )
        rejected = self.admin.execute(
            "SELECT source_offset, reason FROM eav.entity_values_rejected"
        ).fetchall()
        assert sorted(rejected) == sorted((one.item.uid, one.reason) for one in self.model.rejected)
        positions = self.admin.execute(
            "SELECT source_id, position FROM eav.ingest_checkpoint WHERE source_id = ANY(%s)",
            ([one.source for one in self.producers if one.source],),
        ).fetchall()
        assert dict(positions) == +self.model.checkpoint
        hot = {key: value for key, value in self._hot().items() if key[1] == "cpu"}
        assert hot == {key: value for key, (_, value) in self.model.hot.items()}

    def _stored(self) -> Counter[tuple[int, int, int, int | str]]:
        return Counter(
            (
                entity,
                attribute_id,
                round((at - NOW) / timedelta(minutes=1)),
                text if number is None else int(number),
            )
            for entity, attribute_id, at, number, text in self.admin.execute(
                "SELECT entity_id, attribute_id, observed_at, value_number, value_text FROM eav.entity_values_ts"
                " WHERE tenant_id = %s",
                (self.tenant_id,),
            ).fetchall()
        )

    def _hot(self) -> dict[tuple[int, str], Any]:
        found = self.admin.execute(
            "SELECT entity_id, to_jsonb(e) -> 'hot_attrs' || coalesce(to_jsonb(e) -> 'hot_volatile', '{}')"
            " FROM eav.entity_jsonb AS e WHERE tenant_id = %s",
            (self.tenant_id,),
        ).fetchall()
        return {(entity, name): value for entity, attrs in found for name, value in attrs.items()}

    def _check_hot(self, *, tidy: bool = False) -> None:
        """After the safety net: the latest of all history, and of what was set by hand."""
        found, expected = self._hot(), self.model.settled()
        unsure = self.model.doubtful
        if not tidy:
            found = {key: value for key, value in found.items() if self.model.attributes[key[1]].is_hot}
        assert {key: v for key, v in found.items() if key not in unsure} == {
            key: value for key, (_, value) in expected.items() if key not in unsure
        }

    def teardown(self) -> None:
        for n in PRODUCERS:
            self.finish_staging(n, True)
        for n in FLUSHERS:
            self.finish_flush(n, n == 0)
        while self.model.staged:
            before = len(self.model.staged)
            self.flush(0, 50_000, "commit")
            assert len(self.model.staged) < before
        self.dirty = True
        self.the_database_is_what_the_model_says()
        for _ in range(2000):
            if not scalar(self.admin, "SELECT count(*) FROM eav.hot_backfill WHERE finished_at IS NULL"):
                break
            self.admin.execute("SELECT eav.backfill_hot()")
        else:
            pytest.fail("the backfill does not end")
        # Without the safety net, which would mend what the backfill leaves; then with it.
        self._check_hot(tidy=True)
        self.admin.execute("SELECT eav.reconcile_hot_attrs('-infinity')")
        self._check_hot(tidy=True)


def run_machine(database: Database, examples: int, *, search: bool = False, first: int | None = None) -> None:
    """The same examples in every run; or others in each (`search`), and what fails is made as short as can be.

    `first` chooses which are the same.
    """
    with ExitStack() as stack:
        connections = [
            stack.enter_context(database.session()) for _ in range(1 + len(PRODUCERS) + len(FLUSHERS))
        ]
        for connection in connections:
            connection.execute("SET lock_timeout = '30ms'")

        class Bound(Platform):
            def __init__(self) -> None:
                super().__init__(database, connections)

        run_state_machine_as_test(
            Bound if first is None else seed(first)(Bound),
            settings=settings(
                max_examples=examples,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[phase for phase in Phase if search or phase is Phase.generate],
                derandomize=not search,
                database=None,
            ),
        )


def test_any_interleaving_ends_as_the_model_says(database: Database) -> None:
    run_machine(database, EXAMPLES, search="EAV_EXAMPLES" in os.environ)


FAULTS = {
    "a marker that forgets who was at work": """
        CREATE FUNCTION public.forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.except_for := '{}';
            RETURN new;
        END $$;
        CREATE TRIGGER forget BEFORE INSERT ON eav.staging_progress
        FOR EACH ROW EXECUTE FUNCTION public.forget();
        CREATE TRIGGER forget BEFORE INSERT ON eav.staging_progress_durable
        FOR EACH ROW EXECUTE FUNCTION public.forget();
    """,
    "a checkpoint that runs ahead": """
        CREATE FUNCTION public.ahead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.position := new.position + 1;
            RETURN new;
        END $$;
        CREATE TRIGGER ahead BEFORE INSERT ON eav.ingest_checkpoint_log
        FOR EACH ROW EXECUTE FUNCTION public.ahead();
    """,
    "the first value wins": """
        CREATE FUNCTION public.first() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.hot_attrs := new.hot_attrs || old.hot_attrs;
            RETURN new;
        END $$;
        CREATE TRIGGER first BEFORE UPDATE ON eav.entity_jsonb FOR EACH ROW EXECUTE FUNCTION public.first();
    """,
    "a rejected value is kept for another reason": """
        CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.reason := replace(new.reason, 'too_old', 'in_future');
            RETURN new;
        END $$;
        CREATE TRIGGER late BEFORE INSERT ON eav.entity_values_rejected
        FOR EACH ROW EXECUTE FUNCTION public.late();
    """,
    "a backfill that leaves the history to the safety net": """
        CREATE FUNCTION public.done() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            new.finished_at := new.tidied_at;
            RETURN new;
        END $$;
        CREATE TRIGGER done BEFORE UPDATE ON eav.hot_backfill FOR EACH ROW EXECUTE FUNCTION public.done();
    """,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_the_model_finds_what_is_wrong(database: Database, fault: str) -> None:
    with database.session() as connection:
        connection.execute(fault.encode())
    # Each is found by any 200 examples; of those that begin here, by the first dozen.
    with pytest.raises((AssertionError, Flaky)):
        run_machine(database, 200, first=3)
