from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from local.cluster import Cluster, start_on_free_port, temporary_cluster, temporary_folder
from local.errors import ClusterError, PortTakenError
from local.settings import THROWAWAY
from tests.jobs.waiting import until

pytestmark = pytest.mark.cluster


def query(cluster: Cluster, statement: str) -> object:
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def lives(process: psutil.Process) -> bool:
    """False too for one that has ended but that nobody has collected."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    """A cluster on disk that does not run when a test begins, and must not when it ends."""
    with temporary_folder() as folder:
        yield Cluster.create(folder / "data", settings=THROWAWAY)


@pytest.fixture
def stopped(made: Cluster) -> Iterator[Cluster]:
    yield made
    made.stop("immediate")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("wal_level", "logical"),
        ("hot_standby_feedback", "on"),
        ("TimeZone", "UTC"),
        ("jit", "off"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("data_checksums", "on"),
        ("fsync", "off"),
    ],
)
def test_settings_are_those_that_were_written(cluster: Cluster, setting: str, expected: str) -> None:
    assert query(cluster, f"SHOW {setting}") == expected


def test_pg_partman_can_be_made(cluster: Cluster) -> None:
    assert query(cluster, "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'") == 1


def test_pg_cron_runs_where_it_is_installed(cluster: Cluster) -> None:
    if "pg_cron" not in cluster.binaries.preload:
        pytest.skip("pg_cron is not installed")
    wait_until(
        lambda: (
            query(cluster, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'")
            == 1
        )
    )


def test_connections_are_encrypted_and_others_are_refused(cluster: Cluster) -> None:
    assert query(cluster, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(cluster.url().replace("sslmode=require", "sslmode=disable"))


def test_a_wrong_password_is_refused(cluster: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.url(user="postgres", password="wrong"))


def test_only_the_servers_user_reads_password_and_key(cluster: Cluster) -> None:
    for name in ("superuser.password", "server.key", "eav.conf", "server.log"):
        found = (cluster.data_dir / name).stat()
        assert (found.st_mode & 0o777, found.st_uid) == (0o600, cluster.os_user.uid), name
    assert cluster.data_dir.stat().st_mode & 0o077 == 0


def test_the_url_escapes_what_needs_it(cluster: Cluster) -> None:
    url = cluster.url(database="a/b", user="o'neil@x", password="p:/@ ?")
    assert "postgresql://o%27neil%40x:p%3A%2F%40%20%3F@127.0.0.1" in url
    assert "/a%2Fb?sslmode=require" in url


def test_committed_rows_survive_kill_and_start_again(cluster: Cluster) -> None:
    query(cluster, "CREATE TABLE kept AS SELECT 42 AS n")
    postmaster = cluster.postmaster()
    assert postmaster is not None
    children = postmaster.children(recursive=True)
    assert children
    cluster.kill()
    assert not cluster.is_running()
    assert not any(lives(child) for child in children)
    assert (cluster.data_dir / "postmaster.pid").exists(), (
        "a killed server leaves its pid file, or this tests nothing"
    )
    cluster.start()
    assert query(cluster, "SELECT n FROM kept") == 42
    cluster.start()  # once more does no harm


def test_a_busy_backend_does_not_outlive_kill(cluster: Cluster) -> None:
    with contextlib.closing(psycopg.connect(cluster.url(), autocommit=True)) as connection:
        connection.execute(
            "CREATE FUNCTION spin() RETURNS void LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END'"
        )
        pid = connection.info.backend_pid
        backend = psutil.Process(pid)
        connection.pgconn.send_query(b"SELECT spin()")
        connection.pgconn.flush()
        wait_until(
            lambda: query(cluster, f"SELECT state FROM pg_stat_activity WHERE pid = {pid}") == "active"
        )
        cluster.kill()
    assert not lives(backend)
    cluster.start()


def test_a_standby_follows_reports_its_snapshots_and_takes_over(cluster: Cluster) -> None:
    query(cluster, "CREATE TABLE followed AS SELECT 1 AS n")
    standby = cluster.create_standby(cluster.data_dir.with_name("standby"))
    try:
        start_on_free_port(standby)
        assert query(standby, "SELECT pg_is_in_recovery()") is True
        assert query(standby, "SHOW hot_standby_feedback") == "on"
        query(cluster, "INSERT INTO followed VALUES (2)")
        wait_until(lambda: query(standby, "SELECT sum(n) FROM followed") == 3)
        with psycopg.connect(standby.url()) as holder:
            holder.execute("SELECT count(*) FROM followed")
            wait_until(
                lambda: (
                    query(cluster, "SELECT count(*) FROM pg_replication_slots WHERE xmin IS NOT NULL") == 1
                )
            )
        cluster.kill()
        standby.promote()
        query(standby, "INSERT INTO followed VALUES (4)")
        assert query(standby, "SELECT sum(n) FROM followed") == 7
    finally:
        standby.stop("immediate")
        standby.remove()
        cluster.start()


def test_a_taken_port_is_told_apart_and_another_can_be_chosen(stopped: Cluster) -> None:
    with socket.create_server(("127.0.0.1", stopped.port)):
        taken = stopped.port
        with pytest.raises(PortTakenError, match=f"port {taken} on 127.0.0.1 is taken"):
            stopped.start()
        assert not stopped.is_running()
        assert start_on_free_port(stopped)
    assert stopped.port != taken
    assert query(stopped, "SHOW fsync") == "off", (
        "moving the port lost the settings the cluster was made with"
    )


def test_the_port_is_kept_over_a_restart(stopped: Cluster) -> None:
    port = stopped.port
    assert not start_on_free_port(stopped)
    stopped.stop()
    assert Cluster.open(stopped.data_dir).port == port


def test_a_pid_file_that_names_a_stranger_is_cleared(stopped: Cluster) -> None:
    """As after a reboot, when the number in the file is another program's."""
    stopped.start()
    stopped.kill()
    pid_file = stopped.data_dir / "postmaster.pid"
    # The stranger has the server's user, since PostgreSQL itself ignores those of other users.
    switch = {"user": stopped.os_user.uid, "group": stopped.os_user.gid} if stopped.os_user.switch else {}
    with subprocess.Popen(["sleep", "600"], **switch) as stranger:  # type: ignore[call-overload]
        lines = pid_file.read_text().split("\n")
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        try:
            assert not stopped.is_running()
            stopped.start()
            assert stopped.is_running()
            stopped.stop("immediate")
            assert stranger.poll() is None, "a stranger was ended"
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", ["", "not a number\n", "-1\n", "99999999999999999999\n"])
def test_a_broken_pid_file_does_not_count_as_running(stopped: Cluster, content: str) -> None:
    (stopped.data_dir / "postmaster.pid").write_text(content)
    assert not stopped.is_running()
    (stopped.data_dir / "postmaster.pid").unlink()


