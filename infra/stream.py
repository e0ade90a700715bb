"""The replayable log that ingest and the warehouse both read."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
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
        self.register_outputs({})
