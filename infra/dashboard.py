"""The dashboard of a stack: from what readers notice, at the top, to what it costs, at the bottom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from archiver import names as archiver_names
from infra.alarms import DAY, HOUR, MINUTE, Alarm, Metric, Watched
from infra.settings import Settings
from jobs import names as figures
from jobs.names import Figure

WIDTH: Final = 24
"""Units of the grid of a dashboard."""
HEIGHT: Final = 6
BILLING_REGION: Final = "us-east-1"
"""Where AWS publishes charges, of all regions."""


@dataclass(frozen=True)
class Line:
    """A metric in a widget, by the name that a person gives it."""

    metric: Metric
    label: str
    right: bool = False
    """On the axis at the right."""


@dataclass(frozen=True)
class Chart:
    """A widget."""

    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    """What the left axis shows."""
    region: str | None = None


@dataclass(frozen=True)
class Row:
    """A heading and the charts below it, in one line of the grid."""

    title: str
    charts: tuple[Chart, ...]


def rows(settings: Settings, watched: Watched) -> tuple[Row, ...]:
    """All rows that a stack has, from the top."""
    found = (
        Row("Freshness and flow", tuple(_flow(settings, watched))),
        Row("Database", tuple(_database(settings, watched))),
        Row("Disk and memory of the database", tuple(_disk(watched))),
        Row("Replicas and proxy", tuple(_replicas(settings, watched))),
        Row("Warehouse", tuple(_warehouse(settings, watched))),
        Row("Stream", tuple(_stream(watched))),
        Row("Items and archive", tuple(_archive(watched))),
        Row("Jobs and partitions", tuple(_jobs(settings, watched))),
        Row("Cost", tuple(_cost(settings, watched))),
    )
    return tuple(row for row in found if row.charts)


def body(
    settings: Settings, watched: Watched, alarms: Sequence[Alarm], incidents: Sequence[str]
) -> dict[str, Any]:
    """What CloudWatch takes. `incidents`: ARNs of the alarms whose state stands at the top.

    Where a chart shows what an alarm watches, its threshold is a line.
    """
    widgets: list[dict[str, Any]] = []
    if incidents:
        state = {"title": "Incidents", "alarms": list(incidents)}
        tall = 2 + 2 * -(-len(incidents) // 6)
        widgets.append(_widget("alarm", 0, 0, WIDTH, tall, state))
    y = sum(widget["height"] for widget in widgets)
    for row in rows(settings, watched):
        widgets.append(
            _widget("text", 0, y, WIDTH, 1, {"markdown": f"## {row.title}", "background": "transparent"})
        )
        y += 1
        wide = WIDTH // len(row.charts)
        for place, chart in enumerate(row.charts):
            content = _content(chart, settings.region, alarms)
            widgets.append(_widget("metric", place * wide, y, wide, HEIGHT, content))
        y += HEIGHT
    return {"start": "-PT6H", "periodOverride": "inherit", "widgets": widgets}


def _widget(
    kind: str, x: int, y: int, width: int, height: int, properties: Mapping[str, Any]
) -> dict[str, Any]:
    return {"type": kind, "x": x, "y": y, "width": width, "height": height, "properties": dict(properties)}


def _content(chart: Chart, region: str, alarms: Iterable[Alarm]) -> dict[str, Any]:
    limits = [
        {"label": alarm.name, "value": alarm.threshold, "yAxis": "right" if line.right else "left"}
        for line in chart.lines
        for alarm in alarms
        if alarm.expression is None and _same(alarm.metrics[0], line.metric) and alarm.severity != "none"
    ]
    # The same limit of several lines (each replica has one) is drawn once.
    unique = list({(one["value"], one["yAxis"]): one for one in limits}.values())
    return {
        "title": chart.title,
        "view": "timeSeries",
        "stacked": False,
        "region": chart.region or region,
        "metrics": [_metric(line) for line in chart.lines],
        "yAxis": {"left": {"min": 0, "label": chart.unit, "showUnits": False}, "right": {"min": 0}},
        "annotations": {"horizontal": unique},
    }


def _metric(line: Line) -> list[Any]:
    metric = line.metric
    dimensions = [part for pair in metric.dimensions.items() for part in pair]
    options: dict[str, Any] = {"label": line.label, "stat": metric.statistic, "period": metric.period}
    if line.right:
        options["yAxis"] = "right"
    return [metric.namespace, metric.name, *dimensions, options]


def _same(one: Metric, other: Metric) -> bool:
    return (one.namespace, one.name, dict(one.dimensions), one.statistic) == (
        other.namespace, other.name, dict(other.dimensions), other.statistic,
    )  # fmt: skip


# -- rows ------------------------------------------------------------------------------------------------------


def _line(
    namespace: str, name: str, dimensions: Mapping[str, str], statistic: Any, label: str, **more: Any
) -> Line:
    period = more.pop("period", MINUTE)
    return Line(Metric(namespace, name, dimensions, statistic, period), label, **more)


def _figure(settings: Settings, watched: Watched, figure: Figure, label: str, of: str | None = None) -> Line:
    dimensions = {figures.STACK: watched.stack} | ({figure.by: of} if figure.by and of else {})
    statistic = "Minimum" if figure in (figures.PARTITIONS_AHEAD, figures.REPLICAS) else "Maximum"
    period = MINUTE * settings.monitoring.publish_minutes
    return _line(figures.NAMESPACE, figure.name, dimensions, statistic, label, period=period)


def _flow(settings: Settings, watched: Watched) -> Iterator[Chart]:
    paths = [path for path in figures.PATHS if path != "archive" and (path != "replica" or watched.replicas)]
    yield Chart(
        "How far behind each way to read is",
        tuple(_figure(settings, watched, figures.FRESHNESS, path, path) for path in paths), "seconds",
    )  # fmt: skip
    yield Chart(
        "Staged and not yet durable",
        (
            _figure(settings, watched, figures.STAGED_ROWS, "values"),
            replace(_figure(settings, watched, figures.STAGED_AGE, "oldest, seconds"), right=True),
        ), "values",
    )  # fmt: skip
    of = {"StreamName": watched.stream}
    yield Chart(
        "Records in the stream",
        (
            _line("AWS/Kinesis", "IncomingRecords", of, "Sum", "in a minute"),
            _line(
                "AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", of, "Maximum", "oldest unread, ms", right=True
            ),
        ), "records",
    )  # fmt: skip
    yield Chart(
        "Values refused in 15 minutes", (_figure(settings, watched, figures.REJECTED, "values"),), "values"
    )


def _database(settings: Settings, watched: Watched) -> Iterator[Chart]:
    of = {"DBInstanceIdentifier": watched.primary}
    yield Chart(
        "CPU and sessions at work",
        (
            _line("AWS/RDS", "CPUUtilization", of, "Average", "CPU %"),
            _line("AWS/RDS", "DBLoad", of, "Average", "sessions", right=True),
        ), "%",
    )  # fmt: skip
    yield Chart("Connections", (_figure(settings, watched, figures.CONNECTIONS, "of max_connections"),), "%")
    yield Chart(
        "Transactions and locks",
        (
            _figure(settings, watched, figures.LONGEST_TRANSACTION, "longest transaction"),
            _figure(settings, watched, figures.LONGEST_IDLE, "longest idle in one"),
            replace(_figure(settings, watched, figures.BLOCKED, "sessions that wait"), right=True),
        ), "seconds",
    )  # fmt: skip
    yield Chart(
        "Memory and vacuum",
        (
            _figure(settings, watched, figures.CACHE_HITS, "reads from memory"),
            _figure(settings, watched, figures.DEAD_ROWS, "dead rows, worst table"),
            replace(_figure(settings, watched, figures.XID_AGE, "transaction id age"), right=True),
        ), "%",
    )  # fmt: skip


def _disk(watched: Watched) -> Iterator[Chart]:
    of = {"DBInstanceIdentifier": watched.primary}
    yield Chart(
        "Latency of the disk",
        (
            _line("AWS/RDS", "ReadLatency", of, "Average", "read"),
            _line("AWS/RDS", "WriteLatency", of, "Average", "write"),
        ), "seconds",
    )  # fmt: skip
    yield Chart(
        "Operations of the disk",
        (
            _line("AWS/RDS", "ReadIOPS", of, "Average", "reads a second"),
            _line("AWS/RDS", "WriteIOPS", of, "Average", "writes a second"),
            _line("AWS/RDS", "DiskQueueDepth", of, "Average", "waiting", right=True),
        ), "IOPS",
    )  # fmt: skip
    yield Chart(
        "Free disk and WAL",
        (
            _line("AWS/RDS", "FreeStorageSpace", of, "Average", "free"),
            _line("AWS/RDS", "TransactionLogsDiskUsage", of, "Maximum", "WAL", right=True),
        ), "bytes",
    )  # fmt: skip
    yield Chart(
        "Memory",
        (
            _line("AWS/RDS", "FreeableMemory", of, "Average", "freeable"),
            _line("AWS/RDS", "SwapUsage", of, "Average", "swap", right=True),
        ), "bytes",
    )  # fmt: skip


def _replicas(settings: Settings, watched: Watched) -> Iterator[Chart]:
    if watched.replicas:
        yield Chart(
            "Replicas behind, by RDS",
            tuple(
                _line("AWS/RDS", "ReplicaLag", {"DBInstanceIdentifier": name}, "Maximum", name)
                for name in watched.replicas
            ), "seconds",
        )  # fmt: skip
        yield Chart(
            "Replicas at work",
            tuple(
                _line("AWS/RDS", "CPUUtilization", {"DBInstanceIdentifier": name}, "Average", name)
                for name in watched.replicas
            ), "CPU %",
        )  # fmt: skip
    yield Chart(
        "WAL held back by slots",
        (
            _figure(settings, watched, figures.SLOT_RETAINED, "by the slot furthest behind"),
            _figure(settings, watched, figures.LOGICAL_UNREAD, "unread changes"),
            replace(_figure(settings, watched, figures.INACTIVE_SLOTS, "slots that nobody reads"), right=True),
        ), "bytes",
    )  # fmt: skip
    if watched.proxy is not None:
        of = {"ProxyName": watched.proxy}
        yield Chart(
            "Proxy",
            (
                _line("AWS/RDS", "ClientConnections", of, "Maximum", "sessions of clients"),
                _line("AWS/RDS", "DatabaseConnectionsCurrentlyBorrowed", of, "Maximum", "connections lent out"),
                _line("AWS/RDS", "DatabaseConnectionsBorrowLatency", of, "Average", "wait, µs", right=True),
            ), "sessions",
        )  # fmt: skip


def _warehouse(settings: Settings, watched: Watched) -> Iterator[Chart]:
    if watched.cluster is not None:
        of = {"ClusterIdentifier": watched.cluster}
        for title, unit, lines in (
            ("CPU and disk", "%", (("CPUUtilization", "CPU"), ("PercentageDiskSpaceUsed", "disk"))),
            ("Sessions", "sessions", (("DatabaseConnections", "sessions"),)),
            ("Health", "1: healthy", (("HealthStatus", "healthy"), ("MaintenanceMode", "in maintenance"))),
        ):
            yield Chart(
                title,
                tuple(
                    _line("AWS/Redshift", name, of, "Minimum" if name == "HealthStatus" else "Maximum", label,
                        period=5 * MINUTE)
                    for name, label in lines
                ), unit,
            )  # fmt: skip
    if watched.workgroup is not None:
        of = {"Workgroup": watched.workgroup}
        named = of | {"DatabaseName": settings.warehouse.database}
        yield Chart(
            "Compute",
            (_line("AWS/Redshift-Serverless", "ComputeCapacity", of, "Average", "RPUs", period=5 * MINUTE),), "RPUs",
        )  # fmt: skip
        yield Chart(
            "Queries",
            tuple(
                _line("AWS/Redshift-Serverless", name, named, "Sum", label, period=5 * MINUTE)
                for name, label in (("QueriesSucceeded", "done"), ("QueriesFailed", "failed"))
            ), "queries",
        )  # fmt: skip


def _stream(watched: Watched) -> Iterator[Chart]:
    of = {"StreamName": watched.stream}
    yield Chart(
        "Bytes in and out",
        (
            _line("AWS/Kinesis", "IncomingBytes", of, "Sum", "in"),
            _line("AWS/Kinesis", "GetRecords.Bytes", of, "Sum", "out, to all readers"),
        ), "bytes a minute",
    )  # fmt: skip
    yield Chart(
        "Throttled",
        (
            _line("AWS/Kinesis", "WriteProvisionedThroughputExceeded", of, "Sum", "writes"),
            _line("AWS/Kinesis", "ReadProvisionedThroughputExceeded", of, "Sum", "reads"),
            _line("AWS/Kinesis", "PutRecords.FailedRecords", of, "Sum", "records that failed"),
        ), "a minute",
    )  # fmt: skip


def _archive(watched: Watched) -> Iterator[Chart]:
    own = dict(zip(archiver_names.DIMENSIONS, (archiver_names.SERVICE, watched.tables["items"]), strict=True))
    yield Chart(
        "Items archived",
        tuple(
            _line(archiver_names.NAMESPACE, name, own, "Sum", name.lower(), period=HOUR)
            for name in ("Scanned", "Archived", "Deleted", "Errors")
        ), "an hour",
    )  # fmt: skip
    yield Chart(
        "Runs of the archiver",
        (
            _line("AWS/Lambda", "Duration", {"FunctionName": watched.archiver}, "Maximum", "ms", period=5 * MINUTE),
            _line("AWS/Lambda", "Errors", {"FunctionName": watched.archiver}, "Sum", "failed", period=5 * MINUTE,
                right=True),
        ), "ms",
    )  # fmt: skip
    yield Chart(
        "Table of items",
        tuple(
            _line("AWS/DynamoDB", name, {"TableName": watched.tables["items"]}, "Sum", label, right=right)
            for name, label, right in (
                ("ConsumedReadCapacityUnits", "read units", False),
                ("ConsumedWriteCapacityUnits", "write units", False),
                ("ReadThrottleEvents", "reads throttled", True),
                ("WriteThrottleEvents", "writes throttled", True),
            )
        ), "a minute",
    )  # fmt: skip


def _jobs(settings: Settings, watched: Watched) -> Iterator[Chart]:
    yield Chart(
        "Jobs",
        (
            _figure(settings, watched, figures.JOBS_FAILING, "failing"),
            _figure(settings, watched, figures.JOBS_LATE, "late"),
        ), "jobs",
    )  # fmt: skip
    yield Chart(
        "Partitions ahead", (_figure(settings, watched, figures.PARTITIONS_AHEAD, "fewest"),), "seconds"
    )
    yield Chart(
        "Archive of partitions",
        (
            _figure(settings, watched, figures.FRESHNESS, "behind", "archive"),
            replace(_figure(settings, watched, figures.ARCHIVES_FAILED, "failed"), right=True),
        ), "seconds",
    )  # fmt: skip
    if watched.services:
        yield Chart(
            "Tasks",
            tuple(
                _line("AWS/ECS", name, {"ClusterName": watched.tasks, "ServiceName": service}, "Average",
                    f"{thing} {label}")
                for thing, service in watched.services.items()
                for name, label in (("CPUUtilization", "CPU"), ("MemoryUtilization", "memory"))
            ), "%",
        )  # fmt: skip


def _cost(settings: Settings, watched: Watched) -> Iterator[Chart]:
    yield Chart(
        "Charges of the account since the first of the month",
        (_line("AWS/Billing", "EstimatedCharges", {"Currency": "USD"}, "Maximum", "USD", period=6 * HOUR),),
        "USD", BILLING_REGION,
    )  # fmt: skip
    yield Chart(
        "Archives",
        tuple(
            _line("AWS/S3", "BucketSizeBytes", {"BucketName": bucket, "StorageType": kind}, "Average",
                f"{thing}, {label}", period=DAY)
            for thing, bucket in watched.buckets.items()
            for kind, label in (("StandardStorage", "Standard"), ("GlacierStorage", "Glacier"))
        ), "bytes",
    )  # fmt: skip
    if watched.workgroup is not None:
        of = {"Workgroup": watched.workgroup}
        yield Chart(
            "Compute of the warehouse a day",
            (_line("AWS/Redshift-Serverless", "ComputeSeconds", of, "Sum", "RPU seconds", period=DAY),), "RPU s",
        )  # fmt: skip
