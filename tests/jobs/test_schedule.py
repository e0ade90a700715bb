"""The declared schedule: that it is sound, when a job is due, and what pg_cron is told."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from jobs import cron
from jobs.schedule import DAY, HOUR, MINUTE, SCHEDULE, Job, find, next_run, schedule
from tests.conftest import Database

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def job(every: timedelta = HOUR, *, at: time | None = None, repeat_for: timedelta = timedelta(0)) -> Job:
    return Job("a-job", every, "a test", function="ops.f", at=at, repeat_for=repeat_for)


OFTEN = job(timedelta(seconds=1), repeat_for=timedelta(milliseconds=900))


def test_the_schedule_is_sound() -> None:
    assert len({one.name for one in SCHEDULE}) == len(SCHEDULE)
    assert find("flush") == SCHEDULE[0]
    assert [one.name for one in schedule(3)][:3] == ["flush", "flush-2", "flush-3"]
    assert find("flush-5") is not None
    assert find("flush-6") is None
    with pytest.raises(ValueError, match="1 to 5 flushers"):
        schedule(6)
    assert find("nothing") is None


def test_every_function_exists_returns_bigint_and_is_granted(database: Database) -> None:
    for one in SCHEDULE:
        if one.function is not None:
            assert database.all(
                "SELECT prorettype::regtype::text, pronargs = pronargdefaults,"
                " has_function_privilege('eav_jobs', oid, 'EXECUTE') FROM pg_proc WHERE oid = %s::regproc",
                one.function,
            ) == [("bigint", True, True)], one.name


@pytest.mark.parametrize(
    ("every", "last", "due"),
    [
        (HOUR, None, NOON),
        (HOUR, NOON - MINUTE, NOON + 59 * MINUTE),
        (HOUR, NOON - 5 * HOUR, NOON - 4 * HOUR),
        (HOUR, NOON + 5 * HOUR, NOON + HOUR),
    ],
)
def test_when_a_job_is_due(every: timedelta, last: datetime | None, due: datetime) -> None:
    assert next_run(job(every), last, NOON) == due


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (NOON, datetime(2026, 11, 22, 3, 10, tzinfo=UTC)),
        (NOON - DAY, datetime(2026, 11, 21, 3, 10, tzinfo=UTC)),
        (datetime(2026, 11, 21, 3, 10, tzinfo=UTC), datetime(2026, 11, 22, 3, 10, tzinfo=UTC)),
    ],
)
def test_when_a_daily_job_is_due(last: datetime, due: datetime) -> None:
    assert next_run(job(DAY, at=time(3, 10)), last, NOON) == due


def test_a_daily_job_before_its_time_looks_at_yesterday() -> None:
    early = datetime(2026, 11, 21, 1, tzinfo=UTC)
    assert next_run(job(DAY, at=time(3, 10)), early - DAY, early) == datetime(2026, 11, 20, 3, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "A"},
        {"function": None},
        {"function": "f(); DROP TABLE x"},
        {"every": DAY},
        {"at": time(3)},
        {"every": timedelta(seconds=7)},
        {"every": timedelta(milliseconds=500)},
        {"every": timedelta(seconds=1), "repeat_for": timedelta(seconds=2)},
    ],
)
def test_an_unsound_job_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Job(**({"name": "a", "every": HOUR, "summary": "", "function": "ops.f"} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "version", "schedule", "repeat"),
    [
        (OFTEN, (1, 6), "1 seconds", "'900 ms', '100 ms'"),
        (OFTEN, (1, 4), "* * * * *", "'59000 ms', '100 ms'"),
        (job(timedelta(seconds=10)), (1, 4), "* * * * *", "'59000 ms', '10000 ms'"),
        (job(timedelta(seconds=10)), (1, 5), "10 seconds", "'0 ms', '100 ms'"),
        (job(MINUTE), (1, 6), "* * * * *", "'0 ms', '100 ms'"),
        (job(10 * MINUTE), (1, 6), "*/10 * * * *", "'0 ms', '100 ms'"),
        (job(HOUR), (1, 4), "0 * * * *", "'0 ms', '100 ms'"),
        (job(6 * HOUR), (1, 6), "0 */6 * * *", "'0 ms', '100 ms'"),
        (job(DAY, at=time(3, 10)), (1, 6), "10 3 * * *", "'0 ms', '100 ms'"),
    ],
)  # fmt: skip
def test_what_pg_cron_is_told(one: Job, version: tuple[int, ...], schedule: str, repeat: str) -> None:
    found = cron.entry(one, version)
    assert found.name == "eav-a-job"
    assert found.schedule == schedule
    assert found.command == f"CALL ops.run_job('a-job', 'ops.f', {repeat}, 'cron', true)"


def test_a_job_in_python_is_not_for_pg_cron() -> None:
    schedule = (job(), Job("act", HOUR, "", action=lambda _: 0))
    assert [one.name for one in cron.entries((1, 6), schedule)] == ["eav-a-job", cron.HISTORY.name]


def test_what_pg_cron_is_told_runs(database: Database) -> None:
    with database.session("eav_jobs") as connection:
        for one in SCHEDULE:
            if one.function is not None:
                # As pg_cron sends it: the command as one simple query.
                connection.execute(cron.entry(one, (1, 6)).command.encode())
    assert database.all("SELECT DISTINCT status, scheduler FROM ops.job_runs") == [("ok", "cron")]
    assert database.one("SELECT count(*) FROM ops.job_runs") == len(SCHEDULE)