def test_a_server_that_will_not_start_says_why(stopped: Cluster) -> None:
    stopped.configure(port=stopped.port, settings={**THROWAWAY, "max_connections": "many"})
    with pytest.raises(ClusterError) as caught:
        stopped.start()
    stopped.configure(port=stopped.port, settings=THROWAWAY)
    first, *tail = str(caught.value).splitlines()
    assert 'invalid value for parameter "max_connections": "many"' in first
    assert str(stopped.log) in first
    assert any("max_connections" in line for line in tail)


def test_making_one_over_another_is_refused(made: Cluster) -> None:
    with pytest.raises(ClusterError, match="exists already"):
        Cluster.create(made.data_dir)


def test_a_failed_making_leaves_nothing(folder: Path) -> None:
    with pytest.raises(ClusterError, match="max_wal_size"):
        Cluster.create(folder / "data", settings={"max_wal_size": "a lot"})
    assert list(folder.iterdir()) == []


def test_an_interrupted_making_is_made_anew(folder: Path) -> None:
    leftover = folder / "data.new"
    leftover.mkdir()
    (leftover / "half").touch()
    assert Cluster.create(folder / "data", settings=THROWAWAY).data_dir == folder / "data"
    assert not leftover.exists()


def test_opening_what_is_no_cluster_is_one_line(folder: Path) -> None:
    with pytest.raises(ClusterError, match="holds no PostgreSQL cluster"):
        Cluster.open(folder)
    (folder / "PG_VERSION").write_text("9\n")
    with pytest.raises(ClusterError, match="was made by PostgreSQL 9, which is not installed"):
        Cluster.open(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="everybody can enter his own folders")
def test_a_folder_the_server_cannot_enter_is_told(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ClusterError, match=f"cannot enter {closed}"):
        Cluster.create(closed / "data")
    assert list(closed.iterdir()) == []


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 60 MB: enough for a cluster, not for much more."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    # A server that could not start is at its last steps there for a moment.
    until(lambda: subprocess.run(["umount", str(disk)], capture_output=True, check=False).returncode == 0)


def test_a_full_disk_is_named_at_making_and_at_start(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40 * 2**20)
    with pytest.raises(ClusterError, match=r"initdb failed .*(No space left on device|free disk space)"):
        Cluster.create(small_disk / "data")
    assert not (small_disk / "data").exists()

    ballast.unlink()
    cluster = Cluster.create(small_disk / "data", settings=THROWAWAY)
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096) == 4096:
            pass
    with pytest.raises(ClusterError, match="No space left on device"):
        cluster.start()
    ballast.unlink()
    cluster.start()
    cluster.stop("immediate")


def test_removal_is_refused_while_it_runs(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="stop it first"):
        cluster.remove()


def test_nothing_is_left_after_a_temporary_cluster() -> None:
    with temporary_cluster({"work_mem": "8MB"}) as cluster:
        assert query(cluster, "SHOW work_mem") == "8MB"
        postmaster = cluster.postmaster()
    assert postmaster is not None
    assert not lives(postmaster)
    assert not cluster.data_dir.parent.exists()


def test_a_temporary_cluster_ends_with_the_block_that_failed() -> None:
    script = "import sys\nfrom local.cluster import temporary_cluster\n"
    script += (
        "with temporary_cluster() as c:\n    print(c.data_dir.parent, flush=True)\n    sys.exit('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "failed"
    assert not Path(done.stdout.strip()).exists()
