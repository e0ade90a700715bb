"""What a check of the lint hands back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """One defect at one place.

    `path` is relative to the repository, `line` counts from 1, `rule` is the name to look up or to exclude.
    """

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {' '.join(self.message.split())}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one check looked at and found.

    `checked` says how much was looked at ("12 files"). `skipped`, if not empty, says why nothing could be.
    """

    checked: str
    findings: tuple[Finding, ...] = ()
    skipped: str = ""


class LintError(Exception):
    """A check could not run at all; the message is one line that says why and what to do."""


Check = Callable[[Path], Outcome]


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
