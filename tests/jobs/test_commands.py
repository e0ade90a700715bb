"""The small commands, telemetry of this host, and mistakes as one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import errors

from jobs import db, telemetry
from jobs.cli import main, parser
from jobs.errors import ConnectionLostError, JobsError
from jobs.ingest.parse import parse_line
from jobs.schedule import SCHEDULE
from tests.conftest import Database, in_database
from tests.jobs.conftest import lines

Jobs = Callable[..., int]
Read = pytest.CaptureFixture[str]


def error(capsys: Read) -> str:
    """The one line on standard error."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_a_tenant_is_added_once_and_its_id_printed(jobs: Jobs, capsys: Read) -> None:
    for arguments, expected in (
        (("acme",), "2\n"), (("acme",), "2\n"), (("acme", "--id", "2"), "2\n"), (("nine", "--id", "9"), "9\n"),
        (("acme", "--auto-register"), "2\n"),
    ):  # fmt: skip
        assert jobs("tenant", "add", *arguments) == 0
        assert capsys.readouterr().out == expected
    assert jobs("tenant", "list", "--json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [(one["tenant_id"], one["name"], one["auto_register"]) for one in found] == [
        (1, "one", True), (2, "acme", True), (9, "nine", False),
    ]  # fmt: skip
    assert jobs("tenant", "list") == 0
    assert "acme" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("one", "--id", "7"), "tenant one exists already, with id 1"),
        (("two", "--id", "1"), "tenant id 1 is taken"),
        (("two", "--id", "0"), "a tenant's id is 1 or more"),
        (("two", "--id", str(2**63)), "out of range"),
        (("",), "a tenant's name has 1 to 200 characters"),
    ],
)
def test_a_tenant_that_cannot_be_is_one_line(
    jobs: Jobs, capsys: Read, arguments: tuple[str, ...], said: str
) -> None:
    assert jobs("tenant", "add", *arguments) == 1
    assert said in error(capsys)


def test_list_and_run(jobs: Jobs, capsys: Read, tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 10))
    assert jobs("ingest", path) == 0
    assert jobs("run", "flush", "--json") == 0
    ran = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (ran["name"], ran["status"], ran["rows"]) == ("flush", "ok", 10)
    assert jobs("list", "--json") == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found) == [one.name for one in SCHEDULE]
    assert (found["flush"]["run_id"], found["flush"]["status"]) == (ran["run_id"], "ok")
    assert found["reconcile"]["status"] is None
    assert jobs("run", "reconcile") == 0
    assert capsys.readouterr().out.startswith("reconcile: ok, ")
    assert jobs("list") == 0
    assert "maintain-partitions" in capsys.readouterr().out
    assert jobs("run", "nothing") == 1
    assert "there is no job 'nothing': choose from flush, " in error(capsys)


