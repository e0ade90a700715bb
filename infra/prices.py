"""The price table, and what a stack is assumed to use: `prices.json`, with its date, entered by hand.

No price is looked up while a plan is made: the plan needs no network, and the same commit has the same estimate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from infra.settings import Cost

FILE: Final = Path(__file__).with_name("prices.json")
MONTH_HOURS: Final = 730
"""Of an average month (8760 / 12), as AWS's own calculator has it."""
MONTH_DAYS: Final = MONTH_HOURS / 24
WEEK_MINUTES: Final = 7 * 24 * 60


class Price(BaseModel):
    """What one unit costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    usd: float = Field(gt=0)
    unit: str
    note: str = ""


class Usage(BaseModel):
    """How much of something a stack is assumed to use, and why so much."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    values: Mapping[str, float]
    """By stack; `other` for those that are not named, `all` where it is the same."""
    unit: str
    why: str

    def of(self, stack: str) -> float:
        """The amount of a stack."""
        for key in (stack, "other", "all"):
            if key in self.values:
                return self.values[key]
        raise LookupError(f"no usage for {stack}")


class Table(BaseModel):
    """All of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    as_of: str = Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$")
    """Year and month in which the prices were entered."""
    region: str
    currency: str
    terms: str
    source: str
    prices: Mapping[str, Price]
    usage: Mapping[str, Usage]


@cache
def table(file: Path = FILE) -> Table:
    """The price table."""
    found = json.loads(file.read_text())
    found["usage"] = {name: _usage(entry) for name, entry in found["usage"].items()}
    return Table.model_validate(found)


def _usage(entry: Mapping[str, Any]) -> dict[str, Any]:
    """In the file the amounts stand beside unit and why: one entry is one line there."""
    words = {name: value for name, value in entry.items() if name in ("unit", "why")}
    return words | {"values": {name: value for name, value in entry.items() if name not in words}}


def awake_hours(cost: Cost) -> float:
    """Hours a month in which a stack does not rest: all, or those of the five working days outside the rest.

    A rest from 20:00 to 07:00 leaves 13 hours a day, one from 01:00 to 05:00 leaves 20.
    """
    if not cost.rest:
        return MONTH_HOURS
    begin, end = (_minutes(clock) for clock in (cost.rest_from, cost.rest_to))
    resting = (end - begin) % (24 * 60)
    return 5 * (24 * 60 - resting) / WEEK_MINUTES * MONTH_HOURS


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


_CRON: Final = re.compile(r"^cron\((\d+) (\d+) (?:\?|\*) \* (\S+) \*\)$")
_DAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


def running_hours(pause: str | None, resume: str | None) -> float | None:
    """Hours a month in which a cluster runs that is paused and resumed so; None for a schedule too hard to read.

    Read are schedules of a time and days of the week: `cron(0 19 ? * MON-FRI *)`.
    """
    if pause is None or resume is None:
        return MONTH_HOURS
    times = [(_moments(pause), False), (_moments(resume), True)]
    if not all(moments for moments, _ in times):
        return None
    events = sorted((moment, running) for moments, running in times for moment in moments)
    # The last event of the week holds on until the first of the next.
    running, since, minutes = events[-1][1], 0, 0
    for moment, then in [*events, (WEEK_MINUTES, False)]:
        minutes += (moment - since) if running else 0
        running, since = then, moment
    return minutes / WEEK_MINUTES * MONTH_HOURS


def _moments(cron: str) -> list[int]:
    """Minutes since Monday 00:00; empty if the expression is none of those that are read."""
    match = _CRON.match(cron.upper().replace("CRON", "cron"))
    if match is None:
        return []
    minute, hour, days = int(match[1]), int(match[2]), match[3]
    chosen: set[int] = set()
    for part in days.split(","):
        first, _, last = part.partition("-")
        if part in ("*", "?"):
            chosen |= set(range(7))
        elif first in _DAYS and (not last or last in _DAYS):
            begin = _DAYS.index(first)
            length = (_DAYS.index(last) - begin) % 7 if last else 0
            chosen |= {(begin + step) % 7 for step in range(length + 1)}
        else:
            return []
    return sorted(day * 24 * 60 + hour * 60 + minute for day in chosen)
