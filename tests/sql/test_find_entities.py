"""eav.find_entities against a filter in Python, under row-level security, by index, and with nobody else's rows."""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from local.server import Server, become
from tests.conftest import Connection, Database, database_on
from tests.sql.staging import NOW, Row, Tenant, copy, drain, make_tenant, minutes, scalar

ENTITIES = 40
Values = dict[str, Any]
# name: (type, hot, volatile, what it may be)
KINDS: dict[str, tuple[str, bool, bool, list[Any]]] = {
    "status": ("text", True, False, ["online", "offline", "Ä", 'quote "\\', ""]),
    "floor": ("integer", True, False, [-1, 0, 1, 2, 10]),
    "seen": ("timestamp", True, False, ["2026-11-20T10:00:00Z", "2026-11-20T12:30:00.5+02:00"]),
    "armed": ("boolean", True, False, [True, False]),
    "cpu": ("number", True, True, [0, 8, 8.5, 80, 99.25]),
    "mode": ("text", True, True, ["a", "B", "b"]),
    "load": ("number", False, False, [1, 2, 3.5]),
    "note": ("text", False, False, ["x", "y"]),
}


def python_value(kind: str, value: Any) -> Any:
    """What Python compares: moments for times."""
    return datetime.fromisoformat(value) if kind == "timestamp" else value


class World:
    """A database with one tenant known to Python and one in the way."""

    def __init__(self, database: Database) -> None:
        self.database = database
        dice = random.Random(20261122)
        self.tenant = self.fill(database, "mine", 1)
        self.other = self.fill(database, "theirs", 1000)
        self.values: dict[int, Values] = {}
        with database.session() as connection:
            for tenant, base in ((self.tenant, 0), (self.other, 1000)):
                rows = []
                for entity in range(base + 1, base + ENTITIES + 1):
                    mine: Values = {}
                    for name, (kind, _, _, choice) in KINDS.items():
                        if dice.random() < 0.75:
                            mine[name] = dice.choice(choice)
                            at = NOW - minutes(dice.choice([1, 30, 600, 1200]))
                            rows.append(self.row(tenant, entity, name, kind, mine[name], at))
                            older = self.row(tenant, entity, name, kind, choice[0], at - minutes(5))
                            rows.append(older)
                    if tenant is self.tenant:
                        self.values[entity] = mine
                copy(connection, rows)
            drain(connection)

    @staticmethod
    def fill(database: Database, name: str, base: int) -> Tenant:
        tenant = make_tenant(
            database, name, attributes=tuple((n, k, hot, "{}") for n, (k, hot, _, _) in KINDS.items())
        )
        with database.session() as connection:
            connection.execute("DELETE FROM eav.entities WHERE tenant_id = %s", (tenant.tenant_id,))
            connection.execute(
                "INSERT INTO eav.entities (tenant_id, entity_id) SELECT %s, n"
                " FROM generate_series(%s::bigint, %s) AS n",
                (tenant.tenant_id, base, base + ENTITIES + (0 if base > 1 else -1)),
            )
            for attribute, (_, _, volatile, _) in KINDS.items():
                connection.execute(
                    "UPDATE eav.attributes SET is_volatile = %s WHERE attribute_id = %s",
                    (volatile, tenant.attributes[attribute]),
                )
            while scalar(connection, "SELECT eav.backfill_hot()") is not None:
                pass
        return tenant

    @staticmethod
    def row(tenant: Tenant, entity: int, name: str, kind: str, value: Any, at: datetime) -> Row:
        column = {"text": "value_text", "boolean": "value_bool", "timestamp": "value_time"}.get(
            kind, "value_number"
        )
        cell = {column: python_value(kind, value)}
        return Row(None, None, tenant.tenant_id, entity, tenant.attributes[name], at, attribute=None, **cell)

    def session(self) -> Connection:
        connection = self.database.connect("eav_app")
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (str(self.tenant.tenant_id),))
        return connection

    def expected(self, wanted: dict[str, Any]) -> list[int]:
        return [
            entity
            for entity, mine in sorted(self.values.items())
            if all(fits(name, condition, mine) for name, condition in wanted.items())
        ]


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def fits(name: str, condition: Any, mine: Values) -> bool:
    """The language, in Python."""
    kind = KINDS[name][0]
    if not isinstance(condition, dict):
        condition = {"eq": condition}
    for op, operand in condition.items():
        if op == "exists":
            if (name in mine) != operand:
                return False
            continue
        if name not in mine:
            return False
        value = python_value(kind, mine[name])
        if op == "in":
            if value not in [python_value(kind, one) for one in operand]:
                return False
        elif not COMPARE[op](value, python_value(kind, operand)):
            return False
    return True


