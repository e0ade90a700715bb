"""An instance without inbound rules, for psql and alembic by SSM Session Manager."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.keys import Keys
from infra.network import Network


class Bastion(Component):
    """An instance without inbound rules, for psql and alembic by SSM Session Manager.

    Attributes: `instance` (aws.ec2.Instance).
    """

    KIND = "bastion"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        network: Network,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
