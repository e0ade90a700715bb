"""The jobs as Fargate tasks: scheduler, ingest, and migrations when asked."""

from __future__ import annotations

import pulumi

from infra.archive import Archive
from infra.component import Component, Context
from infra.keys import Keys
from infra.network import Network
from infra.postgres import Postgres
from infra.stream import Stream


class Workers(Component):
    """The jobs as Fargate tasks: scheduler, ingest, and migrations when asked.

    Attributes: `cluster` (aws.ecs.Cluster), `worker`, `ingest` (aws.ecs.Service), `repository` (aws.ecr.Repository).
    """

    KIND = "workers"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        network: Network,
        postgres: Postgres,
        stream: Stream,
        archive: Archive,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
