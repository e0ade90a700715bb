"""Whatever fails, whenever: each item is in the table or in an object that gives it back, and a second run finishes.

Requests are real ones of boto3, answered by an emulator; the line between them throttles, times out, refuses,
truncates, and dies. Others write, change and delete meanwhile. EAV_EXAMPLES=500 tries more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from archiver import conditions, deletes, run
from archiver.documents import Manifest
from archiver.errors import ArchiverError
from archiver.items import Item
from archiver.state import State
from archiver.store import Store
from tests.archiver import world as worlds
from tests.archiver.world import FAULTS, NOW, Fault, KilledError, World, item, world

EXAMPLES = int(os.environ.get("EAV_EXAMPLES", "0"))
YOUNG = range(2)
OLD = range(10, 19)
PAGE = 200
"""Bytes: three or four items, so that there are several pages and objects."""


class Witness:
    """What should be where: kept up with everything that others do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.items: dict[str, Item] = {}
        self.deleted: set[str] = set()
        self.again: set[str] = set()
        """Written anew after they had left: their earlier version is in the archive, whatever becomes of this one."""

    def put(self, one: Item) -> None:
        """Somebody writes it, over what is there."""
        if one["id"]["S"] in self.items and not any(one["id"] == other["id"] for other in self.world.table()):
            self.again.add(one["id"]["S"])
        self.world.put(one)
        self.items[one["id"]["S"]] = one
        self.deleted.discard(one["id"]["S"])

    def change(self, number: int, value: str) -> None:
        """Somebody changes an item, if it is still there."""
        key = f"o{number:05}"
        found = [one for one in self.world.table() if one["id"]["S"] == key]
        if found:
            self.put({**found[0], "note": {"S": value}})

    def delete(self, number: int) -> None:
        """Somebody deletes an item, if it is still there: from then on it is nowhere."""
        key = f"o{number:05}"
        if any(one["id"]["S"] == key for one in self.world.table()):
            self.world.delete({"id": {"S": key}})
            self.items.pop(key)
            if key not in self.again:
                self.deleted.add(key)

    def check(self) -> None:
        """Nothing is lost, and nothing that others deleted would come back."""
        line, self.world.line = self.world.line, worlds.Line()
        there = {one["id"]["S"]: one for one in self.world.table()}
        archived = {one["id"]["S"]: one for one in self.world.restorable()}
        self.world.line = line
        for key, last in self.items.items():
            found = there.get(key) or archived.get(key)
            assert found == last, f"{key}: {found} instead of {last}"
        assert not self.deleted & there.keys(), "deleted by others, and in the table"
        assert not self.deleted & archived.keys(), "deleted by others, and comes back"

    def finish(self) -> None:
        """Runs without faults finish the job: what is old has left, what is young is there."""
        self.world.calm()
        young = {key for key in self.items if key.startswith("o0000")}
        for _ in range(4):
            # What was changed during a pass is of the next one.
            finished = self.world.run().finished
            there = {one["id"]["S"] for one in self.world.table()}
            if finished and there == young:
                break
        assert finished
        assert there == young
        assert self.world.under_way() == []
        self.check()


@pytest.fixture
def witness(world: World) -> Witness:
    return begun(world)


def begun(world: World, *, all_noted: bool = False) -> Witness:
    found = Witness(world)
    for number in (*YOUNG, *OLD):
        # The attribute `note` is on young items only: that an old one gets it is a change.
        more = {"note": {"S": "as it was"}} if all_noted or number not in OLD else {}
        found.put(item(number, days=40 if number in OLD else 3, **more))
    return found


def requests_of_a_quiet_run() -> list[str]:
    with world(page_bytes=PAGE) as one:
        begun(one)
        one.run()
        return one.line.requests


QUIET = requests_of_a_quiet_run()


