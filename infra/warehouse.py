"""Redshift, provisioned or serverless, and the roles that it reads S3 and the stream with."""

from __future__ import annotations

import pulumi

from infra.archive import Archive
from infra.component import Component, Context
from infra.keys import Keys
from infra.network import Network
from infra.notices import Notices
from infra.stream import Stream


class Warehouse(Component):
    """Redshift, provisioned or serverless, and the roles that it reads S3 and the stream with.

    Attributes: `cluster` (aws.redshift.Cluster or None), `workgroup` (aws.redshiftserverless.Workgroup or None).
    """

    KIND = "warehouse"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        notices: Notices,
        network: Network,
        stream: Stream,
        archive: Archive,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
