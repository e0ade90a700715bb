"""RDS PostgreSQL, its replicas, its proxy, and what is logged and told of them."""

from __future__ import annotations

import pulumi

from infra.component import Component, Context
from infra.keys import Keys
from infra.network import Network
from infra.notices import Notices


class Postgres(Component):
    """RDS PostgreSQL, its replicas, its proxy, and what is logged and told of them.

    Attributes: `primary` (aws.rds.Instance), `replicas` (tuple of them), `proxy` (aws.rds.Proxy or None).
    """

    KIND = "postgres"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        notices: Notices,
        network: Network,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
