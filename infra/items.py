"""The DynamoDB table that the archiver reads, and the table that it keeps its place in."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.keys import Keys


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
        self.register_outputs({})
