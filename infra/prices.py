"""The price table, and what a stack is assumed to use: `prices.json`, with its date, entered by hand.

No price is looked up while a plan is made: the plan needs no network, and the same commit has the same estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from infra.settings import Cost, minutes

FILE: Final = Path(__file__).with_name("prices.json")
MONTH_HOURS: Final = 730
"""Of an average month (8760 / 12), as AWS's own calculator has it."""
MONTH_DAYS: Final = MONTH_HOURS / 24


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
    """Hours a month in which a stack does not rest: all, or on five days those between its morning and its evening."""
    if not cost.rest:
        return MONTH_HOURS
    return month(5 * ((minutes(cost.rest_from) - minutes(cost.rest_to)) % (24 * 60)) / 60)


def month(hours: float) -> float:
    """Hours a month of hours a week."""
    return hours / 168 * MONTH_HOURS
