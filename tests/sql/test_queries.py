"""Every file of sql/queries: its header, its answer under row-level security, the partitions and indexes it reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo, sql

from jobs import db
from jobs.compact import compact
from local import queries
from local.queries import FOLDER, Query, QueryError, Rows
from local.server import Server
from tests.conftest import Connection, Database, database_on
from tests.sql import known as facts
from tests.sql.known import BASE, ENTITIES, OLD, OTHER, TENANT, Known

QUERIES = {query.name: query for query in queries.all_queries()}
OF_A_TENANT = sorted(name for name, query in QUERIES.items() if query.scope == "one tenant")
OF_HISTORY = sorted(name for name, query in QUERIES.items() if "FROM eav.entity_values_ts" in query.text)

# For queries that are run only to see that they run.
SAMPLE: dict[str, object] = {
    "attribute": "temperature",
    "entity_id": 5,
    "at_least": 3,
    "by": "status",
    "until": BASE.isoformat(),
    "filter": '{"status": "online"}',
    "entities": "{1,2,5,8}",
}
SAMPLE_OF = {
    "hot_filter_at_least": {"attribute": "priority"},
    "hot_value_counts": {"attribute": "status"},
    "rejected_by_reason": {"until": "now"},
}


@pytest.fixture(scope="module")
def known(server: Server, admin: Connection, template: str) -> Iterator[Known]:
    """One database for the module: the queries only read."""
    name = f"eav_test_queries_{uuid4().hex[:8]}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    )
    try:
        found = facts.seed(database_on(server, name))
        # Some of the days are compacted, as they would be: every query is asked of both kinds.
        with closing(db.connect(found.database.near, "eav_jobs", "test of queries")) as connection:
            assert compact(connection) > 0
        yield found
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(known: Known) -> Ask:
    """Runs a query as somebody logged in as its role and as nobody else; `until` is BASE where that matters."""

    def run(name: str, *, scope: int = TENANT, **given: object) -> list[dict[str, Any]]:
        query = QUERIES[name]
        if "until" in query.parameters:
            given.setdefault("until", BASE.isoformat())
        if "tenant_id" in query.parameters:
            given.setdefault("tenant_id", scope)
        with as_role(known.database, query, scope) as connection:
            cursor = connection.execute(query.psycopg_text, query.values(**given), prepare=False)
            assert cursor.description is not None
            return Rows(tuple(c.name for c in cursor.description), cursor.fetchall()).dicts()

    return run


def as_role(database: Database, query: Query, scope: int) -> Any:
    """A connection of a login that can be nothing but the query's role, in the scope it names."""
    connection = database.connect(None if query.role == "pg_monitor" else query.role)
    if query.role == "pg_monitor":  # may not log in
        connection.execute("SET ROLE pg_monitor")
    if query.scope == "one tenant":
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(scope)])
    elif query.scope == "all tenants":
        connection.execute("SELECT ops.open_cross_tenant('a test of the queries')")
    return connection


def percentile(numbers: list[Decimal], p: int) -> float:
    """As percentile_cont has it."""
    return quantiles([float(n) for n in numbers], n=100, method="inclusive")[p - 1]


# -- headers ----------------------------------------------------------------------------------------------


def test_a_parameter_has_one_default_everywhere_and_psql_has_it_too() -> None:
    defaults: dict[str, set[str | None]] = {}
    for query in QUERIES.values():
        for name, default in query.parameters.items():
            defaults.setdefault(name, set()).add(default)
    assert {name: found for name, found in defaults.items() if len(found) > 1} == {}
    declared = {name: value for name, (value,) in defaults.items() if value is not None}
    scope = (FOLDER / "scope.psql").read_text()
    in_psql = {
        name: value.strip("'")
        for name, value in re.findall(r"\\if :{\?(\w+)} \\else \\set \1 (.+) \\endif", scope)
    }
    assert in_psql == declared | {"role": "eav_app", "tenant_id": ""}


