"""Policy documents, statement by statement, and roles that one service may take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context

Text = str | pulumi.Output[str]
Service = str | Sequence[str]
"""Whom a role trusts: `lambda.amazonaws.com`, or several that are one to us."""


@dataclass(frozen=True)
class Statement:
    """One statement of a policy. `sid` says in a word what it is for."""

    sid: str
    actions: Sequence[str]
    resources: Sequence[Text]
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    principals: Mapping[str, Any] | str | None = None
    effect: str = "Allow"

    def plain(self) -> dict[str, Any]:
        """As it stands in the document."""
        found: dict[str, Any] = {"Sid": self.sid, "Effect": self.effect}
        if self.principals is not None:
            found["Principal"] = self.principals
        found["Action"] = list(self.actions)
        found["Resource"] = list(self.resources)
        if self.conditions:
            found["Condition"] = dict(self.conditions)
        return found


def document(*statements: Statement) -> pulumi.Output[str]:
    """A policy document as JSON, with its keys in the same order each time so that nothing differs by chance."""
    plain = {"Version": "2012-10-17", "Statement": [statement.plain() for statement in statements]}
    return pulumi.Output.from_input(plain).apply(lambda known: json.dumps(known, separators=(",", ":")))


def assume(
    service: Service, account: str, conditions: Mapping[str, Mapping[str, Any]] | None = None
) -> pulumi.Output[str]:
    """Who may take a role: a service, acting for this account (no confused deputy)."""
    only_here = {"StringEquals": {"aws:SourceAccount": account}}
    return document_of_trust(service, only_here if conditions is None else conditions)


def document_of_trust(service: Service, conditions: Mapping[str, Mapping[str, Any]]) -> pulumi.Output[str]:
    """A trust policy; `conditions` may be empty for services that send none."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service if isinstance(service, str) else list(service)},
        "Action": "sts:AssumeRole",
    }
    if conditions:
        statement["Condition"] = dict(conditions)
    plain = {"Version": "2012-10-17", "Statement": [statement]}
    return pulumi.Output.from_input(plain).apply(lambda known: json.dumps(known, separators=(",", ":")))


def environment_statement(context: Context, key: Text) -> Statement:
    """A function's right to read its own environment, encrypted with `key`; there is no secret in it.

    Lambda decrypts it by a grant of the role, which is void once a role of that name was made anew.
    """
    return Statement(
        "ReadItsOwnEnvironment", ["kms:Decrypt"], [key], conditions={"StringEquals": context.via("lambda")}
    )


def service_role(
    component: Component,
    thing: str,
    service: Service,
    *statements: Statement,
    trust: Mapping[str, Mapping[str, Any]] | None = None,
) -> aws.iam.Role:
    """A role for `service` with one inline policy of these statements; a child of the component.

    `trust`: conditions of the trust policy in place of `aws:SourceAccount` ({} for a service that sends none).
    """
    role = aws.iam.Role(
        f"{thing}-role",
        name=component.names.of(thing, "role"),
        assume_role_policy=assume(service, component.context.account, trust),
        opts=component.options(),
    )
    if statements:
        role_policy(component, thing, role, *statements)
    return role


def role_policy(
    component: Component, thing: str, role: aws.iam.Role, *statements: Statement
) -> aws.iam.RolePolicy:
    """The inline policy of a role. For what AWS makes only if the role has its rights already: it depends on this."""
    return aws.iam.RolePolicy(
        f"{thing}-policy",
        name=component.names.of(thing, "role"),
        role=role.name,
        policy=document(*statements),
        opts=component.options(),
    )
