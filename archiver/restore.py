"""Back from the archive: an object, a day, a key, or what matches a filter, into any table.

Only what left the table by the archiver's hand comes back: items that were changed or deleted by others while they were
archived are in the object, too, but the archive has not the last word on them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import jmespath
import jmespath.exceptions
from botocore.exceptions import ClientError
from jmespath.parser import ParsedResult

from archiver import documents, items
from archiver.aws import Aws, Patience, code, describe, explained
from archiver.deletes import BUSY, MOST_BYTES
from archiver.documents import Manifest
from archiver.errors import ArchiverError
from archiver.items import Item
from archiver.reports import Report
from archiver.settings import Settings
from archiver.state import State
from archiver.store import FrozenError, Store

Overwrite = Literal["never", "older", "always"]
PER_TRANSACTION: Final = 100


@dataclass(frozen=True)
class Wanted:
    """What to bring back. All that are given must hold."""

    objects: Sequence[str] = ()
    """Names of archive objects; empty: all of them, or those of `day`."""
    day: str | None = None
    """On which they were archived, UTC: 2024-01-20."""
    key: tuple[str, ...] | None = None
    """Of one item, as `items.key_text` writes it."""
    filter: str | None = None
    """JMESPath on the item's plain form: status == 'archived'."""
    source_table: str | None = None
    """Only what came from this table."""


@dataclass
class Restored(Report):
    """What became of what was wanted; of unfinished objects only what is known to have left is restored."""

    restored: int = 0
    identical: int = 0
    """Were in the table just so."""
    newer: int = 0
    """Another version is in the table: left alone."""
    not_ours: int = 0
    """In the archive, but changed or deleted by others while they were archived: they did not leave by our hand."""
    unverified: list[str] = field(default_factory=list)
    """Objects of the documented shape that have no manifest to be checked against."""
    held: int = 0
    """Items of which a later version is in an object that is not ready: left for the next time."""
    requested: list[str] = field(default_factory=list)
    """Objects in an archive class that were requested now."""
    waiting: list[str] = field(default_factory=list)
    """Objects in an archive class that had been requested and are not ready."""

    @property
    def ready(self) -> bool:
        """Whether no object has to be waited for."""
        return not (self.requested or self.waiting)


