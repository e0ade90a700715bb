"""Items become plain JSON, and exactly what they were again."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver import items
from archiver.items import Item

texts = st.text(st.characters(codec="utf-8"), max_size=20)
# What DynamoDB keeps: 38 digits, 1E-130 to 9.99E+125.
numbers = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=Decimal("-1e60"), max_value=Decimal("1e60")
    ).map(str),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: abs(one) < 1e125).map(repr),
    st.sampled_from(
        ["0", "-0", "0.1", "12.50", "1E-130", "9.99E+125", "9007199254740993", "1e400", "007", "+1"]
    ),
)
binaries = st.binary(max_size=20)
scalars = st.one_of(
    st.builds(lambda one: {"S": one}, texts),
    st.builds(lambda one: {"N": one}, numbers),
    st.builds(lambda one: {"B": one}, binaries),
    st.builds(lambda one: {"BOOL": one}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda one: {"SS": one}, st.lists(texts, min_size=1, max_size=3)),
    st.builds(lambda one: {"NS": one}, st.lists(numbers, min_size=1, max_size=3)),
    st.builds(lambda one: {"BS": one}, st.lists(binaries, min_size=1, max_size=3)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda one: {"L": one}, st.lists(inner, max_size=4)),
        st.builds(lambda one: {"M": one}, st.dictionaries(texts, inner, max_size=4)),
    ),
    max_leaves=12,
)
any_item = st.dictionaries(texts, values, max_size=6)


@settings(max_examples=100, deadline=None)
@given(any_item)
@example({"a/b": {"M": {"~": {"B": b""}, "": {"L": [{"NS": ["1"]}, {"L": []}]}}}})
def test_every_item_comes_back_exactly(one: Item) -> None:
    plain, types = items.encode(one)
    assert items.decode(items.loads(orjson.dumps(plain)), types) == one


@settings(max_examples=50, deadline=None)
@given(any_item)
def test_the_json_is_read_the_same_by_readers_that_know_doubles_only(one: Item) -> None:
    """JavaScript has one type of number."""
    plain, _ = items.encode(one)
    text = orjson.dumps(plain)
    doubles = json.loads(text, parse_int=float)
    exactly = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    same(doubles, exactly)


def same(left: Any, right: Any) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name, value in left.items():
            same(value, right[name])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    elif isinstance(left, float):
        assert Decimal(repr(left)) == right
    else:
        assert left == right


def test_what_json_holds_is_plain() -> None:
    one: Item = {
        "id": {"S": "x"}, "size": {"N": "12"}, "share": {"N": "0.25"}, "open": {"BOOL": True}, "gone": {"NULL": True},
        "parts": {"L": [{"N": "1"}, {"M": {"a": {"S": ""}}}]},
    }  # fmt: skip
    assert items.encode(one) == (
        {"id": "x", "size": 12, "share": 0.25, "open": True, "gone": None, "parts": [1, {"a": ""}]},
        {},
    )


def test_what_json_does_not_hold_is_noted() -> None:
    one: Item = {
        "picture": {"B": b"\x00\xff"},
        "tags": {"SS": ["b", "a"]},
        "exact": {"N": "0.1234567890123456789"},
        "deep": {"M": {"a/b": {"L": [{"NS": ["1", "2.50"]}]}}},
    }
    plain, types = items.encode(one)
    assert plain == {
        "picture": "AP8=",
        "tags": ["b", "a"],
        "exact": "0.1234567890123456789",
        "deep": {"a/b": [["1", "2.50"]]},
    }
    assert types == {"/picture": "B", "/tags": "SS", "/exact": "N", "/deep/a~1b/0": "NS"}


@pytest.mark.parametrize(
    ("plain", "types"),
    [
        ({"a": "!"}, {"/a": "B"}),
        ({"a": 1}, {"/a": "SS"}),
        ({"a": ["x", None]}, {"/a": "SS"}),
        ({"a": "x"}, {"/a": "X"}),
    ],
)
def test_notes_that_do_not_fit_are_refused(plain: dict[str, Any], types: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^/a is no value of DynamoDB's type"):
        items.decode(plain, types)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', "{", ""])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        items.loads(text)


@settings(max_examples=50, deadline=None)
@given(any_item)
def test_the_size_is_no_less_than_what_is_in_it(one: Item) -> None:
    def weight(value: dict[str, Any]) -> int:
        ((kind, content),) = value.items()
        match kind:
            case "S":
                return len(content.encode())
            case "B":
                return len(content)
            case "SS":
                return sum(len(text.encode()) for text in content)
            case "BS":
                return sum(map(len, content))
            case "L":
                return sum(map(weight, content))
            case "M":
                return sum(len(name.encode()) + weight(inner) for name, inner in content.items())
        return 1 if kind in ("BOOL", "NULL") else 0

    assert items.size(one) >= sum(len(name.encode()) + weight(value) for name, value in one.items())
