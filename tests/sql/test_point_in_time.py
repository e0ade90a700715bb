"""Back to a point in time, on real servers: what was lost after it comes again from its source, each value once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from local.cluster import Cluster, free_port, start_on_free_port, temporary_folder
from tests.conftest import Database, in_database
from tests.jobs.conftest import lines, values
from tests.jobs.test_ingest import position, process
from tests.jobs.waiting import until
from tests.sql.conftest import TEMPLATE, migrated_cluster
from tests.sql.staging import Row, copy, drain

pytestmark = pytest.mark.cluster


@contextmanager
def archiving() -> Iterator[tuple[Cluster, Path]]:
    """A migrated server that keeps its log in a folder, as RDS keeps its in S3."""
    with temporary_folder() as folder:
        copying = f"cp %p {folder}/%f.part && mv {folder}/%f.part {folder}/%f"
        with migrated_cluster(archive_mode=True, archive_command=copying) as cluster:
            yield cluster, folder


def restored(source: Cluster, folder: Path, base: Path, to: str, folders: ExitStack) -> Cluster:
    """A second server from `base`, a copy made before `to`, and the log up to then. Started, and taking writes."""
    made = Cluster(base, source.binaries, source.os_user)
    made.configure(
        port=free_port(),
        settings={
            "fsync": False,
            "restore_command": f"cp {folder}/%f %p",
            "recovery_target_time": to,
            "recovery_target_action": "promote",
        },
    )
    # What a copy for a standby says, and a restore does not.
    (base / "standby.signal").unlink()
    (base / "postgresql.auto.conf").write_text("")
    made._write("recovery.signal", "")
    folders.callback(made.stop, "immediate")
    start_on_free_port(made)
    database = Database(in_database(made.url(), TEMPLATE))
    until(lambda: not database.one("SELECT pg_is_in_recovery()"))
    return made


def test_a_source_goes_on_where_the_restored_database_is(tmp_path: Path) -> None:
    with ExitStack() as folders:
        source, log = folders.enter_context(archiving())
        first = Database(in_database(source.url(), TEMPLATE))
        base = folders.enter_context(temporary_folder()) / "base"
        source.create_standby(base)
        first.one("SELECT eav.tenant_add('one', 1, true)")
        path = tmp_path / "values.ndjson"
        path.write_text(lines(1, 400))
        with process(first, "ingest", str(path), "--flush") as running:
            assert running.wait(60) == 0
        # Acknowledged by the durable lane and not flushed: it is in the log. In the others it is not, and not lost.
        attribute = first.one("SELECT attribute_id FROM eav.attributes WHERE name = 'n'")
        with first.session() as connection:
            copy(connection, [Row(None, None, 1, 42, attribute, value_number=10_000)])
        with path.open("a") as stream:
            stream.write(lines(401, 500))
        with process(first, "ingest", str(path), "--no-wait") as running:
            assert running.wait(60) == 0
        to = first.one("SELECT clock_timestamp()::text")
        # What came after, and the damage.
        with path.open("a") as stream:
            stream.write(lines(501, 700))
        with process(first, "ingest", str(path), "--flush") as running:
            assert running.wait(60) == 0
        with first.session() as connection:
            drain(connection)
            connection.execute("TRUNCATE eav.entity_values_ts")
            connection.execute("UPDATE eav.attributes SET name = 'spoiled'")
            connection.execute("SELECT pg_switch_wal()")
            last = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn() - 1)").fetchall()[0][0]
        until((log / last).exists)
        second = Database(in_database(restored(source, log, base, to, folders).url(), TEMPLATE))
        assert second.one("SELECT name FROM eav.attributes") == "n"
        assert values(second) == list(range(1, 401))
        assert second.one("SELECT eav.adopt_staging()") == 1
        assert position(second, path.name) == 400
        with process(second, "ingest", str(path), "--flush", "--json") as running:
            out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert json.loads(out)["accepted"] == 300
        with second.session() as connection:
            drain(connection)
        assert values(second) == [*range(1, 701), 10_000]
        shutil.rmtree(base, ignore_errors=True)
