"""The queue of what a function could not do, so that a failure leaves more than a line in a log."""

from __future__ import annotations

from typing import Final

import pulumi_aws as aws

from infra.component import Component
from infra.iam import Statement, Text, document

KEPT_SECONDS: Final = 14 * 86400
"""The most that SQS has."""


def failures_queue(component: Component, thing: str, key: Text) -> aws.sqs.Queue:
    """`eav-<stack>-<thing>-failures`, encrypted by `key`, by TLS only; a child of the component.

    It keeps a message for as long as SQS can, so that a holiday loses none. Who sends are roles of this account, which
    their own policies allow.
    """
    queue = aws.sqs.Queue(
        f"{thing}-failures",
        name=component.names.of(f"{thing}-failures", "queue"),
        message_retention_seconds=KEPT_SECONDS,
        kms_master_key_id=key,
        opts=component.options(),
    )
    aws.sqs.QueuePolicy(
        f"{thing}-failures",
        queue_url=queue.url,
        policy=document(
            Statement(
                "OnlyByTls",
                ["sqs:*"],
                [queue.arn],
                conditions={"Bool": {"aws:SecureTransport": "false"}},
                principals={"AWS": "*"},
                effect="Deny",
            )
        ),
        opts=component.options(),
    )
    return queue
