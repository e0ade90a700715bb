"""Fixtures of the archiver's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.archiver.world import World
from tests.archiver.world import world as made


@pytest.fixture
def world() -> Iterator[World]:
    """A world without faults, with small pages, objects and transactions."""
    with made(page_bytes=200) as one:
        yield one
