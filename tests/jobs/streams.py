"""A Kinesis emulator on loopback, with sequence numbers as long and as full of holes as the real ones."""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.core.exceptions import JsonRESTError
from moto.kinesis.models import Record, kinesis_backends
from types_boto3_kinesis import KinesisClient

from tests import aws

STREAM = "values"
SOURCE = f"kinesis://{STREAM}"
FIRST_NUMBER = 49590338271490256608559692538361571095921575989136588898
"""56 digits: no integer of any database."""
STEP = 9_586_980_598


@dataclass
class Emulator:
    """The service, and what only it could do: forget, fail, close a shard."""

    url: str
    client: KinesisClient
    patch: pytest.MonkeyPatch = field(repr=False)

    def create(self, shards: int = 1, name: str = STREAM) -> list[str]:
        """A new stream; the ids of its shards."""
        self.client.create_stream(StreamName=name, ShardCount=shards)
        return list(self._backend.streams[name].shards)

    @property
    def _backend(self) -> Any:
        return kinesis_backends[aws.ACCOUNT][aws.REGION]

    def shard(self, shard_id: str) -> Any:
        """The emulator's own record of a shard."""
        return self._backend.streams[STREAM].shards[shard_id]

    def put(self, data: Sequence[str | bytes], shard_id: str | None = None) -> None:
        """Records, into the shard, else spread over the open ones in turn."""
        streams = [
            one
            for one in self._backend.streams[STREAM].shards.values()
            if (one.shard_id == shard_id if shard_id else one.is_open)
        ]
        # Not through the service's front: it lets records into closed shards.
        for number, one in enumerate(data):
            shard = streams[number % len(streams)]
            last = getattr(shard, "last_number", FIRST_NUMBER + STEP * shard._shard_id * 10**6)
            shard.last_number = last + STEP * (1 + number % 3)
            raw = one.encode() if isinstance(one, str) else one
            shard.records[shard.last_number] = Record("k", b64encode(raw).decode(), shard.last_number, "")

    def split(self, shard_id: str) -> list[str]:
        """Close a shard; its records stay in it, as with the real service. Its children."""
        parent = self.shard(shard_id)
        kept = OrderedDict(parent.records)
        middle = (parent.starting_hash + parent.ending_hash) // 2
        self.client.split_shard(StreamName=STREAM, ShardToSplit=shard_id, NewStartingHashKey=str(middle))
        children = [one for one in self._backend.streams[STREAM].shards.values() if one.parent == shard_id]
        for child in children:
            child.records.clear()
        parent.records.clear()
        parent.records.update(kept)
        return [child.shard_id for child in children]

    def forget(self, shard_id: str, records: int) -> None:
        """Drop the oldest records, as when their retention is over."""
        kept = self.shard(shard_id).records
        for number in list(kept)[:records]:
            del kept[number]

    def forget_shard(self, shard_id: str) -> None:
        """Drop a closed shard, as when the retention of its last record is over."""
        del self._backend.streams[STREAM].shards[shard_id]

    def fail(self, operation: str, code: str, times: int) -> list[str]:
        """Have the next calls fail; the list grows with each that did."""
        whole = getattr(type(self._backend), operation)
        failed: list[str] = []

        def answer(*args: Any, **kwargs: Any) -> Any:
            if len(failed) < times:
                failed.append(code)
                raise JsonRESTError(code, "as it happens")
            return whole(*args, **kwargs)

        self.patch.setattr(type(self._backend), operation, answer)
        return failed


@contextmanager
def emulator(patch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A service without any stream, which the environment names."""
    yield Emulator(aws.use_emulator(patch), aws.client("kinesis"), patch)
