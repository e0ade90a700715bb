"""The figures of the database: what rows mean, what is read of a real database and by whom, and what is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from jobs import figures, names
from jobs.errors import JobsError
from jobs.figures import Reading
from jobs.schedule import DAY, SCHEDULE, find
from tests.conftest import Database
from tests.jobs.conftest import lines

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def value(found: list[Reading], figure: names.Figure, of: str | None = None) -> float:
    """Of the one reading of a figure."""
    (one,) = [one for one in found if one.figure is figure and one.of == of]
    return one.value


# -- what rows mean ------------------------------------------------------------------------------------------


def test_names_are_unique_and_a_figure_by_something_has_no_twin_without() -> None:
    assert len({one.name for one in names.FIGURES}) == len(names.FIGURES) > 25
    assert (
        len([one for one in names.FIGURES if one.by is None]) <= 100
    )  # metrics of one line of embedded format


def lane(staged: int, age: timedelta | None) -> dict[str, Any]:
    return {"staged": staged, "age": age}


def test_staged_is_the_sum_and_the_oldest_of_all_lanes() -> None:
    found = figures.staged([lane(3, timedelta(seconds=2)), lane(0, None), lane(4, timedelta(seconds=9))])
    assert [(one.figure.name, one.value) for one in found] == [("StagedRows", 7), ("StagedAge", 9.0)]
    assert value(figures.staged([lane(0, None)]), names.STAGED_AGE) == 0


def slot(kind: str, *, active: bool, retained: int | None, unread: int | None = None) -> dict[str, Any]:
    return {"slot_type": kind, "active": active, "retained_bytes": retained, "unread_bytes": unread}


def test_slots_are_judged_by_the_one_furthest_behind() -> None:
    found = figures.slots(
        [
            slot("physical", active=True, retained=5),
            slot("logical", active=False, retained=50, unread=7),
            slot("logical", active=True, retained=20, unread=9),
            slot("physical", active=False, retained=None),
        ]
    )
    assert [one.value for one in found] == [50.0, 9.0, 2]
    assert [one.value for one in figures.slots([])] == [0.0, 0.0, 0]


def replica(
    lag: float | None, behind: int, state: str = "streaming", kind: str = "physical"
) -> dict[str, Any]:
    replay = None if lag is None else timedelta(seconds=lag)
    return {"kind": kind, "state": state, "replay_lag": replay, "behind_bytes": behind}


def test_replicas_are_neither_base_backups_nor_readers_of_changes() -> None:
    found = figures.replicas(
        [
            replica(None, 0),
            replica(12.5, 900, "catchup"),
            replica(500, 10**9, "backup"),
            replica(600, 10**9, kind="logical"),
        ]
    )
    assert [one.value for one in found] == [1, 12.5, 900.0]
    assert [one.value for one in figures.replicas([])] == [0, 0.0, 0.0]


def test_partitions_ahead_are_those_of_the_table_with_the_fewest() -> None:
    rows: list[dict[str, Any]] = [
        {"parent_table": "eav.a", "ahead": 3 * DAY, "last_error": None},
        {"parent_table": "eav.b", "ahead": None, "last_error": "no space"},
    ]
    found = figures.partitions(rows)
    assert value(found, names.PARTITIONS_AHEAD) == 0
    assert value(found, names.PARTITIONS_AHEAD_BY_TABLE, "eav.a") == 3 * 86400
    assert value(found, names.MAINTENANCE_ERRORS) == 1
    assert [one.figure for one in figures.partitions([])] == [names.MAINTENANCE_ERRORS]


def state(begun: timedelta, end: str = "ok", running: timedelta | None = None) -> dict[str, Any]:
    return {
        "begun_at": NOW - begun,
        "last_end": end,
        "running_since": None if running is None else NOW - running,
    }


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("flush", state(timedelta(seconds=3)), False),
        ("flush", state(timedelta(minutes=6)), True),
        ("flush", None, True),
        ("compact", state(2 * HOUR), False),
        ("compact", state(2.1 * HOUR), True),
        ("compact", state(20 * HOUR, running=20 * HOUR), False),
        ("compact", state(HOUR, running=25 * HOUR), True),
        ("archive-partitions", state(26 * HOUR), False),
        ("archive-partitions", state(26.1 * HOUR), True),
    ],
)
def test_a_job_is_late_when_it_was_not_begun_or_does_not_end(
    name: str, found: dict[str, Any] | None, expected: bool
) -> None:
    job = find(name)
    assert job is not None
    assert figures.late(job, found, NOW) is expected


def test_jobs_are_counted_without_flushers_that_nobody_started() -> None:
    rows = [
        {"job": job.name} | state(timedelta(seconds=1), "failed" if job.name == "compact" else "ok")
        for job in SCHEDULE
        if not job.name.startswith("flush-")
    ]
    rows.append({"job": "gone"} | state(100 * DAY, "failed"))
    assert [one.value for one in figures.jobs(rows, NOW)] == [1, 0]
    assert [one.value for one in figures.jobs(rows[1:], NOW)] == [1, 1]
    rows.append({"job": "flush-2"} | state(DAY))
    assert [one.value for one in figures.jobs(rows, NOW)] == [1, 1]


def test_freshness_is_that_of_the_slowest_part_of_each_way() -> None:
    answers: dict[str, list[dict[str, Any]]] = {
        "staged": [lane(1, timedelta(seconds=2))],
        "flow": [{"flushed_at": NOW, "backfill_since": NOW - timedelta(seconds=60)}],
        "replica_lag": [replica(3, 1)],
        "archive_health": [{"failed": 0, "unseen": 0, "overdue": DAY}],
    }
    found = {one.of: one.value for one in figures.freshness(answers, NOW)}
    assert found == {"history": 2.0, "hot": 60.0, "replica": 5.0, "archive": 86400.0}
    assert tuple(found) == names.PATHS
    answers["replica_lag"], answers["flow"] = [], [{"flushed_at": None, "backfill_since": None}]
    found = {one.of: one.value for one in figures.freshness(answers, NOW)}
    assert found == {"history": 2.0, "hot": 2.0, "archive": 86400.0}
    assert figures.freshness({}, NOW) == []


def test_small_tables_are_not_judged_by_their_dead_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"live_rows": 10, "dead_rows": 90, "dead_percent": 90},
        {"live_rows": 90_000, "dead_rows": 10_000, "dead_percent": 10},
        {"live_rows": 0, "dead_rows": 0, "dead_percent": None},
    ]
    assert [one.value for one in figures.tables(rows)] == [10.0]


# -- publishing ----------------------------------------------------------------------------------------------

READINGS = st.lists(
    st.builds(
        lambda figure, number, of: Reading(figure, number, of if figure.by else None),
        st.sampled_from(names.FIGURES),
        st.floats(0, 1e15) | st.integers(0, 2**62),
        st.text("abc_", min_size=1, max_size=5),
    ),
    unique_by=lambda one: (one.figure, one.of),
)


@given(READINGS)
def test_every_reading_is_published_once_with_its_dimensions(found: list[Reading]) -> None:
    published: dict[tuple[str, str | None], float] = {}
    for text in figures.embedded(found, "prod", NOW):
        line = json.loads(text)
        assert line["_aws"]["Timestamp"] == 1795262400000
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == names.NAMESPACE
        (dimensions,) = directive["Dimensions"]
        assert dimensions[0] == names.STACK
        assert line[names.STACK] == "prod"
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            (figure,) = [one for one in names.FIGURES if one.name == metric["Name"]]
            assert metric["Unit"] == figure.unit
            assert dimensions[1:] == ([figure.by] if figure.by else [])
            key = (figure.name, line[figure.by] if figure.by else None)
            assert key not in published
            published[key] = line[figure.name]
    assert published == {(one.figure.name, one.of): one.value for one in found}


# -- a real database -----------------------------------------------------------------------------------------


def test_whoever_logs_in_as_eav_monitor_reads_every_figure(database: Database) -> None:
    database.one("SELECT eav.tenant_add('one', 1, true)")
    with database.session("eav_monitor") as connection:
        answers, problems = figures.ask(connection)
    assert problems == []
    assert list(answers) == list(figures.MEANINGS)
    found = figures.readings(answers, datetime.now(UTC))
    optional = {names.SINCE_FLUSH, names.REJECTED_BY_REASON, names.CACHE_HITS}
    assert set(names.FIGURES) - {one.figure for one in found} <= optional
    assert value(found, names.PARTITIONS_AHEAD) > 2 * 86400
    assert value(found, names.DEFAULT_PARTITIONS) == 0
    assert value(found, names.UNREAD) == 0
    assert 0 < value(found, names.XID_AGE) < 2**31
    # No job has ever run, which the figures say.
    assert value(found, names.JOBS_LATE) == sum(not job.name.startswith("flush-") for job in SCHEDULE)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT tenant_id FROM eav.entity_values_ingest",
        "SELECT FROM eav.entity_values_rejected",
        "SELECT FROM eav.entities",
        "SELECT eav.stage_flush()",
    ],
)
def test_eav_monitor_reads_nothing_of_a_tenant_and_moves_nothing(database: Database, statement: str) -> None:
    with (
        database.session("eav_monitor") as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_the_figures_follow_what_happens(
    database: Database, jobs: Callable[..., int], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def now() -> dict[str, float]:
        capsys.readouterr()
        assert jobs("figures", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        return {one["figure"] + (f" {one['of']}" if one["of"] else ""): one["value"] for one in shown}

    source = tmp_path / "values.ndjson"
    source.write_text(lines(1, 50) + "not a value\n")
    assert jobs("ingest", source, "--no-wait") == 0
    before = now()
    assert before["StagedRows"] == 51
    assert before["StagedAge"] == before["Freshness history"] > 0
    assert "SinceFlush" not in before
    assert jobs("run", "flush") == 0
    database.one("UPDATE eav.attributes SET is_hot = true RETURNING 1")
    with database.session() as connection:
        connection.execute("CREATE TABLE eav.stray PARTITION OF eav.entity_values_ts DEFAULT")
        connection.execute("UPDATE ops.partition_policies SET last_error = 'disk full'")
        connection.execute("INSERT INTO ops.job_runs (job, status, started_at, pid, scheduler, host)"
            " VALUES ('compact', 'failed', now(), 1, 'cli', 'local')")  # fmt: skip
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE eav.entities IN ACCESS EXCLUSIVE MODE")
        after = now()
    assert after["StagedRows"] == after["StagedAge"] == 0
    assert after["SinceFlush"] < 60
    assert after["RejectedValues"] == after["RejectedValuesByReason malformed"] == 1
    assert after["Freshness hot"] > 0 == after["Freshness history"]
    assert (after["DefaultPartitions"], after["JobsFailing"]) == (1, 1)
    assert after["PartitionMaintenanceErrors"] == 2
    assert after["JobsLate"] == before["JobsLate"] - 2  # flush and compact
    assert after["LongestTransaction"] >= after["LongestIdleInTransaction"] > 0
    assert 0 < after["ConnectionsUsed"] < 100


def test_sessions_that_wait_are_counted(database: Database) -> None:
    with (
        database.session() as holder,
        database.session() as waiter,
        database.session("eav_monitor") as watcher,
    ):
        holder.execute("BEGIN")
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        waiter.execute("SET statement_timeout = '60s'")
        thread = Thread(target=lambda: waiter.execute("SELECT pg_advisory_lock(1)"))
        thread.start()
        while True:
            answers, _ = figures.ask(watcher)
            if value(figures.server(answers["server_health"]), names.BLOCKED):
                break
            assert thread.is_alive()
        holder.execute("COMMIT")
        thread.join()


def test_a_query_that_fails_leaves_the_others_and_is_told(
    database: Database,
    jobs: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with database.session() as connection:
        connection.execute("REVOKE SELECT ON ops.partition_policies FROM eav_monitor")
    monkeypatch.setenv("EAV_STACK", "staging")
    assert jobs("figures", "--publish") == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "python -m jobs figures: partitions_ahead: permission denied for table partition_policies",
        "python -m jobs figures: archive_health: permission denied for table partition_policies",
    ]
    metrics = {key: one for text in shown.out.splitlines() for key, one in json.loads(text).items()}
    assert metrics["FiguresUnread"] == 2
    assert metrics["Stack"] == "staging"
    assert "StagedRows" in metrics
    assert "PartitionsAhead" not in metrics
    # The function publishes the same and fails, so that its own alarm tells.
    with pytest.raises(JobsError, match="partitions_ahead: permission denied"):
        figures.handler({}, None)
    assert '"FiguresUnread":2' in capsys.readouterr().out


def test_the_function_needs_no_more_than_the_url(
    database: Database, jobs: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert figures.handler({}, None)["figures"] > 25
    assert all(json.loads(text)["Stack"] == "local" for text in capsys.readouterr().out.splitlines())
    assert jobs("figures") == 0
    assert "StagedRows" in capsys.readouterr().out
