"""The revisions as a whole: up and down, twice, offline, beside others, and on servers that will not do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.config import main

from tests.conftest import ROOT, Database, run_alembic


def schema_of(url: str) -> str:
    """pg_dump's view of a database, without what differs between two dumps of the same."""
    program = shutil.which("pg_dump")
    if program is None:
        pytest.skip("pg_dump is not on PATH")
    done = subprocess.run([program, "--schema-only", url], capture_output=True, text=True, check=False)
    if "server version mismatch" in done.stderr:
        pytest.skip("pg_dump on PATH is older than the server")
    assert done.returncode == 0, done.stderr
    return re.sub(r"\\(un)?restrict \S+\n", "", done.stdout)


def test_up_down_up_leaves_no_trace(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    url = empty_database.url
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.chdir(ROOT)

    def alembic(*arguments: str) -> None:
        main([*arguments])  # in this process: starting twenty of them takes longer than all the revisions

    revisions = sorted(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("0*.py"))
    # Alembic's own table stays behind for good.
    alembic("upgrade", revisions[0])
    alembic("downgrade", "base")
    schemas = [schema_of(url)]
    for revision in revisions:
        alembic("upgrade", revision)
        schemas.append(schema_of(url))
    for revision, before in zip(reversed(revisions), reversed(schemas[:-1]), strict=True):
        alembic("downgrade", "-1")
        assert schema_of(url) == before, f"{revision} leaves something behind"
    alembic("upgrade", "head")
    assert schema_of(url) == schemas[-1]


def test_upgrade_of_a_current_database_does_nothing(database: Database) -> None:
    before = schema_of(database.url)
    assert run_alembic(database.url, "upgrade", "head").returncode == 0
    assert schema_of(database.url) == before


def test_no_ddl_while_partitions_are_held(database: Database) -> None:
    # As python -m infra upgrade holds them: green follows by rows, and ends by a change of the schema.
    head = database.one("SELECT version_num FROM alembic_version")
    database.all("UPDATE partman.part_config SET undo_in_progress = true RETURNING 1")
    assert run_alembic(database.url, "upgrade", "head").returncode == 0, "there is nothing to change"
    assert run_alembic(database.url, "current").returncode == 0
    done = run_alembic(database.url, "downgrade", "-1")
    assert done.returncode != 0
    assert "a new major version is under way" in done.stderr
    database.all("UPDATE alembic_version SET version_num = '0011' RETURNING 1")
    done = run_alembic(database.url, "upgrade", "head")
    assert done.returncode != 0
    assert "eav.entity_values_ts" in done.stderr
    assert database.one("SELECT version_num FROM alembic_version") == "0011" != head


def test_metadata_matches_the_database(database: Database) -> None:
    done = run_alembic(database.url, "check")
    assert done.returncode == 0, done.stderr


def test_metadata_notices_a_difference(database: Database) -> None:
    with database.session() as connection:
        connection.execute("ALTER TABLE eav.entities ADD COLUMN surprise text")
    done = run_alembic(database.url, "check")
    assert done.returncode != 0
    assert "surprise" in done.stderr + done.stdout


def test_the_offline_sql_builds_the_same_schema(empty_database: Database, database: Database) -> None:
    done = run_alembic("postgresql://nobody@127.0.0.1:1/nothing", "upgrade", "head", "--sql")
    assert done.returncode == 0, done.stderr
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        connection.execute(done.stdout.encode())
    assert schema_of(empty_database.url) == schema_of(database.url)


def test_a_revision_that_cannot_get_its_lock_gives_up_and_leaves_nothing(database: Database) -> None:
    assert run_alembic(database.url, "downgrade", "0006").returncode == 0
    before = schema_of(database.url)
    with database.session() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE eav.entities IN ACCESS SHARE MODE")
        done = run_alembic(
            database.url, "-x", "lock_timeout=100ms", "-x", "lock_retries=2", "upgrade", "head"
        )
        assert done.returncode != 0
        assert "no lock after 2 tries" in done.stderr
        assert "Traceback" not in done.stderr
        assert schema_of(database.url) == before
    assert run_alembic(database.url, "upgrade", "head").returncode == 0


def test_a_revision_is_tried_again_until_the_lock_is_free(database: Database) -> None:
    assert run_alembic(database.url, "downgrade", "0006").returncode == 0
    with database.session() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE eav.entities IN ACCESS SHARE MODE")

        def let_go_once_somebody_waits() -> None:
            with database.session() as watcher:
                while watcher.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                    (holder.info.backend_pid,),
                ).fetchone() != (1,):
                    pass
                # ends its transaction from outside; the lock is free for the next try
                watcher.execute("SELECT pg_terminate_backend(%s)", (holder.info.backend_pid,))

        helper = threading.Thread(target=let_go_once_somebody_waits)
        helper.start()
        done = run_alembic(database.url, "-x", "lock_timeout=500ms", "upgrade", "head")
        helper.join()
    assert done.returncode == 0, done.stderr