def condition(name: str) -> st.SearchStrategy[Any]:
    """A condition that the attribute can have."""
    kind, _, _, choice = KINDS[name]
    value = st.sampled_from(choice)
    operators = ["eq", "ne"] if kind == "boolean" else list(COMPARE)
    ops = st.dictionaries(st.sampled_from(operators), value, min_size=1, max_size=3)
    return st.one_of(
        value,
        ops,
        st.builds(lambda many: {"in": many}, st.lists(value, max_size=3)),
        st.builds(lambda b: {"exists": b}, st.booleans()),
    )


FILTERS = st.lists(st.sampled_from(list(KINDS)), unique=True, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: condition(name) for name in names})
)


@pytest.fixture(scope="module")
def world(server: Server, admin: Connection, template: str) -> Iterator[World]:
    """One database for the module: finding only reads."""
    name = f"eav_test_find_{uuid4().hex[:8]}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    )
    try:
        yield World(database_on(server, name))
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def app(world: World) -> Iterator[Connection]:
    """The application, bound by row-level security, in the scope of the tenant."""
    with world.session() as connection:
        yield connection


def find(connection: Connection, wanted: Any, **named: Any) -> list[tuple[int, Any, Values]]:
    extra = "".join(f", {name} => %({name})s" for name in named)
    return connection.execute(
        f"SELECT * FROM eav.find_entities(%(wanted)s::jsonb{extra})".encode(),
        {"wanted": json.dumps(wanted), **named},
    ).fetchall()


@settings(max_examples=150, deadline=None)
@given(wanted=FILTERS)
def test_it_finds_what_python_finds(world: World, app: Connection, wanted: dict[str, Any]) -> None:
    expected = world.expected(wanted)
    assert [row[0] for row in find(app, wanted)] == expected
    assert scalar(app, "SELECT eav.count_entities(%s::jsonb)", json.dumps(wanted)) == len(expected)


@settings(max_examples=25, deadline=None)
@given(wanted=FILTERS, size=st.integers(1, 15))
def test_pages_are_the_whole(world: World, app: Connection, wanted: dict[str, Any], size: int) -> None:
    seen: list[int] = []
    while page := find(app, wanted, p_after=seen[-1] if seen else None, p_limit=size):
        assert len(page) <= size
        seen += [row[0] for row in page]
    assert seen == world.expected(wanted)


def canonical(name: str, value: Any) -> Any:
    if KINDS[name][0] != "timestamp":
        return value
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize(
    "wanted", [{}, {"status": "online"}, {"armed": True, "floor": 2}, {"floor": {"gte": 0}}]
)
@pytest.mark.parametrize(
    "names", [None, ["cpu", "note", "floor"], ["floor", "cpu"], ["status", "status"], ["seen"], []]
)
def test_it_returns_the_hot_values_or_those_asked_for(
    world: World, app: Connection, wanted: dict[str, Any], names: list[str] | None
) -> None:
    shown = {name for name, kind in KINDS.items() if kind[1]} if names is None else set(names)
    found = find(app, wanted, p_return=names)
    assert [row[0] for row in found] == world.expected(wanted)
    for entity, _, attrs in found:
        mine = {name: canonical(name, value) for name, value in world.values[entity].items()}
        assert attrs == {name: value for name, value in mine.items() if name in shown}


