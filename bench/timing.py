"""How long one query takes, asked again and again as an application asks it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.server import Connection

WARM_UP = 8
"""Executions before any is measured: from the sixth on the server may have switched to a generic plan."""


def milliseconds(
    connection: Connection,
    query: str,
    parameters: Callable[[int], Sequence[Any] | dict[str, Any]],
    times: int,
) -> list[float]:
    """Milliseconds of each of `times` executions, rows fetched, prepared as psycopg does by default.

    `parameters` makes those of execution number n: other ones each time, so that no page is only warm by
    luck.
    """
    text = query.encode()
    taken = []
    for number in range(WARM_UP + times):
        values = parameters(number)
        start = time.perf_counter()
        connection.execute(text, values).fetchall()
        if number >= WARM_UP:
            taken.append((time.perf_counter() - start) * 1000)
    return taken


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed, nearest rank.

    >>> percentile([4, 1, 3, 2], 0.5), percentile(list(range(1, 101)), 0.95)
    (2, 95)
    """
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle."""
    return statistics.median(values)
