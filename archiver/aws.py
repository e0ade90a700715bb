"""The clients of boto3 that the archiver talks through, and how many calls went over them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from archiver.errors import ArchiverError, RetriesExhaustedError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client

# botocore's standard mode waits a random part of 1, 2, 4 … 20 seconds before each try (full jitter), after throttling,
# server errors, lost connections and timeouts. A transaction that is sent again keeps its token, so it is done once.
ATTEMPTS: Final = 8
TRIES: Final = 10
"""Of what botocore does not try again, in a row without any of them getting further."""
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 10.0


@dataclass
class Aws:
    """Both services, and the number of requests sent, retries included, by operation."""

    dynamodb: DynamoDBClient
    s3: S3Client
    calls: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        for client in (self.dynamodb, self.s3):
            client.meta.events.register_first("before-send", self._count)

    def _count(self, event_name: str, **_: Any) -> None:
        with self._lock:
            self.calls[event_name.rpartition(".")[2]] += 1


def connect(region: str, *, attempts: int = ATTEMPTS, connections: int = 10) -> Aws:
    """Clients with boto3's own settings (credentials, AWS_ENDPOINT_URL)."""
    config = Config(
        region_name=region,
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=connections,
        # The archiver names the SHA-256 of what it sends itself.
        request_checksum_calculation="when_required",
    )
    try:
        session = boto3.session.Session()
        return Aws(session.client("dynamodb", config=config), session.client("s3", config=config))
    except (BotoCoreError, ValueError) as error:
        raise ArchiverError(f"boto3 refuses its settings: {error}") from None


def jitter(attempt: int, dice: Callable[[], float] = random.random) -> float:
    """Seconds to wait before try `attempt` + 1: any part of an exponentially growing time ("full jitter")."""
    return dice() * min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)


@dataclass
class Patience:
    """Waits between tries of what botocore does not try again, and comes to its end."""

    sleep: Callable[[float], object]
    tries: int = TRIES
    tried: int = 0

    def wait(self, error: ArchiverError) -> None:
        """Before another try after `error`. Raises RetriesExhaustedError if there were enough."""
        self.tried += 1
        if self.tried >= self.tries:
            raise RetriesExhaustedError(f"{error} ({self.tries} tries)") from error.__cause__
        self.sleep(jitter(self.tried - 1))

    def got_further(self) -> None:
        """What comes is another thing to try."""
        self.tried = 0


@dataclass(frozen=True)
class Described:
    """What the archiver goes by of a table."""

    key: Mapping[str, str]
    """Name of a key attribute to its type, S, N or B: hash, and range if there is one."""
    replicated: bool
    """In other regions."""


def describe(client: DynamoDBClient, table: str) -> Described:
    """Look at a table. Raises ArchiverError."""
    with explained(f"could not describe the table {table}"):
        found = client.describe_table(TableName=table)["Table"]
    types = {one["AttributeName"]: one["AttributeType"] for one in found["AttributeDefinitions"]}
    by_kind = {one["KeyType"]: one["AttributeName"] for one in found["KeySchema"]}
    names = [by_kind[kind] for kind in ("HASH", "RANGE") if kind in by_kind]
    return Described({name: types[name] for name in names}, bool(found.get("Replicas")))


def code(error: BaseException | None) -> str:
    """The service's own name for an error, empty if it is none of a service."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn errors of boto3 into ArchiverError: one line that says what was tried, and why it was not done."""
    try:
        yield
    except ClientError as error:
        message = error.response.get("Error", {}).get("Message", "") or str(error)
        raise ArchiverError(f"{what}: {code(error)}: {' '.join(message.split())}") from error
    except BotoCoreError as error:
        raise ArchiverError(f"{what}: {' '.join(str(error).split())}") from error
