"""validation.schema: the same verdict as a JSON Schema validator gives, in the flush and in upsert_hot_attrs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from psycopg import sql

from local.server import Server
from tests.conftest import Connection, in_database
from tests.sql.staging import Row, copy, drain, make_tenant, rejected, scalar

NUMBERS = st.integers(-6, 6)
TEXTS = st.text("abc-09 .", max_size=5)
VALUES = st.one_of(NUMBERS, TEXTS, st.booleans())
PATTERNS = st.sampled_from(
    [
        "^a",
        "b$",
        "^[a-c]+$",
        "^.{2,3}$",
        r"\d",
        r"^\w+$",
        r"^\S*$",
        "a|b",
        "(ab)+c?",
        "[^a-b]",
        "^(?:a|-)*$",
        r"\.",
        "[.-]",
        "a{2}",
        "^$",
    ]
)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(
            st.sampled_from(["number", "integer", "string", "boolean"]),
            st.lists(st.sampled_from(["number", "string", "boolean"]), min_size=1, unique=True),
        ),
        "enum": st.lists(VALUES, max_size=3, unique_by=repr),
        "const": VALUES,
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.integers(1, 4),
        "minLength": st.integers(0, 4),
        "maxLength": st.integers(0, 4),
        "pattern": PATTERNS,
        "title": st.just("said only"),
    },
)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "allOf": many,
            "anyOf": many,
            "oneOf": many,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


SCHEMAS = st.recursive(st.one_of(LEAVES, st.booleans()), combined, max_leaves=6)


@pytest.fixture(scope="module")
def connection(server: Server, admin: Connection, template: str) -> Iterator[Connection]:
    name = f"eav_test_schema_{uuid4().hex[:8]}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    )
    try:
        with psycopg.connect(in_database(server.url, name), autocommit=True) as made:
            yield made
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def accepts(connection: Connection, schema: Any, value: Any) -> bool:
    return bool(
        scalar(
            connection,
            "SELECT eav.schema_accepts(eav.compile_schema(%s::jsonb), %s::jsonb)",
            json.dumps(schema),
            json.dumps(value),
        )
    )


@settings(max_examples=300, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_the_verdict_is_that_of_a_validator(connection: Connection, schema: Any, value: Any) -> None:
    assert accepts(connection, schema, value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "date-time",
            ["2026-11-22T01:02:03Z", "2026-02-28t23:59:60.5+14:00"],
            ["2026-02-30T00:00:00Z", "2026-11-22", "x"],
        ),
        ("date", ["2024-02-29"], ["2026-02-29", "2026-1-1", "2026-11-22T00:00:00Z"]),
        ("uuid", ["00000000-0000-4000-8000-00000000000A"], ["0", "00000000-0000-4000-8000-00000000000g"]),
        ("ipv4", ["0.0.0.9", "255.249.19.9"], ["256.1.1.1", "1.2.3", "1.2.3.4.", "01.2.3.4", "1.2.3.4/8"]),
        ("ipv6", ["::", "fe80::1", "::ffff:1.2.3.4"], ["1.2.3.4", "::1/64", "fe80::1%eth0", "1::2::3", ""]),
    ],
)
def test_formats(connection: Connection, name: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert accepts(connection, {"format": name}, text), text
    for text in bad:
        assert not accepts(connection, {"format": name}, text), text
    assert accepts(connection, {"format": name}, 5)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (5, "a schema is an object, true or false"),
        ({"minimun": 1}, "schema: minimun: no keyword"),
        ({"properties": {}}, "properties: no keyword"),
        ({"$ref": "#"}, r"\$ref: no keyword"),
        ({"type": "float"}, "type: no type"),
        ({"type": []}, "type: no type"),
        ({"type": ["number", "number"]}, "no list of different types"),
        ({"enum": 1}, "enum: no array"),
        ({"minimum": "1"}, "minimum: no number"),
        ({"multipleOf": 0}, "multipleOf: no number above 0"),
        ({"minLength": 1.5}, "minLength: no whole number"),
        ({"format": "email"}, "format: none of"),
        ({"anyOf": []}, "anyOf: no array of schemas"),
        ({"not": {"allOf": [{"then": {"maximum": "x"}}]}}, r"schema.not.allOf.then: maximum: no number"),
        ({"pattern": 5}, "pattern: no string"),
        ({"pattern": r"(a)\1"}, r"\\1 is not allowed"),
        ({"pattern": "(?=a)"}, r"\(\?= is not allowed"),
        ({"pattern": "(?<x>a)"}, "is not allowed"),
        ({"pattern": r"a\b"}, r"\\b is not allowed"),
        ({"pattern": "a**"}, "nothing to repeat"),
        ({"pattern": "*a"}, "nothing to repeat"),
        ({"pattern": "(a"}, "is not closed"),
        ({"pattern": "a)"}, "has no"),
        ({"pattern": "[b-a]"}, "pattern: "),
        ({"pattern": "[]"}, "is not closed|empty"),
        ({"pattern": "((a{1,100}){1,100}){1,100}"}, "at most 1000 states"),
        ({"pattern": "a{1,256}"}, "up to 255"),
        ({"pattern": "a" * 501}, "at most 500 characters"),
    ],
)
def test_what_is_no_schema_is_refused_when_the_attribute_is_defined(
    connection: Connection, schema: Any, said: str
) -> None:
    scalar(connection, "SELECT eav.tenant_add('acme', 1)")
    with pytest.raises(psycopg.errors.CheckViolation, match=said) as caught:
        connection.execute(
            "INSERT INTO eav.attributes (tenant_id, name, data_type, validation) VALUES (1, 'a', 'text', %s)",
            (json.dumps({"schema": schema}),),
        )
    assert "\n" not in (caught.value.diag.message_primary or "")


def test_the_application_defines_schemas(connection: Connection) -> None:
    scalar(connection, "SELECT eav.tenant_add('acme', 1)")
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL SESSION AUTHORIZATION eav_app")
        connection.execute("SET LOCAL app.tenant_id = '1'")
        connection.execute(
            "INSERT INTO eav.attributes (tenant_id, name, data_type, validation)"
            """ VALUES (1, 'a', 'text', '{"schema": {"pattern": "^a.c$"}}')"""
        )


def test_values_that_do_not_fit_are_rejected_and_the_others_are_not(database: Any) -> None:
    schema = json.dumps({"schema": {"multipleOf": 0.1, "not": {"const": 5}, "exclusiveMaximum": 10}})
    word = json.dumps({"schema": {"pattern": "^[A-Z]{2}-\\d+$"}})
    tenant = make_tenant(
        database,
        attributes=(
            ("cpu", "number", True, schema),
            ("code", "text", True, word),
            ("free", "number", True, "{}"),
        ),
    )
    numbers, texts = (1, 0.3, 5, 10, 0.35, 9.9), ("AB-1", "AB-1\n", "ab-1", "XY-22")
    with database.session() as connection:
        copy(
            connection,
            [Row(None, None, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=n) for n in numbers]
            + [Row(None, None, tenant.tenant_id, 1, attribute="code", value_text=t) for t in texts]
            + [Row(None, None, tenant.tenant_id, 1, tenant.attributes["free"], value_number=5)],
        )
        assert drain(connection) == 11
        stored = connection.execute("SELECT value_number, value_text FROM eav.entity_values_ts").fetchall()
        assert {float(n) for n, _ in stored if n is not None} == {1, 0.3, 9.9, 5}
        assert {t for _, t in stored if t is not None} == {"AB-1", "XY-22"}
        assert rejected(database) == {"out_of_range": 5}
        for attrs in ({"cpu": 5}, {"code": "ab-1"}, {"cpu": "x"}):
            with pytest.raises(
                psycopg.errors.InvalidParameterValue, match=r"is refused: (out_of_range|wrong_type)"
            ):
                scalar(
                    connection, "SELECT eav.upsert_hot_attrs(%s, 1, %s)", tenant.tenant_id, json.dumps(attrs)
                )