def test_names_are_unique_and_every_query_is_one_statement() -> None:
    assert len(QUERIES) == len(list(FOLDER.rglob("*.sql")))
    for query in QUERIES.values():
        code = re.sub(r"--.*", "", query.text).strip()
        assert (code.count(";"), code[-1]) == (1, ";"), query.path


def test_no_query_is_for_a_role_that_sees_more_than_its_scope() -> None:
    roles = {
        "one tenant": {"eav_app", "eav_analyst"},
        "all tenants": {"eav_superadmin"},
        "none": {"eav_jobs", "pg_monitor"},
    }
    for query in QUERIES.values():
        assert query.role in roles[query.scope], query.path
        assert (query.path.parent.name == "analytical") == (query.role == "eav_analyst"), query.path
        assert ("tenant_id" in query.parameters) == (query.scope == "one tenant"), query.path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- role: eav_app\n-- scope: none\n-- index: none\nSELECT 1;", "nothing of answers"),
        ("-- answers: x\n-- role: r\n-- scope: mine\n-- index: none\nSELECT 1;", "scope must be one of"),
        ("-- answers: x\n-- role: r\n-- scope: none\n-- index: none\nSELECT :'a';", "same parameters: a"),
        (
            "-- answers: x\n-- role: r\n-- scope: none\n-- index: none\n-- param a: b\nSELECT 1;",
            "same parameters: a",
        ),
        ("-- what is this\nSELECT 1;", "no line of a header"),
    ],
)
def test_a_header_that_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.sql"
    path.write_text(text)
    with pytest.raises(QueryError, match=complaint):
        queries.parse(path)


def test_parameters_that_are_wrong_are_named() -> None:
    with pytest.raises(QueryError, match="needs attribute, tenant_id"):
        QUERIES["attribute_window"].values()
    with pytest.raises(QueryError, match="has no parameter atribute"):
        QUERIES["attribute_window"].values(tenant_id=1, attribute="a", atribute="a")
    with pytest.raises(QueryError, match="no query 'atribute_window'"):
        queries.load("atribute_window")


# -- every file -------------------------------------------------------------------------------------------


def psql_program(server: Server) -> str:
    found = str(server.cluster.binaries.program("psql")) if server.cluster else shutil.which("psql")
    if found is None:
        pytest.skip("no psql on this machine")
    return found


