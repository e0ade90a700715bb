"""The DynamoDB table that the archiver reads, and the table that it keeps its place in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.keys import Keys

RECOVERY_DAYS: Final = 35
"""Of point-in-time recovery, the most there is: it costs the same by the size of the table however long."""
STATE_KEY: Final = {"table": "S", "what": "S"}
"""The archiver's state table (docs/archiver.md): hash key, range key."""


class Items(Component):
    """The DynamoDB table that the archiver reads, and the table that it keeps its place in.

    Attributes: `table`, `state` (aws.dynamodb.Table).
    """

    KIND = "items"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self._key = keys.arn("items")
        settings = context.settings.items
        key = {settings.hash_key: settings.hash_key_type}
        if settings.range_key is not None:
            key[settings.range_key] = settings.range_key_type
        self.table = self._table("items", key, settings.ttl_attribute)
        # Losing it loses no item, but the place of a scan and the numbers of archive objects.
        self.state = self._table("archiver-state", STATE_KEY)
        self.register_outputs({"table": self.table.name, "state": self.state.name})

    def _table(self, thing: str, key: Mapping[str, str], ttl: str | None = None) -> aws.dynamodb.Table:
        settings = self.context.settings.items
        hash_key, *others = key
        return aws.dynamodb.Table(
            thing,
            name=self.names.of(thing, "table"),
            billing_mode="PAY_PER_REQUEST",
            # A loop that reads the table over and over is throttled, and an alarm rings, before it is a bill. The state
            # table has the same caps, and a hundredth of the writes.
            on_demand_throughput=aws.dynamodb.TableOnDemandThroughputArgs(
                max_read_request_units=settings.max_reads, max_write_request_units=settings.max_writes
            ),
            hash_key=hash_key,
            range_key=others[0] if others else None,
            attributes=[aws.dynamodb.TableAttributeArgs(name=name, type=kind) for name, kind in key.items()],
            point_in_time_recovery=aws.dynamodb.TablePointInTimeRecoveryArgs(
                enabled=True, recovery_period_in_days=RECOVERY_DAYS
            ),
            server_side_encryption=aws.dynamodb.TableServerSideEncryptionArgs(
                enabled=True, kms_key_arn=self._key
            ),
            ttl=aws.dynamodb.TableTtlArgs(attribute_name=ttl, enabled=True) if ttl else None,
            deletion_protection_enabled=settings.deletion_protection,
            opts=self.data_options(),
        )