def test_the_window_bounds_what_is_cold(world: World, app: Connection) -> None:
    all_of_it = {row[0] for row in find(app, {"note": {"exists": True}})}
    recent = {row[0] for row in find(app, {"note": {"exists": True}}, p_since=timedelta(hours=1))}
    assert recent < all_of_it
    assert {row[0] for row in find(app, {"note": {"exists": False}}, p_since=timedelta(hours=1))} == set(
        world.values
    ) - recent


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([], "must be a JSON object"),
        ({"nonsense": 1}, "there is no attribute nonsense"),
        ({"status": {"like": "x"}}, '"like" is no operator'),
        ({"status": {}}, "says nothing"),
        ({"status": 1}, "status is of type text, got 1"),
        ({"status": None}, "status is of type text, got null"),
        ({"cpu": {"gte": "80"}}, "cpu is of type number"),
        ({"seen": "yesterday"}, "seen is of type timestamp"),
        ({"armed": {"gt": True}}, "armed is boolean: it has no gt"),
        ({"status": {"in": "x"}}, "in takes an array"),
        ({"status": {"in": ["x", 1]}}, "status is of type text, got 1"),
        ({"status": {"exists": 1}}, "exists is true or false"),
        ({"status": ["online"]}, "status is of type text"),
    ],
)
def test_a_filter_that_is_wrong_is_one_clear_error(app: Connection, wanted: Any, said: str) -> None:
    for question in (find, lambda c, w: c.execute("SELECT eav.count_entities(%s::jsonb)", (json.dumps(w),))):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=said) as caught:
            question(app, wanted)
        assert "\n" not in (caught.value.diag.message_primary or "")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"p_limit": 0}, "p_limit must be 1 to 10000"),
        ({"p_limit": 10001}, "p_limit must be 1 to 10000"),
        ({"p_since": timedelta(days=31)}, "up to 30 days"),
        ({"p_return": ["status", "nonsense"]}, "there is no attribute nonsense"),
    ],
)
def test_a_page_that_is_not_served_is_refused(app: Connection, named: dict[str, Any], said: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        find(app, {}, **named)


def test_without_a_tenant_there_are_no_rows(world: World) -> None:
    with world.database.session("eav_app") as connection:
        assert find(connection, {}) == []
        assert scalar(connection, "SELECT eav.count_entities('{}')") == 0
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (str(world.other.tenant_id),))
        assert min(row[0] for row in find(connection, {})) > ENTITIES


def plans(database: Database, role: str, statement: str, tenant: int = 1) -> str:
    """Every plan of the queries inside, as auto_explain tells it."""
    told: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        told.append(diagnostic.message_primary or "")

    with database.session() as connection:
        connection.execute("LOAD 'auto_explain'")
        connection.execute(
            "SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;"
            " SET auto_explain.log_settings = on"
        )
        connection.execute("SET client_min_messages = log")
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (str(tenant),))
        become(connection, role)
        connection.add_notice_handler(note)
        for _ in range(8):  # a generic plan would come after the fifth
            connection.execute(statement.encode(), prepare=True)
    return "\n".join(told)


@pytest.fixture
def crowded(database: Database) -> Database:
    """A tenant of 20 000 entities, a value that four of them have, and one that half of them have."""
    make_tenant(
        database,
        attributes=(
            ("rack", "text", True, "{}"),
            ("env", "text", True, "{}"),
            ("height", "number", True, "{}"),
            ("load", "number", False, "{}"),
        ),
    )
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.entity_jsonb (tenant_id, entity_id, observed_at, hot_attrs, hot_times)"
            " SELECT 1, n, now(), jsonb_build_object('rack', 'r' || n % 5000, 'env',"
            " CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END),"
            """ '{"rack": 0, "env": 0}' FROM generate_series(1, 20000) AS n"""
        )
        connection.execute("VACUUM ANALYZE eav.entity_jsonb")
    return database


@pytest.mark.parametrize(
    ("role", "arguments"),
    [
        ("eav_app", """'{"rack": "r7"}'"""),
        ("eav_analyst", """'{"rack": "r7"}'"""),
        ("eav_app", """'{"rack": "r7"}', p_after => 7"""),
        ("eav_app", """'{"rack": {"in": ["r7", "r8"]}}'"""),
        ("eav_app", """'{"rack": "r7", "height": {"gte": 0}}'"""),
        ("eav_app", """'{"rack": "r7", "load": {"gte": 0}}'"""),
    ],
)
def test_a_selective_filter_uses_the_gin_index_under_row_level_security(
    crowded: Database, role: str, arguments: str
) -> None:
    told = plans(crowded, role, f"SELECT * FROM eav.find_entities({arguments})")
    # At each of eight executions.
    assert told.count("Bitmap Index Scan on entity_jsonb_p") >= 8
    assert "_hot_attrs_idx" in told
    assert "Seq Scan on entity_jsonb" not in told
    # Beside it the primary key would read all of the tenant.
    assert not any("_hot_attrs_idx" in plan and "_pkey" in plan for plan in told.split("Query Text:"))
    told = plans(crowded, role, """SELECT eav.count_entities('{"rack": "r7"}')""")
    assert "_hot_attrs_idx" in told
    # what the function is there for
    direct = plans(crowded, role, """SELECT FROM eav.entity_jsonb WHERE hot_attrs @> '{"rack": "r7"}'""")
    assert "_hot_attrs_idx" not in direct