def test_each_mistake_with_the_database_is_one_line_without_a_password(
    database: Database, empty_database: Database, capsys: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "x5ecret"
    user, _, rest = database.url.partition("@")
    for url, said in (
        ("", "DATABASE_URL is not set: export DATABASE_URL=$(make url)"),
        (f"nonsense {secret}", "DATABASE_URL is not a database's"),
        (f"postgresql://u:{secret}@127.0.0.1:1/eav", "Connection refused; is the server running?"),
        (f"{user.rpartition(':')[0]}:{secret}@{rest}", "password authentication failed"),
        (in_database(database.url, "eav_nowhere"), 'database "eav_nowhere" does not exist'),
        (empty_database.url, "is not migrated: run: alembic upgrade head"),
    ):
        monkeypatch.setenv("DATABASE_URL", url)
        for command in (
            ("list",),
            ("worker", "--once"),
            ("tenant", "list"),
            ("ingest", __file__),
            ("run", "flush"),
        ):
            assert main(command) == 1
            text = error(capsys)
            assert said in text
            assert ("is the server running" in text) == ("refused" in said)
            assert secret not in text


def test_a_role_that_may_not_is_one_line(database: Database) -> None:
    with database.session() as connection:
        connection.execute("DROP ROLE IF EXISTS eav_test_nobody")
        connection.execute("CREATE ROLE eav_test_nobody LOGIN")
        try:
            with connection.transaction():
                connection.execute("SET LOCAL SESSION AUTHORIZATION eav_test_nobody")
                with pytest.raises(JobsError, match=r"eav_test_nobody at .* may not act as eav_jobs"):
                    db._become(connection, "eav_jobs", database.url)
                raise RuntimeError  # the transaction is of no use any more
        except RuntimeError:
            pass
        finally:
            connection.execute("DROP ROLE eav_test_nobody")


def test_who_logs_in_as_the_role_stays_it(database: Database) -> None:
    with database.session("eav_ingest") as connection:
        db._become(connection, "eav_ingest", database.url)
        assert connection.execute("SELECT current_user").fetchone() == ("eav_ingest",)


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (
        (), ("nothing",), ("ingest",), ("ingest", "x", "--wait", "--flush"), ("ingest", "x", "--batch", "0"),
        ("cron",), ("tenant",), ("telemetry",),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_help_teaches(capsys: Read) -> None:
    for arguments in ([], ["ingest"], ["worker"], ["run"], ["telemetry"]):
        with pytest.raises(SystemExit):
            parser().parse_args([*arguments, "--help"])
        text = capsys.readouterr().out
        assert "exit codes" in text or arguments == ["telemetry"]


def test_telemetry_of_this_host_is_what_ingest_takes(
    jobs: Jobs, database: Database, tmp_path: Path, capsys: Read
) -> None:
    path = tmp_path / "t.ndjson"
    telemetry_of = (
        "telemetry",
        "--seconds",
        "1",  # two samples, also of a busy host
        "--every",
        "0.1",
        "--tenant",
        "one",
        "--out",
        path,
        "--register",
    )
    assert jobs(*telemetry_of) == 0
    assert jobs(*telemetry_of) == 0  # registering twice does no harm
    capsys.readouterr()
    assert jobs("ingest", path, "--flush", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rejected"] == {}
    assert found["accepted"] == found["lines"] > 20
    types = dict(database.all("SELECT name, data_type FROM eav.attributes"))
    assert types == {name: data_type for name, (data_type, _, _) in telemetry.ATTRIBUTES.items()}
    me = psutil.Process()
    mine = telemetry.entity_id(me.pid, me.create_time())
    assert database.one("SELECT count(*) FROM eav.entity_values_ts WHERE entity_id = %s", mine) >= 14
    assert jobs("telemetry", "--tenant", "nobody") == 1
    assert "there is no tenant 'nobody'" in error(capsys)


def test_telemetry_survives_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    me = psutil.Process()

    class Gone(psutil.Process):
        def num_threads(self) -> int:
            raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil, "process_iter", lambda: iter([Gone(), me]))
    known: dict[tuple[int, float], psutil.Process] = {}
    samples = [*telemetry.processes(known), *telemetry.host(datetime.now(UTC))]
    assert {attribute for _, attribute, _, _ in samples} <= set(telemetry.ATTRIBUTES)
    for sample in samples:
        assert isinstance(parse_line(telemetry.line(1, sample), 1), tuple)


def test_an_entity_is_one_process() -> None:
    assert telemetry.entity_id(7, 1.5) == telemetry.entity_id(7, 1.5)
    assert len({telemetry.entity_id(pid, created) for pid in range(50) for created in (1.0, 2.0)}) == 100
    assert all(telemetry.HOST < telemetry.entity_id(pid, 1.0) < 2**63 for pid in range(1000))


@pytest.mark.parametrize(
    ("error_of_server", "said"),
    [
        (
            errors.DiskFull("could not extend file\nHINT: x"),
            "the disk of h:1/d is full (could not extend file)",
        ),
        (
            errors.AdminShutdown("terminating connection"),
            "lost the connection to h:1/d: terminating connection",
        ),
        (errors.UndefinedTable("no ops.job_runs"), "h:1/d is not migrated to this version (no ops.job_runs)"),
        (errors.DivisionByZero("division by zero"), "h:1/d: division by zero"),
    ],
)
def test_an_error_of_the_server_is_explained(error_of_server: psycopg.Error, said: str) -> None:
    found = db.explain(error_of_server, "postgresql://u:secret@h:1/d")
    assert str(found).startswith(said)
    assert "\n" not in str(found)
    assert isinstance(found, ConnectionLostError) == said.startswith("lost")
