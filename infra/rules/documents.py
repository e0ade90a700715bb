"""Policy documents of IAM as rules read them: wherever they stand, clause by clause."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from infra.graph import Resource
from infra.rules.kit import UNKNOWN, values

IDENTITY: Final = {
    "iam.RolePolicy": "policy",
    "iam.Policy": "policy",
    "iam.GroupPolicy": "policy",
    "iam.UserPolicy": "policy",
    "iam.Role": "inlinePolicies.policy",
}
"""Kind → where the document stands that says what an identity may do."""

TRUST: Final = {"iam.Role": "assumeRolePolicy"}
"""Kind → where the document stands that says who may take a role."""

ATTACHED: Final = {
    "cloudwatch.EventBusPolicy": "policy",
    "cloudwatch.LogResourcePolicy": "policyDocument",
    "dynamodb.ResourcePolicy": "policy",
    "ecr.RepositoryPolicy": "policy",
    "kinesis.ResourcePolicy": "policy",
    "kms.Key": "policy",
    "kms.KeyPolicy": "policy",
    "redshift.ResourcePolicy": "policy",
    "redshiftserverless.ResourcePolicy": "policy",
    "s3.Bucket": "policy",
    "s3.BucketPolicy": "policy",
    "secretsmanager.Secret": "policy",
    "secretsmanager.SecretPolicy": "policy",
    "sns.Topic": "policy",
    "sns.TopicPolicy": "policy",
    "sqs.Queue": "policy",
    "sqs.QueuePolicy": "policy",
}
"""Kind → where the document stands that says who may use a resource."""

FILTERS: Final = {"ec2.VpcEndpoint": "policy"}
"""Kind → where the document stands that lets requests through; it gives no right by itself."""


@dataclass(frozen=True)
class Clause:
    """One statement of a document, its lists always lists."""

    sid: str
    allow: bool
    actions: tuple[str, ...]
    not_actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_resources: tuple[str, ...]
    principals: tuple[tuple[str, str], ...]
    """(type, value): ("Service", "events.amazonaws.com"), ("*", "*")."""
    not_principals: bool
    conditions: Mapping[str, Mapping[str, Any]]

    def asked(self) -> frozenset[str]:
        """The condition keys that it asks about, in lower case."""
        return frozenset(key.lower() for test in self.conditions.values() for key in test)

    @property
    def everybody(self) -> bool:
        """Whether it is about anybody at all, with an account or without."""
        return self.not_principals or any(
            value == "*" for kind, value in self.principals if kind in ("*", "AWS")
        )

    def named(self) -> str:
        """For a message."""
        return f"statement {self.sid}" if self.sid else "a statement"


def clauses(resource: Resource, where: Mapping[str, str]) -> list[Clause] | None:
    """Those of a resource's document; None while it cannot be known. Raises ValueError for one that is no document."""
    path = where.get(resource.kind)
    found: list[Clause] = []
    for text in values(resource.inputs, path) if path else ():
        if text == UNKNOWN:
            return None
        found += parse(text)
    return found


def parse(text: Any) -> tuple[Clause, ...]:
    """The clauses of a document, as JSON or as its content. Raises ValueError."""
    return _parsed(text) if isinstance(text, str) else _clauses(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Clause, ...]:
    return _clauses(json.loads(text))


def _clauses(document: Any) -> tuple[Clause, ...]:
    if not isinstance(document, Mapping) or "Statement" not in document:
        raise ValueError("it has no Statement")
    return tuple(_clause(one) for one in _list(document["Statement"]))


def _clause(one: Any) -> Clause:
    if not isinstance(one, Mapping) or one.get("Effect") not in ("Allow", "Deny"):
        raise ValueError("a statement has no Effect of Allow or Deny")
    return Clause(
        sid=str(one.get("Sid", "")),
        allow=one["Effect"] == "Allow",
        actions=_texts(one.get("Action")),
        not_actions=_texts(one.get("NotAction")),
        resources=_texts(one.get("Resource")),
        not_resources=_texts(one.get("NotResource")),
        principals=tuple(_principals(one.get("Principal"))),
        not_principals="NotPrincipal" in one,
        conditions=one.get("Condition") or {},
    )


def _principals(given: Any) -> Iterator[tuple[str, str]]:
    if isinstance(given, str):
        yield given, given
    elif isinstance(given, Mapping):
        for kind, names in given.items():
            for name in _texts(names):
                yield kind, name


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in _list(value)) if value is not None else ()
