"""The archiver Lambda, what runs it until it is finished, and who is told."""

from __future__ import annotations

import pulumi

from infra.archive import Archive
from infra.component import Component, Context
from infra.items import Items
from infra.keys import Keys
from infra.notices import Notices


class Archiver(Component):
    """The archiver Lambda, what runs it until it is finished, and who is told.

    Attributes: `function` (aws.lambda_.Function), `machine` (aws.sfn.StateMachine), `failures` (aws.sqs.Queue).
    """

    KIND = "archiver"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        notices: Notices,
        items: Items,
        archive: Archive,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
