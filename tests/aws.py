"""AWS for tests: moto in a thread of this process, on loopback, with made-up credentials.

The fixture `aws` (tests/conftest.py) gives an empty one to a test. Import this module only where it is used: moto
takes a second.
"""

from __future__ import annotations

import http.client
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, overload

import boto3
import pytest
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from local.aws import REGION as REGION
from local.aws import emulated
from local.aws_server import one_at_a_time, serve_in_thread

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_kinesis import KinesisClient
    from types_boto3_s3 import S3Client

ACCOUNT = "123456789012"
"""Whose everything in the emulator is."""
# A test that expects an error gets it at once, and none hangs.
CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)


@dataclass(frozen=True)
class Aws:
    """The emulator, empty at first; the test's environment names it."""

    url: str
    dynamodb: DynamoDBClient
    s3: S3Client

    def environment(self) -> dict[str, str]:
        """For a child process: the environment of now, and no other AWS than this."""
        return emulated(self.url)


@contextmanager
def emulator(patch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An empty emulator, which the environment names as long as `patch` lasts."""
    url = use_emulator(patch)
    yield Aws(url, client("dynamodb"), client("s3"))


def use_emulator(patch: pytest.MonkeyPatch) -> str:
    """Empty the emulator and have the environment name it; its URL."""
    address = _address()
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == http.HTTPStatus.OK
    environment = emulated(url := f"http://{address}")
    for name in os.environ.keys() - environment.keys():
        patch.delenv(name)
    for name, value in environment.items():
        if os.environ.get(name) != value:
            patch.setenv(name, value)
    return url


@overload
def client(service: Literal["dynamodb"]) -> DynamoDBClient: ...
@overload
def client(service: Literal["kinesis"]) -> KinesisClient: ...
@overload
def client(service: Literal["s3"]) -> S3Client: ...
@cache
def client(service: Any) -> Any:
    """A client of the emulator, which does not try again. Made once, since that takes as long as many a test."""
    with pytest.MonkeyPatch.context() as patch:
        use_emulator(patch)
        return boto3.Session().client(service, config=CONFIG)


@cache
def _address() -> str:
    """Start it, once a process, which it ends with: to stop it takes half a second."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the access log
    url = serve_in_thread(one_at_a_time(DomainDispatcherApplication(create_backend_app)))
    return url.removeprefix("http://")
