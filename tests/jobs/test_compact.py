"""`python -m jobs run compact`, as a person runs it and as the worker does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from jobs import compact
from jobs.events import Events, Progress
from tests.conftest import Database
from tests.sql.test_compaction import fill, leftovers

Jobs = Callable[..., int]


def test_a_dry_run_says_what_is_due_and_does_nothing(
    database: Database, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs("run", "compact", "--dry-run") == 0
    assert capsys.readouterr().out == "compact: nothing to do\n"
    name = fill(database)
    assert jobs("run", "compact", "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: it is closed; about ")
    assert "of free disk" in said
    assert jobs("run", "compact", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [said.strip()]
    assert database.one("SELECT count(*) FROM ops.compactions") == 0
    assert database.one("SELECT count(*) FROM ops.job_runs") == 0
    assert jobs("run", "flush", "--dry-run") == 1
    assert "flush has no dry run; these have: archive-partitions, compact" in capsys.readouterr().err


def test_a_run_says_how_it_goes_and_is_recorded(
    database: Database, jobs: Jobs, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    name = fill(database)
    fill(database, 10, 5000, datetime.now(UTC) - timedelta(days=2))
    with caplog.at_level(logging.INFO, "jobs"):
        assert jobs("run", "compact") == 0
    assert "compact: ok, 3,010 rows" in capsys.readouterr().out
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith(f"1 of 2: {name}: it is closed")
    assert f"{name}: 3,000 rows compared, the copy has the same" in messages
    assert any(text.startswith(f"{name}: done, ") for text in messages)
    assert database.all("SELECT job, status, rows FROM ops.job_runs") == [("compact", "ok", 3010)]


def test_a_copy_that_differs_fails_the_run_in_one_line_and_the_others_are_done(
    database: Database, jobs: Jobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fill(database)
    fill(database, 10, 5000, datetime.now(UTC) - timedelta(days=2))
    verify = compact.Compaction.verify

    def damage(self: compact.Compaction) -> int:
        if self._candidate.partition == name:
            with database.session() as connection:
                connection.execute(f"DELETE FROM {name}_compacting WHERE value_number = 1".encode())
        return verify(self)

    monkeypatch.setattr(compact.Compaction, "verify", damage)
    assert jobs("run", "compact") == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("compact: failed")
    assert f": {name} has 3000 rows" in said
    assert "nothing is lost" in said
    assert leftovers(database) == []
    assert database.all("SELECT status FROM ops.compactions ORDER BY 1") == [("abandoned",), ("done",)]


def test_the_worker_says_progress_as_its_events() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("jobs.compact")
    handler = Progress(Events(as_json=True, stream=stream))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        logger.info("%s: sorting", "a day")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    event = json.loads(stream.getvalue())
    assert (event["event"], event["job"], event["text"]) == ("progress", "compact", "compact: a day: sorting")
