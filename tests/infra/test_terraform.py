from __future__ import annotations

from typing import Any

import pulumi_aws as aws
import pytest

from infra.errors import InfraError
from infra.graph import Graph, record
from infra.settings import Settings
from infra.terraform import convert, snake
from tests.infra.conftest import graph_of

SCHEMAS: dict[str, Any] = {
    "aws_sqs_queue": {
        "block": {
            "attributes": {
                "name": {"type": "string", "optional": True},
                "policy": {"type": "string", "optional": True},
                "max_message_size": {"type": "number", "optional": True},
                "tags": {"type": ["map", "string"], "optional": True},
                "redrive_policy": {"type": "string", "optional": True},
                "arn": {"type": "string", "computed": True},
                "url": {"type": "string", "computed": True},
                "id": {"type": "string", "computed": True, "optional": True},
            }
        }
    },
    "aws_dynamodb_table": {
        "block": {
            "attributes": {
                "name": {"type": "string", "required": True},
                "hash_key": {"type": "string", "optional": True},
                "arn": {"type": "string", "computed": True},
            },
            "block_types": {
                "attribute": {
                    "nesting_mode": "set",
                    "block": {"attributes": {"name": {"type": "string"}, "type": {"type": "string"}}},
                },
                "point_in_time_recovery": {
                    "nesting_mode": "list",
                    "max_items": 1,
                    "block": {"attributes": {"enabled": {"type": "bool"}}},
                },
            },
        }
    },
}


def settings() -> Settings:
    return graph_of("dev").settings


def written(declare: Any, kind: str, **given: Any) -> dict[str, Any]:
    graph = record(settings(), lambda _: declare())
    found: dict[str, Any] = convert(graph, SCHEMAS, provider={}, **given).config["resource"][kind]
    return found


def test_names_in_the_other_case() -> None:
    assert snake("vpcSecurityGroupIds") == "vpc_security_group_ids"
    assert snake("s3Bucket") == "s3_bucket"


def test_plurals_and_single_objects_become_blocks() -> None:
    def declare() -> None:
        aws.dynamodb.Table(
            "items",
            name="eav-items",
            hash_key="id",
            attributes=[aws.dynamodb.TableAttributeArgs(name="id", type="S")],
            point_in_time_recovery=aws.dynamodb.TablePointInTimeRecoveryArgs(enabled=True),
        )

    assert written(declare, "aws_dynamodb_table")["_items"] == {
        "name": "eav-items",
        "hash_key": "id",
        "attribute": [{"name": "id", "type": "S"}],
        "point_in_time_recovery": [{"enabled": True}],
    }


def test_a_reference_is_one_and_other_text_stays() -> None:
    def declare() -> None:
        first = aws.sqs.Queue("first", name="one", max_message_size=1024)
        aws.sqs.Queue(
            "second",
            name="two",
            redrive_policy=first.arn.apply(
                lambda arn: f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":3}}'
            ),
            tags={"Says": "${this} is no expression, and %{neither} is this"},
        )

    found = written(declare, "aws_sqs_queue")
    assert found["_first"] == {"name": "one", "max_message_size": 1024}, "numbers stay whole"
    assert found["_second"] == {
        "name": "two",
        "redrive_policy": '{"deadLetterTargetArn":"${aws_sqs_queue._first.arn}","maxReceiveCount":3}',
        "tags": {"Says": "$${this} is no expression, and %%{neither} is this"},
        "depends_on": ["aws_sqs_queue._first"],
    }


def test_a_word_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def declare() -> None:
        table = aws.dynamodb.Table("items", name="eav-items")
        aws.sqs.Queue("queue", policy=table.arn.apply(lambda arn: f"{arn} is active"))

    graph = record(settings(), lambda _: declare())
    (table,) = graph.of_kind("dynamodb.Table")
    monkeypatch.setitem(table.outputs, "hashKey", "active")
    found = convert(graph, SCHEMAS, provider={}).config["resource"]["aws_sqs_queue"]["_queue"]
    assert found["policy"] == "${aws_dynamodb_table._items.arn} is active"


def test_what_is_left_out_is_still_a_value_for_others() -> None:
    def declare() -> None:
        table = aws.dynamodb.Table("items", name="eav-items")
        aws.sqs.Queue("queue", policy=table.arn)

    (table,) = record(settings(), lambda _: declare()).of_kind("dynamodb.Table")
    found = written(declare, "aws_sqs_queue", without=frozenset({table.urn}))
    assert found["_queue"] == {"policy": "arn:aws:dynamodb:eu-central-1:123456789012:table/eav-items"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"delay_seconds": 5}, "queue (sqs.Queue): the provider has no delaySeconds"),
        ({"kms_master_key_id": "k"}, "queue (sqs.Queue): the provider has no kmsMasterKeyId"),
    ],
)
def test_what_the_provider_does_not_have_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InfraError) as error:
        written(lambda: aws.sqs.Queue("queue", **given), "aws_sqs_queue")
    assert str(error.value) == says


def test_a_kind_that_is_not_known_is_said() -> None:
    with pytest.raises(InfraError, match=r"does not know the kind sqs\.RedrivePolicy"):
        written(lambda: aws.sqs.RedrivePolicy("r", queue_url="u", redrive_policy="{}"), "aws_sqs_queue")


def test_every_kind_of_every_stack_is_known(graph: Graph) -> None:
    from infra.terraform import TYPES

    assert {one.kind for one in graph if one.custom} <= set(TYPES)
