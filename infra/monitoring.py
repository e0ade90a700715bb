"""Every alarm with its runbook, composite alarms that page once for one cause, and the dashboard."""

from __future__ import annotations

import pulumi

from infra.archive import Archive
from infra.archiver import Archiver
from infra.component import Component, Context
from infra.items import Items
from infra.network import Network
from infra.notices import Notices
from infra.postgres import Postgres
from infra.publisher import Publisher
from infra.stream import Stream
from infra.warehouse import Warehouse
from infra.workers import Workers


class Monitoring(Component):
    """Every alarm with its runbook, composite alarms that page once for one cause, and the dashboard.

    Attributes: `alarms` (name → aws.cloudwatch.MetricAlarm).
    """

    KIND = "monitoring"

    def __init__(
        self,
        context: Context,
        notices: Notices,
        network: Network,
        postgres: Postgres,
        warehouse: Warehouse,
        stream: Stream,
        items: Items,
        archive: Archive,
        archiver: Archiver,
        workers: Workers,
        publisher: Publisher,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.register_outputs({})
