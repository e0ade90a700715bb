"""How old an item is: its time attribute, in the formats that tables have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, get_args

Format = Literal["iso", "epoch", "epoch-ms"]
FORMATS: Final[tuple[str, ...]] = get_args(Format)


def condition_value(moment: datetime, form: Format) -> dict[str, str]:
    """What a time attribute is compared with in DynamoDB: ISO text to the millisecond in UTC, or a number.

    >>> condition_value(datetime(2024, 1, 20, 2, tzinfo=UTC), "iso")
    {'S': '2024-01-20T02:00:00.000Z'}
    >>> condition_value(datetime(2024, 1, 20, 2, tzinfo=UTC), "epoch")
    {'N': '1705716000'}
    """
    if form == "iso":
        return {"S": iso(moment)}
    milliseconds = round(moment.timestamp() * 1000)
    return {"N": str(milliseconds if form == "epoch-ms" else milliseconds // 1000)}


def iso(moment: datetime) -> str:
    """As JavaScript writes it: `2024-01-20T02:00:00.000Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def of(value: Mapping[str, Any] | None, form: Format) -> datetime | None:
    """The moment a time attribute says, None if it says none.

    ISO text without an offset is UTC. Texts are compared by DynamoDB character by character, so that one with
    another offset than the next may be taken for older than it is: whoever deletes looks here again.
    """
    if value is None:
        return None
    try:
        if form == "iso":
            moment = datetime.fromisoformat(value["S"])
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        number = Decimal(value["N"])
        return datetime.fromtimestamp(float(number / 1000 if form == "epoch-ms" else number), UTC)
    except (KeyError, ValueError, OverflowError, OSError, InvalidOperation):
        return None
