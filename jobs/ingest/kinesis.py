"""A Kinesis stream, read shard by shard, each shard a source with marks: its sequence numbers.

Lines are numbered by us, from 1 on in each shard, because sequence numbers do not fit a bigint. A record holds
one JSON object or several lines of NDJSON; it is never split over two batches, so that the mark of a batch is
the sequence number of its last record.

**Gaps.** A shard forgets what is older than the stream's retention, and reading on behind a record that it has
forgotten goes on with the oldest one left, without a word. So a reader begins *at* its mark: if the record
is still there, nothing behind it is gone. If it is not, all that had arrived before `covered_until` has
been read, and nothing is gone either as long as that is within the retention. Else something may be.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  (botocore's own)
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
)

from jobs.errors import JobsError
from jobs.ingest.lines import Line, LongLine, Unreadable
from jobs.ingest.run import Patience
from jobs.ingest.source import LIMITS, Batch, Gap, GapError, Limits, Mark

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient
    from types_boto3_kinesis.literals import ShardIteratorTypeType

SCHEME: Final = "kinesis://"
PAGE: Final = 10_000
"""Records that are asked for at once: as many as there may be."""
IDLE: Final = 0.25
"""Seconds between two looks at a shard that had nothing: it allows five a second, to all its readers."""
MARK_EVERY: Final = timedelta(minutes=1)
"""How often a shard with nothing to read is marked all the same, so that a long silence is no gap."""
SLACK: Final = timedelta(minutes=5)
"""So much earlier than the retention says, a record is taken for forgotten: clocks differ."""
BEFORE: Final = "<"
"""Before the sequence number of a mark: that record is not read yet, it is the first one that there was."""
AGGREGATED: Final = b"\xf3\x89\x9a\xc2"
"""What a record begins with into which the Kinesis Producer Library packed several."""

_BUSY: Final = {
    "InternalFailure", "KMSThrottlingException", "LimitExceededException", "ProvisionedThroughputExceededException",
    "RequestTimeout", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip
_EXPIRED: Final = "ExpiredIteratorException"

Answer = TypeVar("Answer")


class StoppedError(JobsError):
    """We were asked to stop while waiting for something that did not come."""


class _ExpiredError(Exception):
    """The iterator is too old: another one is to be had."""


class _UnknownNumberError(Exception):
    """The shard does not know the sequence number (any more)."""


@dataclass(frozen=True)
class Shard:
    """A shard as the stream lists it."""

    shard_id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Record:
    """A record as it was put, when it arrived, and its place in the shard."""

    sequence_number: str
    data: bytes
    arrived_at: datetime | None


@dataclass(frozen=True)
class Page:
    """What one look at a shard brought; `iterator` is None at the end of a closed shard."""

    records: Sequence[Record]
    iterator: str | None
    behind: timedelta


class Stream:
    """A Kinesis stream. Settings and credentials are boto3's own: `AWS_PROFILE`, `AWS_ENDPOINT_URL` …

    A call that fails because the service is busy or away is made again after a pause, for `retry` seconds. Raises
    JobsError for anything that another try does not mend, StoppedError once `stop` is set.
    """

    def __init__(
        self,
        name: str,
        *,
        retry: float = 60.0,
        stop: threading.Event | None = None,
        say: Callable[[str], None] = lambda _text: None,
        client: KinesisClient | None = None,
    ) -> None:
        self.name = name
        self.stop = stop or threading.Event()
        self._retry = retry
        self._say = say
        try:
            self._client: KinesisClient = client or boto3.Session().client(
                "kinesis",
                region_name=os.environ.get("AWS_REGION"),
                # The pauses are ours: they end when we are asked to stop.
                config=Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=10,
                    read_timeout=30,
                    max_pool_connections=64,
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise self._explained(error) from None
        summary = self._call(lambda: self._client.describe_stream_summary(StreamName=name))
        facts = summary["StreamDescriptionSummary"]
        self.retention = timedelta(hours=facts["RetentionPeriodHours"])
        created = facts["StreamCreationTimestamp"].astimezone(UTC)
        self.fingerprint = f"{facts['StreamARN']} {created:%Y-%m-%dT%H:%M:%SZ}"

    def shards(self) -> list[Shard]:
        """All shards that still hold something, and the open ones."""
        found: list[Shard] = []
        token: str | None = None
        while True:
            if token is None:
                answer = self._call(lambda: self._client.list_shards(StreamName=self.name))
            else:
                answer = self._call(partial(self._client.list_shards, NextToken=token))
            for one in answer["Shards"]:
                parents = (one.get("ParentShardId"), one.get("AdjacentParentShardId"))
                closed = one["SequenceNumberRange"].get("EndingSequenceNumber") is not None
                found.append(Shard(one["ShardId"], tuple(parent for parent in parents if parent), closed))
            token = answer.get("NextToken")
            if not token:
                return found

    def iterator(self, shard_id: str, kind: ShardIteratorTypeType, sequence_number: str | None = None) -> str:
        """Where to read a shard from. Raises _UnknownNumberError."""
        ask = partial(
            self._client.get_shard_iterator, StreamName=self.name, ShardId=shard_id, ShardIteratorType=kind
        )
        if sequence_number is not None:
            ask = partial(ask, StartingSequenceNumber=sequence_number)
        return self._call(ask)["ShardIterator"]

    def page(self, iterator: str) -> Page:
        """The next records. Raises _ExpiredError."""
        answer = self._call(lambda: self._client.get_records(ShardIterator=iterator, Limit=PAGE))
        records = [
            Record(one["SequenceNumber"], one["Data"], one.get("ApproximateArrivalTimestamp"))
            for one in answer["Records"]
        ]
        behind = timedelta(milliseconds=answer.get("MillisBehindLatest", 0))
        return Page(records, answer.get("NextShardIterator"), behind)

    def _call(self, ask: Callable[[], Answer]) -> Answer:
        patience = Patience(self._retry, sleep=self.sleep)
        while True:
            try:
                return ask()
            except (BotoCoreError, ClientError) as error:
                found = self._explained(error)
                if not _worth_another_try(error):
                    raise found from None
                self._say(f"{found}; trying again")
                patience.wait(found)

    def sleep(self, seconds: float) -> None:
        """Wait, unless we are to stop. Raises StoppedError."""
        if self.stop.wait(seconds):
            raise StoppedError(f"{SCHEME}{self.name}: stopped while waiting for an answer")

    def _explained(self, error: Exception) -> JobsError:
        name = f"{SCHEME}{self.name}"
        match error:
            case NoCredentialsError():
                return JobsError(f"{name}: no credentials: set AWS_PROFILE, or give this machine a role")
            case NoRegionError():
                return JobsError(f"{name}: no region: set AWS_DEFAULT_REGION, or one in the AWS_PROFILE")
            case ClientError():
                code = error.response.get("Error", {}).get("Code", "")
                said = " ".join(error.response.get("Error", {}).get("Message", "").split())
                if code == _EXPIRED:
                    raise _ExpiredError from None
                if code == "InvalidArgumentException" and error.operation_name == "GetShardIterator":
                    raise _UnknownNumberError from None
                return JobsError(f"{name}: {code}: {said}" if said else f"{name}: {code}")
        return JobsError(f"{name}: {' '.join(str(error).split())}")


def _worth_another_try(error: BotoCoreError | ClientError) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error.response.get("Error", {}).get("Code") in _BUSY or status >= 500
    # Connections that were refused, lost, or timed out.
    return isinstance(error, HTTPClientError | ConnectionError)


@dataclass
class ShardSource:
    """One shard of a stream, as a source. It ends when the shard does, when it is caught up unless it
    is to `follow`, or when the stream is to stop; `state` then says which.
    """

    stream: Stream
    shard_id: str
    name: str
    follow: bool = False
    limits: Limits = LIMITS
    since: datetime | None = None
    """Of a shard that others were split or merged into: up to when those were read."""
    closed: Callable[[], bool] = lambda: False
    """Whether the listing says that nothing is put into this shard any more."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    partition: str = field(init=False)
    replayable: bool = field(default=True, init=False)
    marked: bool = field(default=True, init=False)
    state: str = field(default="stopped", init=False)
    _number: int = field(default=1, init=False)
    _mark: Mark = field(default=Mark(""), init=False)
    _noted: Mark = field(default=Mark(""), init=False)
    _iterator: str | None = field(default=None, init=False)
    _pending: deque[Record] = field(default_factory=deque, init=False)
    _covered: datetime | None = field(default=None, init=False)
    _tip: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _fresh: bool = field(default=False, init=False)
    _accepted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.partition = self.shard_id

    def fingerprint(self, known: str | None) -> str:
        """Which stream of this name it is: one that is deleted and made again begins anew."""
        return self.stream.fingerprint

    def seek(self, position: int, mark: Mark | None = None) -> None:
        """Go on behind the record of `mark`. Raises GapError if records behind it may be gone."""
        if mark is None and position:
            raise JobsError(
                f"{self.name}: {position} lines of {self.shard_id} are in the database, but not up to which"
                " sequence number: somebody else staged them; read the stream under another --source"
            )
        if mark is None and self.since is not None:
            mark = Mark("", self.since)
        self._number = position + 1
        self._mark = self._noted = mark or Mark("")
        self._pending.clear()
        self._covered = self._mark.covered_until
        self._tip = self._over = False
        self._fresh = mark is None
        if self._fresh:
            self._iterator = self.stream.iterator(self.shard_id, "TRIM_HORIZON")
        elif not self._mark.ended:
            self._locate()
        self._accepted = False

    def accept(self, gap: Gap) -> None:
        """Go on with the oldest record that is left."""
        self._accepted = True

    def next(self) -> Batch | None:
        """The lines of the next records."""
        while True:
            if self._pending and self._fresh:
                # Noted before anything is staged: if what is staged is lost, we must find this record again.
                self._fresh = False
                self._mark = Mark(f"{BEFORE}{self._pending[0].sequence_number}")
                return Batch(self._number, [], self._mark)
            if self._pending:
                return self._batch()
            if self._mark.ended:
                self.state = "ended"
                return None
            if self._iterator is None or self._over:
                self._mark = self._noted = Mark(self._mark.text, self._covered, ended=True)
                return Batch(self._number, [], self._mark)
            resting = self.stream.stop.is_set() or (self._tip and not self.follow)
            if (silence := self._silence(resting)) is not None:
                return silence
            if resting:
                self.state = "stopped" if self.stream.stop.is_set() else "caught up"
                return None
            if self._tip and self.stream.stop.wait(IDLE * random.uniform(0.8, 1.2)):
                continue
            self._read()

    def done(self, position: int) -> None:
        """Nothing is kept: the stream is."""

    def cut_off(self) -> None:
        """Nothing is left out: records are whole."""

    def close(self) -> None:
        """The connections are the stream's."""
        self._pending.clear()

    def _silence(self, resting: bool) -> Batch | None:
        """A batch without lines that says how far nothing came, now and then, and before a rest."""
        covered, noted = self._covered, self._noted.covered_until
        self._fresh = self._fresh and covered is None
        if covered is None or (noted is not None and covered <= noted):
            return None
        if noted is not None and not resting and covered - noted < MARK_EVERY:
            return None
        self._mark = self._noted = Mark(self._mark.text, covered)
        return Batch(self._number, [], self._mark)

    def _batch(self) -> Batch:
        lines: list[Line] = []
        size = 0
        record = self._pending[0]
        while self._pending and len(lines) < self.limits.rows and size < self.limits.size:
            record = self._pending.popleft()
            lines += lines_of(record.data, self.limits.line)
            size += len(record.data)
        covered = record.arrived_at or self._mark.covered_until if self._pending else self._covered
        self._mark = self._noted = Mark(record.sequence_number, covered)
        batch = Batch(self._number, lines, self._mark)
        self._number += len(lines)
        return batch

    def _read(self) -> None:
        """One look at the shard; what it brought is pending."""
        assert self._iterator is not None
        asked_at, closed = self.clock(), self.closed()
        try:
            page = self.stream.page(self._iterator)
        except _ExpiredError:
            page = None
        # An iterator on a shard that was silent for longer than its retention has been seen to stay there.
        if page is not None and (page.records or not page.iterator or page.behind < self.stream.retention):
            self._take(page, asked_at)
            # It was closed before we looked, so that nothing can have come since.
            self._over = closed and self._tip
        elif self._fresh:
            self._iterator = self.stream.iterator(self.shard_id, "TRIM_HORIZON")
        else:
            self._locate()

    def _take(self, page: Page, asked_at: datetime) -> None:
        text = self._mark.text
        read = int(text.removeprefix(BEFORE)) - text.startswith(BEFORE) if text else -1
        self._pending.extend(one for one in page.records if int(one.sequence_number) > read)
        self._iterator = page.iterator
        self._covered = asked_at - page.behind
        self._tip = not page.behind and len(page.records) < PAGE

    def _locate(self) -> None:
        """Find where to go on, looking whether all behind our mark is still there."""
        if self._mark.text and self._at_mark():
            return
        horizon = self.clock() - self.stream.retention + SLACK
        self._iterator = self.stream.iterator(self.shard_id, "TRIM_HORIZON")
        if not self._accepted and (self._covered is None or self._covered < horizon):
            raise self._gap(self._covered)

    def _at_mark(self) -> bool:
        """Whether the record of our mark is still there; if so, those behind it are pending."""
        wanted = self._mark.text.removeprefix(BEFORE)
        try:
            iterator: str | None = self.stream.iterator(self.shard_id, "AT_SEQUENCE_NUMBER", wanted)
            while iterator is not None:
                asked_at = self.clock()
                page = self.stream.page(iterator)
                if page.records:
                    if page.records[0].sequence_number != wanted:
                        return False
                    self._take(page, asked_at)
                    return True
                if not page.behind or page.behind >= self.stream.retention:
                    return False
                iterator = page.iterator
        except (_UnknownNumberError, _ExpiredError):
            pass
        return False

    def _gap(self, covered: datetime | None) -> GapError:
        assert self._iterator is not None
        page = self.stream.page(self._iterator)
        begin = self._mark.text.removeprefix(BEFORE) or "the beginning"
        end = page.records[0].sequence_number if page.records else "now"
        since = f" (read up to {covered:%Y-%m-%d %H:%M:%S} UTC)" if covered is not None else ""
        hours = self.stream.retention / timedelta(hours=1)
        why = f"the stream keeps records for {hours:g} hours, and the position is older{since}"
        return GapError(
            f"{self.name}: records of {self.shard_id} from {begin} to {end} may be gone: {why};"
            " to go on with what is left give --accept-gap",
            Gap(begin, end, why),
        )


def lines_of(data: bytes, longest: int) -> list[Line]:
    """The lines of a record, blank ones left out."""
    if data.startswith(AGGREGATED):
        return [
            Unreadable(data, "an aggregated record of the Kinesis Producer Library, which is not unpacked")
        ]
    lines = [line for line in data.split(b"\n") if line and not line.isspace()]
    if len(data) <= longest:
        return list(lines)
    return [LongLine.of(line) if len(line) > longest else line for line in lines]
