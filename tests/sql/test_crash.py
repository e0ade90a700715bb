"""What a crash and a restart do to staged values: the producer's position is always the right one."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from local.cluster import Cluster
from tests.conftest import Database
from tests.sql.staging import Row, Tenant, copy, drain, flush, make_tenant, scalar, stored

pytestmark = pytest.mark.cluster

SOURCE = "events.ndjson"


def send(database: Database, tenant: Tenant, upto: int) -> None:
    """A replayable producer: asks for its position, goes on behind it, three values a batch."""
    with database.session() as connection:
        origin = scalar(connection, "SELECT eav.ingest_source(%s)", SOURCE)
        position = scalar(connection, "SELECT eav.ingest_position(%s)", SOURCE)
        offsets = list(range(position + 1, upto + 1))
        for batch in (offsets[start : start + 3] for start in range(0, len(offsets), 3)):
            copy(
                connection,
                [
                    Row(origin, n, tenant.tenant_id, n % 10 + 1, tenant.attributes["cpu"], value_number=n)
                    for n in batch
                ],
                origin,
            )


def position(database: Database) -> int:
    return int(database.one("SELECT eav.ingest_position(%s)", SOURCE))


def settle(database: Database) -> None:
    """Flush everything and make the commit durable, which the flush itself leaves to the WAL writer."""
    with database.session() as connection:
        drain(connection)
        # A transaction that wrote nothing but its own end would not wait for the disk either.
        connection.execute("SELECT pg_logical_emit_message(true, '', '')")


def kill(cluster: Cluster) -> Cluster:
    cluster.kill()
    cluster.start()
    return cluster


def restart(cluster: Cluster) -> Cluster:
    cluster.stop()
    cluster.start()
    return cluster


@pytest.mark.parametrize(
    ("interrupt", "survives"),
    [pytest.param(kill, False, id="kill -9"), pytest.param(restart, True, id="clean restart")],
)
def test_exactly_once_through(
    killable: Cluster, doomed: Database, interrupt: Callable[[Cluster], Cluster], survives: bool
) -> None:
    cluster, database = killable, doomed
    tenant = make_tenant(database)
    send(database, tenant, 30)
    with database.session() as connection:
        assert flush(connection, 12) == 12
    settle(database)
    send(database, tenant, 50)
    interrupt(cluster)
    # staged but not flushed: gone with a crash, kept by a clean restart
    assert position(database) == (50 if survives else 30)
    send(database, tenant, 60)
    settle(database)
    assert position(database) == 60
    assert stored(database) == list(range(1, 61))


def test_the_durable_lane_keeps_what_it_acknowledged(killable: Cluster, doomed: Database) -> None:
    cluster, database = killable, doomed
    tenant = make_tenant(database)
    rows = [Row(None, None, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=n) for n in range(9)]
    with database.session() as connection:
        copy(connection, rows[:3])
        assert flush(connection) == 3
        copy(connection, rows[3:])
    kill(cluster)
    with database.session() as connection:
        drain(connection)
    assert stored(database) == list(range(9))


def test_a_flush_whose_commit_was_lost_is_done_again(killable: Cluster, doomed: Database) -> None:
    """Values and checkpoint go together: whichever of the two states the crash leaves, the end is the same."""
    cluster, database = killable, doomed
    tenant = make_tenant(database)
    send(database, tenant, 30)
    with database.session() as connection:
        connection.execute("BEGIN")
        assert flush(connection) == 30
        cluster.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT")
    cluster.start()
    assert position(database) == 0
    assert stored(database) == []
    send(database, tenant, 30)
    settle(database)
    assert stored(database) == list(range(1, 31))
