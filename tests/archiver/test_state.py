"""The rows that the archiver keeps its place in."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from archiver.state import State
from tests.archiver.world import NOW, STATE, TABLE, Fault, World

MILLISECOND = timedelta(milliseconds=1)
LEASE = timedelta(minutes=1)


def clock(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@pytest.mark.parametrize("fault", [None, "timeout after", "throttle"])
def test_numbers_of_objects_only_grow(world: World, fault: Fault | None) -> None:
    """Whatever the clocks say, also when an answer is lost."""
    world.line.plan = lambda number, operation: fault if number in (0, 3, 5) else None
    one, other = State(world.aws.dynamodb, STATE, TABLE), State(world.aws.dynamodb, STATE, "another")
    times = [NOW, NOW, NOW - timedelta(days=9), NOW + MILLISECOND, NOW + timedelta(hours=1), NOW, NOW]
    numbers = [one.next_order(at) for at in times]
    assert numbers == sorted(set(numbers))
    assert all(number >= clock(at) for number, at in zip(numbers, times, strict=True))
    assert numbers[-1] < clock(NOW + timedelta(hours=1)) + 10
    assert other.next_order(NOW) in (clock(NOW), clock(NOW) + 1), "each table has its own"


def test_a_lock_that_lasts_longer_than_any_is_of_a_clock_that_was_wrong(world: World) -> None:
    state = State(world.aws.dynamodb, STATE, TABLE)
    later = NOW + timedelta(days=1)
    assert state.lock("one", later, later + LEASE) is None
    assert state.lock("two", NOW, NOW + LEASE) is None
    assert state.lock("three", NOW - LEASE, NOW) is not None, "clocks differ by seconds"
    assert state.lock("three", NOW + timedelta(seconds=59), NOW + LEASE * 2) is not None
