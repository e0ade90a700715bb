"""The schema under what RDS's blue/green does: a physical copy that follows by logical replication, and takes over.

Both servers are of one major version, so this shows what becomes of the rows, and nothing of pg_upgrade. Steps of
`python -m infra upgrade` that work on the database are the command's own; what RDS does is done here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from infra import hold
from infra.blue_green import HINDRANCES, Upgrade
from infra.operation import Site
from jobs.schedule import schedule
from local.cluster import free_port, start_on_free_port, temporary_folder
from local.settings import THROWAWAY, Value
from tests.conftest import Database, in_database
from tests.infra.conftest import graph_of
from tests.infra.running import Anywhere
from tests.jobs.conftest import lines, values
from tests.jobs.test_ingest import position, process
from tests.jobs.waiting import until
from tests.sql.conftest import TEMPLATE, administer, migrated_cluster
from tests.sql.staging import Row, copy, scalar

pytestmark = pytest.mark.cluster
NAMES = ("switched", "broken")


class Here(Site):
    """A stack whose database is the one that DATABASE_URL names."""

    def existing(self, name: str) -> dict[str, Any]:
        """With no AWS to ask."""
        return {"DBInstanceIdentifier": name, "Endpoint": {"Address": "here"}}


@dataclass(frozen=True)
class Pair:
    """One database on both servers. Green follows from the moment that it was copied at."""

    blue: Database
    green: Database

    def upgrade(self, database: Database) -> Upgrade:
        """The command, on one of them. It asks AWS for nothing here."""
        return Upgrade(Here(graph_of("prod"), None, database.url, resolve=lambda host: Anywhere()), "18.1")

    def follow(self, lsn: str) -> None:
        """Green reads on from `lsn`, as RDS has it do."""
        with self.green.session() as connection:
            connection.execute("DROP PUBLICATION blue")
            connection.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION green CONNECTION {} PUBLICATION blue WITH"
                    " (copy_data = false, create_slot = false, enabled = false, slot_name = {})"
                ).format(self.blue.url, self.slot)
            )
            connection.execute(
                "SELECT pg_replication_origin_advance('pg_' || oid, %s::pg_lsn) FROM pg_subscription"
                " WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
                [lsn],
            )
            connection.execute("ALTER SUBSCRIPTION green ENABLE")

    @property
    def slot(self) -> str:
        return f"green_{self.blue.url.rpartition('/')[2].partition('?')[0]}"

    def caught_up(self) -> None:
        """Until green has all that blue has committed so far."""
        # A commit that goes to green and waits for the disk: behind it nothing need follow for a while.
        written = self.blue.one("SELECT pg_logical_emit_message(true, '', '')::text")
        until(
            lambda: self.blue.one(
                "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                written,
                self.slot,
            )
        )

    def switch(self) -> None:
        """What RDS does when nobody writes any more: green has all of it, the sequences too, and is let go."""
        self.caught_up()
        with self.blue.session() as blue, self.green.session() as green:
            green.execute("DROP SUBSCRIPTION green")
            for schema, name, last in blue.execute(
                "SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE last_value IS NOT NULL"
            ).fetchall():
                green.execute(
                    "SELECT setval(format('%%I.%%I', %s::text, %s::text)::regclass, %s)", [schema, name, last]
                )


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Pair]]:
    """Blue, with a tenant and values, and green as it was copied then."""
    with ExitStack() as folders:
        blue = folders.enter_context(migrated_cluster())
        for name in NAMES:
            administer(blue, f"CREATE DATABASE {{}} TEMPLATE {TEMPLATE}", name)
        before = {name: Database(in_database(blue.url(), name)) for name in NAMES}
        for name, database in before.items():
            database.one("SELECT eav.tenant_add('one', 1, true)")
            with database.session() as connection:
                connection.execute("CREATE PUBLICATION blue FOR ALL TABLES")
                connection.execute(
                    "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"green_{name}"]
                )
        green = blue.create_standby(folders.enter_context(temporary_folder()) / "green")
        # The copy ends here. All that is committed later comes by the slots.
        lsn = before[NAMES[0]].one("SELECT pg_current_wal_insert_lsn()::text")
        settings: dict[str, Value] = {
            **THROWAWAY,
            "recovery_target_lsn": lsn,
            "recovery_target_action": "promote",
            # For the reader of a slot too: how often it is started again, and how often it tells what it has (s).
            "wal_retrieve_retry_interval": "100ms",
            "wal_receiver_status_interval": 1,
        }
        green.configure(port=free_port(), settings=settings)
        folders.callback(green.stop, "immediate")
        before[NAMES[0]].one("SELECT pg_logical_emit_message(true, '', '')::text")  # the log goes on past it
        start_on_free_port(green)
        found = {name: Pair(one, Database(in_database(green.url(), name))) for name, one in before.items()}
        until(lambda: not found[NAMES[0]].green.one("SELECT pg_is_in_recovery()"))
        for pair in found.values():
            pair.follow(lsn)
        yield found


def send(database: Database, path: Path, first: int, last: int, *options: str) -> int:
    """Add lines to a file and have it ingested; how many were accepted."""
    with path.open("a") as stream:
        stream.write(lines(first, last))
    with process(database, "ingest", str(path), "--json", *options) as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    return int(json.loads(out)["accepted"])


def test_every_value_is_there_once_after_the_switch(pairs: dict[str, Pair], tmp_path: Path) -> None:
    pair, path = pairs["switched"], tmp_path / "values.ndjson"
    upgrade = pair.upgrade(pair.blue)
    (slots,) = (query for what, query in HINDRANCES.items() if what.startswith("logical slots"))
    assert (pair.slot,) in pair.blue.all(slots)
    hold.hold(upgrade.site)
    assert send(pair.blue, path, 1, 300, "--flush") == 300
    attribute = pair.blue.one("SELECT attribute_id FROM eav.attributes WHERE name = 'n'")
    with pair.blue.session() as connection:
        # Everything that runs by itself meanwhile: none of it changes a row that logical replication cannot name.
        for function in filter(None, (job.function for job in schedule())):
            connection.execute(f"SELECT {function}()".encode())
        # Of the durable lane: one is flushed, one is still staged when somebody would switch.
        copy(connection, [Row(None, None, 1, 42, attribute, value_number=10_001)])
        scalar(connection, "SELECT eav.stage_flush()")
        connection.execute("UPDATE eav.attributes SET unit = 'celsius'")
        copy(connection, [Row(None, None, 1, 42, attribute, value_number=10_002)])
    assert send(pair.blue, path, 301, 350, "--no-wait") == 50
    assert upgrade._staged().state == "next"
    upgrade._flush()
    assert upgrade._staged().state == "done"
    until(lambda: upgrade._caught_up().state == "done")
    with pair.blue.session() as connection:
        # Acknowledged in the last moment: it goes along, with a transaction id that means nothing on green.
        for _ in range(500):
            connection.execute("SELECT pg_current_xact_id()")
        copy(connection, [Row(None, None, 1, 42, attribute, value_number=10_003)])
    pair.switch()
    after = pair.upgrade(pair.green)
    assert values(pair.green) == [*range(1, 351), 10_001, 10_002]
    after.site.adopt()
    assert hold.let_go(after.site).state == "next"
    hold.release(after.site)
    assert hold.let_go(after.site).state == "done"
    after._analyze()
    assert after._analyzed().state == "done"
    assert position(pair.green, path.name) == 350
    assert send(pair.green, path, 351, 600, "--flush") == 250
    assert values(pair.green) == [*range(1, 601), 10_001, 10_002, 10_003]
    assert pair.green.all("SELECT DISTINCT unit FROM eav.attributes") == [("celsius",)]
    # New ids are behind all that blue gave out.
    assert pair.green.one("SELECT eav.tenant_add('two')") > 1
    assert pair.green.one("SELECT min(attribute_id) FROM eav.attributes WHERE name = 'n'") == attribute


def test_a_partition_that_is_made_meanwhile_breaks_it(pairs: dict[str, Pair], tmp_path: Path) -> None:
    pair = pairs["broken"]
    upgrade = pair.upgrade(pair.blue)
    assert send(pair.blue, tmp_path / "values.ndjson", 1, 10, "--flush") == 10
    pair.caught_up()
    assert values(pair.green) == list(range(1, 11))
    with pair.blue.session() as connection:
        # What time brings: a partition is due, maintenance makes it, and a value comes to lie in it.
        connection.execute("UPDATE partman.part_config SET premake = premake + 1")
        assert scalar(connection, "SELECT ops.maintain_partitions()") > 0
        connection.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT 1, 42, (SELECT attribute_id FROM eav.attributes), max(ends_at) - interval '1 hour', 11"
            " FROM ops.partition_bounds('eav.entity_values_ts'::regclass)"
        )
        # From there on nothing arrives, not of other tables either.
        connection.execute("SELECT eav.tenant_add('two', 2, true)")
    until(
        lambda: pair.green.one(
            "SELECT s.apply_error_count > 0 FROM pg_stat_subscription_stats AS s INNER JOIN pg_subscription AS p"
            " ON s.subid = p.oid INNER JOIN pg_database AS d ON p.subdbid = d.oid WHERE d.datname = current_database()"
        )
    )
    until(lambda: upgrade._caught_up().state == "waits")
    assert values(pair.green) == list(range(1, 11))
    assert pair.green.one("SELECT count(*) FROM eav.tenants") == 1
