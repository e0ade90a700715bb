"""The condition under which an item may be deleted: it is what was archived, no more and no less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

# DynamoDB's limits of one expression.
LONGEST: Final = 4096
MOST_OPERATORS: Final = 300


def unchanged(item: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any] | None:
    """The condition that an item has these attributes with these values, as arguments of Delete.

    DynamoDB can compare attributes, not items: that an attribute was added can be said for known names only. `others`
    are names seen on other items of the table, the most frequent first; as many as fit into an expression must not be
    there. None if not even the attributes of the item fit (about 150 of them): it can't be deleted safely.
    """
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    parts: list[str] = []
    for index, (name, value) in enumerate(sorted(item.items())):
        names[f"#{index}"] = name
        values[f":{index}"] = value
        parts.append(f"#{index}=:{index}")
    length, operators = len(" AND ".join(parts)), 2 * len(parts) - 1
    if length > LONGEST or operators > MOST_OPERATORS:
        return None
    for name in others:
        if name in item:
            continue
        index = len(parts)
        part = f"attribute_not_exists(#{index})"
        length, operators = length + len(" AND ") + len(part), operators + 2
        if length > LONGEST or operators > MOST_OPERATORS:
            break
        names[f"#{index}"] = name
        parts.append(part)
    return {
        "ConditionExpression": " AND ".join(parts),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