@pytest.mark.parametrize("name", QUERIES)
def test_psql_and_python_run_the_same_query(known: Known, server: Server, name: str) -> None:
    query = QUERIES[name]
    sample = SAMPLE | SAMPLE_OF.get(name, {})
    given = {key: str(value) for key, value in sample.items() if key in query.parameters}
    with known.database.session() as connection:
        expected = queries.run(connection, query, tenant_id=TENANT, why="a test of the queries", **given)
    variables = {"role": query.role, "tenant_id": str(TENANT), **given}
    arguments = [f"--variable={key}={value}" for key, value in variables.items()]
    if query.scope == "all tenants":
        arguments += ["-c", f"SET ROLE {query.role}", "-c", "SELECT ops.open_cross_tenant('a test of psql')"]
    arguments += ["-f", str(FOLDER / "scope.psql"), "-f", str(query.path)]
    parts = conninfo.conninfo_to_dict(known.database.url)
    password = {"PGPASSWORD": str(parts.pop("password"))} if "password" in parts else {}
    done = subprocess.run(
        [psql_program(server), "-XAtq", "-v", "ON_ERROR_STOP=1", conninfo.make_conninfo("", **parts), *arguments],
        env=os.environ | password | {"PGTZ": "UTC"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()[1 if query.scope == "all tenants" else 0 :]
    assert len(lines) == len(expected.rows)
    assert all(line.count("|") >= len(expected.columns) - 1 for line in lines)


@pytest.mark.parametrize("name", OF_A_TENANT)
def test_in_the_scope_of_another_tenant_there_is_nothing(ask: Ask, name: str) -> None:
    sample = SAMPLE | SAMPLE_OF.get(name, {}) | {"until": "now", "window": "30 days"}
    given = {key: value for key, value in sample.items() if key in QUERIES[name].parameters}
    rows = ask(name, scope=TENANT, **given)
    assert rows, "the sample must find something, or this test cannot fail"
    found = ask(name, scope=OTHER, **given | {"tenant_id": TENANT})
    # An aggregate of nothing is a row that says so.
    assert found == [] or (found[0]["count"] == 0 and len(found) == 1)


# -- what is hot ------------------------------------------------------------------------------------------


def hot_of(known: Known, **wanted: object) -> dict[int, facts.Hot]:
    return {
        entity: attrs
        for (tenant, entity), attrs in known.hot.items()
        if tenant == TENANT and wanted.items() <= attrs.items()
    }


def test_hot_filter(known: Known, ask: Ask) -> None:
    expected = hot_of(known, status="online", online=True)
    rows = ask("hot_filter", filter='{"status": "online", "online": true}')
    assert {row["entity_id"]: row["hot_attrs"] for row in rows} == expected
    assert 5 < len(expected) < ENTITIES
    assert all(row["observed_at"] == known.hot_at[TENANT, row["entity_id"]] for row in rows)
    first = ask("hot_filter", filter='{"status": "online"}', rows=3)
    assert [row["entity_id"] for row in first] == sorted(hot_of(known, status="online"))[:3]


def test_hot_filter_takes_ranges(known: Known, ask: Ask) -> None:
    wanted = '{"status": {"in": ["online"]}, "priority": {"gte": 3, "lt": 8}}'
    expected = [e for e, a in hot_of(known, status="online").items() if 3 <= a["priority"] < 8]
    assert [row["entity_id"] for row in ask("hot_filter", filter=wanted)] == sorted(expected)
    assert ask("hot_count", filter=wanted) == [{"count": len(expected)}]
    assert expected


def test_hot_backfill(known: Known, ask: Ask) -> None:
    assert [(r["step"], r["percent_done"]) for r in ask("hot_backfill")] == [("history", Decimal("25.0"))]


def test_hot_filter_at_least(known: Known, ask: Ask) -> None:
    rows = ask("hot_filter_at_least", filter='{"status": "online"}', attribute="priority", at_least=6)
    expected = {e: a for e, a in hot_of(known, status="online").items() if a["priority"] >= 6}
    assert [(row["entity_id"], row["latest"]) for row in rows] == sorted(
        ((e, a["priority"]) for e, a in expected.items()), key=lambda pair: (-pair[1], pair[0])
    )
    assert expected
    # text is not larger than every number
    assert ask("hot_filter_at_least", attribute="status", at_least=0) == []


def test_hot_value_counts(known: Known, ask: Ask) -> None:
    rows = ask("hot_value_counts", attribute="status", filter='{"online": true}')
    assert {row["hot_value"]: row["entities"] for row in rows} == Counter(
        a["status"] for a in hot_of(known, online=True).values()
    )
    rows = ask("hot_value_counts", attribute="priority")
    counts = Counter(a["priority"] for a in hot_of(known).values())
    assert [(row["hot_value"], row["entities"]) for row in rows] == sorted(
        counts.items(), key=lambda pair: (-pair[1], pair[0])
    )


def test_entity_now(known: Known, ask: Ask) -> None:
    rows = ask("entity_now", entity_id=7)
    assert {row["attribute_name"]: row["latest"] for row in rows} == known.hot[TENANT, 7]
    assert {row["observed_at"] for row in rows} == {known.hot_at[TENANT, 7]}


def test_hot_with_cold(known: Known, ask: Ask) -> None:
    last = known.last("note", timedelta(hours=24))
    expected = {e: last[e] for e in hot_of(known, status="online") if e in last}
    rows = ask("hot_with_cold", filter='{"status": "online"}', attribute="note")
    assert {row["entity_id"]: (row["latest"], row["observed_at"]) for row in rows} == {
        e: (v.value, v.observed_at) for e, v in expected.items()
    }
    assert 0 < len(expected) < len(hot_of(known, status="online"))


# -- history ----------------------------------------------------------------------------------------------


def test_latest_values(known: Known, ask: Ask) -> None:
    rows = ask("latest_values", attribute="temperature")
    assert {row["entity_id"]: (row["observed_at"], Decimal(str(row["latest"]))) for row in rows} == {
        e: (v.observed_at, v.value) for e, v in known.last("temperature").items()
    }
    seen = ask("latest_values", attribute="seen", window="10 hours")
    assert {row["entity_id"]: row["latest"] for row in seen} == {
        e: v.value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for e, v in known.last("seen", timedelta(hours=10)).items()
    }


def test_latest_of_entities(known: Known, ask: Ask) -> None:
    rows = ask("latest_of_entities", attribute="note", entities="{1,2,3,4,59,1000}", window="2 days")
    last = known.last("note", timedelta(days=2))
    assert {row["entity_id"]: (row["observed_at"], row["latest"]) for row in rows} == {
        e: (last[e].observed_at, last[e].value) for e in (1, 2, 3, 4, 59) if e in last
    }
    assert len(rows) >= 2


def test_compactions(known: Known, ask: Ask) -> None:
    rows = ask("compactions")
    assert {row["status"] for row in rows} == {"done"}
    assert sum(row["row_count"] for row in rows) == sum(
        rows for (rows,) in known.database.all("SELECT rows FROM ops.compactions")
    )
    assert {(row["late_rows"], row["copied"], row["error"]) for row in rows} == {(0, 1.0, None)}


def test_top_entities(known: Known, ask: Ask) -> None:
    rows = ask("top_entities", attribute="temperature", rows=5)
    last = sorted(known.last("temperature").items(), key=lambda pair: (-pair[1].value, pair[0]))[:5]
    assert [(r["entity_id"], r["latest"], r["hot_attrs"]) for r in rows] == [
        (e, v.value, known.hot[TENANT, e]) for e, v in last
    ]


def test_freshness(known: Known, ask: Ask) -> None:
    (row,) = ask("freshness", attribute="temperature")
    assert row["observed_at"] == max(v.observed_at for v in known.of("temperature"))
    assert row["age"] >= timedelta(0)
    assert ask("freshness", attribute="note", window="30 minutes") == []


def test_attribute_window(known: Known, ask: Ask) -> None:
    rows = ask("attribute_window", attribute="temperature", window="3 hours", rows=10000)
    expected = sorted(known.of("temperature", timedelta(hours=3)), key=lambda v: v.observed_at, reverse=True)
    assert [(r["entity_id"], r["observed_at"], Decimal(str(r["measured"]))) for r in rows] == [
        (v.entity_id, v.observed_at, v.value) for v in expected
    ]
    assert len(ask("attribute_window", attribute="temperature")) == 100


def test_attribute_history(known: Known, ask: Ask) -> None:
    rows = ask("attribute_history", attribute="temperature", step="2 hours", window="1 day")
    steps: dict[datetime, list[Decimal]] = {}
    for v in known.of("temperature"):
        start = v.observed_at.replace(hour=v.observed_at.hour // 2 * 2, minute=0, second=0, microsecond=0)
        steps.setdefault(start, []).append(v.value)
    assert [r["starts_at"] for r in rows] == sorted(steps)
    for row in rows:
        numbers = steps[row["starts_at"]]
        assert (row["count"], row["min"], row["max"]) == (len(numbers), min(numbers), max(numbers))
        assert float(row["avg"]) == pytest.approx(float(mean(numbers)))
        assert row["p95"] == pytest.approx(percentile(numbers, 95))


def test_attribute_distribution(known: Known, ask: Ask) -> None:
    (row,) = ask("attribute_distribution", attribute="temperature", window="2 days")
    numbers = [v.value for v in known.of("temperature", timedelta(days=2))]
    assert (row["count"], row["entities"]) == (len(numbers), ENTITIES)
    assert (row["min"], row["max"]) == (min(numbers), max(numbers))
    assert row["p50"] == pytest.approx(float(median(numbers)))
    for p in (90, 95, 99):
        assert row[f"p{p}"] == pytest.approx(percentile(numbers, p))
    assert float(row["avg"]) == pytest.approx(float(mean(numbers)))
    assert float(row["stddev"]) == pytest.approx(float(stdev(numbers)))


def test_attribute_histogram(known: Known, ask: Ask) -> None:
    rows = ask("attribute_histogram", attribute="temperature", buckets=7)
    numbers = [v.value for v in known.of("temperature")]
    low, width = min(numbers), (max(numbers) - min(numbers)) / 7
    counts = Counter(min(int((n - low) / width), 6) + 1 for n in numbers)
    assert {r["bucket"]: r["count"] for r in rows} == {b: counts[b] for b in range(1, 8)}
    assert float(rows[0]["from_value"]) == float(low)
    assert float(rows[-1]["to_value"]) == pytest.approx(float(max(numbers)))


def test_a_histogram_of_one_value_is_one_bucket_and_of_none_is_none(ask: Ask) -> None:
    rows = ask("attribute_histogram", attribute="temperature", until=OLD.isoformat(), window="1 second")
    assert [(r["bucket"], r["from_value"], r["count"]) for r in rows] == [(1, Decimal(99999), ENTITIES)]
    assert ask("attribute_histogram", attribute="note") == []


def test_attribute_by_hot_value(known: Known, ask: Ask) -> None:
    rows = ask("attribute_by_hot_value", attribute="temperature", by="status")
    groups: dict[str, list[facts.Value]] = {}
    for v in known.of("temperature"):
        groups.setdefault(known.hot[TENANT, v.entity_id]["status"], []).append(v)
    assert {r["hot_value"] for r in rows} == groups.keys() == {"online", "offline"}
    for row in rows:
        group = groups[row["hot_value"]]
        numbers = [v.value for v in group]
        assert (row["count"], row["entities"]) == (len(group), len({v.entity_id for v in group}))
        assert row["p95"] == pytest.approx(percentile(numbers, 95))
        assert row["max"] == max(numbers)


def test_tenant_attributes(known: Known, ask: Ask) -> None:
    rows = ask("tenant_attributes", window="30 hours")
    for row in rows:
        found = known.of(row["attribute_name"], timedelta(hours=30))
        assert (row["count"], row["entities"]) == (len(found), len({v.entity_id for v in found}))
        assert row["first_at"] == min(v.observed_at for v in found)
        assert row["last_at"] == max(v.observed_at for v in found)
    assert [row["attribute_name"] for row in rows] == ["temperature", "note", "seen"]


# -- what was refused, and the platform ---------------------------------------------------------------------


def test_rejected_by_reason(ask: Ask) -> None:
    rows = ask("rejected_by_reason")
    assert [(r["reason"], r["attribute_name"], r["refused"], r["example"]) for r in rows] == [
        ("wrong_type", "temperature", 5, "wrong_type 5"),
        ("out_of_range", "temperature", 3, "out_of_range 3"),
    ]


def test_rejected_everywhere(known: Known, ask: Ask) -> None:
    rows = ask("rejected_everywhere", rows=1000)
    assert {(r["tenant_id"], r["reason"]): r["refused"] for r in rows} == known.rejected
    (malformed,) = (r for r in rows if r["tenant_id"] is None)
    assert malformed["newest"] == r"\377\000{cut"
    assert (
        known.database.one(
            "SELECT count(*) FROM ops.cross_tenant_access WHERE reason = 'a test of the queries'"
        )
        > 0
    )


def test_rejected_everywhere_shows_nothing_without_the_record(known: Known) -> None:
    with known.database.session("eav_superadmin") as connection:
        query = QUERIES["rejected_everywhere"]
        assert connection.execute(query.psycopg_text, query.values()).fetchall() == []


def test_staged(ask: Ask) -> None:
    rows = ask("staged")
    assert [(r["lane"], r["staged"]) for r in rows] == [(0, 3), (1, 0), (2, 7), (3, 0), (4, 0)]
    assert all((r["age"] is None) == (r["staged"] == 0) for r in rows)
    assert all(r["age"] > timedelta(seconds=80) for r in rows if r["staged"])
    assert [r["slot_bytes"] > 0 for r in rows] == [True, False, True, False, False]


def test_checkpoints(ask: Ask) -> None:
    rows = ask("checkpoints")
    assert [(r["source"], r["partition"], r["position"]) for r in rows] == [
        ("telemetry.ndjson", "0", 500), ("feed", "7", 500), ("silent", "0", None),
    ]  # fmt: skip
    assert rows[0]["flushed_at"] == BASE - timedelta(hours=1)
    assert rows[2]["age"] is None


def test_partitions_ahead(known: Known, ask: Ask) -> None:
    rows = {r["parent_table"]: r for r in ask("partitions_ahead")}
    assert rows.keys() == {"eav.entity_values_ts", "eav.entity_values_rejected"}
    values = rows["eav.entity_values_ts"]
    assert values["partitions"] == known.database.one(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'eav.entity_values_ts'::regclass"
    )
    assert values["ahead"] >= timedelta(days=3)
    assert (values["past_retention"], values["last_error"]) == (0, None)


def test_job_runs(ask: Ask) -> None:
    (row,) = ask("job_runs")
    del row["last_started"]
    seconds = row.pop("seconds_p95")
    assert row == {
        "job": "flush", "runs": 21, "running": 0, "failed": 1, "skipped": 1, "rows_moved": 231,
        "last_error": "it broke",
    }  # fmt: skip
    assert seconds == pytest.approx(0.20)
    assert {r["job"] for r in ask("job_runs", window="3 days")} == {"flush", "reconcile"}


def test_sizes(known: Known, ask: Ask) -> None:
    tables = {r["table_name"]: r for r in ask("table_sizes")}
    expected = sum(
        bytes_ for (bytes_,) in known.database.all(
            "SELECT pg_relation_size(relid) FROM pg_partition_tree('eav.entity_values_ts') WHERE isleaf"
        )
    )  # fmt: skip
    assert tables["entity_values_ts"]["table_bytes"] == expected
    assert tables["entity_values_ts"]["estimated_rows"] == known.database.one(
        "SELECT count(*) FROM eav.entity_values_ts"
    )
    assert tables["entity_jsonb"]["partitions"] == 32
    assert not {name for name in tables if re.search(r"_p\d", name)}, (
        "partitions are counted with their table"
    )
    indexes = {r["index_name"]: r for r in ask("index_sizes")}
    kinds = {
        "entity_jsonb_hot_attrs_idx": "gin", "entity_values_ts_observed_at_idx": "brin", "entity_jsonb_pkey": "btree",
    }  # fmt: skip
    assert {name: indexes[name]["kind"] for name in kinds} == kinds
    assert indexes["entity_jsonb_pkey"]["parts"] == 32
    assert sum(r["bytes"] for r in indexes.values() if r["table_name"] == "entity_values_ts") == sum(
        bytes_ for (bytes_,) in known.database.all(
            "SELECT pg_indexes_size(relid) FROM pg_partition_tree('eav.entity_values_ts') WHERE isleaf"
        )
    )  # fmt: skip


def test_replication(known: Known, ask: Ask) -> None:
    name = f"test_{uuid4().hex[:8]}"
    with known.database.session() as connection:
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
        try:
            # Of a transaction whose commit is waited for: what counts is what has been written, not what is to be.
            connection.execute("SET synchronous_commit = on")
            connection.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 5000))")
            (slot,) = (row for row in ask("replication_slots") if row["slot_name"] == name)
            assert (slot["slot_type"], slot["active"]) == ("physical", False)
            assert slot["retained_bytes"] >= 5000
        finally:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
    # No replica is there; that the columns exist is seen with psql above, values in the tests of replication.
    assert ask("replica_lag") == []


# -- partitions and indexes ---------------------------------------------------------------------------------


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(known: Known, name: str, **given: object) -> tuple[set[str], set[str]]:
    """Partitions that are read, and the indexes they are read by, named as those of the whole table."""
    query = QUERIES[name]
    sample = {k: v for k, v in (SAMPLE | SAMPLE_OF.get(name, {})).items() if k in query.parameters}
    values = query.values(
        **{"tenant_id": TENANT} if "tenant_id" in query.parameters else {}, **sample | given
    )
    with as_role(known.database, query, TENANT) as connection:
        row = connection.execute(
            b"EXPLAIN (FORMAT JSON, ANALYZE, TIMING off) " + query.psycopg_text, values
        ).fetchone()
        found = list(nodes(row[0][0]["Plan"]))
    # What was planned but never started was pruned when the query began.
    read = {n["Relation Name"] for n in found if "Relation Name" in n and n["Actual Loops"]}
    used = {n["Index Name"] for n in found if "Index Name" in n and n["Actual Loops"]}
    roots = known.database.all(
        "SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text FROM pg_class AS c WHERE c.relname = ANY(%s)",
        list(used),
    )
    return read, {whole(root) for (root,) in roots}


def whole(name: str) -> str:
    """The name of an index that each partition has for itself, without the partition."""
    return re.sub(r"_p\d+(_\d+)*_", "_", name.removeprefix("eav."))


def partitions(known: Known, parent: str, since: datetime, until: datetime) -> set[str]:
    rows = known.database.all(
        "SELECT partition::text FROM ops.partition_bounds(%s::regclass) WHERE ends_at > %s AND starts_at <= %s",
        parent, since, until,
    )  # fmt: skip
    return {name.removeprefix("eav.") for (name,) in rows}


@pytest.mark.parametrize("name", OF_HISTORY)
@pytest.mark.parametrize("hours", [1, 30])
def test_only_partitions_of_the_window_are_read(known: Known, name: str, hours: int) -> None:
    read, _ = explain(known, name, window=f"{hours} hours")
    expected = partitions(known, "eav.entity_values_ts", BASE - timedelta(hours=hours), BASE)
    found = {n for n in read if n.startswith("entity_values_ts")}
    # Those that look for one value stop when they have it.
    assert found <= expected if name in ("freshness", "hot_with_cold") else found == expected
    assert found
    assert len(expected) <= 3


@pytest.mark.parametrize("name", OF_HISTORY)
@pytest.mark.parametrize("window", ["1000 years", "31 days"])
def test_no_window_reaches_further_back_than_30_days(known: Known, name: str, window: str) -> None:
    read, _ = explain(known, name, window=window)
    assert "entity_values_ts_old" not in read
    assert {n for n in read if n.startswith("entity_values_ts")} <= partitions(
        known, "eav.entity_values_ts", BASE - timedelta(days=30), BASE
    )


@pytest.mark.parametrize(
    "name", sorted(name for name, query in QUERIES.items() if "observed_at" in query.text)
)
def test_history_is_never_read_without_both_ends_of_a_window(name: str) -> None:
    text = QUERIES[name].text
    begins = text.count(
        "v.observed_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')"
    )
    ends = text.count("v.observed_at <= :'until'::timestamptz")
    assert text.count("eav.entity_values_ts") == begins == ends


@pytest.mark.parametrize("end", ["infinity", "-infinity"])
def test_a_window_without_an_end_has_no_rows(ask: Ask, end: str) -> None:
    assert ask("attribute_window", attribute="temperature", until=end) == []


@pytest.mark.parametrize("name", ["rejected_by_reason", "rejected_everywhere"])
def test_only_months_of_the_window_are_read_for_what_was_rejected(known: Known, name: str) -> None:
    read, _ = explain(known, name, window="1 hour", until=BASE.isoformat())
    assert {n for n in read if n.startswith("entity_values_rejected")} == partitions(
        known, "eav.entity_values_rejected", BASE - timedelta(hours=1), BASE
    )


@pytest.mark.parametrize(
    "name", sorted(name for name, query in QUERIES.items() if re.match(r"\w+_(idx|pkey)\b", query.index))
)
def test_the_index_in_the_header_is_used(known: Known, name: str) -> None:
    header = set(re.findall(r"\w+_(?:idx|pkey)\b", QUERIES[name].index))
    expected = re.match(r"\w+", QUERIES[name].index)
    assert expected is not None
    rows = known.database.all("SELECT relname FROM pg_class WHERE relkind IN ('i', 'I')")
    exists = {whole(name) for (name,) in rows}
    assert header <= exists
    _, used = (
        explain(known, name, window="3 hours")
        if "window" in QUERIES[name].parameters
        else explain(known, name)
    )
    assert expected[0] in used


@pytest.mark.parametrize("name", ["attribute_window", "latest_of_entities"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_compacted_partition_is_read_by_its_order(
    new_database: Callable[..., Database], template: str, name: str, prepared: bool
) -> None:
    """As the roles that ask, under row-level security, after as many executions as make a generic plan."""
    database = new_database(template)
    noon = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12)
    with database.session() as connection:
        connection.execute("SELECT eav.tenant_add('t', 1)")
        connection.execute(
            "INSERT INTO eav.attributes (tenant_id, name, data_type) SELECT 1, 'a' || n, 'number'"
            " FROM generate_series(1, 50) AS n"
        )
        connection.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT 1 + n %% 5, n %% 97, a.first + n %% 50, d + n * interval '100 ms', n"
            " FROM generate_series(1, 100000) AS n, (VALUES (%s), (now())) AS w (d),"
            " (SELECT min(attribute_id) AS first FROM eav.attributes) AS a",
            [noon],
        )
        connection.execute("ANALYZE eav.entity_values_ts")
    with closing(db.connect(database.url, "eav_jobs", "test of plans")) as jobs:
        assert compact(jobs) == 100000
    query = QUERIES[name]
    given = {
        "tenant_id": 1,
        "attribute": "a6",
        **({"entities": "{5,55}"} if "entities" in query.parameters else {}),
    }
    for role in ("eav_app", "eav_analyst"):
        for until, index in ((noon + timedelta(hours=12), "sorted_idx"), (datetime.now(UTC), "active_idx")):
            with database.session(role) as connection:
                connection.execute("SET app.tenant_id = '1'")
                values = query.values(**given, until=(until + timedelta(hours=11)).isoformat())
                if prepared:
                    connection.execute("SET plan_cache_mode = force_generic_plan")
                    text = prepare(connection, query, values)
                else:
                    text = b"EXPLAIN " + query.psycopg_text
                plan = "\n".join(
                    line for (line,) in connection.execute(text, None if prepared else values).fetchall()
                )
            assert index in plan, plan
            # Empty days are not worth an index, the one that is asked for is.
            for (day,) in database.all("SELECT DISTINCT tableoid::regclass::name FROM eav.entity_values_ts"):
                assert f"Seq Scan on {day} " not in plan


def prepare(connection: Connection, query: Query, values: dict[str, str]) -> bytes:
    """PREPARE the query with $1, $2 …; the EXPLAIN EXECUTE of it."""
    names = sorted(values)
    text = query.psycopg_text.decode()
    for number, key in enumerate(names, 1):
        text = text.replace(f"%({key})s", f"${number}")
    connection.execute(f"PREPARE asked AS {text}".encode())
    arguments = ", ".join(str(sql.Literal(values[key]).as_string(connection)) for key in names)
    return f"EXPLAIN EXECUTE asked ({arguments})".encode()


def test_run_leaves_the_connection_as_it_was(known: Known) -> None:
    with known.database.session() as connection:
        before = connection.execute("SELECT current_user, current_setting('app.tenant_id', true)").fetchone()
        queries.run(connection, QUERIES["hot_filter"], tenant_id=TENANT)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            queries.run(connection, QUERIES["hot_filter"], tenant_id=TENANT, filter="no JSON")
        after = connection.execute("SELECT current_user, current_setting('app.tenant_id', true)").fetchone()
        assert before is not None
        assert after == (before[0], "")
