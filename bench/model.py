"""What a row of the table is: steps that take turns, the figures they yield, and the bars those are held to."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from bench.server import Bench
from bench.worlds import World

W = TypeVar("W", bound=World)

Figures = Mapping[str, float]
Step = Callable[[], Figures]
"""Does the work once; returns its figures by name, most often one."""


@dataclass(frozen=True)
class Bar:
    """What a line must reach: at least `limit`, or at most."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether the value reaches the bar."""
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self, unit: str) -> str:
        """`≥ 10 ×`, `≤ 1/50`, `≤ 25 ms`."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {figure_text(self.limit, unit)}"


def at_least(limit: float) -> Bar:
    """A bar that larger values reach."""
    return Bar(limit, True)


def at_most(limit: float) -> Bar:
    """A bar that smaller values reach."""
    return Bar(limit, False)


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure's median over the median of another one, or by itself.

    `against` names a figure of the same row, or is a number with `against_text` to say what it is. Without a bar
    the line is there to be read, not judged.
    """

    what: str
    measured: str
    unit: str
    against: str | float | None = None
    against_text: str = ""
    bar: Bar | None = None


@dataclass
class Figure:
    """One value a round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "median": self.median,
            "min": min(self.rounds),
            "max": max(self.rounds),
            "rounds": self.rounds,
        }


class Row(ABC):
    """Measurements that belong together, in one database."""

    name: ClassVar[str]
    """What `--only` calls it."""
    title: ClassVar[str]
    state: ClassVar[str]
    """What the last checkpoint was, as measured: full-page writes swing every figure several times over."""
    world: ClassVar[type[World] | None] = None
    """The database it works in, shared with rows that name the same; None if it makes its own."""
    once: ClassVar[bool] = False
    """Figures that do not vary (sizes on disk) are taken once."""

    def __init__(self, bench: Bench, world: World | None = None) -> None:
        self.bench = bench
        self._world = world

    def within(self, kind: type[W]) -> W:
        """The database this row works in."""
        assert isinstance(self._world, kind)
        return self._world

    def missing(self) -> str | None:
        """Why this row cannot be measured here, or None."""
        return None

    def prepare(self) -> None:  # noqa: B027  (most rows need nothing)
        """Make what the steps need; not measured."""

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """What takes turns in each round: reference, ours, reference, ours …"""

    @abstractmethod
    def lines(self) -> Sequence[Line]:
        """The lines of the table, in order."""

    def notes(self) -> dict[str, Any]:
        """What else the JSON file should say: settings of the load, counts that were checked."""
        return {}

    def clean(self) -> None:  # noqa: B027  (most rows leave nothing)
        """Take away what the next row must not find."""


def judge(line: Line, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """The line as it stands in the JSON file: value, bar and verdict; `missing` if a figure was not measured."""
    found: dict[str, Any] = {"what": line.what, "unit": line.unit, "bar": None, "verdict": "for information"}
    needed = [name for name in (line.measured, line.against) if isinstance(name, str)]
    if absent := [name for name in needed if name not in figures]:
        return found | {"verdict": "not measured", "why": f"no figure for {', '.join(absent)}"}
    measured = figures[line.measured]
    found |= {"measured": {"name": line.measured, **measured.as_dict()}}
    value = measured.median
    shown_unit = line.unit
    if line.against is not None:
        if isinstance(line.against, str):
            other = figures[line.against].median
            found |= {"against": {"name": line.against, **figures[line.against].as_dict()}}
        else:
            other = line.against
            found |= {"against": {"name": line.against_text, "median": other}}
        value = value / other if other else float("inf")
        shown_unit = "×"
    found |= {"value": value, "value_unit": shown_unit, "value_text": figure_text(value, shown_unit)}
    if line.bar is not None:
        met = line.bar.met(value)
        found |= {
            "bar": line.bar.text(shown_unit),
            "verdict": "met" if met else "missed",
            "margin": value / line.bar.limit if line.bar.at_least else line.bar.limit / value,
        }
    return found


def figure_text(value: float, unit: str) -> str:
    """A value for people.

    >>> figure_text(0.004, "×"), figure_text(12.34, "×"), figure_text(412345.6, "rows/s"), figure_text(2.345, "ms")
    ('1/250', '12.3 ×', '412,346 rows/s', '2.35 ms')
    """
    if unit == "×":
        if 0 < value < 0.3:
            return f"1/{1 / value:.3g}"
        return f"{value:.3g} ×"
    if abs(value) >= 1000:
        return f"{value:,.0f} {unit}"
    return f"{value:.3g} {unit}"