def test_a_small_tenant_pays_for_no_other(crowded: Database) -> None:
    with crowded.session() as connection:
        connection.execute(
            "INSERT INTO eav.entity_jsonb (tenant_id, entity_id, observed_at, hot_attrs, hot_times)"
            """ SELECT t, n, now(), '{"env": "b"}', '{"env": 0}'"""
            " FROM generate_series(2, 200) AS t, generate_series(1, 20) AS n"
        )
        small = scalar(
            connection,
            "SELECT max(tenant_id) FROM eav.entity_jsonb WHERE tableoid ="
            " (SELECT tableoid FROM eav.entity_jsonb WHERE tenant_id = 1 LIMIT 1)",
        )
        assert small > 1
        connection.execute("SELECT eav.tenant_add('small', %s)", (small,))
        connection.execute(
            "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot) VALUES (%s, 'env', 'text', true)",
            (small,),
        )
        connection.execute("VACUUM ANALYZE eav.entity_jsonb")
    # Half of the partition has this value; the tenant has 20 rows of it.
    told = plans(crowded, "eav_app", """SELECT * FROM eav.find_entities('{"env": "b"}')""", small)
    assert "_hot_attrs_idx" not in told
    assert "_pkey" in told


def test_a_value_on_the_move_is_shown_from_where_it_is_newer_and_not_once_it_is_cold(
    crowded: Database,
) -> None:
    def shown() -> Any:
        with crowded.session("eav_app") as app:
            app.execute("SELECT set_config('app.tenant_id', '1', false)")
            by_index, in_order = (
                {row[0]: row[2] for row in find(app, wanted, p_limit=10)}[7]
                for wanted in ({"rack": "r7"}, {"rack": {"exists": True}})
            )
            assert by_index == in_order
            return by_index

    with crowded.session() as connection:
        connection.execute("UPDATE eav.attributes SET is_volatile = true WHERE name = 'env'")
        connection.execute(
            """UPDATE eav.entity_jsonb SET hot_volatile = '{"env": "older"}' WHERE entity_id = 7"""
        )
        assert shown() == {"rack": "r7", "env": "b"}
        connection.execute("UPDATE eav.attributes SET is_hot = false WHERE name = 'env'")
        assert shown() == {"rack": "r7"}


def test_history_is_read_by_whatever_index_serves(crowded: Database) -> None:
    with crowded.session() as connection:
        # One in a thousand of the history is a load.
        connection.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT 1, n, CASE WHEN n % 1000 = 0 THEN a.attribute_id ELSE a.attribute_id + 1 + n % 50 END,"
            " now(), 1 FROM generate_series(1, 20000) AS n, eav.attributes AS a WHERE a.name = 'load'"
        )
        connection.execute("VACUUM ANALYZE eav.entity_values_ts")
    for wanted in ('{"env": "a", "load": {"gt": 0}}', '{"load": {"gt": 0}}'):
        told = plans(crowded, "eav_app", f"SELECT * FROM eav.find_entities('{wanted}')")
        history = [plan for plan in told.split("Query Text:") if "eav.entity_values_ts" in plan]
        assert any("active_idx" in plan for plan in history)
        # What keeps the projection to its own indexes is not meant for the history.
        assert not any("enable_" in plan or "cpu_index_tuple_cost" in plan for plan in history)


def test_a_filter_of_half_a_tenant_reads_a_page_in_order(crowded: Database) -> None:
    told = plans(crowded, "eav_app", """SELECT * FROM eav.find_entities('{"env": "a"}', p_limit => 10)""")
    last = told[told.rindex("ORDER BY 1 LIMIT") :]
    assert "_pkey" in last
    with crowded.session("eav_app") as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        assert [row[0] for row in find(connection, {"env": "a"}, p_limit=3)] == [2, 4, 6]
        assert [row[0] for row in find(connection, {"rack": "r7"})] == [7, 5007, 10007, 15007]
