"""Every alarm with its runbook, composite alarms that page once for one cause, and the dashboard.

What is watched, and from which value on, is in infra/alarms.py. Each alarm is a child of the component that it watches;
not of the resource, whose protection against deletion it would inherit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import alarms, dashboard
from infra.alarms import Alarm, Area, Incident, Metric, Watched
from infra.archive import Archive
from infra.archiver import Archiver
from infra.component import Component, Context
from infra.iam import Text
from infra.items import Items
from infra.network import Network
from infra.notices import Notices
from infra.postgres import Postgres
from infra.publisher import Publisher
from infra.stream import Stream
from infra.warehouse import Warehouse
from infra.workers import Workers

OPERATORS: Final[dict[alarms.Comparison, str]] = {
    ">": "GreaterThanThreshold",
    ">=": "GreaterThanOrEqualToThreshold",
    "<": "LessThanThreshold",
    "<=": "LessThanOrEqualToThreshold",
}
CAUSE_WAIT: Final = 180
"""Seconds that an incident waits for its cause to be noticed before it tells: an alarm on three figures, one a minute,
may come before the one on their absence, which waits for five."""
CAUSE_EXTENSION: Final = 300
"""Seconds that it keeps quiet after the cause is over: what was held up is caught up with."""


def watched(context: Context, nats: Mapping[str, Text]) -> Watched:
    """What a stack has, by its names."""
    settings, names = context.settings, context.names
    replicas = range(1, settings.postgres.replicas + 1)
    kind = settings.warehouse.kind
    runs = settings.workers.image_digest is not None
    return Watched(
        stack=settings.stack,
        primary=names.of("postgres", "database"),
        replicas=tuple(names.of(f"postgres-replica-{number}", "database") for number in replicas),
        proxy=names.of("postgres", "proxy") if settings.postgres.proxy else None,
        cluster=names.of("warehouse", "cluster") if kind == "provisioned" else None,
        workgroup=names.of("warehouse") if kind == "serverless" else None,
        stream=names.of("values", "stream"),
        tables={thing: names.of(thing, "table") for thing in ("items", "archiver-state")},
        buckets={
            thing: names.unique(f"archive-{thing}", context.account) for thing in ("items", "partitions")
        },
        archiver=names.of("archiver", "function"),
        machine=context.arn("states", f"stateMachine:{names.of('archiver', 'state_machine')}"),
        failures=names.of("archiver-failures", "queue"),
        publisher=names.of("publisher", "function"),
        tasks=names.of("tasks", "cluster"),
        services={thing: names.of(thing) for thing in ("worker", "ingest")} if runs else {},
        nats=nats,
        topics={urgency: names.of(urgency, "topic") for urgency in ("page", "notice")},
    )


class Monitoring(Component):
    """Every alarm with its runbook, composite alarms that page once for one cause, and the dashboard.

    Attributes: `alarms` (name → aws.cloudwatch.MetricAlarm), `incidents` (name → aws.cloudwatch.CompositeAlarm),
    `dashboard` (aws.cloudwatch.Dashboard or None).
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
        self._notices = notices
        self._homes: dict[Area, Component] = {
            "network": network,
            "notices": notices,
            "postgres": postgres,
            "warehouse": warehouse,
            "stream": stream,
            "items": items,
            "archive": archive,
            "archiver": archiver,
            "workers": workers,
            "publisher": publisher,
        }
        self._begun = publisher.schedule
        self._request_metrics({"items": archive.items, "partitions": archive.partitions})
        found = watched(
            context,
            {zone: nat.id for zone, nat in zip(context.zones, network.nats, strict=False)},
        )
        self._real = self._outputs(
            found, postgres, warehouse, stream, items, archive, archiver, workers, publisher
        )
        catalogue = alarms.catalogue(context.settings, found)
        self.alarms = {alarm.name: self._alarm(alarm) for alarm in catalogue}
        self.incidents: dict[str, aws.cloudwatch.CompositeAlarm] = {}
        incidents = alarms.incidents(catalogue)
        for incident in incidents:
            self.incidents[incident.name] = self._incident(incident)
        self.dashboard = (
            self._dashboard(found, catalogue, incidents) if context.settings.monitoring.dashboard else None
        )
        self.register_outputs({"alarms": len(self.alarms), "incidents": len(self.incidents)})

    def _outputs(
        self,
        found: Watched,
        postgres: Postgres,
        warehouse: Warehouse,
        stream: Stream,
        items: Items,
        archive: Archive,
        archiver: Archiver,
        workers: Workers,
        publisher: Publisher,
    ) -> dict[str, Text]:
        """Names that the catalogue has → the same of the resources, so that an alarm waits for what it watches."""
        real: dict[str, Text] = {
            found.primary: postgres.primary.identifier,
            found.stream: stream.stream.name,
            found.tables["items"]: items.table.name,
            found.tables["archiver-state"]: items.state.name,
            found.buckets["items"]: archive.items.bucket,
            found.buckets["partitions"]: archive.partitions.bucket,
            found.archiver: archiver.function.name,
            found.machine: archiver.machine.arn,
            found.failures: archiver.failures.name,
            found.publisher: publisher.function.name,
            found.tasks: workers.cluster.name,
        }
        real |= {name: one.identifier for name, one in zip(found.replicas, postgres.replicas, strict=True)}
        real |= {found.topics[urgency]: topic.name for urgency, topic in self._notices.topics.items()}
        services = {"worker": workers.worker, "ingest": workers.ingest}
        real |= {name: services[thing].name for thing, name in found.services.items()}
        if found.proxy is not None and postgres.proxy is not None:
            real[found.proxy] = postgres.proxy.name
        if found.cluster is not None and warehouse.cluster is not None:
            real[found.cluster] = warehouse.cluster.cluster_identifier
        if found.workgroup is not None and warehouse.workgroup is not None:
            real[found.workgroup] = warehouse.workgroup.workgroup_name
        return real

    def _dimensions(self, metric: Metric) -> dict[str, Text]:
        return {
            name: self._real.get(value, value) if isinstance(value, str) else value
            for name, value in metric.dimensions.items()
        }

    def _request_metrics(self, buckets: Mapping[str, aws.s3.Bucket]) -> None:
        """S3 counts requests and errors only where it is asked to."""
        for thing, bucket in buckets.items():
            aws.s3.BucketMetric(
                f"requests-{thing}",
                bucket=bucket.bucket,
                name=alarms.FILTER,
                opts=pulumi.ResourceOptions(parent=self._homes["archive"]),
            )

    def _tell(self, severity: alarms.Severity) -> list[pulumi.Output[str]]:
        return [] if severity == "none" else [self._notices.arn(severity)]

    def _options(self, area: Area) -> pulumi.ResourceOptions:
        # Silence means failure for some of them, and there is silence until figures come.
        begun = [self._begun] if area == "publisher" else None
        return pulumi.ResourceOptions(parent=self._homes[area], depends_on=begun)

    def _alarm(self, alarm: Alarm) -> aws.cloudwatch.MetricAlarm:
        tell = self._tell(alarm.severity if alarm.incident is None else "none")
        first = alarm.metrics[0]
        plain = alarm.expression is None
        return aws.cloudwatch.MetricAlarm(
            f"alarm-{alarm.name}",
            name=self.names.of(alarm.name, "alarm"),
            alarm_description=alarm.description,
            comparison_operator=OPERATORS[alarm.comparison],
            threshold=float(alarm.threshold),
            evaluation_periods=alarm.periods,
            datapoints_to_alarm=alarm.datapoints,
            treat_missing_data=alarm.missing.treat,
            namespace=first.namespace if plain else None,
            metric_name=first.name if plain else None,
            dimensions=self._dimensions(first) if plain else None,
            statistic=first.statistic if plain else None,
            period=first.period if plain else None,
            metric_queries=None if plain else self._queries(alarm),
            alarm_actions=tell,
            ok_actions=tell,
            opts=self._options(alarm.area),
        )

    def _queries(self, alarm: Alarm) -> list[aws.cloudwatch.MetricAlarmMetricQueryArgs]:
        return [
            aws.cloudwatch.MetricAlarmMetricQueryArgs(
                id="value", expression=alarm.expression, label=alarm.name, return_data=True
            ),
            *(
                aws.cloudwatch.MetricAlarmMetricQueryArgs(id=f"m{number}", metric=self._query_metric(metric))
                for number, metric in enumerate(alarm.metrics)
            ),
        ]

    def _query_metric(self, metric: Metric) -> aws.cloudwatch.MetricAlarmMetricQueryMetricArgs:
        return aws.cloudwatch.MetricAlarmMetricQueryMetricArgs(
            namespace=metric.namespace,
            metric_name=metric.name,
            dimensions=self._dimensions(metric),
            stat=metric.statistic,
            period=metric.period,
        )

    def _incident(self, incident: Incident) -> aws.cloudwatch.CompositeAlarm:
        tell = self._tell(incident.severity)
        parts = [self._called(member) for member in incident.members]
        suppressor = None
        if incident.after is not None:
            suppressor = aws.cloudwatch.CompositeAlarmActionsSuppressorArgs(
                alarm=self._called(incident.after), wait_period=CAUSE_WAIT, extension_period=CAUSE_EXTENSION
            )
        return aws.cloudwatch.CompositeAlarm(
            f"incident-{incident.name}",
            alarm_name=self.names.of(f"incident-{incident.name}", "alarm"),
            alarm_description=incident.description,
            alarm_rule=pulumi.Output.all(*parts).apply(
                lambda known: " OR ".join(f'ALARM("{name}")' for name in known)
            ),
            actions_suppressor=suppressor,
            alarm_actions=tell,
            ok_actions=tell,
            opts=pulumi.ResourceOptions(parent=self._homes[incident.area]),
        )

    def _called(self, name: str) -> pulumi.Output[str]:
        """Of an alarm or an incident that is declared."""
        return self.alarms[name].name if name in self.alarms else self.incidents[name].alarm_name

    def _dashboard(
        self, found: Watched, catalogue: tuple[Alarm, ...], incidents: tuple[Incident, ...]
    ) -> aws.cloudwatch.Dashboard:
        context = self.context
        told = [
            context.arn("cloudwatch", f"alarm:{self.names.of(f'incident-{one.name}', 'alarm')}")
            for one in incidents
            if one.severity != "none"
        ]
        body = json.dumps(dashboard.body(context.settings, found, catalogue, told), separators=(",", ":"))
        # The names in it are known before; it waits for what they name, or it shows a stack that failed half-way as if
        # it were one where nothing happens.
        there = pulumi.Output.all(*self._real.values(), *(one.arn for one in self.incidents.values()))
        return aws.cloudwatch.Dashboard(
            "dashboard",
            dashboard_name=self.names.of("platform"),
            dashboard_body=there.apply(lambda _: body),
            opts=self.options(),
        )