def test_two_runs_at_once(empty_database: Database) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    runs = [
        threading.Thread(target=lambda: results.append(run_alembic(empty_database.url, "upgrade", "head")))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [done.returncode for done in results] == [0, 0], [done.stderr for done in results]
    assert run_alembic(empty_database.url, "check").returncode == 0


def test_another_database_of_the_cluster_may_be_migrated_meanwhile(
    database: Database, empty_database: Database
) -> None:
    """Roles are shared, and there since `database`: who alters one while another does gets an error that passes."""
    results: list[subprocess.CompletedProcess[str]] = []
    run = threading.Thread(target=lambda: results.append(run_alembic(empty_database.url, "upgrade", "head")))
    with empty_database.session() as other, empty_database.session() as watcher:
        other.execute("BEGIN")
        other.execute("ALTER ROLE eav_jobs SET lock_timeout = '5s'")
        run.start()
        while not watcher.execute(
            # Of this database: another test's migration may be held up by the same role, too.
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND %s = ANY(pg_blocking_pids(pid))",
            (other.info.backend_pid,),
        ).fetchall():
            assert run.is_alive()
        other.execute("COMMIT")
        run.join()
    assert results[0].returncode == 0, results[0].stderr
    assert "concurrently updated" in results[0].stderr  # it met the other one


def test_an_interrupted_run_is_gone_on_with(empty_database: Database) -> None:
    """The server ends the migrating session in the middle, as a crash or an administrator would."""
    assert run_alembic(empty_database.url, "upgrade", "0003").returncode == 0
    with empty_database.session() as holder:
        # 0004 waits for this lock in its middle, when it makes its trigger
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE eav.attributes IN ROW EXCLUSIVE MODE")
        results: list[subprocess.CompletedProcess[str]] = []
        run = threading.Thread(
            target=lambda: results.append(
                run_alembic(empty_database.url, "-x", "lock_timeout=60s", "upgrade", "head")
            )
        )
        run.start()
        with empty_database.session() as killer:
            while not killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                (holder.info.backend_pid,),
            ).fetchall():
                pass
        run.join()
    assert results[0].returncode != 0
    assert "Traceback" not in results[0].stderr
    assert empty_database.one("SELECT version_num FROM alembic_version") == "0003"
    assert empty_database.one("SELECT to_regclass('eav.entity_jsonb')") is None
    done = run_alembic(empty_database.url, "upgrade", "head")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "no database given"),
        ("not a url", "not a database URL"),
        ("mysql://root@127.0.0.1/x", "must name a PostgreSQL database"),
        ("postgresql://nobody:secret@127.0.0.1:1/nothing", "cannot connect to 127.0.0.1:1/nothing"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, said: str) -> None:
    done = run_alembic(url, "upgrade", "head")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout


def test_a_read_only_database_is_one_line(empty_database: Database) -> None:
    with empty_database.session() as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    done = run_alembic(empty_database.url, "upgrade", "head")
    assert done.returncode != 0
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr


def test_partman_elsewhere_is_one_line(empty_database: Database) -> None:
    with empty_database.session() as connection:
        connection.execute("CREATE SCHEMA elsewhere")
        connection.execute("CREATE EXTENSION pg_partman SCHEMA elsewhere")
    done = run_alembic(empty_database.url, "upgrade", "head")
    assert done.returncode != 0
    assert "schema elsewhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_partition_interval_is_one_line(empty_database: Database) -> None:
    done = run_alembic(empty_database.url, "-x", "partition_interval=often", "upgrade", "head")
    assert done.returncode != 0
    assert "partition_interval must be like" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("interval", ["1 hour", "1 week", "1 month"])
def test_the_partition_interval_is_a_setting(empty_database: Database, interval: str) -> None:
    done = run_alembic(empty_database.url, "-x", f"partition_interval={interval}", "upgrade", "head")
    assert done.returncode == 0, done.stderr
    with empty_database.session() as connection:
        widths = connection.execute(
            "SELECT DISTINCT starts_at + %s::interval = ends_at FROM ops.partition_bounds('eav.entity_values_ts')",
            (interval,),
        ).fetchall()
        assert widths == [(True,)]
        assert connection.execute(
            "SELECT starts_at < now() - interval '6 days' AND ends_at > now() + interval '3 days' FROM eav.value_window"
        ).fetchone() == (True,)


def test_a_new_revision_is_numbered_and_passes_the_lint(tmp_path: Path) -> None:
    # a copy: other tests run the revisions of this tree at the same time
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "revision", "-m", "add widgets"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "DATABASE_URL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "migrations" / "versions").glob("*_add_widgets.py")
    newest, number = sorted(path.name[:4] for path in made.parent.glob("0*.py"))[-2:]
    assert made.name == f"{int(newest) + 1:04d}_add_widgets.py"
    assert number == made.name[:4]
    assert f'down_revision = "{newest}"' in made.read_text()
    for check in (("check",), ("format", "--check")):
        linted = subprocess.run(
            [sys.executable, "-m", "ruff", *check, str(made)], capture_output=True, text=True, check=False
        )
        assert linted.returncode == 0, linted.stdout


def functions_in_files() -> dict[str, tuple[int, str]]:
    """schema.name -> (newest version, its text)."""
    newest: dict[str, tuple[int, str]] = {}
    for path in (ROOT / "sql" / "functions").glob("*/*.v*.sql"):
        match = re.fullmatch(r"(.+)\.v(\d+)\.sql", path.name)
        assert match, path
        name, version = f"{path.parent.name}.{match[1]}", int(match[2])
        if version > newest.get(name, (0, ""))[0]:
            newest[name] = (version, path.read_text())
    return newest


def test_the_database_holds_the_newest_version_of_every_function(database: Database) -> None:
    in_files = functions_in_files()
    with database.session() as connection:
        rows = connection.execute(
            "SELECT n.nspname || '.' || p.proname, p.prosrc, p.prosqlbody IS NOT NULL"
            " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('eav', 'ops')"
        ).fetchall()
    assert {name for name, _, _ in rows} == set(in_files)
    for name, body, parsed in rows:
        if not parsed:
            assert body.strip() in in_files[name][1], f"{name} is not what its newest file says"


def test_other_databases_of_the_cluster_keep_the_roles(database: Database, empty_database: Database) -> None:
    assert run_alembic(empty_database.url, "upgrade", "head").returncode == 0
    done = run_alembic(empty_database.url, "downgrade", "base")
    assert done.returncode == 0, done.stderr
    with database.session("eav_app") as connection:
        assert connection.execute("SELECT count(*) FROM eav.entities").fetchone() == (0,)
