from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from local import cli, demo, demo_items
from local.demo_jobs import Jobs, Process
from local.demo_report import duration, size, text
from local.errors import LocalError
from tests.conftest import ROOT, Database
from tests.jobs.waiting import until

if TYPE_CHECKING:
    from tests.aws import Aws


def environment(database: Database) -> dict[str, str]:
    """Names the test's database, and nothing else that chooses a server; AWS is the emulator of the test, if any."""
    chosen = {key: value for key, value in os.environ.items() if key != "EAV_SERVER"}
    return chosen | {
        "DATABASE_URL": database.url,
        "EAV_AWS": os.environ.get("EAV_AWS") or ("env" if "AWS_ENDPOINT_URL" in chosen else "off"),
    }


def run(database: Database, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", "demo", *arguments],
        cwd=ROOT, env=environment(database), capture_output=True, text=True, check=False,
    )  # fmt: skip


def sessions(database: Database) -> list[str]:
    rows = database.all(
        "SELECT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'eav %%'"
    )
    return [name for (name,) in rows]


def test_the_demo_runs_twice_and_adds_its_own_values(
    database: Database, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(database, "--seconds", "2", "--json")
    assert first.returncode == 0, first.stderr
    facts: dict[str, Any] = json.loads(first.stdout)
    done, where = facts["run"], facts["where"]
    stored = database.one("SELECT count(*) FROM eav.entity_values_ts")
    assert done["sampled"] == done["stored"] == stored > 0
    assert done["rejected_by_reason"] == {"in_future": 1, "malformed": 1, "wrong_type": 1}
    assert where["staged"] == 0
    assert where["rejected"] == {"in_future": 1, "wrong_type": 1}, "a malformed line belongs to no tenant"
    assert {t["table"]: t["rows"] for t in where["tables"]}["eav.entity_values_ts"] == stored
    assert sum(a["count"] for a in where["attributes"]) == stored
    assert {q["query"] for q in facts["queries"] if q["rows"]} == {
        "hot_value_counts", "hot_with_cold", "top_entities", "attribute_distribution", "attribute_history",
        "rejected_everywhere",
    }  # fmt: skip
    assert {j["job"] for j in where["jobs"]} >= {"flush", "maintain-partitions", "reconcile"}
    archive = facts["archive"]
    old = sum(time.time() - path.stat().st_mtime > 30 * 86400 for path in demo_items.files())
    assert archive["deleted"] == archive["verified_items"] == old
    assert aws.dynamodb.scan(TableName="host-files", Select="COUNT")["Count"] == archive["items"] - old
    assert archive["restored"] == (1 if old else 0)
    assert archive["partition"]["status"] == "verified"
    assert database.one("SELECT status FROM ops.partition_archives") == "verified"
    hot = {name for (name,) in database.all("SELECT name FROM eav.attributes WHERE is_hot")}
    assert hot == set(demo.HOT)
    assert database.one(
        "SELECT count(*) FROM eav.entity_jsonb WHERE hot_attrs ?& '{process.name,process.status}'"
    ) == database.one("SELECT count(*) - 1 FROM eav.entities"), "each process, but not the host"

    # Without AWS it is the same, less the archive.
    monkeypatch.setenv("EAV_AWS", "off")
    second = run(database, "--seconds", "1")
    assert second.returncode == 0, second.stderr
    assert f"tenant this-host (id {facts['tenant']['id']})" in second.stdout
    assert "turned hot while values came in: nothing, all were" in second.stdout
    for shown in ("top processes by memory", "what is where", "what to try next", "very hot"):
        assert shown in second.stdout
    assert "archive     none" in second.stdout
    assert database.one("SELECT count(*) FROM eav.entity_values_ts") > stored
    assert database.one("SELECT count(*) FROM eav.entity_values_rejected") == 6
    assert database.one("SELECT count(*) FROM eav.tenants") == 1
    assert database.one("SELECT count(*) FROM ops.job_runs WHERE status = 'failed'") == 0
    assert sessions(database) == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started hears SIGINT, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_stops_it_stops_all_it_started(database: Database, number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "local", "demo", "--seconds", "60"],
        cwd=ROOT, env=environment(database), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        started: list[psutil.Process] = []
        try:
            until(lambda: database.one("SELECT count(*) FROM eav.entity_values_ts") > 0)
            started = psutil.Process(process.pid).children(recursive=True)
            assert len(started) == 3, "worker, telemetry, ingest"
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
            assert process.returncode == code
            assert len(said.splitlines()) <= 1
            assert "Traceback" not in said
            assert [one for one in started if one.is_running()] == []
        finally:
            for one in started:
                if one.is_running():
                    one.kill()
            process.kill()
    until(lambda: sessions(database) == [])


def test_one_line_when_the_server_is_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "current_server", lambda: None)
    assert cli.main(["demo"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"error: {cli.DOWN}\n")


def test_one_line_when_the_database_is_not_migrated(empty_database: Database) -> None:
    done = run(empty_database)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not migrated: run: alembic upgrade head" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "long"])
def test_seconds_must_be_some(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        demo.main(["--seconds", seconds])
    assert error.value.code == 2
    assert "--seconds" in capsys.readouterr().err


def test_a_job_that_fails_says_why_in_one_line(database: Database) -> None:
    with pytest.raises(LocalError, match="there is no job 'flash'"):
        Jobs(database.url).run("run", "flash")


def test_a_worker_that_has_failed_is_noticed() -> None:
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen([sys.executable, "-c", "exit('no such database')"], stderr=log)
        process = Process("worker", popen, log)
        popen.wait()
        with pytest.raises(LocalError, match="no such database"):
            process.check()


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as popen,
    ):
        assert popen.stdout is not None
        with closing(popen.stdout) as out:
            out.readline()
            monkeypatch.setattr("local.demo_jobs.LISTENS", 0.1)
            Process("worker", popen, log).stop()
        assert popen.returncode == -signal.SIGKILL


def test_figures_are_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**3, 3 * 1024**5)] == [
        "0 B", "1023 B", "1.0 KiB", "5.0 GiB", "3072.0 TiB",
    ]  # fmt: skip
    assert duration(timedelta(seconds=2.5)) == "2.5 s"
    assert duration(timedelta(days=4, hours=3, minutes=2)) == "4 d 3 h"
    assert [text(v) for v in (None, True, 12345, 1.25, "[b]")] == ["", "yes", "12,345", "1.2", "[b]"]
