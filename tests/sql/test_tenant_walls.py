"""Tenants cannot see each other: every object there is, attacked, and each wall shown to be needed."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg import sql

from local.server import Server
from tests.conftest import Connection, Database, database_on
from tests.sql import wall_attacks, wall_checks, walls
from tests.sql.wall_attacks import SETTINGS
from tests.sql.wall_checks import CATALOGUE
from tests.sql.walls import ROLES, TENANT_ROLES, acting, outcome, query


@pytest.fixture(scope="module")
def seeded(server: Server, template: str, admin: Connection) -> Iterator[Database]:
    """One database with two tenants for all tests here: they roll back what they do."""
    name = f"eav_walls_{uuid4().hex[:12]}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    )
    database = database_on(server, name)
    walls.seed(database)
    yield database
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def connection(seeded: Database) -> Iterator[Connection]:
    """A superuser's connection to it."""
    with seeded.session() as connection:
        yield connection


def attack_all_reads(connection: Connection) -> list[str]:
    """As the application, for tenant 1."""
    return wall_attacks.attack_reads(connection, "eav_app", "1") + wall_attacks.attack_rows(
        connection, "eav_app", "1"
    )


def attack_all_writes(connection: Connection) -> list[str]:
    """The same with what changes something."""
    return wall_attacks.attack_writes(connection, "eav_app") + wall_attacks.attack_oracles(
        connection, "eav_app"
    )


@pytest.mark.parametrize("check", CATALOGUE)
def test_the_catalogue_has_no_gap(connection: Connection, check: str) -> None:
    assert CATALOGUE[check](connection) == []


