"""What runs when in a week, from the cron expressions that start and stop it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, NamedTuple

DAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
DAY: Final = 24 * 60
WEEK: Final = 7 * DAY
"""Minutes."""

_WEEKLY: Final = re.compile(r"cron\((\d{1,2}) (\d{1,2}) (\S+) \* (\S+) \*\)")


class Span(NamedTuple):
    """From `start`, minutes since Monday 00:00 UTC, for `length` minutes; it may go over Sunday's midnight."""

    start: int
    length: int

    def __str__(self) -> str:
        return f"{said(self.start)}-{said((self.start + self.length) % WEEK)}"

    def holds(self, other: Span) -> bool:
        """Whether all of the other lies in this one."""
        return (other.start - self.start) % WEEK + other.length <= self.length


def moment(text: str) -> int:
    """Minutes since Monday 00:00 of `sun:05:30`."""
    day, hour, minute = text.split(":")
    return DAYS.index(day.upper()) * DAY + int(hour) * 60 + int(minute)


def window(text: str) -> Span:
    """Of a weekly window such as `sun:05:30-sun:06:30`."""
    start, end = (moment(part) for part in text.split("-"))
    return Span(start, (end - start) % WEEK)


def times(cron: str) -> tuple[int, ...]:
    """When in a week it fires, minutes since Monday 00:00 UTC.

    Raises ValueError for an expression that is not the same every week at one time of day.

    >>> times("cron(30 5 ? * TUE-WED *)")
    (1770, 3210)
    """
    found = _WEEKLY.fullmatch(cron)
    if not found:
        raise ValueError(f"must be cron(minute hour ? * weekdays *), one time of day every week, got {cron}")
    minute, hour = int(found[1]), int(found[2])
    if minute > 59 or hour > 23:
        raise ValueError(f"must have minutes to 59 and hours to 23, got {cron}")
    # EventBridge and Redshift want ? in one of the two, and exactly one.
    if (found[3] == "?") == (found[4] == "?") or found[3] not in ("?", "*"):
        raise ValueError(f"must have ? for the day of the month and weekdays, or * and ?, got {cron}")
    return tuple(sorted(day * DAY + hour * 60 + minute for day in _weekdays(found[4], cron)))


def _weekdays(text: str, cron: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if part in ("*", "?"):
            found |= set(range(7))
        elif len(ends) <= 2 and all(end in DAYS for end in ends):
            first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
            found |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
        else:
            raise ValueError(f"must have weekdays such as MON-FRI or SAT,SUN, got {part} in {cron}")
    return found


def running(start: str, stop: str) -> tuple[Span, ...]:
    """The spans of a week in which a thing runs that `start` starts and `stop` stops.

    Raises ValueError unless the two take turns: a second stop of what is stopped fails each week.
    """
    turns = sorted([(when, True) for when in times(start)] + [(when, False) for when in times(stop)])
    for (when, one), (_, other) in pairwise([*turns, turns[0]]):
        if one == other:
            raise ValueError(
                f"must take turns, got two {'starts' if one else 'stops'} in a row from {said(when)}:"
                f" {start} and {stop}"
            )
    if any(one == other for (one, _), (other, _) in pairwise(turns)):
        raise ValueError(f"must not be at the same time, got {start} and {stop}")
    return tuple(
        Span(when, (after - when) % WEEK)
        for (when, starts), (after, _) in pairwise([*turns, turns[0]])
        if starts
    )


def said(when: int) -> str:
    """A moment as a window has it, such as `sun:05:30`: what `moment` reads."""
    return f"{DAYS[when // DAY].lower()}:{when % DAY // 60:02}:{when % 60:02}"