PLACES = {
    operation: {"first": numbers[0], "middle": numbers[len(numbers) // 2], "last": numbers[-1]}
    for operation in sorted(set(QUIET))
    if (numbers := [number for number, one in enumerate(QUIET) if one == operation])
}
"""For each operation the first, a middle and the last time it is called, as numbers of requests."""
# To be killed before a call is to be killed after the one before it.
ENDING: tuple[Fault, ...] = ("refuse", "kill after")
PASSING: tuple[Fault, ...] = ("throttle", "error", "timeout after")


def only_for(operation: str) -> tuple[Fault, ...]:
    """Faults that only this operation has."""
    if operation == "TransactWriteItems":
        return ("conflict",)
    return ("truncate",) if operation in ("GetObject", "PutObject") else ()


@pytest.mark.parametrize(
    ("operation", "place"),
    [
        (one, place)
        for one, places in PLACES.items()
        for place in sorted({v: k for k, v in places.items()}.values())
    ],
)
def test_a_fault_that_ends_the_run(operation: str, place: str) -> None:
    number = PLACES[operation][place]
    for fault in (*ENDING, *only_for(operation)):
        with world(page_bytes=PAGE) as one:
            witness = begun(one)
            one.line.plan = lambda at, _, fault=fault: fault if at == number else None  # type: ignore[misc]
            one.try_run()
            assert one.line.requests[number] == operation, "the fault has not happened"
            witness.check()
            witness.finish()


@pytest.mark.parametrize("operation", PLACES)
def test_a_fault_that_passes(operation: str) -> None:
    """The first, a middle and the last call of a run fail once each, and are tried again: nobody notices."""
    calls = QUIET.count(operation)
    for fault in PASSING:
        with world(page_bytes=PAGE) as one:
            witness = begun(one)
            failing = {0, calls // 2 + 1, calls + 1}
            seen = iter(range(1000))
            one.line.plan = lambda _, called, fault=fault, seen=seen, failing=failing: (  # type: ignore[misc]
                fault if called == operation and next(seen) in failing else None
            )
            result = one.run()
            assert next(seen) > calls
            assert result.finished, result
            assert result.stats.deleted == len(OLD)
            witness.finish()


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *((one, fault) for one in PLACES for fault in ("throttle", "refuse")),
        ("TransactWriteItems", "conflict"),
    ],
)
def test_an_operation_that_never_works(operation: str, fault: Fault, witness: Witness) -> None:
    """Not just once: retries come to an end, and say so."""
    line = witness.world.line
    line.plan = lambda _, one: fault if one == operation else None
    try:
        finished = witness.world.run().finished
    except ArchiverError:
        finished = False  # as it gave its lock back
    assert not finished
    assert len(line.requests) < 500
    witness.check()
    witness.finish()


steps = st.one_of(
    st.tuples(st.just("clock"), st.integers(-48, 48), st.just(0)),
    st.tuples(st.just("fault"), st.integers(0, 60), st.sampled_from(FAULTS)),
    st.tuples(st.just("change"), st.integers(0, 60), st.sampled_from(OLD)),
    st.tuples(st.just("delete"), st.integers(0, 60), st.sampled_from(OLD)),
    st.tuples(st.just("put"), st.integers(0, 60), st.sampled_from(OLD)),
)


def play(script: list[list[tuple[str, int, Fault | int]]], segments: int) -> None:
    """Each list is a run, with what happens before its n-th request; `clock` sets it by hours before the run."""
    with world(page_bytes=PAGE, segments=segments) as one:
        # An attribute that no segment has met yet is one that no condition can name (docs/archiver.md): with several
        # segments it is chance whether one has come to a young item when an old one gets a note.
        witness = begun(one, all_noted=segments > 1)
        for number, happenings in enumerate(script):
            faults = {at: what for kind, at, what in happenings if kind == "fault"}
            others = [happening for happening in happenings if happening[0] not in ("fault", "clock")]
            one.now += timedelta(hours=sum(by for kind, by, _ in happenings if kind == "clock"))

            def act(
                at: int, _: str, number: int = number, others: list[tuple[str, int, Fault | int]] = others
            ) -> None:
                for kind, when, which in others:
                    if when == at:
                        deed(witness, kind, int(which), f"{number}/{at}")

            one.line = worlds.Line(lambda at, _, faults=faults: faults.get(at), act)  # type: ignore[misc]
            one.try_run()
            witness.check()
        witness.finish()


def deed(witness: Witness, kind: str, which: int, mark: str) -> None:
    if kind == "change":
        witness.change(which, mark)
    elif kind == "delete":
        witness.delete(which)
    else:
        witness.put(item(which, days=35, note={"S": mark}))


@settings(
    max_examples=EXAMPLES or 6,
    deadline=None,
    derandomize=not EXAMPLES,
    phases=tuple(Phase) if EXAMPLES else (Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@example([[("change", 9, 13)]], 3)
@example([[("put", 0, 10)], [("clock", -48, 0), ("put", 0, 10)]], 1)
@given(st.lists(st.lists(steps, min_size=1, max_size=8), min_size=1, max_size=4), st.sampled_from((1, 3)))
@pytest.mark.timeout(60 + 2 * EXAMPLES)
def test_any_sequence_of_faults(script: list[list[tuple[str, int, Fault | int]]], segments: int) -> None:
    play(script, segments)


def without_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletes whatever has the key."""
    monkeypatch.setattr(
        conditions, "unchanged", lambda one, others=(): {
            "ConditionExpression": "attribute_exists(#0)", "ExpressionAttributeNames": {"#0": "id"},
        },
    )  # fmt: skip


def without_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes what is gone for deleted by itself."""
    left_out = deletes.Deletes._left_out

    def forget(self: deletes.Deletes, error: ClientError, end: int, kept: dict[int, str]) -> bool:
        found = left_out(self, error, end, kept)
        forgotten.update(kept)
        return found

    forgotten: dict[int, str] = {}
    monkeypatch.setattr(deletes.Deletes, "_left_out", forget)
    settle = State.settle
    monkeypatch.setattr(
        State, "settle", lambda self, progress, end, kept, by: settle(self, progress, end, {}, by)
    )
    complete = Manifest.completed
    monkeypatch.setattr(Manifest, "completed", lambda self, kept: complete(self, {}))


def without_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusts S3 to have what it was sent."""

    def trusting(self: Store, key: str, body: bytes, *, once: bool) -> bytes:
        self.put(key, body, once=once)
        return body

    monkeypatch.setattr(Store, "put_verified", trusting)


# The manifest comes before the object, and whoever reads nothing back has a call less before it.
FIRST_OBJECT_UNREAD = [number for number, one in enumerate(QUIET) if one == "PutObject"][1] - 1
FIRST_DELETE = [number for number, one in enumerate(QUIET) if one == "TransactWriteItems"][1]


@pytest.mark.parametrize(
    ("safeguard", "happening"),
    [
        (without_condition, ("change", FIRST_DELETE, OLD[0])),
        (without_record, ("delete", FIRST_DELETE, OLD[0])),
        (without_reading_back, ("fault", FIRST_OBJECT_UNREAD, "truncate")),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_safeguard_that_is_taken_away_is_missed(
    safeguard: Callable[[pytest.MonkeyPatch], None],
    happening: tuple[str, int, Fault | int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play([[happening]], 1)
    safeguard(monkeypatch)
    with pytest.raises(AssertionError):
        play([[happening]], 1)


def test_a_killed_run_keeps_others_out_for_a_minute_only(witness: Witness) -> None:
    world = witness.world
    world.line.plan = lambda at, operation: "kill after" if operation == "GetObject" else None
    with pytest.raises(KilledError):
        world.run()
    world.calm()
    (result,) = run.run(world.context())
    assert not result.finished
    assert result.reason.startswith("locked by run ")
    assert "2024" in result.reason
    assert world.line.requests[-1] == "GetItem"
    assert world.run().finished
    assert world.now > NOW
