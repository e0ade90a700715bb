"""Deleting what an archive object holds: in transactions that also record how far they are.

A transaction deletes up to 99 items, each on the condition that it is what was archived, and moves `next` of the
object's row in the state table. So it is known for each item, whatever was killed and when, whether it left the table
by our hand. An item that somebody changed or deleted meanwhile is left out of the transaction, which is tried again
without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, HTTPClientError

from archiver import conditions, items
from archiver.aws import Patience, code, explained
from archiver.documents import Source
from archiver.errors import ArchiverError
from archiver.state import Progress, State

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

MOST_BYTES: Final = 4_000_000
"""Of the items in a transaction; DynamoDB takes 4 MB."""


THROTTLED: Final = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"})
BUSY: Final = THROTTLED | {"TransactionConflict"}
"""Reasons for which a transaction was cancelled that pass."""


class OvertakenError(Exception):
    """Another run is at this object, too: what it has done is done."""


@dataclass
class Deletes:
    """The deletes of one archive object."""

    client: DynamoDBClient
    state: State
    source: Source
    items: Sequence[Mapping[str, Any]]
    progress: Progress
    batch_size: int = 100
    names: Sequence[str] = ()
    """Attributes seen on items of the table, the most frequent first: one that appears on an item is a change."""
    owner: str = ""
    """The run, as the record names it."""
    sleep: Callable[[float], object] = time.sleep

    @property
    def done(self) -> bool:
        """Whether each item is settled."""
        return self.progress.next >= len(self.items)

    def step(self) -> int:
        """One transaction, tried until it is through; how many items it deleted.

        Raises ArchiverError, OvertakenError.
        """
        end = self._end()
        before, kept = self.progress, dict[int, str]()
        patience = Patience(self.sleep)
        while True:
            try:
                with explained(f"could not delete items of {self.source.table}"):
                    self._send(end, kept)
                break
            except ArchiverError as error:
                cause = error.__cause__
                if isinstance(cause, HTTPClientError) or (
                    isinstance(cause, ClientError) and code(cause) != "TransactionCanceledException"
                ):
                    # Was it done, and only the answer lost? The record knows.
                    if self._got_through(end, kept):
                        break
                    raise
                if not isinstance(cause, ClientError):
                    raise
                if _reasons(cause)[:1] == ["ConditionalCheckFailed"]:
                    if self._got_through(end, kept):
                        break
                    raise OvertakenError from None
                if self._left_out(cause, end, kept):
                    patience.got_further()
                    continue
                if THROTTLED & set(_reasons(cause)) and end - before.next > 1:
                    # A table may not have the capacity for so many writes at once.
                    end = before.next + (end - before.next) // 2
                    self.batch_size = end - before.next + 1
                    kept = {index: why for index, why in kept.items() if index < end}
                patience.wait(error)
        self.progress = replace(before, next=end, kept={**before.kept, **kept})
        return end - before.next - len(kept)

    def _end(self) -> int:
        """Where this transaction ends: by number, and by size, of which it has each item and its condition."""
        start, total = self.progress.next, 0
        end = start
        while end < len(self.items) and end - start < self.batch_size - 1:
            total += 2 * items.size(self.items[end])
            if total > MOST_BYTES and end > start:
                break
            end += 1
        return end

    def _send(self, end: int, kept: Mapping[int, str]) -> None:
        writes: list[Any] = [{"Update": self.state.settle(self.progress, end, kept, self.owner)}]
        for index in self._wanted(end, kept):
            item = self.items[index]
            condition = conditions.unchanged(item, self.names)
            assert condition is not None, "items without a condition are not archived"
            writes.append(
                {
                    "Delete": {
                        "TableName": self.source.table,
                        "Key": self.source.key_of(item),
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                        **condition,
                    }
                }
            )
        self.client.transact_write_items(TransactItems=writes)

    def _wanted(self, end: int, kept: Mapping[int, str]) -> list[int]:
        return [index for index in range(self.progress.next, end) if index not in kept]

    def _left_out(self, error: ClientError, end: int, kept: dict[int, str]) -> bool:
        """Whether the transaction can go on without items that are no longer what was archived: added to `kept`.

        Raises ArchiverError for a reason that trying again does not help against.
        """
        wanted = self._wanted(end, kept)
        reasons: Any = error.response.get("CancellationReasons", [])
        if len(reasons) != len(wanted) + 1:
            raise ArchiverError(f"DynamoDB cancelled a transaction and did not say why: {error}")
        left_out = False
        if (why := reasons[0].get("Code")) not in (None, "None", *BUSY):
            raise ArchiverError(f"could not note what was deleted: {why}: {reasons[0].get('Message')}")
        for index, reason in zip(wanted, reasons[1:], strict=True):
            match reason.get("Code"):
                case "ConditionalCheckFailed":
                    kept[index] = "changed" if reason.get("Item") else "gone"
                    left_out = True
                case None | "None":
                    pass
                case why if why not in BUSY:
                    raise ArchiverError(
                        f"could not delete item {index} of {self.progress.key}: {why}: {reason.get('Message')}"
                    )
        return left_out

    def _got_through(self, end: int, kept: Mapping[int, str]) -> bool:
        """Whether the record says that this very transaction was done. Raises OvertakenError if another one was."""
        now = self.state.progress(self.progress.key)
        if now is None or now.next > self.progress.next:
            if now and (now.next, now.by, now.kept) == (end, self.owner, {**self.progress.kept, **kept}):
                return True
            raise OvertakenError
        return False


def _reasons(error: ClientError) -> list[str | None]:
    found: Any = error.response.get("CancellationReasons", [])
    return [one.get("Code") for one in found]
