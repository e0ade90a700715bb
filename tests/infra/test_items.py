from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from archiver import state
from infra.errors import SettingsError
from infra.graph import record
from infra.settings import load
from tests.infra.conftest import graph_of

if TYPE_CHECKING:
    from infra.graph import Graph, Resource

TABLES = ("items", "archiver-state")


def tables(graph: Graph) -> list[Resource]:
    return [graph.one("dynamodb.Table", name) for name in TABLES]


def test_both_tables_are_on_demand_with_caps(graph: Graph) -> None:
    settings = graph.settings.items
    for table in tables(graph):
        assert table.inputs["billingMode"] == "PAY_PER_REQUEST"
        assert table.inputs["onDemandThroughput"] == {
            "maxReadRequestUnits": settings.max_reads,
            "maxWriteRequestUnits": settings.max_writes,
        }


def test_both_tables_can_be_had_back_and_are_encrypted_with_the_key_of_items(graph: Graph) -> None:
    key = graph.one("kms.Key", "key-items")
    for table in tables(graph):
        assert table.inputs["pointInTimeRecovery"] == {"enabled": True, "recoveryPeriodInDays": 35}
        assert table.inputs["serverSideEncryption"] == {"enabled": True, "kmsKeyArn": key.outputs["arn"]}


def test_data_is_kept_as_the_stack_says(graph: Graph) -> None:
    keep = graph.settings.protect_data
    for table in tables(graph):
        assert (table.protect, table.retain_on_delete) == (keep, keep)
        assert table.inputs["deletionProtectionEnabled"] is graph.settings.items.deletion_protection


def test_in_prod_neither_table_can_be_deleted(prod: Graph) -> None:
    assert all(table.protect and table.inputs["deletionProtectionEnabled"] for table in tables(prod))


def test_the_state_table_is_what_the_archiver_would_make_itself(prod: Graph) -> None:
    made: dict[str, Any] = {}

    class Client:
        def create_table(self, **arguments: Any) -> None:
            made.update(arguments)

        def get_waiter(self, name: str) -> Any:
            return type("Waiter", (), {"wait": lambda self, **more: None})()

    state.create_table(Client(), "any")  # type: ignore[arg-type]
    table = prod.one("dynamodb.Table", "archiver-state").inputs
    kinds = {one["AttributeName"]: one["KeyType"] for one in made["KeySchema"]}
    assert kinds == {table["hashKey"]: "HASH", table["rangeKey"]: "RANGE"}
    assert {one["AttributeName"]: one["AttributeType"] for one in made["AttributeDefinitions"]} == {
        one["name"]: one["type"] for one in table["attributes"]
    }


def declared(**values: object) -> Resource:
    """The table of items with these settings."""
    from infra.component import Context
    from infra.items import Items
    from infra.keys import Keys

    stack = graph_of("dev").settings
    settings = stack.model_copy(update={"items": type(stack.items).model_validate(values)})

    def only_items(_: object) -> None:
        context = Context.of(settings)
        Items(context, Keys(context))

    return record(settings, only_items).one("dynamodb.Table", "items")


def test_the_key_and_what_expires_are_settings() -> None:
    table = declared(
        hash_key="device", range_key="at", range_key_type="N", ttl_attribute="gone", time_attribute="at"
    ).inputs
    assert (table["hashKey"], table["rangeKey"]) == ("device", "at")
    assert {one["name"]: one["type"] for one in table["attributes"]} == {"device": "S", "at": "N"}
    assert table["ttl"] == {"attributeName": "gone", "enabled": True}


def test_without_a_setting_nothing_expires_and_there_is_no_range_key(prod: Graph) -> None:
    table = prod.one("dynamodb.Table", "items").inputs
    assert "ttl" not in table
    assert "rangeKey" not in table


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ttl_attribute": "createdAt"}, "DynamoDB would delete items that the archiver has not archived"),
        ({"range_key": "itemId"}, "range_key and hash_key are both itemId"),
        ({"range_key_type": "X"}, "items.range_key_type"),
        ({"max_reads": 0}, "items.max_reads"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(values: dict[str, object], text: str) -> None:
    from infra.graph import read_config

    with pytest.raises(SettingsError) as caught:
        load("dev", read_config("dev") | {"eav-platform:items": values})
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