@dataclass
class Restore:
    """One restore into the table `target`."""

    aws: Aws
    settings: Settings
    target: str
    wanted: Wanted
    overwrite: Overwrite = "never"
    dry_run: bool = False
    unproven: bool = False
    """Also what is not known to have left by the archiver's hand: for when manifests or the state table are lost."""
    thaw_days: int = 7
    thaw_tier: str = "Standard"
    progressed: Callable[[Restored], None] = lambda report: None
    sleep: Callable[[float], object] = time.sleep
    report: Restored = field(default_factory=Restored)

    def __post_init__(self) -> None:
        self._store = Store(self.aws.s3, self.settings.archive_bucket, self.settings.kms_key_id)
        self._filter = compiled(self.wanted.filter)
        self._key: Mapping[str, str] = {}
        self._held: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        """By the names of key attributes: of items that nothing older may come for."""
        self._all_held = False

    def run(self) -> Restored:
        """All of it. Safe to repeat: what is there already stays. Raises ArchiverError if it cannot begin."""
        self._key = describe(self.aws.dynamodb, self.target).key
        if self.wanted.key is not None and len(self.wanted.key) != len(self._key):
            raise ArchiverError(
                f"the key of {self.target} is {', '.join(self._key)}: give a value for each with --key"
            )
        for name in self._names():
            try:
                self._object(name)
            except FrozenError as error:
                self._thaw(error.key)
                if not self._hold(name) and self.overwrite != "always":
                    # It may have any item.
                    self._all_held = True
            except ArchiverError as error:
                self.report.problems.append(str(error))
                self._hold(name)
            self.progressed(self.report)
        return self.report

    def _names(self) -> Iterable[str]:
        if self.wanted.objects:
            prefix = f"s3://{self.settings.archive_bucket}/"
            names = [name.removeprefix(prefix) for name in self.wanted.objects]
            for name in names:
                if name.startswith("s3://"):
                    raise ArchiverError(f"{name} is not in the bucket {prefix} (ARCHIVE_BUCKET)")
            return self._in_turn(names)
        prefix = (
            f"{self.settings.archive_prefix}/"
            if self.wanted.day is None
            else documents.day_prefix(self.settings.archive_prefix, self.wanted.day)
        )
        names = self._in_turn(self._store.keys(prefix))
        if not names:
            raise ArchiverError(f"there are no archives in s3://{self.settings.archive_bucket}/{prefix}")
        tables = {table for name in names if (table := documents.table_of(name))}
        if self.wanted.source_table is not None:
            return [name for name in names if documents.table_of(name) == self.wanted.source_table]
        if len(tables) > 1:
            raise ArchiverError(
                f"these archives are of several tables, {', '.join(sorted(tables))}: choose one with --from-table"
            )
        return names

    def _in_turn(self, names: Iterable[str]) -> list[str]:
        """Of an item that was archived twice the last version gets in: the first to come, or the last to write over."""
        return sorted(
            names, key=lambda name: (documents.order_of(name), name), reverse=self.overwrite != "always"
        )

    def _hold(self, name: str) -> bool:
        """Nothing older of the items of an object that is not ready may come before it; whether they are known."""
        try:
            manifest = self._manifest(name)
        except ArchiverError:
            return False
        if manifest:
            held = self._held.setdefault(manifest.source.key, set())
            held.update(key for index, key in enumerate(manifest.keys) if index not in manifest.kept)
        return manifest is not None

    def _is_held(self, item: Item) -> bool:
        return self._all_held or any(_key_text(item, names) in held for names, held in self._held.items())

    def _thaw(self, name: str) -> None:
        if self.dry_run:
            self.report.waiting.append(name)
            return
        try:
            new = self._store.thaw(name, self.thaw_days, self.thaw_tier)
        except ArchiverError as error:
            self.report.problems.append(str(error))
            return
        (self.report.requested if new else self.report.waiting).append(name)

    # ---- what of an object left -----------------------------------------------------------------------------

    def _object(self, name: str) -> None:
        manifest = self._manifest(name)
        if manifest is None:
            found = self._foreign(name)
            form = self.settings.time_attribute
            if found is None:
                return
            self.report.unverified.append(name)
            chosen = self._possible(found, name)
        else:
            if self.wanted.source_table not in (None, manifest.source.table):
                return
            left = self._left(manifest)
            # By what they were called in their table, if that is what they are called in this one.
            if self.wanted.key is not None and manifest.source.key == tuple(self._key):
                left = [index for index in left if manifest.keys[index] == self.wanted.key]
            if not left:
                return
            body = self._store.get_verified(name, manifest.digest, manifest.size)
            archived = documents.read_archive(name, body).items
            form = manifest.source.time_attribute
            chosen = [(index, archived[index]) for index in left]
        self.report.objects += 1
        matching = [(index, item) for index, item in chosen if self._matches(item, index, name)]
        ready = [item for _, item in matching if not self._is_held(item)]
        self.report.held += len(matching) - len(ready)
        self._put(ready, form, name)

    def _manifest(self, name: str) -> Manifest | None:
        at = documents.manifest_key(name, self.settings.archive_prefix, self.settings.manifest_prefix)
        try:
            return documents.read_manifest(at, self._store.get(at))
        except KeyError:
            return None
        except FrozenError:
            raise
        except ArchiverError as error:
            # While deletes are under way the state table knows what a manifest says.
            try:
                archive = documents.read_archive(name, self._store.get(name))
            except KeyError:
                raise error from None
            progress = archive.source and self._state(archive.source.table).progress(name)
            if not progress:
                raise
            return archive.manifest(name, progress.digest, progress.size)

    def _state(self, table: str) -> State:
        return State(self.aws.dynamodb, self.settings.state_table, table)

    def _foreign(self, name: str) -> tuple[Item, ...] | None:
        """Items of an object without a manifest; None if it is ours, and so counts for nothing without."""
        try:
            archive = documents.read_archive(name, self._store.get(name))
        except KeyError:
            raise ArchiverError(
                f"there is no s3://{self.settings.archive_bucket}/{name}: see python -m archiver verify"
            ) from None
        if archive.source and not self.unproven:
            raise ArchiverError(
                f"s3://{self.settings.archive_bucket}/{name} has no manifest under {self.settings.manifest_prefix}/: is"
                " MANIFEST_PREFIX right? Which of its items have left their table is not known (--unproven takes all)"
            )
        return archive.items

    def _possible(self, found: Sequence[Item], name: str) -> list[tuple[int, Item]]:
        """Items of another maker, with their numbers, less those that can be in no table at all."""
        refusals = [items.refusal(item) for item in found]
        self._left_out(
            Counter(f"an item is none of DynamoDB's: {why}" for why in refusals if why), len(found), name
        )
        return [(index, item) for index, item in enumerate(found) if not refusals[index]]

    def _left(self, manifest: Manifest) -> list[int]:
        """Numbers of the items that left the table by the archiver's hand."""
        kept, end = manifest.kept, manifest.item_count
        if self.unproven:
            return [index for index in range(end) if kept.get(index) != "changed"]
        if manifest.status != "complete":
            progress = self._state(manifest.source.table).progress(manifest.key)
            if progress is None:
                # Completed since we looked, or never begun.
                again = self._manifest(manifest.key)
                if again is None or again.status != "complete":
                    self.report.abandoned.append(manifest.key)
                    return []
                kept = again.kept
            else:
                self.report.unfinished.append(manifest.key)
                kept, end = progress.kept, progress.next
        self.report.not_ours += len(kept)
        return [index for index in range(end) if index not in kept]

    def _matches(self, item: Item, index: int, name: str) -> bool:
        if self.wanted.key is not None and self._key_text(item) != self.wanted.key:
            return False
        if self._filter is None:
            return True
        try:
            return bool(self._filter.search(items.comparable(item)))
        except jmespath.exceptions.JMESPathError as error:
            raise ArchiverError(f"{name}: the filter fails for item {index}: {_line(error)}") from None

    def _key_text(self, item: Item) -> tuple[str, ...]:
        return _key_text(item, self._key)

    # ---- into the table -------------------------------------------------------------------------------------

    def _put(self, wanted: list[Item], time_attribute: str, name: str) -> None:
        fitting, unfit = list[Item](), Counter[str]()
        for item in wanted:
            why = self._unfit(item)
            if why:
                unfit[why] += 1
            else:
                fitting.append(item)
        self._left_out(unfit, len(wanted), name)
        if self.dry_run:
            self.report.restored += len(fitting)
            return
        for batch in self._batches(fitting):
            self._put_parts(batch, time_attribute, name)
            self.progressed(self.report)

    def _left_out(self, reasons: Mapping[str, int], of: int, name: str) -> None:
        for why, number in reasons.items():
            self.report.problems.append(f"{name}: {why} ({number} of {of} items are left out)")

    def _unfit(self, item: Item) -> str:
        """Why an item can't be in this table, empty if it can."""
        for name, kind in self._key.items():
            if name not in item:
                return f"an item has no {name}, which is in the key of {self.target}"
            ((found, content),) = item[name].items()
            if found != kind:
                return f"an item's {name} is of type {found}, and the key of {self.target} has it as {kind}"
            if not content:
                return f"an item's {name} is empty, which the key of {self.target} can't be"
        return ""

    def _put_parts(self, batch: list[Item], time_attribute: str, name: str) -> None:
        """A batch; where DynamoDB refuses it, its halves, so that one bad item does not keep the others out."""
        try:
            self._put_batch(batch, time_attribute, name)
        except ArchiverError as error:
            if code(error.__cause__) != "ValidationException":
                raise
            if len(batch) == 1:
                self._refused(batch[0], name, str(error))
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._put_parts(half, time_attribute, name)

    def _refused(self, item: Item, name: str, why: str) -> None:
        self.report.problems.append(f"{name}: the item {' '.join(self._key_text(item))} is refused: {why}")

    def _batches(self, wanted: Iterable[Item]) -> Iterator[list[Item]]:
        """Each fits a transaction, and has no key twice: an object of another maker might."""
        batch: list[Item] = []
        total, keys = 0, set[tuple[str, ...]]()
        for item in wanted:
            weight, key = items.size(item), self._key_text(item)
            if batch and (len(batch) == PER_TRANSACTION or total + weight > MOST_BYTES or key in keys):
                yield batch
                batch, total = [], 0
                keys.clear()
            batch.append(item)
            total += weight
            keys.add(key)
        if batch:
            yield batch

    def _put_batch(self, batch: list[Item], time_attribute: str, name: str) -> None:
        patience = Patience(self.sleep)
        while batch:
            try:
                with explained(f"could not write to {self.target}"):
                    self.aws.dynamodb.transact_write_items(
                        TransactItems=[{"Put": self._write(item, time_attribute)} for item in batch]
                    )
                self.report.restored += len(batch)
                return
            except ArchiverError as error:
                cause = error.__cause__
                if not isinstance(cause, ClientError) or code(cause) != "TransactionCanceledException":
                    raise
                left = self._left_over(batch, cause, error, name)
                if len(left) == len(batch):
                    patience.wait(error)
                batch = left

    def _left_over(
        self, batch: list[Item], cause: ClientError, error: ArchiverError, name: str
    ) -> list[Item]:
        """The items of a cancelled transaction that still have to be written; counts the others."""
        reasons: Any = cause.response.get("CancellationReasons", [])
        if len(reasons) != len(batch):
            raise error
        left = []
        for item, reason in zip(batch, reasons, strict=True):
            match reason.get("Code"):
                case "ConditionalCheckFailed":
                    if reason.get("Item") == item:
                        self.report.identical += 1
                    else:
                        self.report.newer += 1
                case why if why in BUSY or why in (None, "None"):
                    left.append(item)
                case "ValidationError" | "ValidationException":
                    self._refused(item, name, str(reason.get("Message")))
                case why:
                    raise ArchiverError(f"{error}: {why}: {reason.get('Message')}")
        return left

    def _write(self, item: Item, time_attribute: str) -> Any:
        write: dict[str, Any] = {"TableName": self.target, "Item": item}
        if self.overwrite == "always":
            return write
        write |= {
            "ConditionExpression": "attribute_not_exists(#key)",
            "ExpressionAttributeNames": {"#key": next(iter(self._key))},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if self.overwrite == "older" and time_attribute in item:
            write["ConditionExpression"] += " OR #time < :time"
            write["ExpressionAttributeNames"]["#time"] = time_attribute
            write["ExpressionAttributeValues"] = {":time": item[time_attribute]}
        return write


def _key_text(item: Item, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(items.key_text(item[name]) for name in names if name in item)


def compiled(expression: str | None) -> ParsedResult | None:
    """A filter. Raises ArchiverError."""
    if expression is None:
        return None
    try:
        found = jmespath.compile(expression)
        found.search({})  # it knows its functions only now
    except jmespath.exceptions.JMESPathTypeError:
        pass  # of nothing, which an item is not
    except jmespath.exceptions.JMESPathError as error:
        raise ArchiverError(f"{expression!r} is no JMESPath: {_line(error)}") from None
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def parse_key(texts: Sequence[str]) -> tuple[str, ...]:
    """`7` and `N:7` of a command line: a text unless a type stands before it. Raises ArchiverError.

    >>> parse_key(["abc", "N:7"])
    ('S:abc', 'N:7')
    """
    typed = [text if text[:2] in ("S:", "N:", "B:") else f"S:{text}" for text in texts]
    try:
        return tuple(f"N:{items.number_text(text[2:])}" if text[:2] == "N:" else text for text in typed)
    except ValueError as error:
        raise ArchiverError(f"--key {error}") from None
