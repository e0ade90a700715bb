"""A standby takes over under load, and producers follow it: exactly once, or a loss that is noticed."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from jobs import db
from jobs.ingest.feed import FileFeed, Limits
from jobs.ingest.load import AttributeCache, Stage
from jobs.ingest.run import Patience, ingest
from jobs.ingest.source import Source
from local.cluster import Cluster, start_on_free_port, temporary_folder
from tests.conftest import Database, in_database
from tests.jobs.conftest import line, lines, values
from tests.jobs.test_ingest import position, process, send
from tests.jobs.waiting import until
from tests.sql.conftest import TEMPLATE, administer, migrated_cluster
from tests.sql.load import Load
from tests.sql.staging import Row, copy, drain, flush, make_tenant, scalar, stored
from tests.sql.test_crash_loop import SEED

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Pair:
    """A primary, its standby, and a database that is wherever writes are taken."""

    primary: Cluster
    standby: Cluster
    name: str

    @property
    def first(self) -> Database:
        return Database(in_database(self.primary.url(), self.name))

    @property
    def second(self) -> Database:
        return Database(in_database(self.standby.url(), self.name))

    @property
    def either(self) -> Database:
        """As a producer names them both: whichever takes writes."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return Database(
            self.first.url.replace(f"127.0.0.1:{self.primary.port}", hosts)
            + "&target_session_attrs=read-write&connect_timeout=5"
        )

    def make_synchronous(self) -> None:
        """Set on the primary alone: a promoted standby waits for nobody."""
        with self.first.session() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        until(
            lambda: self.first.one("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
        )

    def cut_off(self) -> None:
        """From now on the standby hears nothing."""
        self.standby.stop()

    def caught_up(self) -> None:
        """Until the standby has replayed all that the primary has written so far."""
        with self.first.session() as connection, self.second.session() as replica:
            connection.execute(
                "SELECT pg_logical_emit_message(true, '', '')"
            )  # a commit that waits for the disk
            written = scalar(connection, "SELECT pg_current_wal_flush_lsn()")
            until(lambda: scalar(replica, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written))

    def fail_over(self) -> None:
        """The primary dies, the standby, running or not, takes over."""
        self.primary.kill()
        self.standby.start()
        self.standby.promote()


@dataclass
class Chain:
    """The server that takes writes now: the standby that the last test promoted."""

    head: Cluster
    folders: ExitStack


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    # A primary that was killed does not start again, to clear its shared memory: here that goes with its folder.
    with migrated_cluster(dynamic_shared_memory_type="mmap") as first, ExitStack() as folders:
        yield Chain(first, folders)


@pytest.fixture
def pair(chain: Chain) -> Iterator[Pair]:
    """A database of this test's own on two servers."""
    primary, name = chain.head, f"eav_test_{uuid4().hex[:12]}"
    administer(primary, f"CREATE DATABASE {{}} TEMPLATE {TEMPLATE}", name)
    standby = primary.create_standby(chain.folders.enter_context(temporary_folder()) / "standby")
    chain.folders.callback(standby.stop, "immediate")
    start_on_free_port(standby)
    yield Pair(primary, standby, name)
    primary.stop("immediate")
    standby.start()
    if Database(in_database(standby.url(), TEMPLATE)).one("SELECT pg_is_in_recovery()"):
        standby.promote()
    administer(standby, "DROP DATABASE {} WITH (FORCE)", name)
    chain.head = standby


def staged_by_lane(database: Database) -> dict[int, int]:
    """How many rows the slots hold, those too that are flushed and not yet truncated."""
    return {
        lane: sum(database.one(f"SELECT count(*) FROM eav.staging_{lane}_{slot}") for slot in range(3))
        for lane in range(5)
    }


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
def test_producers_follow_a_promotion_under_load(pair: Pair, synchronous: bool) -> None:
    print(f"EAV_SEED={SEED}")
    dice = random.Random(SEED)
    load = Load(pair.first, seed=SEED)
    pair.caught_up()
    if synchronous:
        pair.make_synchronous()
    load.database = pair.either
    with load.running():
        load.await_progress()
        time.sleep(dice.uniform(0.2, 1.0))  # any moment is meant
        pair.primary.kill(patience=dice.choice((0.0, 2.0)))
        pair.standby.promote()
        load.await_progress()
        load.await_progress()
    assert pair.second.one("SELECT pg_is_in_recovery()") is False
    lost = load.report.lost
    if not synchronous:
        # What the standby had not received yet: noticed by the producer, which can send it again here.
        load.report.lost = []
    load.settle(pair.second)
    load.check(pair.second)
    assert not (synchronous and lost)


def test_a_promoted_standby_has_empty_slots_but_those_of_the_durable_lane(pair: Pair) -> None:
    tenant = make_tenant(pair.first)
    load = tenant.attributes["load"]
    with pair.first.session() as connection:
        origin = scalar(connection, "SELECT eav.ingest_source('s')")
        for number in range(10):
            copy(
                connection, [Row(origin, number + 1, tenant.tenant_id, 1, load, value_number=number)], origin
            )
            copy(connection, [Row(None, None, tenant.tenant_id, 2, load, value_number=number + 100)])
            if number == 4:
                drain(connection)
    pair.caught_up()
    pair.fail_over()
    assert staged_by_lane(pair.second) == {0: 5, 1: 0, 2: 0, 3: 0, 4: 0}
    assert pair.second.one("SELECT eav.ingest_position('s')") == 5
    with pair.second.session() as connection:
        assert drain(connection) == 5
    assert stored(pair.second) == [*range(5), *range(100, 110)]


def test_markers_mean_the_same_transactions_after_a_promotion(pair: Pair) -> None:
    """No marker is taken for another server's, and none covers a transaction that is still to come."""
    tenant = make_tenant(pair.first)
    cpu = tenant.attributes["cpu"]

    def row(number: int) -> list[Row]:
        return [Row(None, None, tenant.tenant_id, 1, cpu, value_number=number)]

    with pair.first.session() as connection, pair.first.session() as late, pair.first.session() as other:
        # Held open while a flush passes: the marker names it. It dies with the primary.
        late.execute("BEGIN")
        copy(late, row(-1))
        copy(connection, row(1))
        # The flush's own transaction is not the newest one that its marker covers.
        connection.execute("BEGIN; SELECT pg_current_xact_id()")
        for _ in range(20):
            other.execute("SELECT pg_current_xact_id()")
        assert flush(connection) == 1
        connection.execute("COMMIT")
        # Asynchronous, and the last thing that is written: the standby may end right behind the marker.
        copy(connection, row(2))
        assert flush(connection) == 1
        through, waited_for = connection.execute(
            "SELECT through::text::bigint, except_for::text::bigint[] FROM eav.staging_marker WHERE lane = 0"
        ).fetchall()[0]
        assert len(waited_for) == 1
        pair.caught_up()
        pair.fail_over()
    with pair.second.session() as connection:
        assert (
            scalar(connection, "SELECT through::text::bigint FROM eav.staging_marker WHERE lane = 0")
            == through
        )
        # Transaction ids go on behind all that a marker can name.
        assert scalar(connection, "SELECT pg_current_xact_id()::text::bigint") > max(through, *waited_for)
        copy(connection, row(3))
        assert drain(connection) == 1
    assert stored(pair.second) == [1, 2, 3]


def test_a_file_goes_back_to_what_the_promoted_standby_has(pair: Pair, tmp_path: Path) -> None:
    pair.first.one("SELECT eav.tenant_add('one', 1, true)")
    path = tmp_path / "values.ndjson"
    path.write_text(lines(1, 400))
    with process(pair.either, "ingest", str(path), "--no-wait") as running:
        assert running.wait(60) == 0
    with pair.first.session() as connection:
        assert drain(connection) == 400
    pair.caught_up()
    pair.cut_off()
    with path.open("a") as stream:
        stream.write(lines(401, 900))
    with process(pair.either, "ingest", str(path), "--flush") as running:
        assert running.wait(60) == 0
    assert position(pair.first, path.name) == 900
    pair.fail_over()
    assert position(pair.second, path.name) == 400
    with process(pair.either, "ingest", str(path), "--flush", "--json") as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert json.loads(out)["accepted"] == 500
    assert values(pair.second) == list(range(1, 901))


def test_a_stream_says_which_acknowledged_lines_a_promoted_standby_lacks(pair: Pair) -> None:
    """An asynchronous standby may lack what the primary acknowledged: a gap is said, not passed over."""
    pair.first.one("SELECT eav.tenant_add('one', 1, true)")
    with process(pair.either, "ingest", "-", "--no-wait") as running:
        send(running, lines(1, 3))
        until(lambda: pair.first.one("SELECT count(*) FROM eav.entity_values_ingest") == 3)
        pair.caught_up()
        pair.cut_off()
        send(running, lines(4, 6))
        until(lambda: pair.first.one("SELECT count(*) FROM eav.entity_values_ingest") == 6)
        pair.fail_over()
        send(running, line(7))
        _, err = running.communicate(timeout=60)
    assert running.returncode not in (0, None)
    said = err.decode()
    assert "Traceback" not in said
    assert re.search(r"lost lines 4 to 6\b", " ".join(said.split()))
    # What came later waits for a decision: nothing was put behind the gap.
    assert pair.second.one("SELECT count(*) FROM eav.entity_values_ingest") == 3


def test_a_stream_goes_on_where_a_synchronous_standby_has_all(pair: Pair) -> None:
    pair.first.one("SELECT eav.tenant_add('one', 1, true)")
    pair.caught_up()
    pair.make_synchronous()
    with process(pair.either, "ingest", "-", "--no-wait") as running:
        send(running, lines(1, 300))
        until(lambda: pair.first.one("SELECT count(*) FROM eav.entity_values_ingest") == 300)
        pair.fail_over()
        send(running, lines(301, 400))
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    with closing(pair.second.connect()) as connection:
        drain(connection)
    assert values(pair.second) == list(range(1, 401))


def test_an_ingester_asks_for_ids_again_on_another_server(pair: Pair, tmp_path: Path) -> None:
    """An attribute that the lost server registered last may be missing on the next one, its id another's."""
    pair.first.one("SELECT eav.tenant_add('one', 1, true)")
    pair.caught_up()
    pair.cut_off()
    register = "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, %s, 'number') RETURNING attribute_id"
    lost_id = pair.first.one(register, "n")
    path = tmp_path / "values.ndjson"
    path.write_text(lines(1, 4))
    cache = AttributeCache()

    @contextmanager
    def open_stage(feed: Source) -> Iterator[Stage]:
        with db.translated(""), db.connect(pair.either.url, "eav_ingest", "ingest") as connection:
            yield Stage(connection, feed.name, fingerprint=feed.fingerprint, cache=cache)

    def fail_over(number: int, _event: str) -> None:
        if number and pair.primary.is_running():
            pair.fail_over()
            assert pair.second.one(register, "another") == lost_id

    feed = FileFeed(path, limits=Limits(rows=2, size=1))
    ingest(feed, open_stage, patience=Patience(60), progress=fail_over)
    with pair.second.session() as connection:
        assert drain(connection) == 4
    assert pair.second.all(
        "SELECT a.name, count(*) FROM eav.entity_values_ts JOIN eav.attributes AS a USING (attribute_id) GROUP BY 1"
    ) == [("n", 4)]
