"""What two sets of rows are compared by: ops.archive_checks says what it is."""

from __future__ import annotations

from typing import Any

Checks = dict[str, Any]
"""`{"rows": n, "sum": n, "columns": {name: [n, n]}}`."""


def none(columns: list[str]) -> Checks:
    """Of no rows."""
    return {"rows": 0, "sum": 0, "columns": {name: [0, 0] for name in columns}}


def add(one: Checks, other: Checks) -> Checks:
    """Of the rows of both.

    >>> add({"rows": 1, "sum": 5, "columns": {"a": [1, -2]}}, {"rows": 2, "sum": -1, "columns": {"a": [0, 0]}})
    {'rows': 3, 'sum': 4, 'columns': {'a': [1, -2]}}
    """
    return {
        "rows": one["rows"] + other["rows"],
        "sum": one["sum"] + other["sum"],
        "columns": {
            name: [mine + yours for mine, yours in zip(pair, other["columns"][name], strict=True)]
            for name, pair in one["columns"].items()
        },
    }


def difference(written: Checks, read: Checks) -> str | None:
    """What differs, for people; None if nothing does."""
    if written == read:
        return None
    if written["rows"] != read["rows"]:
        return f"{written['rows']:,} rows were exported, {read['rows']:,} read back"
    names = [name for name, pair in written["columns"].items() if read["columns"].get(name) != pair]
    return f"other values were read back in {', '.join(names)}" if names else "values have changed rows"
