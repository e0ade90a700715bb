"""Customer managed KMS keys, one for each kind of data, so that a right to one is no right to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement, document

Purpose = Literal["postgres", "warehouse", "stream", "items", "archive", "compute", "logs", "notices"]
PURPOSES: Final[dict[Purpose, str]] = {
    "postgres": "RDS storage, Performance Insights, and the master's secret",
    "warehouse": "Redshift storage and its administrator's secret",
    "stream": "the Kinesis stream",
    "items": "the DynamoDB tables",
    "archive": "the archive buckets",
    "compute": "disks and images of the tasks, the bastion's disk and sessions, and environments of functions",
    "logs": "CloudWatch log groups",
    "notices": "SNS topics and SQS queues",
}
CLUSTER: Final = "tasks"
"""Of ECS: Fargate says its name when it uses the key of the tasks' disks, so the key's policy has to know it."""
PUBLISHERS: Final = ("cloudwatch", "budgets", "events.rds", "redshift")
"""Services that publish to an encrypted topic by themselves. EventBridge is none: it does not tell KMS for which
account it acts (SNS's guide, "Key management")."""
WAITING_DAYS: Final = 30
"""Before a key that was scheduled for deletion is gone, and what it encrypted with it."""


class Keys(Component):
    """The keys of a stack."""

    KIND = "keys"

    def __init__(self, context: Context, options: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(context, options)
        self.keys: dict[Purpose, aws.kms.Key] = {
            purpose: self._key(purpose, self._services(purpose)) for purpose in PURPOSES
        }
        self.register_outputs({"keys": {purpose: key.arn for purpose, key in self.keys.items()}})

    def arn(self, purpose: Purpose) -> pulumi.Output[str]:
        """Of the key for this kind of data."""
        return self.keys[purpose].arn

    def copy(self, purpose: Purpose, region: str) -> aws.kms.Key:
        """A key for copies of the same kind of data in another region; made once."""
        return self._key(purpose, (), region)

    def _key(self, purpose: Purpose, services: Sequence[Statement], region: str | None = None) -> aws.kms.Key:
        thing = purpose if region is None else f"{purpose}-{region}"
        key = aws.kms.Key(
            f"key-{thing}",
            description=f"{self.context.names.of(purpose)}: {PURPOSES[purpose]}",
            enable_key_rotation=True,
            deletion_window_in_days=WAITING_DAYS,
            policy=document(self._administration(), *services),
            region=region,
            opts=self.data_options(),
        )
        aws.kms.Alias(
            f"key-{thing}-alias",
            name=f"alias/{self.names.of(purpose)}",
            target_key_id=key.key_id,
            region=region,
            opts=self.options(),
        )
        return key

    def _administration(self) -> Statement:
        # Without it nobody could ever change the key again. It gives nothing by itself: identities of the account
        # need rights of their own, which is how a role's policy names the one key it may use.
        return Statement(
            "AccountDelegatesByIam",
            ["kms:*"],
            ["*"],
            principals={"AWS": f"arn:{self.context.partition}:iam::{self.context.account}:root"},
        )

    def _services(self, purpose: Purpose) -> tuple[Statement, ...]:
        here = self.context
        if purpose == "logs":
            return (
                Statement(
                    "LogGroupsOfThisStack",
                    [
                        "kms:Encrypt*",
                        "kms:Decrypt*",
                        "kms:ReEncrypt*",
                        "kms:GenerateDataKey*",
                        "kms:DescribeKey",
                    ],
                    ["*"],
                    conditions={
                        "ArnLike": {"kms:EncryptionContext:aws:logs:arn": here.arn("logs", "log-group:*")}
                    },
                    principals={"Service": f"logs.{here.region}.amazonaws.com"},
                ),
            )
        if purpose == "compute":
            tasks = {
                "kms:EncryptionContext:aws:ecs:clusterAccount": here.account,
                "kms:EncryptionContext:aws:ecs:clusterName": here.names.of(CLUSTER, "cluster"),
            }
            fargate = {"Service": "fargate.amazonaws.com"}
            return (
                Statement(
                    "DisksOfThisClustersTasks",
                    ["kms:GenerateDataKeyWithoutPlaintext"],
                    ["*"],
                    conditions={"StringEquals": tasks},
                    principals=fargate,
                ),
                Statement(
                    "GrantsToReadThem",
                    ["kms:CreateGrant"],
                    ["*"],
                    conditions={
                        "StringEquals": tasks,
                        "ForAllValues:StringEquals": {"kms:GrantOperations": ["Decrypt"]},
                    },
                    principals=fargate,
                ),
            )
        if purpose == "notices":
            # CloudWatch and its like call KMS by themselves: without a right of their own to the key an alarm is in
            # ALARM, and tells nobody.
            return (
                Statement(
                    "PublishersOfThisAccount",
                    ["kms:Decrypt", "kms:GenerateDataKey*"],
                    ["*"],
                    conditions={"StringEquals": {"aws:SourceAccount": here.account}},
                    principals={"Service": [f"{name}.amazonaws.com" for name in PUBLISHERS]},
                ),
            )
        return ()
