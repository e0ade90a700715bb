"""A file whose age tells whether a loop still turns, for whoever watches the process from outside."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from jobs.errors import JobsError

Beat = Callable[[], None]


def silent() -> None:
    """For nobody."""


def add_option(parser: argparse._ActionsContainer) -> None:
    """Add `--alive`."""
    parser.add_argument(
        "--alive",
        metavar="FILE",
        type=Path,
        help="touch this file each time the loop has turned, for a health check that looks at its age",
    )


def beat(path: Path | None) -> Beat:
    """What touches the file; it does so for the first time now. Raises JobsError if that cannot be."""
    if path is None:
        return silent
    try:
        path.touch()
    except OSError as error:
        raise JobsError(f"--alive: cannot write {path}: {error.strerror}") from None
    return path.touch
