"""The buckets: items as JSON, partitions as Parquet, and the access logs of both."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.keys import Keys


class Archive(Component):
    """The buckets: items as JSON, partitions as Parquet, and the access logs of both.

    Attributes: `items`, `partitions`, `logs` (aws.s3.Bucket).
    """

    KIND = "archive"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