def test_partitions_made_later_are_not_readable_either(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        query(connection, "UPDATE partman.part_config SET premake = premake + 2")
        ((made,),) = query(connection, "SELECT ops.maintain_partitions()")
        assert made >= 4
        assert wall_checks.check_relations(connection) == []


@pytest.mark.parametrize(
    ("role", "setting"), [*(("eav_app", setting) for setting in SETTINGS), ("eav_analyst", "1")]
)
def test_nothing_of_another_tenant_is_read(connection: Connection, role: str, setting: str) -> None:
    assert wall_attacks.attack_reads(connection, role, SETTINGS[setting]) == []
    assert wall_attacks.attack_rows(connection, role, SETTINGS[setting]) == []


@pytest.mark.parametrize("role", ["eav_ingest", "eav_jobs", "eav_superadmin"])
def test_nothing_of_any_tenant_is_read_by_machinery(connection: Connection, role: str) -> None:
    assert wall_attacks.attack_reads(connection, role, "1") == []


@pytest.mark.parametrize("role", ROLES)
def test_nothing_of_another_tenant_is_written(connection: Connection, role: str) -> None:
    assert wall_attacks.attack_writes(connection, role) == []


@pytest.mark.parametrize("role", TENANT_ROLES)
def test_no_error_tells_what_another_tenant_has(connection: Connection, role: str) -> None:
    assert wall_attacks.attack_oracles(connection, role) == []


def test_no_name_that_a_caller_plants_runs_with_the_owners_rights(database: Database) -> None:
    walls.seed(database)
    assert [line for role in ROLES for line in wall_attacks.attack_names(database, role)] == []


def test_the_attacks_find_what_there_is_to_find(connection: Connection) -> None:
    """As tenant 2 and as the owner the same statements return tenant 2's rows."""
    found = wall_attacks.attack_reads(connection, "eav_app", "2")
    for table in (
        "tenants",
        "attributes",
        "entities",
        "entity_values_ts",
        "entity_jsonb",
        "entity_values_rejected",
    ):
        assert any(f.startswith(f"SELECT * FROM eav.{table}:") for f in found), table
        assert any(f.startswith(f"SELECT * FROM eav.{table} AS r WHERE pg_temp.leak(r)") for f in found), (
            table
        )
    owners = "\n".join(wall_attacks.attack_reads(connection, "eav_owner", None, "eav.staging_0_"))
    assert "pg_stats" in owners
    assert "divided" in owners
    assert "EXPLAIN SELECT * FROM eav.entities WHERE name OPERATOR(pg_temp.<<<)" in owners
    assert "eav.staging_0_" in owners


# ---------------------------------------------------------------- guards taken out

A_PARTITION = "SELECT DISTINCT tableoid::regclass::text FROM eav.entity_values_ts WHERE tenant_id = 2"
TAKEN_OUT = {
    "row-level security": ("reads", "ALTER TABLE eav.entities DISABLE ROW LEVEL SECURITY"),
    "row-level security, catalogue": (
        "check_relations",
        "ALTER TABLE eav.entities DISABLE ROW LEVEL SECURITY",
    ),
    "no grant on a partition": ("reads", "GRANT SELECT ON {partition} TO eav_app"),
    "no grant on a partition, catalogue": ("check_relations", "GRANT SELECT ON {partition} TO eav_analyst"),
    "no grant on a hash partition": ("check_relations", "GRANT SELECT ON eav.entity_jsonb_p00 TO eav_app"),
    "no grant to PUBLIC": ("check_relations", "GRANT SELECT (tenant_id) ON eav.entity_values_ts TO PUBLIC"),
    "no grant on slots": ("check_relations", "GRANT SELECT ON eav.staging_0_0 TO eav_jobs"),
    "no grant on staged values": (
        "check_relations",
        "GRANT SELECT (value_text) ON eav.entity_values_ingest TO eav_jobs",
    ),
    "no staged values": ("reads as eav_jobs", "GRANT SELECT ON eav.entity_values_ingest TO eav_jobs"),
    "no copies": (
        "check_relations",
        "CREATE MATERIALIZED VIEW eav.copy AS SELECT * FROM eav.entities; GRANT SELECT ON eav.copy TO eav_app",
    ),
    "new tables have walls": (
        "check_relations",
        "CREATE TABLE eav.new (tenant_id bigint); GRANT SELECT ON eav.new TO eav_app",
    ),
    "security_invoker": (
        "reads",
        "CREATE VIEW eav.named AS SELECT * FROM eav.entities; ALTER VIEW eav.named OWNER TO eav_owner;"
        " GRANT SELECT ON eav.named TO eav_app",
    ),
    "security_invoker, catalogue": (
        "check_relations",
        "ALTER VIEW eav.ingest_checkpoint RESET (security_invoker)",
    ),
    "append only": ("check_relations", "GRANT DELETE ON eav.entity_values_ts TO eav_app"),
    "write own columns": ("check_relations", "GRANT UPDATE (tenant_id) ON eav.entities TO eav_app"),
    "read only": ("check_relations", "GRANT INSERT ON eav.entities TO eav_superadmin"),
    "no batch of the producer's": (
        "check_relations",
        "GRANT INSERT (batch) ON eav.staging_1_0 TO eav_ingest",
    ),
    "no sequence": ("check_relations", "GRANT USAGE ON SEQUENCE eav.staging_turn_1 TO eav_app"),
    "policy": ("reads", "ALTER POLICY tenant_scope ON eav.attributes USING (true)"),
    "policy, catalogue": (
        "check_policies",
        "CREATE POLICY more ON eav.entities FOR SELECT TO eav_app USING (true)",
    ),
    "policy when unset": (
        "reads unset",
        "ALTER POLICY tenant_scope ON eav.tenants"
        " USING (tenant_id = (SELECT eav.current_tenant()) OR (SELECT eav.current_tenant()) IS NULL)",
    ),
    "policy on what is written": ("writes", "ALTER POLICY tenant_scope ON eav.entities WITH CHECK (true)"),
    "policy of what is updated": (
        "writes",
        "ALTER POLICY tenant_scope ON eav.attributes USING (true) WITH CHECK (true)",
    ),
    "functions are not PUBLIC's": (
        "check_functions",
        "CREATE FUNCTION eav.new() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    "functions are granted by name": (
        "check_functions",
        "GRANT EXECUTE ON FUNCTION eav.upsert_hot_attrs TO eav_app",
    ),
    "search_path": ("check_functions", "ALTER FUNCTION eav.stage_flush RESET search_path"),
    "search_path ends in pg_temp": (
        "check_functions",
        "ALTER FUNCTION eav.ingest_target SET search_path = eav",
    ),
    "retiring with the caller's rights": ("writes", "ALTER FUNCTION eav.retire_attribute SECURITY DEFINER"),
    "retiring says the same": (
        "oracles",
        "ALTER FUNCTION eav.retire_attribute SECURITY DEFINER",
    ),
    "the tenant of a filter": (
        "reads",
        "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('eav.find_entities'::regproc), 'eav.current_tenant()', '2');"
        " END $do$",
    ),
    "schema of pg_partman": ("check_schemas", "GRANT USAGE ON SCHEMA partman TO eav_app"),
    "nobody makes tables": ("check_schemas", "GRANT CREATE ON SCHEMA eav TO eav_analyst"),
    "no membership": ("check_roles", "GRANT pg_read_all_data TO eav_app"),
    "no stranger": (
        "check_roles",
        "CREATE ROLE {stranger}; GRANT SELECT ON eav.entities TO {stranger}",
    ),
    "one owner": ("check_owners", "ALTER TABLE eav.entities OWNER TO eav_jobs"),
    "one owner of functions": ("check_owners", "ALTER FUNCTION eav.stage_flush OWNER TO CURRENT_USER"),
    "one publication": ("check_publication", "CREATE PUBLICATION more FOR TABLE eav.tenants"),
    "what is published": ("check_publication", "ALTER PUBLICATION eav_cdc ADD TABLE eav.tenants"),
}
ATTACKS = {
    "reads": attack_all_reads,
    "reads unset": lambda connection: wall_attacks.attack_reads(connection, "eav_app", None),
    "reads as eav_jobs": lambda connection: wall_attacks.attack_reads(connection, "eav_jobs", "1"),
    "writes": attack_all_writes,
    "oracles": lambda connection: wall_attacks.attack_oracles(connection, "eav_app"),
}


@pytest.mark.parametrize("guard", TAKEN_OUT)
def test_a_guard_taken_out_is_found(connection: Connection, guard: str) -> None:
    check, statement = TAKEN_OUT[guard]
    with connection.transaction(force_rollback=True):
        ((partition,),) = query(connection, A_PARTITION)
        query(connection, statement.format(partition=partition, stranger=f"eav_{uuid4().hex[:8]}"))
        assert (CATALOGUE | ATTACKS)[check](connection) != []


SEARCH_PATH = "    PERFORM pg_catalog.set_config('search_path', 'pg_temp', true);\n"
UNPINNED = {
    "types without a schema": ("pg_catalog.text :=", "text :="),
    "pg_partman before pg_catalog": ("'pg_temp', true)", "'pg_catalog, pg_temp', true)"),
    "no path": (SEARCH_PATH, ""),
}


@pytest.mark.parametrize("guard", UNPINNED)
def test_an_unpinned_name_is_found(database: Database, guard: str) -> None:
    kept, gone = UNPINNED[guard]
    with database.session() as connection:
        ((body,),) = query(connection, "SELECT pg_get_functiondef('ops.maintain_partitions'::regproc)")
        assert kept in body
        query(connection, body.replace(kept, gone))
    found = wall_attacks.attack_names(database, "eav_jobs", "ops.maintain_partitions")
    assert any("SHOUT" in line for line in found)


# ---------------------------------------------------------------- a session that changes its tenant or its role


@pytest.mark.parametrize("mode", ["auto", "force_custom_plan", "force_generic_plan"])
def test_a_prepared_statement_follows_the_tenant(connection: Connection, mode: str) -> None:
    with acting(connection, "eav_app"):
        query(connection, f"SET LOCAL plan_cache_mode = '{mode}'")
        query(
            connection,
            "PREPARE own (bigint) AS SELECT DISTINCT tenant_id FROM eav.entities WHERE entity_id > $1",
        )
        for tenant in ("1", "1", "1", "1", "1", "1", "1", "2", "", "1"):
            query(connection, "SELECT set_config('app.tenant_id', %s, true)", tenant)
            seen = query(connection, "EXECUTE own (0)")
            assert seen == ([(int(tenant),)] if tenant else [])
        query(connection, "DEALLOCATE own")


def test_a_plan_of_the_owners_is_not_used_for_others(connection: Connection) -> None:
    query(connection, "PREPARE everything AS SELECT DISTINCT tenant_id FROM eav.entities ORDER BY 1")
    query(
        connection,
        "CREATE FUNCTION pg_temp.tenants() RETURNS SETOF bigint LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN QUERY SELECT DISTINCT tenant_id FROM eav.entities ORDER BY 1; END $$",
    )
    calls = ("EXECUTE everything", "SELECT pg_temp.tenants()")
    with connection.transaction(force_rollback=True):
        query(connection, "SET LOCAL SESSION AUTHORIZATION eav_owner")
        for call in calls * 6:
            assert query(connection, call) == [(1,), (2,)]
        query(connection, "SET LOCAL SESSION AUTHORIZATION eav_app")
        for call in calls:
            assert query(connection, call) == []
        query(connection, "SET LOCAL app.tenant_id = '1'")
        for call in calls:
            assert query(connection, call) == [(1,)]


def test_a_cursor_shows_rows_of_one_tenant(connection: Connection) -> None:
    with acting(connection, "eav_app", "1"):
        query(connection, "DECLARE c CURSOR FOR SELECT tenant_id FROM eav.entities")
        rows = query(connection, "FETCH 5 FROM c")
        query(connection, "SELECT set_config('app.tenant_id', '2', true)")
        rows += query(connection, "FETCH ALL FROM c")
        assert rows == [(1,)] * 30


def test_the_tenant_ends_with_its_transaction_or_savepoint(seeded: Database) -> None:
    own = "SELECT DISTINCT tenant_id FROM eav.entities"
    with seeded.session("eav_app") as connection:
        query(connection, "BEGIN")
        query(connection, "SET LOCAL app.tenant_id = '1'")
        query(connection, "SAVEPOINT a")
        query(connection, "SET LOCAL app.tenant_id = '2'")
        assert query(connection, own) == [(2,)]
        query(connection, "ROLLBACK TO a")
        assert query(connection, own) == [(1,)]
        query(connection, "COMMIT")
        assert query(connection, own) == []
        query(connection, "SET app.tenant_id = '1'")
        assert query(connection, own) == [(1,)]
        query(connection, "DISCARD ALL")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_become_another(seeded: Database, role: str) -> None:
    with seeded.session(role) as connection:
        for other in (*ROLES, "eav_owner", "pg_read_all_data"):
            state, _ = outcome(connection, f"SET ROLE {other}")
            assert state == ("ok" if other == role else "42501"), other
        query(connection, "RESET ROLE")
        assert query(connection, "SELECT current_user::text") == [(role,)]


@pytest.mark.parametrize("role", TENANT_ROLES)
def test_row_security_off_is_an_error_not_a_way_out(connection: Connection, role: str) -> None:
    with acting(connection, role, "1"):
        query(connection, "SET LOCAL row_security = off")
        state, said = outcome(connection, "SELECT * FROM eav.entities")
        assert (state, "row-level security" in said, walls.leaks(said)) == ("42501", True, False)


@pytest.mark.parametrize("tenant", ["x", "1;2", "9223372036854775808", "1.5"])
def test_a_tenant_that_is_no_number_is_an_error(connection: Connection, tenant: str) -> None:
    with acting(connection, "eav_app", tenant):
        state, said = outcome(connection, "SELECT * FROM eav.entities")
        assert state in ("22P02", "22003")
        assert tenant in said


def test_a_broken_rule_shows_ones_own_row_only(connection: Connection) -> None:
    """Unique, check and foreign key violations of tenant 1, right beside rows of tenant 2."""
    statements = {
        "INSERT INTO eav.entities (tenant_id, entity_id, name) VALUES (1, 1, 'again')": "23505",
        "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, 'temp', 'text')": "23505",
        "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, '', 'text')": "23514",
        "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, 'SECRET-temp', 'text')": "ok",
        "INSERT INTO eav.attributes (tenant_id, name, data_type, validation)"
        """ VALUES (1, 'a', 'text', '{"min": "x"}')""": "22P02",
    }
    with acting(connection, "eav_app", "1"):
        for statement, expected in statements.items():
            state, said = outcome(connection, statement)
            assert (state, walls.leaks(said)) == (expected, False)
    with acting(connection, "eav_app", "3"):
        state, said = outcome(connection, "INSERT INTO eav.entities (tenant_id, entity_id) VALUES (3, 1)")
        assert (state, walls.leaks(said)) == ("23503", False)
