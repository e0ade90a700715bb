"""An empty account of AWS in this process, for tests that want more of it than DynamoDB, S3 and Kinesis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto import mock_aws


@contextmanager
def empty_account(patch: pytest.MonkeyPatch, config: Any = None) -> Iterator[None]:
    """With made-up credentials, and no other AWS than this. config: moto's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "emulated")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        patch.delenv(name, raising=False)
    with mock_aws(config=config):
        yield
