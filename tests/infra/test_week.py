from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.week import DAYS, WEEK, Span, moment, running, said, times, window

weekdays = st.sets(st.sampled_from(DAYS), min_size=1).map(
    lambda found: ",".join(sorted(found, key=DAYS.index))
)
clocks = st.tuples(st.integers(0, 23), st.integers(0, 59))


def cron(clock: tuple[int, int], days: str) -> str:
    return f"cron({clock[1]} {clock[0]} ? * {days} *)"


@settings(deadline=None)
@given(clocks, weekdays)
def test_a_schedule_fires_once_on_each_of_its_days(clock: tuple[int, int], days: str) -> None:
    found = times(cron(clock, days))
    assert [said(when) for when in found] == [
        f"{day.lower()}:{clock[0]:02}:{clock[1]:02}" for day in days.split(",")
    ]


@given(st.integers(0, WEEK - 1))
def test_a_moment_is_read_as_it_is_said(when: int) -> None:
    assert moment(said(when)) == when


@pytest.mark.parametrize(
    ("text", "days"),
    [("MON-FRI", 5), ("SAT,SUN", 2), ("FRI-MON", 4), ("*", 7), ("MON-TUE,THU", 3)],
)
def test_weekdays_are_names_ranges_and_lists(text: str, days: int) -> None:
    assert len(times(cron((5, 0), text))) == days


def test_every_day_may_be_said_by_either_field() -> None:
    assert times("cron(0 5 * * ? *)") == times("cron(0 5 ? * * *)")


@pytest.mark.parametrize(
    "text",
    [
        "cron(0 5 ? * 2-6 *)",
        "cron(0/5 5 ? * MON *)",
        "cron(0 5 1 * ? *)",
        "cron(0 5 ? 6 MON *)",
        "cron(60 5 ? * MON *)",
        "cron(0 24 ? * MON *)",
        "cron(0 5 * * MON *)",
        "cron(0 5 ? * ? *)",
        "cron(0 5 ? * MON-TUE-WED *)",
        "rate(1 day)",
    ],
)
def test_what_is_not_one_time_of_day_every_week_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        times(text)


@settings(deadline=None)
@given(clocks, clocks, weekdays)
def test_running_and_resting_make_up_the_week(
    start: tuple[int, int], stop: tuple[int, int], days: str
) -> None:
    if start == stop:
        with pytest.raises(ValueError, match=r"same time|turns"):
            running(cron(start, days), cron(stop, days))
        return
    up, down = running(cron(start, days), cron(stop, days)), running(cron(stop, days), cron(start, days))
    assert sum(span.length for span in (*up, *down)) == WEEK
    assert [span.start for span in up] == list(times(cron(start, days)))
    assert sorted((span.start + span.length) % WEEK for span in up) == list(times(cron(stop, days)))
    for span in up:
        assert not any(rest.holds(Span(span.start, 1)) for rest in down)


def test_office_hours_are_fifty_of_the_week() -> None:
    spans = running("cron(0 8 ? * MON-FRI *)", "cron(0 18 ? * MON-FRI *)")
    assert sum(span.length for span in spans) == 50 * 60
    assert str(spans[0]) == "mon:08:00-mon:18:00"


def test_a_stop_of_what_is_stopped_is_refused_with_the_moment() -> None:
    with pytest.raises(ValueError, match=r"two stops in a row from fri:18:00"):
        running("cron(0 8 ? * MON-FRI *)", "cron(0 18 ? * MON-SAT *)")


def test_a_window_may_go_over_the_end_of_the_week() -> None:
    late = window("sun:23:30-mon:00:30")
    assert late == Span(6 * 1440 + 23 * 60 + 30, 60)
    assert window("sun:22:00-mon:06:00").holds(late)
    assert not window("mon:00:00-mon:06:00").holds(late)
