"""The scheduled Lambda that publishes the database's own figures."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.keys import Keys
from infra.network import Network
from infra.postgres import Postgres


class Publisher(Component):
    """The scheduled Lambda that publishes the database's own figures.

    Attributes: `function` (aws.lambda_.Function).
    """

    KIND = "publisher"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        network: Network,
        postgres: Postgres,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
