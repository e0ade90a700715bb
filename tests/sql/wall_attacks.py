"""Attacks on the walls: everything there is, read and written in every way there is.

An attack returns what it got hold of, one line each: nothing, as long as the walls stand.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from contextlib import closing
from functools import partial

import psycopg

from jobs import db
from jobs.compact import Compaction, candidates
from tests.conftest import Connection, Database
from tests.sql import archives as made_archives
from tests.sql.wall_checks import CALLS
from tests.sql.walls import SECRET_ENTITY, acting, leaks, outcome, query, relations

LEAK = """
    CREATE FUNCTION pg_temp.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
    AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$;
    CREATE FUNCTION pg_temp.less(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001
    AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN $1 < $2; END $$;
    CREATE OPERATOR pg_temp.<<< (FUNCTION = pg_temp.less, LEFTARG = text, RIGHTARG = text, RESTRICT = scalarltsel)
"""
SETTINGS = {"1": "1", "unset": None, "empty": "", "garbage": "SELECT 2", "two numbers": "1,2"}
READ_ALL = "SELECT * FROM {0}"
READS = (
    "SELECT * FROM {0} AS r WHERE pg_temp.leak(r)",
    "SELECT count(*) FROM {0} AS r WHERE r::text OPERATOR(pg_temp.<<<) 'T'",
    "SELECT * FROM {0} AS r WHERE NOT pg_temp.leak(r) OR true",
    "SELECT count(*) FILTER (WHERE pg_temp.leak(r)) OVER (ORDER BY r::text) FROM {0} AS r",
    "SELECT r.* FROM {0} AS r FULL JOIN generate_series(1, 2) AS g ON pg_temp.leak(r) AND r::text = g::text",
    "SELECT * FROM {0} AS r FOR SHARE",
    "EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS) SELECT * FROM {0} AS r WHERE pg_temp.leak(r)",
    "SELECT query_to_xml('TABLE {0}', true, true, ''), table_to_xml('{0}', true, true, '')",
    "COPY {0} TO STDOUT",
    "COPY (TABLE {0}) TO STDOUT",
    "SELECT * FROM {0} TABLESAMPLE SYSTEM (100)",
)
# About the rows, not from them.
SIDEWAYS = (
    "SELECT * FROM eav.find_entities('{}', p_limit => 10000)",
    'SELECT * FROM eav.find_entities(\'{"temp": {"gte": 0}}\', p_limit => 10000)',
    "SELECT * FROM eav.find_entities('{\"note\": {\"exists\": true}}', p_return => '{temp,note}')",
    "SELECT * FROM pg_stats WHERE schemaname NOT LIKE 'pg\\_%'",
    "SELECT * FROM pg_stats_ext",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_statistic_ext_data",
    "SELECT * FROM pg_prepared_statements",
    "SELECT * FROM pg_cursors",
    "SELECT schema_to_xml('eav', true, true, ''), schema_to_xml('ops', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT pg_get_viewdef(c.oid) FROM pg_class AS c WHERE c.relkind = 'v' AND c.relnamespace = 'eav'::regnamespace",
    "SELECT * FROM pg_logical_slot_peek_changes('none', NULL, NULL)",
    # an equality that the planner looks up among the most common values, and divisors that only tenant 2 makes zero
    "EXPLAIN SELECT * FROM eav.entities WHERE name OPERATOR(pg_temp.<<<) 'T'",
    "EXPLAIN SELECT * FROM eav.entity_values_ts WHERE value_text OPERATOR(pg_temp.<<<) 'T'",
    "EXPLAIN SELECT * FROM eav.attributes WHERE unit OPERATOR(pg_temp.<<<) 'T'",
)
DIVIDE = (
    "SELECT * FROM eav.entity_values_ts WHERE 1 / (value_number - 2222222.5) < 9",
    f"SELECT * FROM eav.entities WHERE 1 / (entity_id - {SECRET_ENTITY}) < 9",
    f"SELECT * FROM eav.entity_jsonb WHERE 1 / (entity_id - {SECRET_ENTITY}) < 9",
    "SELECT * FROM eav.entity_values_ts WHERE value_text::xml IS NULL AND value_text LIKE 'SECRET%'",
)


def attack_reads(connection: Connection, role: str, tenant: str | None, only: str = "") -> list[str]:
    """Every relation there is, read in every way there is, by somebody who is not tenant 2."""
    found = []
    names = relations(connection)
    with acting(connection, role, tenant) as notices:
        query(connection, LEAK)

        def attack(statement: str) -> str:
            notices.clear()
            state, said = outcome(connection, statement)
            if leaks(said) or any(map(leaks, notices)):
                found.append(f"{statement}: {state} {said[:80]} {notices[:1]}")
            elif statement in DIVIDE and state == "22012":
                found.append(f"{statement}: divided by a number of tenant 2's")
            return state

        for name, kind in names:
            if only not in name:
                continue
            if kind == "S":
                attack(f"SELECT last_value FROM {name}")
            # What is denied at all is denied before the first row, whatever the statement does with rows.
            elif attack(READ_ALL.format(name)) != "42501" or readable_in_part(connection, name):
                for read in READS:
                    attack(read.format(name))
        for statement in (*SIDEWAYS, *DIVIDE):
            attack(statement)
    return found


def readable_in_part(connection: Connection, name: str) -> bool:
    """Whether whoever acts may read some column of it."""
    # By its oid: a name in a schema that is closed to the role is an error.
    found = query(
        connection,
        "SELECT has_any_column_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')"
        " FROM pg_class AS c JOIN pg_namespace AS n ON c.relnamespace = n.oid"
        " WHERE format('%%I.%%I', n.nspname, c.relname) = %s",
        name,
    )
    return found == [(True,)]


def attack_rows(connection: Connection, role: str, tenant: str | None) -> list[str]:
    """Rows by their tenant, also those without a marker."""
    found = []
    tables = query(
        connection,
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_attribute AS a ON c.oid = a.attrelid"
        " WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege(%s, c.oid, 'SELECT')",
        role,
    )
    with acting(connection, role, tenant):
        for (table,) in tables:
            state, said = outcome(connection, f"SELECT DISTINCT tenant_id FROM {table}")
            expected = ("ok", "(1,)" if tenant == "1" else "")
            if (state, said) != expected and not (state == "22P02" and tenant not in ("1", "", None)):
                found.append(f"{table}: {role} with tenant {tenant!r} sees {state} {said}")
    return found


WRITES = (
    "DELETE FROM {0}",
    "TRUNCATE {0}",
    "UPDATE {0} SET tenant_id = 2",
    "UPDATE {0} SET tenant_id = 1",
    "INSERT INTO {0} DEFAULT VALUES",
    "INSERT INTO {0} (tenant_id) VALUES (2)",
    "ALTER TABLE {0} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {0} OWNER TO CURRENT_USER",
    "CREATE TRIGGER t BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON INSERT TO {0} DO ALSO NOTHING",
    "CREATE POLICY p ON {0} USING (true)",
    "LOCK TABLE {0} IN ACCESS EXCLUSIVE MODE",
    "COPY {0} FROM PROGRAM 'true'",
)
OTHERS_ROWS = (
    "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (2, 5)",
    "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (2, 'mine', 'text')",
    "INSERT INTO eav.attributes (tenant_id, attribute_id, name, data_type) OVERRIDING SYSTEM VALUE"
    " VALUES (1, {attribute}, 'mine', 'text')",
    "MERGE INTO eav.entities AS e USING (VALUES (2)) AS n (t) ON e.tenant_id = n.t AND e.entity_id = 5"
    " WHEN NOT MATCHED THEN INSERT (tenant_id, entity_id) VALUES (n.t, 5)",
    "SELECT eav.retire_attribute({attribute})",
    "SET LOCAL row_security = off; SELECT * FROM eav.entities",
    "SET LOCAL ROLE eav_owner",
    "SELECT partman.run_maintenance()",
    "CREATE TABLE eav.mine (a int)",
    "CREATE TABLE public.mine (a int)",
    "ALTER SYSTEM SET row_security = off",
    "ALTER FUNCTION eav.current_tenant() RENAME TO mine",
    "CREATE PUBLICATION mine FOR ALL TABLES",
)
# All of them in one call: each is undone, whether it is refused or not.
TRY = """
    CREATE FUNCTION pg_temp.try(statements text[]) RETURNS TABLE (statement text, state text, said text)
    LANGUAGE plpgsql AS $$
    DECLARE
        detail text; hint text; context text; affected bigint;
    BEGIN
        FOREACH statement IN ARRAY statements LOOP
            BEGIN
                EXECUTE statement;
                GET DIAGNOSTICS affected = ROW_COUNT;
                RAISE SQLSTATE 'DONE0' USING MESSAGE = affected || ' rows';
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT,
                    detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
                IF state = 'DONE0' THEN state := 'ok';
                ELSE said := concat_ws(' | ', said, detail, hint, replace(context, statement, ''));
                END IF;
                RETURN NEXT;
            END;
        END LOOP;
    END $$
"""
NO_ROWS = (
    "UPDATE eav.entities SET name = 'mine' WHERE tenant_id = 2 RETURNING *",
    "UPDATE eav.attributes SET unit = 'mine' WHERE tenant_id = 2 RETURNING *",
    "UPDATE eav.attributes SET unit = 'mine' WHERE attribute_id = {attribute} RETURNING *",
    "UPDATE eav.entities AS e SET name = 'mine' FROM eav.entities AS o WHERE o.tenant_id = 2 RETURNING o.*",
)
# Pairs that differ in whether tenant 2 has such a row: what they say must not.
ORACLES = (
    "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (2, {entity})",
    "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (2, {entity}) ON CONFLICT DO NOTHING",
    "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (2, {entity})"
    " ON CONFLICT (tenant_id, entity_id) DO UPDATE SET name = 'mine'",
    "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (2, '{name}', 'number')",
    "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (2, '{name}', 'number') ON CONFLICT DO NOTHING",
    "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, '{name}', 'number')",
    "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (1, {entity})",
    "SELECT * FROM eav.find_entities(jsonb_build_object('{name}', 2222222.5))",
    "SELECT * FROM eav.find_entities(jsonb_build_object('temp', 1.5), p_return => ARRAY['{name}'])",
    "SELECT eav.count_entities(jsonb_build_object('{name}', 2222222.5))",
    "SELECT * FROM eav.find_entities(jsonb_build_object('temp', 2222222.5), p_after => {entity} - 1)",
    "SELECT eav.retire_attribute({attribute})",
    "UPDATE eav.attributes SET retired_at = now() WHERE attribute_id = {attribute}",
)


def others_attribute(connection: Connection) -> int:
    """An attribute_id of tenant 2."""
    ((attribute,),) = query(
        connection, "SELECT coalesce(min(attribute_id), 0) FROM eav.attributes WHERE tenant_id = 2"
    )
    return int(attribute)


def attack_writes(connection: Connection, role: str) -> list[str]:
    """As tenant 1, change what is tenant 2's, or the walls themselves."""
    found = []
    attribute = others_attribute(connection)
    names = [name for name, kind in relations(connection) if kind != "S"]
    statements = [write.format(name) for name in names for write in WRITES]
    refused = [*statements, *(text.format(attribute=attribute) for text in OTHERS_ROWS)]
    no_rows = [text.format(attribute=attribute) for text in NO_ROWS]
    with acting(connection, role, "1"):
        query(connection, TRY)
        answers = query(connection, "SELECT * FROM pg_temp.try(%s)", [*refused, *no_rows])
    for statement, state, said in answers:
        slot = role == "eav_ingest" and statement.startswith("INSERT INTO eav.staging_")
        if leaks(said) or (state == "ok" and (said != "0 rows" or statement in refused) and not slot):
            found.append(f"{role}: {statement}: {state} {said[:120]}")
    return found


def attack_oracles(connection: Connection, role: str) -> list[str]:
    """As tenant 1, learn from an error whether tenant 2 has something."""
    found = []
    there = {"entity": SECRET_ENTITY, "name": "SECRET-temp", "attribute": others_attribute(connection)}
    missing = {"entity": 3333333001, "name": "PUBLIC-temp", "attribute": 987654321}
    for text in ORACLES:
        answers = []
        for values in (there, missing):
            with acting(connection, role, "1") as notices:
                state, said = outcome(connection, text.format(**values))
                for key, value in values.items():
                    if f"{{{key}}}" in text:  # a small id is part of many a number
                        said = said.replace(str(value), "…")
                answers.append((state, said, list(notices)))
        if answers[0] != answers[1]:
            found.append(f"{role}: {text}: {answers[0]} against {answers[1]}")
    return found


# What a caller puts in the way of names. Each shouts when it runs with rights that are not the caller's.
SHOUT = """
    CREATE FUNCTION pg_temp.shout(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql COST 0.0000001 AS $$
    BEGIN
        IF current_user <> session_user THEN RAISE NOTICE 'SHOUT % as %', $1, current_user; END IF;
        RETURN true;
    END $$;
    CREATE FUNCTION pg_temp.same(pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE sql
    AS $$ SELECT pg_temp.shout('=') $$;
    CREATE OPERATOR pg_temp.= (FUNCTION = pg_temp.same, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text)
"""
SHADOWED_TYPES = (
    *("text", "name", "int8", "int4", "bool", "numeric", "jsonb", "timestamptz", "interval", "xid8", "oid"),
    *("regclass", "bytea", "record"),
)
SHADOWED_CATALOGUE = (
    *("pg_class", "pg_inherits", "pg_stat_activity", "pg_locks", "pg_database", "pg_roles", "pg_extension"),
    *("pg_namespace", "pg_partitioned_table", "pg_tables", "pg_type", "pg_settings", "pg_constraint"),
)


def plant(own: Iterable[str]) -> str:
    """SQL that puts another thing into pg_temp for every name that a function may mean."""
    return ";".join(
        [
            SHOUT,
            *(
                f"CREATE TEMP VIEW {name} AS SELECT * FROM pg_catalog.{name} WHERE pg_temp.shout('{name}')"
                for name in SHADOWED_CATALOGUE
            ),
            *(f"CREATE TEMP VIEW \"{name}\" AS SELECT pg_temp.shout('{name}')" for name in own),
            *(
                f"CREATE FUNCTION pg_temp.{name}() RETURNS pg_catalog.bool LANGUAGE sql"
                f" AS $$ SELECT pg_temp.shout('{name}') $$"
                for name in ("now", "clock_timestamp", "pg_backend_pid")
            ),
            *(
                f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{'text' if name == 'record' else name}"
                f" CHECK (pg_temp.shout('{name}'))"
                for name in SHADOWED_TYPES
            ),
        ]
    )


def note(heard: list[str], notice: psycopg.errors.Diagnostic) -> None:
    """Keep what a notice says."""
    heard.append(notice.message_primary or "")


def compactions(database: Database) -> dict[str, object]:
    """A closed partition that is due, and the ids of compactions that have come as far as their names say."""
    steps = (
        ("opened", ()),
        ("copied", (Compaction.copy,)),
        ("verified", (Compaction.copy, Compaction.verify)),
        ("stale", (Compaction.copy,)),
        ("due", ()),
    )
    found: dict[str, object] = {}
    with database.session() as connection:
        query(
            connection,
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT 1, 1, 1, now() - n * interval '1 day', 1 FROM generate_series(2, 6) AS n",
        )
    for name, taken in steps:
        with closing(db.connect(database.near, "eav_jobs", "walls")) as connection:
            candidate = next(one for one in candidates(connection) if one.why == "it is closed")
            if name == "due":
                found[name] = candidate.partition
                continue
            compaction = Compaction(connection, candidate)
            assert compaction.open()
            for step in taken:
                step(compaction)
            found[name] = compaction.compaction_id
    return found


def archives(database: Database) -> dict[str, object]:
    """Partitions of long ago, whose archives have come as far as their names say."""
    made = itertools.count()

    def old(rows: int = 3) -> str:
        return made_archives.old_partition(database, next(made), rows)

    found: dict[str, object] = {
        "unarchived": old(),
        "exporting": made_archives.begun(database, old()),
        "failing": made_archives.begun(database, old()),
        "archived": made_archives.verified(database, old()),
        "damaged": made_archives.verified(database, old()),
        "leaving": made_archives.verified(database, old()),
        "dropped": made_archives.dropped(database, old()),
        "restoring": made_archives.dropped(database, old()),
        "empty": made_archives.dropped(database, old(0)),
        "restored": made_archives.dropped(database, old(0)),
    }
    with made_archives.worker(database) as connection:
        found["measured"], files = made_archives.read_back(connection, old())
        query(connection, "SELECT ops.archive_leave(%s)", found["leaving"])
        for name in ("restoring", "empty", "restored"):
            query(connection, "SELECT ops.restore_make(%s)", found[name])
        query(connection, "SELECT ops.restore_verify(%s)", found["restored"])
    return found | {"files": json.dumps(files.obj)}


def attack_names(database: Database, role: str, only: str = "") -> list[str]:
    """Call what `role` may call while pg_temp holds another thing of every name it could mean."""
    found = []
    with database.session() as connection:
        attribute = others_attribute(connection)
        own = query(
            connection,
            "SELECT DISTINCT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND NOT relispartition"
            " AND relnamespace IN ('eav'::regnamespace, 'ops'::regnamespace, 'partman'::regnamespace)",
        )
        planted = plant(name for (name,) in own)
        as_owner = query(
            connection,
            "SELECT n.nspname || '.' || p.proname FROM pg_proc AS p"
            " JOIN pg_namespace AS n ON p.pronamespace = n.oid WHERE p.prosecdef",
        )
        query(connection, "UPDATE partman.part_config SET premake = premake + 1")
    objects = {
        "attribute": attribute,
        **(compactions(database) | archives(database) if role == "eav_jobs" else {}),
    }
    for name, text in CALLS[role].items():
        if only not in name or (name,) not in as_owner:
            continue
        heard: list[str] = []
        # A session each: a function is compiled with the names of its first call.
        with database.session(role) as connection:
            connection.add_notice_handler(partial(note, heard))
            query(connection, "SET default_transaction_read_only = off")  # which anybody may
            query(connection, planted)
            query(connection, "SET search_path = pg_temp, pg_catalog, eav, ops")
            heard.clear()
            state, said = outcome(connection, text.format(**objects))
            heard = [notice for notice in heard if "SHOUT" in notice]
            refused = (name, state) in (
                ("eav.retire_attribute", "P0002"),
                ("ops.compaction_copy", "25000"),
                ("ops.archive_cursor", "25000"),
            )
            if heard or (state != "ok" and not refused):
                found.append(f"{role}: {name}: {state} {said[:200]} {heard[:2]}")
    return found
