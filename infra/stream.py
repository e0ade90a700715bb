"""The replayable log that ingest and the warehouse both read."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement
from infra.keys import Keys


class Stream(Component):
    """The replayable log that ingest and the warehouse both read.

    Attributes: `stream` (aws.kinesis.Stream).
    """

    KIND = "stream"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        settings = context.settings.stream
        # On demand: it takes twice the highest rate of the last 30 days at once (4 MB/s and 4000 records/s when new),
        # so nobody plans shards for bursts of 20 000 values a second. Shards that split are closed, read to their end
        # and followed by their children (jobs/ingest/kinesis.py).
        self.stream = aws.kinesis.Stream(
            "stream",
            name=self.names.of("values", "stream"),
            stream_mode_details=aws.kinesis.StreamStreamModeDetailsArgs(stream_mode="ON_DEMAND"),
            retention_period=settings.retention_hours,
            encryption_type="KMS",
            kms_key_id=keys.arn("stream"),
            # A stream that somebody reads by enhanced fan-out is not deleted from under the reader: the deletion
            # fails, and names it. Neither ingest nor Redshift registers as a consumer.
            enforce_consumer_deletion=False,
            shard_level_metrics=list(settings.shard_metrics) or None,
            opts=self.data_options(),
        )
        self.register_outputs({"stream": self.stream.name})


def key_use(context: Context, keys: Keys, stream: Stream, *actions: str) -> Statement:
    """The right to use the stream's key by way of Kinesis, for this stream alone; readers need kms:Decrypt."""
    return Statement(
        "KeyOfTheStreamByKinesis",
        list(actions),
        [keys.arn("stream")],
        conditions={
            "StringEquals": {
                **context.via("kinesis"),
                "kms:EncryptionContext:aws:kinesis:arn": stream.stream.arn,
            }
        },
    )
