"""Every policy of an identity, in every stack, against AWS's own list of actions and of what they take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from policy_sentry.querying.actions import get_action_data

if TYPE_CHECKING:
    from infra.graph import Graph


def documents(graph: Graph) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Trust and resource policies have principals, and are for infra/policies.py."""
    for one in graph.of_kind("iam.RolePolicy", "iam.Policy"):
        yield one.name, json.loads(one.inputs["policy"])


@cache
def formats(action: str) -> tuple[str, ...] | None:
    """The ARNs that an action takes, as patterns; None for an action that AWS does not have."""
    service, _, name = action.partition(":")
    found = get_action_data(service, name)
    if not found:
        return None
    return tuple(one["resource_arn_format"] for one in found[service])


def takes(pattern: str, resource: str) -> bool:
    """Whether an ARN of ours and a form of AWS's can mean the same thing; both have parts that stand for anything."""

    @cache
    def meet(left: str, right: str) -> bool:
        if not left or not right:
            return set(left + right) <= {"*"}
        if left[0] == "*":
            return meet(left[1:], right) or meet(left, right[1:])
        if right[0] == "*":
            return meet(left, right[1:]) or meet(left[1:], right)
        return left[0] == right[0] and meet(left[1:], right[1:])

    return meet(re.sub(r"\$\{[^}]*\}", "*", pattern), resource)


def wrong(policy: Mapping[str, Any]) -> list[str]:
    """What AWS would not know, or would never match."""
    found = []
    for statement in policy["Statement"]:
        resources = (
            statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        )
        for action in statement["Action"]:
            allowed = formats(action)
            if allowed is None:
                found.append(f"{action} does not exist")
                continue
            found += [
                f"{action} never takes {resource}"
                for resource in resources
                if resource != "*" and not any(one != "*" and takes(one, resource) for one in allowed)
            ]
    return found


def test_every_action_exists_and_takes_what_is_named(graph: Graph) -> None:
    assert {name: found for name, policy in documents(graph) if (found := wrong(policy))} == {}


def test_there_are_policies_to_look_at(prod: Graph) -> None:
    assert len(list(documents(prod))) >= 8


@pytest.mark.parametrize(
    ("action", "resource", "says"),
    [
        ("s3:GetObjekt", "arn:aws:s3:::bucket/*", "does not exist"),
        ("s3:GetObject", "arn:aws:kms:eu-central-1:123456789012:key/1", "never takes"),
        ("s3:GetObject", "arn:aws:s3:::bucket", "never takes"),
        ("kinesis:PutRecord", "arn:aws:sqs:eu-central-1:123456789012:queue", "never takes"),
        ("ec2:DescribeInstances", "arn:aws:ec2:eu-central-1:123456789012:instance/i-1", "never takes"),
    ],
)
def test_a_wrong_one_is_found(action: str, resource: str, says: str) -> None:
    statement = {"Effect": "Allow", "Action": [action], "Resource": [resource]}
    (found,) = wrong({"Version": "2012-10-17", "Statement": [statement]})
    assert says in found
