"""The catalogue of alarms as data: what is watched, from which value on, for how long, and what to do then.

Thresholds follow from the sizes in the settings by pure functions. `catalogue` has every alarm of a stack and none on
what the stack does not have. An `Incident` is a composite alarm: the alarms that one cause sets off act through it, so
that somebody is told once, and it keeps quiet while the cause of its cause is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from archiver import names as archiver_names
from infra import parameters
from infra.iam import Text
from infra.settings import Settings
from jobs import names as figures
from jobs.names import Figure
from runbooks.names import RunbookName

Severity = Literal["page", "notice", "none"]
"""page: cannot wait for the morning. notice: can. none: tells nobody, it keeps others quiet."""
Area = Literal[
    "network", "notices", "postgres", "warehouse", "stream", "items", "archive", "archiver", "workers", "publisher"
]  # fmt: skip
"""The component that an alarm watches, and is a child of."""
Comparison = Literal[">", ">=", "<", "<="]
Treatment = Literal["missing", "notBreaching", "breaching"]

GIB: Final = 2**30
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86_400
FILTER: Final = "EntireBucket"
"""Name of the request metrics configuration of a bucket, which is a dimension of its metrics."""


class Missing(NamedTuple):
    """What no data means, and why."""

    treat: Treatment
    because: str


NO_EVENT: Final = Missing("notBreaching", "published when something happens: no data, nothing happened")
GONE_IS_TOLD: Final = Missing(
    "missing", "a gap says nothing of the value; that the source is gone, others tell"
)
MUST_COME: Final = Missing("breaching", "it comes all the time: no data is the failure")
RESTS: Final = Missing("notBreaching", "the stack rests at night and at weekends")


@dataclass(frozen=True)
class Metric:
    """One metric, and how its values of a period become one."""

    namespace: str
    name: str
    dimensions: Mapping[str, Text]
    statistic: Literal["Average", "Maximum", "Minimum", "Sum", "SampleCount"]
    period: int = MINUTE


@dataclass(frozen=True)
class Alarm:
    """One metric alarm. Its metrics are m0, m1 … in `expression`; without one there is a single metric."""

    name: str
    area: Area
    severity: Severity
    runbook: RunbookName
    meaning: str
    metrics: tuple[Metric, ...]
    comparison: Comparison
    threshold: float
    periods: int
    datapoints: int
    missing: Missing
    expression: str | None = None
    incident: str | None = None
    """The incident that it acts through; without one it acts itself."""

    def __post_init__(self) -> None:
        if (self.expression is None) != (len(self.metrics) == 1):
            raise ValueError(
                f"{self.name}: an expression is for several metrics, and several metrics need one"
            )
        if not 1 <= self.datapoints <= self.periods:
            raise ValueError(f"{self.name}: {self.datapoints} of {self.periods} periods")
        if self.severity == "page" and self.incident is None:
            raise ValueError(f"{self.name}: what pages does so through an incident")

    @property
    def description(self) -> str:
        """As it stands in the message that an alarm sends."""
        return f"{self.meaning} runbook: {self.runbook}"

    @property
    def window(self) -> str:
        """For people: `3 of 5 min`, `26 h`."""
        return window(self.periods, self.datapoints, self.metrics[0].period)


@dataclass(frozen=True)
class Incident:
    """A composite alarm: in alarm while any of `members` is; silent while the alarm `after` is in alarm."""

    name: str
    severity: Severity
    runbook: RunbookName
    meaning: str
    members: tuple[str, ...]
    after: str | None = None
    area: Area = "postgres"

    @property
    def description(self) -> str:
        """As it stands in the message that an alarm sends."""
        return f"{self.meaning} runbook: {self.runbook}"


def window(periods: int, datapoints: int, period: int) -> str:
    """How long something must last.

    >>> window(15, 15, 60), window(5, 3, 60), window(26, 26, 3600), window(3, 2, 300)
    ('15 min', '3 of 5 min', '26 h', '10 of 15 min')
    """
    size, unit = (HOUR, "h") if period % HOUR == 0 else (MINUTE, "min")
    long = periods * period // size
    return f"{long} {unit}" if periods == datapoints else f"{datapoints * period // size} of {long} {unit}"


# -- thresholds by size ----------------------------------------------------------------------------------------


def free_storage(storage_gb: int, percent: float) -> float:
    """Bytes that are this part of the storage, 1 GiB at the least."""
    return max(storage_gb * GIB * percent / 100, GIB)


def slot_wal(storage_gb: int) -> float:
    """Bytes of WAL that a slot may hold back: 10 GiB, and no more than half of what the server lets it (a fifth of the
    disk, max_slot_wal_keep_size), after which the slot is lost.
    """
    return min(10 * GIB, storage_gb * GIB / 10)


def queue_depth(iops: int) -> float:
    """Requests that wait for the disk: what its IOPS serve in 5 ms (Little's law), 10 at the least."""
    return max(iops / 200, 10)


def iops_of(storage_gb: int, iops: int | None) -> int:
    """Of a gp3 volume: 3000, and 12 000 from 400 GB on, unless more is paid for."""
    return iops or (12_000 if storage_gb >= 400 else 3_000)


def throughput_of(storage_gb: int, throughput: int | None) -> int:
    """MiB/s of a gp3 volume: 125, and 500 from 400 GB on, unless more is paid for."""
    return throughput or (500 if storage_gb >= 400 else 125)


CREDITS_AN_HOUR: Final = {"micro": 12, "small": 24, "medium": 24, "large": 36, "xlarge": 96, "2xlarge": 192}
"""Of T4g (EC2 user guide, CPU credits); a credit is a minute of one vCPU."""


def burst_credits(instance_class: str) -> float | None:
    """CPU credits of one hour: with less, a burstable class is about to be slow or to cost more. None for others."""
    family, size = instance_class.split(".")[1:]
    return CREDITS_AN_HOUR[size] if family == "t4g" else None


def bursts_storage(instance_class: str) -> bool:
    """Whether the way to EBS is faster for half an hour a day than for ever: Graviton classes up to 4xlarge."""
    return instance_class.split(".")[2] in (
        "micro",
        "small",
        "medium",
        "large",
        "xlarge",
        "2xlarge",
        "4xlarge",
    )


def long_run(timeout_seconds: int) -> float:
    """Milliseconds from which a run of a function is long: 10 minutes, or two thirds of what it may take."""
    return 1000 * min(600.0, timeout_seconds * 2 / 3)


# -- the catalogue ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """What a stack has, by the names that metrics have it by. None or empty: it has none."""

    stack: str
    primary: str
    replicas: tuple[str, ...]
    proxy: str | None
    cluster: str | None
    workgroup: str | None
    stream: str
    tables: Mapping[str, str]
    """What it is for (`items`, `archiver-state`) → its name."""
    buckets: Mapping[str, str]
    archiver: str
    machine: str
    """ARN."""
    failures: str
    publisher: str
    tasks: str
    """The ECS cluster."""
    services: Mapping[str, str] = field(default_factory=dict)
    nats: Mapping[str, Text] = field(default_factory=dict)
    """Zone → id."""
    topics: Mapping[str, str] = field(default_factory=dict)


def catalogue(settings: Settings, watched: Watched) -> tuple[Alarm, ...]:
    """Every alarm of a stack."""
    found = (
        *_figures(settings, watched),
        *_primary(settings, watched),
        *(
            alarm
            for number, name in enumerate(watched.replicas, 1)
            for alarm in _replica(settings, name, number)
        ),
        *_proxy(watched),
        *_warehouse(settings, watched),
        *_stream(settings, watched),
        *_items(settings, watched),
        *_archive(watched),
        *_archiver(settings, watched),
        *_publisher(watched),
        *_workers(settings, watched),
        *_network(watched),
    )
    return tuple(_rested(alarm) for alarm in found) if settings.cost.rest else found


def _rested(alarm: Alarm) -> Alarm:
    """In a stack that rests: nobody is paged for what is switched off at eight, and silence is no failure where the
    database, its tasks or the publisher are what is silent.
    """
    if alarm.severity == "page":
        alarm = replace(alarm, severity="notice")
    if alarm.missing is MUST_COME and alarm.area in ("postgres", "publisher", "stream", "workers"):
        alarm = replace(alarm, missing=RESTS)
    return alarm


def _figures(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    """On what the database says of itself."""
    period = MINUTE * settings.monitoring.publish_minutes

    def figure(which: Figure, value: str | None = None) -> Metric:
        dimensions: dict[str, Text] = {figures.STACK: watched.stack}
        if which.by is not None and value is not None:
            dimensions[which.by] = value
        return Metric(figures.NAMESPACE, which.name, dimensions, "Maximum", period)

    def alarm(
        name: str, which: Figure, above: float, minutes: int, severity: Severity, runbook: RunbookName, meaning: str,
        *, incident: str | None = None, comparison: Comparison = ">", of: str | None = None,
    ) -> Alarm:  # fmt: skip
        # One look is never enough: a look that meets a checkpoint or a deployment is a blip.
        periods = max(3, minutes * MINUTE // period)
        metric = figure(which, of)
        if comparison in ("<", "<="):
            metric = replace(metric, statistic="Minimum")
        return Alarm(
            name, "publisher", severity, runbook, meaning, (metric,), comparison, above, periods, periods,
            GONE_IS_TOLD, incident=incident,
        )  # fmt: skip

    yield Alarm(
        "figures-missing", "publisher", "page", "database-unavailable",
        "No figures came from the database: it is gone or refuses us, or what publishes them fails.",
        (replace(figure(figures.STAGED_ROWS), statistic="SampleCount"),), "<", 1,
        max(3, 5 * MINUTE // period), max(3, 5 * MINUTE // period), MUST_COME, incident="database-unavailable",
    )  # fmt: skip
    yield alarm(
        "figures-unread", figures.UNREAD, 0, 15, "notice", "database-unavailable",
        "Some figures could not be read: alarms on them are blind. The log of the publisher says which.",
        incident="publisher",
    )  # fmt: skip
    yield alarm(
        "staged-rows", figures.STAGED_ROWS, 1_000_000, 3, "page", "staging-backlog",
        "More than a million values wait to become durable; at 10 000 a second, more than 100 seconds of them.",
        incident="data-flow",
    )  # fmt: skip
    yield alarm(
        "staged-age", figures.STAGED_AGE, 60, 3, "page", "staging-backlog",
        "The oldest staged value has waited for more than a minute; a flush runs ten times a second.",
        incident="data-flow",
    )  # fmt: skip
    yield alarm(
        "slot-retained", figures.SLOT_RETAINED, slot_wal(settings.postgres.storage_gb), 5, "page",
        "replication-slots", "A replication slot holds back so much WAL that the disk is in danger.",
        incident="replication-slots",
    )  # fmt: skip
    yield alarm(
        "slot-unread", figures.LOGICAL_UNREAD, min(GIB, slot_wal(settings.postgres.storage_gb)), 10, "notice",
        "replication-slots", "A reader of changes is more than 1 GiB behind.", incident="replication-slots-notice",
    )  # fmt: skip
    yield alarm(
        "slot-inactive", figures.INACTIVE_SLOTS, 0, 15, "notice", "replication-slots",
        "Nobody reads a replication slot: it holds WAL back until somebody does, or it is dropped.",
        incident="replication-slots-notice",
    )  # fmt: skip
    if watched.replicas:
        yield alarm(
            "replicas-missing", figures.REPLICAS, len(watched.replicas), 5, "page", "replica-lag",
            f"Fewer than {len(watched.replicas)} replicas stream from the primary.",
            incident="replica-lag", comparison="<",
        )  # fmt: skip
        yield alarm(
            "replica-replay", figures.REPLICA_LAG, 3, 10, "notice", "replica-lag",
            "A replica has been more than 3 seconds behind, which readers were promised, as the primary sees it.",
            incident="replica-slo",
        )  # fmt: skip
    yield alarm(
        "partitions-few", figures.PARTITIONS_AHEAD, 2 * DAY, 10, "page", "partitions-ahead",
        "In less than two days a table has no partition for new values: they are then refused.",
        incident="partitions-ahead", comparison="<",
    )  # fmt: skip
    yield alarm(
        "partition-maintenance", figures.MAINTENANCE_ERRORS, 0, 120, "notice", "partitions-ahead",
        "The maintenance of a table's partitions fails.",
    )  # fmt: skip
    yield alarm(
        "default-partitions", figures.DEFAULT_PARTITIONS, 0, 15, "notice", "partitions-ahead",
        "Somebody made a default partition: rows in it keep partitions of their time from being made.",
    )  # fmt: skip
    yield alarm(
        "jobs-failing", figures.JOBS_FAILING, 0, 15, "notice", "jobs-failing",
        "The last run of a job failed.", incident="jobs",
    )  # fmt: skip
    yield alarm(
        "jobs-late", figures.JOBS_LATE, 0, 15, "notice", "jobs-failing",
        "A job did not run in time, or does not come to an end.", incident="jobs",
    )  # fmt: skip
    yield alarm(
        "rejected", figures.REJECTED, 1000, 15, "notice", "rejected-values",
        "More than 1000 values were refused in 15 minutes; they are kept with the reason and can be replayed.",
    )  # fmt: skip
    yield alarm(
        "archives-failed", figures.ARCHIVES_FAILED, 0, 60, "notice", "partition-archives",
        "A partition could not be archived: it stays in the database.", incident="partition-archives",
    )  # fmt: skip
    yield alarm(
        "archives-unseen", figures.ARCHIVES_UNSEEN, 0, 60, "notice", "partition-archives",
        "Nobody has looked for the files of a detached partition in 26 hours: it is not dropped.",
        incident="partition-archives",
    )  # fmt: skip
    yield alarm(
        "archive-behind", figures.FRESHNESS, 3 * DAY, 60, "notice", "partition-archives",
        "A partition has been due for the archive for three days.", incident="partition-archives", of="archive",
    )  # fmt: skip
    yield alarm(
        "transaction-ids", figures.XID_AGE, 1_000_000_000, 15, "page", "transaction-wraparound",
        "A thousand million transaction ids are in use: at twice that many the server stops taking writes.",
        incident="transaction-wraparound",
    )  # fmt: skip
    yield alarm(
        "multixact-ids", figures.MULTIXACT_AGE, 1_000_000_000, 15, "page", "transaction-wraparound",
        "A thousand million multixact ids are in use: at twice that many the server stops taking writes.",
        incident="transaction-wraparound",
    )  # fmt: skip
    yield alarm(
        "oldest-xmin", figures.XMIN_AGE, 50_000_000, 30, "notice", "table-bloat",
        "Vacuum has had to keep dead rows for 50 million transactions: a session, replica or slot holds them.",
        incident="bloat",
    )  # fmt: skip
    yield alarm(
        "dead-rows", figures.DEAD_ROWS, 20, 60, "notice", "table-bloat",
        "A fifth of a large table is dead rows.", incident="bloat",
    )  # fmt: skip
    yield alarm(
        "connections", figures.CONNECTIONS, 80, 5, "notice", "connections-exhausted",
        "Four fifths of max_connections are in use.",
    )  # fmt: skip
    yield alarm(
        "connections-exhausted", figures.CONNECTIONS, 95, 3, "page", "connections-exhausted",
        "Nearly all of max_connections are in use: the next session is refused.", incident="database-overloaded",
    )  # fmt: skip
    yield alarm(
        "long-transaction", figures.LONGEST_TRANSACTION, 4 * HOUR, 15, "notice", "blocked-sessions",
        "A transaction has been open for four hours; the archive of the largest partition takes two.",
        incident="sessions",
    )  # fmt: skip
    yield alarm(
        "idle-transaction", figures.LONGEST_IDLE, 15 * MINUTE, 10, "notice", "blocked-sessions",
        "A session has a transaction open and has done nothing for 15 minutes: the platform's own end in one to five.",
        incident="sessions",
    )  # fmt: skip
    yield alarm(
        "blocked", figures.BLOCKED, 5, 5, "notice", "blocked-sessions",
        "More than five sessions have been waiting for locks for five minutes.", incident="sessions",
    )  # fmt: skip


def _instance(
    settings: Settings, instance: str, instance_class: str, prefix: str, overloaded: str
) -> Iterator[Alarm]:
    """What holds for the primary and for a replica alike. `overloaded`: the incident that its load belongs to."""
    size = parameters.size_of(instance_class)
    memory = size.memory_gib * GIB
    storage = settings.postgres.storage_gb
    iops = iops_of(storage, settings.postgres.iops)
    rate = throughput_of(storage, settings.postgres.throughput)
    of = {"DBInstanceIdentifier": instance}

    def metric(name: str, statistic: Literal["Average", "Maximum", "Minimum", "Sum"] = "Average") -> Metric:
        return Metric("AWS/RDS", name, of, statistic)

    def alarm(
        name: str, metrics: str | tuple[str, ...], comparison: Comparison, threshold: float, minutes: int,
        severity: Severity, runbook: RunbookName, meaning: str, incident: str | None = None,
        expression: str | None = None, datapoints: int | None = None,
    ) -> Alarm:  # fmt: skip
        used = (metrics,) if isinstance(metrics, str) else metrics
        return Alarm(
            f"{prefix}-{name}", "postgres", severity, runbook, meaning, tuple(metric(one) for one in used),
            comparison, threshold, minutes, datapoints or minutes, GONE_IS_TOLD, expression, incident,
        )  # fmt: skip

    load: RunbookName = "database-overloaded"
    yield alarm("cpu", "CPUUtilization", ">", 90, 15, "page", load,
        f"{instance} has used more than 90 % of its {size.vcpus} vCPUs for a quarter of an hour.",
        overloaded)  # fmt: skip
    yield alarm("load", "DBLoad", ">", 2 * size.vcpus, 15, "page", load,
        f"Twice as many sessions are active on {instance} as it has vCPUs ({size.vcpus}): half of them wait.",
        overloaded)  # fmt: skip
    yield alarm("load-high", "DBLoad", ">", size.vcpus, 30, "notice", load,
        f"More sessions are active on {instance} than it has vCPUs ({size.vcpus}).")  # fmt: skip
    for word, name in (("read", "ReadLatency"), ("write", "WriteLatency")):
        yield alarm(f"{word}-latency", name, ">", 0.02, 15, "page", load,
            f"A {word} of the disk of {instance} takes more than 20 ms; gp3 takes single milliseconds.",
            overloaded)  # fmt: skip
    yield alarm("disk-queue", "DiskQueueDepth", ">", queue_depth(iops), 15, "notice", load,
        f"More requests wait for the disk of {instance} than it serves in 5 ms at {iops} IOPS.")  # fmt: skip
    yield alarm("iops", ("ReadIOPS", "WriteIOPS"), ">", 0.9 * iops, 15, "notice", load,
        f"{instance} needs nine tenths of the {iops} IOPS of its disk.", expression="m0 + m1")  # fmt: skip
    yield alarm("throughput", ("ReadThroughput", "WriteThroughput"), ">", 0.9 * rate * 2**20, 15, "notice", load,
        f"{instance} needs nine tenths of the {rate} MiB/s of its disk.", expression="m0 + m1")  # fmt: skip
    yield alarm("memory", "FreeableMemory", "<", 0.05 * memory, 15, "notice", load,
        f"{instance} has less than a twentieth of its {size.memory_gib} GiB left, file cache included.")  # fmt: skip
    yield alarm("swap", "SwapUsage", ">", max(256 * 2**20, 0.05 * memory), 15, "notice", load,
        f"{instance} has moved a good part of its memory to disk.")  # fmt: skip
    yield alarm(
        "disk-full", "FreeStorageSpace", "<", free_storage(storage, 5), 5, "page", "database-storage",
        f"The disk of {instance} is nearly full: at full it stops. It should have grown by itself at a tenth.",
        "database-storage")  # fmt: skip
    yield alarm(
        "disk-low", "FreeStorageSpace", "<", free_storage(storage, 10), 60, "notice", "database-storage",
        f"The disk of {instance} has not grown for an hour though less than a tenth is free: it may be at"
        " storage_max_gb, or have grown in the last six hours.")  # fmt: skip
    if (least := burst_credits(instance_class)) is not None:
        yield alarm("credits", "CPUCreditBalance", "<", least, 15, "notice", load,
            f"{instance} has CPU credits of less than an hour left: it goes on at a price.")  # fmt: skip
    if bursts_storage(instance_class):
        for word, name in (("io", "EBSIOBalance%"), ("bytes", "EBSByteBalance%")):
            yield alarm(f"ebs-{word}", name, "<", 20, 15, "notice", load,
                f"{instance} has used four fifths of what it may do above its lasting rate to the disk.")  # fmt: skip


def _primary(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    wanted = settings.postgres
    yield from _instance(settings, watched.primary, wanted.instance_class, "database", "database-overloaded")
    of = {"DBInstanceIdentifier": watched.primary}
    limit = parameters.connections(parameters.size_of(wanted.instance_class))
    yield Alarm(
        "database-connections", "postgres", "notice", "connections-exhausted",
        f"More than four fifths of {limit} sessions, which max_connections is by the size of the instance.",
        (Metric("AWS/RDS", "DatabaseConnections", of, "Maximum"),), ">", 0.8 * limit, 5, 5, GONE_IS_TOLD,
    )  # fmt: skip
    yield Alarm(
        "database-transaction-ids", "postgres", "notice", "transaction-wraparound",
        "500 million transaction ids are in use; vacuum should have begun against it at 200 million.",
        (Metric("AWS/RDS", "MaximumUsedTransactionIDs", of, "Maximum"),), ">", 500_000_000, 30, 30, GONE_IS_TOLD,
    )  # fmt: skip
    yield Alarm(
        "database-slot-lag", "postgres", "page", "replication-slots",
        "The slot furthest behind holds back so much WAL that the disk is in danger, as RDS sees it.",
        (Metric("AWS/RDS", "OldestReplicationSlotLag", of, "Maximum"),), ">", slot_wal(wanted.storage_gb), 5, 5,
        Missing("notBreaching", "published while there are replication slots"), incident="replication-slots",
    )  # fmt: skip
    yield Alarm(
        "database-wal", "postgres", "notice", "database-storage",
        "WAL takes a fifth of the disk: slots, archiving of WAL, or a burst of writes hold it.",
        (Metric("AWS/RDS", "TransactionLogsDiskUsage", of, "Maximum"),), ">", wanted.storage_gb * GIB / 5, 15, 15,
        GONE_IS_TOLD,
    )  # fmt: skip


def _replica(settings: Settings, instance: str, number: int) -> Iterator[Alarm]:
    wanted = settings.postgres
    prefix = f"replica-{number}"
    instance_class = wanted.replica_class or wanted.instance_class
    yield from _instance(settings, instance, instance_class, prefix, "replica-overloaded")
    of = {"DBInstanceIdentifier": instance}
    lag = Metric("AWS/RDS", "ReplicaLag", of, "Maximum")
    yield Alarm(
        f"{prefix}-lag", "postgres", "page", "replica-lag",
        f"{instance} is more than 10 seconds behind. Queries may hold it up for {wanted.standby_delay_seconds} s.",
        (lag,), ">", 10, 5, 5, GONE_IS_TOLD, incident="replica-lag",
    )  # fmt: skip
    yield Alarm(
        f"{prefix}-slo", "postgres", "notice", "replica-lag",
        f"{instance} was more than 3 seconds behind, which readers were promised.",
        (lag,), ">", 3, 15, 10, GONE_IS_TOLD, incident="replica-slo",
    )  # fmt: skip
    # A replica allows at least as many as its primary, or it could not replay.
    limit = max(
        parameters.connections(parameters.size_of(one)) for one in (instance_class, wanted.instance_class)
    )
    yield Alarm(
        f"{prefix}-connections", "postgres", "notice", "connections-exhausted",
        f"More than four fifths of {limit} sessions, which max_connections of {instance} is.",
        (Metric("AWS/RDS", "DatabaseConnections", of, "Maximum"),), ">", 0.8 * limit, 5, 5, GONE_IS_TOLD,
    )  # fmt: skip


def _proxy(watched: Watched) -> Iterator[Alarm]:
    if watched.proxy is None:
        return
    of = {"ProxyName": watched.proxy}
    yield Alarm(
        "proxy-unavailable", "postgres", "page", "proxy-saturated",
        "The proxy does not reach the database.",
        (
            Metric(
                "AWS/RDS", "AvailabilityPercentage",
                {**of, "TargetGroup": "default", "TargetRole": "READ_WRITE"}, "Average",
            ),
        ), "<", 99, 5, 5, Missing("notBreaching", "published while the proxy looks after its target"),
        incident="proxy",
    )  # fmt: skip
    yield Alarm(
        "proxy-waits", "postgres", "notice", "proxy-saturated",
        "Sessions wait for more than 100 ms for one of the proxy's connections to the database.",
        (Metric("AWS/RDS", "DatabaseConnectionsBorrowLatency", of, "Average"),), ">", 100_000, 10, 10, NO_EVENT,
        incident="proxy-notice",
    )  # fmt: skip
    yield Alarm(
        "proxy-borrowed", "postgres", "notice", "proxy-saturated",
        "Four fifths of the connections that the proxy may open are lent out.",
        (
            Metric("AWS/RDS", "DatabaseConnectionsCurrentlyBorrowed", of, "Maximum"),
            Metric("AWS/RDS", "MaxDatabaseConnectionsAllowed", of, "Maximum"),
        ), ">", 80, 10, 10, NO_EVENT, "100 * m0 / m1", incident="proxy-notice",
    )  # fmt: skip
    yield Alarm(
        "proxy-pinned", "postgres", "notice", "proxy-saturated",
        "More than half of the proxy's connections are pinned to one session: they are not pooled.",
        (
            Metric("AWS/RDS", "DatabaseConnectionsCurrentlySessionPinned", of, "Maximum"),
            Metric("AWS/RDS", "MaxDatabaseConnectionsAllowed", of, "Maximum"),
        ), ">", 50, 15, 15, NO_EVENT, "100 * m0 / m1", incident="proxy-notice",
    )  # fmt: skip
    for name, metric, meaning in (
        ("proxy-logins", "ClientConnectionsSetupFailedAuth", "Logins to the proxy fail."),
        (
            "proxy-setup",
            "DatabaseConnectionsSetupFailed",
            "The proxy fails to open connections to the database.",
        ),
    ):
        yield Alarm(
            name, "postgres", "notice", "proxy-saturated", meaning,
            (Metric("AWS/RDS", metric, of, "Sum"),), ">", 5, 5, 3, NO_EVENT, incident="proxy-notice",
        )  # fmt: skip


def _warehouse(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    if watched.cluster is not None:
        yield from _cluster(settings, watched.cluster)
    if watched.workgroup is not None:
        limit = settings.warehouse.max_rpu_hours_a_day
        yield Alarm(
            "warehouse-compute", "warehouse", "notice", "warehouse-capacity",
            f"Four fifths of {limit} RPU hours are used in a day; with all of them used, queries are refused.",
            (Metric("AWS/Redshift-Serverless", "ComputeSeconds", {"Workgroup": watched.workgroup}, "Sum", DAY),),
            ">=", 0.8 * limit * HOUR, 1, 1, NO_EVENT,
        )  # fmt: skip
        yield Alarm(
            "warehouse-queries", "warehouse", "notice", "warehouse-capacity",
            "More than ten queries a quarter of an hour fail, for half an hour.",
            (
                Metric(
                    "AWS/Redshift-Serverless", "QueriesFailed",
                    {"Workgroup": watched.workgroup, "DatabaseName": settings.warehouse.database},
                    "Sum", 15 * MINUTE,
                ),
            ), ">", 10, 2, 2, NO_EVENT,
        )  # fmt: skip


def _cluster(settings: Settings, cluster: str) -> Iterator[Alarm]:
    of = {"ClusterIdentifier": cluster}
    paused = (
        Missing("notBreaching", "the cluster is paused at night")
        if settings.warehouse.pause
        else GONE_IS_TOLD
    )

    def alarm(
        name: str, metric: str, statistic: Literal["Average", "Maximum", "Minimum"], comparison: Comparison,
        threshold: float, periods: int, severity: Severity, runbook: RunbookName, meaning: str,
        *, missing: Missing = paused, incident: str | None = None,
    ) -> Alarm:  # fmt: skip
        return Alarm(
            name, "warehouse", severity, runbook, meaning,
            (Metric("AWS/Redshift", metric, of, statistic, 5 * MINUTE),), comparison, threshold, periods, periods,
            missing, incident=incident,
        )  # fmt: skip

    yield alarm("warehouse-health", "HealthStatus", "Minimum", "<", 1, 3, "page", "warehouse-unavailable",
        "Redshift has not been healthy for a quarter of an hour.",
        missing=MUST_COME if settings.warehouse.pause is None else paused,
        incident="warehouse-unavailable")  # fmt: skip
    yield alarm("warehouse-maintenance", "MaintenanceMode", "Maximum", ">", 0, 1, "none", "warehouse-unavailable",
        "Redshift is in maintenance: that it is not healthy meanwhile pages nobody.",
        missing=Missing("notBreaching", "no maintenance is known of"))  # fmt: skip
    yield alarm("warehouse-disk", "PercentageDiskSpaceUsed", "Average", ">", 80, 6, "notice", "warehouse-capacity",
        "Four fifths of the disk of Redshift's nodes are in use.")  # fmt: skip
    yield alarm("warehouse-cpu", "CPUUtilization", "Average", ">", 90, 6, "notice", "warehouse-capacity",
        "Redshift has used more than 90 % of its CPU for half an hour.")  # fmt: skip
    yield alarm("warehouse-connections", "DatabaseConnections", "Maximum", ">", 400, 3, "notice",
        "warehouse-capacity", "More than 400 sessions: the smallest clusters allow 500.")  # fmt: skip


def _stream(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    of = {"StreamName": watched.stream}
    age = Metric("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", of, "Maximum")
    unread = Missing("notBreaching", "published while somebody reads; that nobody does, workers-down tells")

    def alarm(
        name: str, metric: str, statistic: Literal["Average", "Sum"], comparison: Comparison, threshold: float,
        periods: int, datapoints: int, runbook: RunbookName, meaning: str, *, missing: Missing = NO_EVENT,
        incident: str | None = None,
    ) -> Alarm:  # fmt: skip
        return Alarm(
            name, "stream", "notice", runbook, meaning, (Metric("AWS/Kinesis", metric, of, statistic),),
            comparison, threshold, periods, datapoints, missing, incident=incident,
        )  # fmt: skip

    yield Alarm(
        "stream-age", "stream", "page", "ingest-behind",
        "Records have waited in the stream for more than ten minutes: ingest or the warehouse is behind.",
        (age,), ">", 10 * MINUTE * 1000, 10, 10, unread, incident="data-flow",
    )  # fmt: skip
    hours = settings.stream.retention_hours
    yield Alarm(
        "stream-old", "stream", "page", "ingest-behind",
        f"Records have waited for half of the {hours} hours that the stream keeps them: then they are lost.",
        (age,), ">", hours / 2 * HOUR * 1000, 3, 3, unread, incident="stream-expiring",
    )  # fmt: skip
    yield alarm("stream-silent", "IncomingRecords", "Sum", "<", 1, 15, 15, "ingest-behind",
        "Nobody has put a record into the stream for a quarter of an hour.", missing=MUST_COME)  # fmt: skip
    yield alarm("stream-writes", "WriteProvisionedThroughputExceeded", "Sum", ">", 0, 15, 5, "stream-throttled",
        "Kinesis refuses writes: on demand it takes up to twice the highest rate of the last 30 days.",
        incident="stream-throttled")  # fmt: skip
    yield alarm("stream-failed", "PutRecords.FailedRecords", "Sum", ">", 0, 15, 5, "stream-throttled",
        "Records fail in PutRecords; the producers have to send them again.", incident="stream-throttled")  # fmt: skip
    yield alarm("stream-refused", "PutRecord.Success", "Average", "<", 0.95, 15, 5, "stream-throttled",
        "More than five in a hundred single puts fail; the producers have to send them again.",
        incident="stream-throttled")  # fmt: skip
    yield alarm("stream-reads", "ReadProvisionedThroughputExceeded", "Sum", ">", 0, 15, 10, "stream-throttled",
        "Kinesis refuses reads: a shard is read by too many, or too often.", incident="stream-throttled")  # fmt: skip
    yield alarm("stream-errors", "GetRecords.Success", "Average", "<", 0.98, 10, 10, "stream-throttled",
        "More than two in a hundred reads fail.", incident="stream-throttled")  # fmt: skip


OPERATIONS: Final = (
    "Query",
    "Scan",
    "GetItem",
    "PutItem",
    "UpdateItem",
    "BatchWriteItem",
    "TransactWriteItems",
)
"""Those that the archiver and its restore call; DynamoDB counts system errors by operation alone."""


def _items(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    caps = settings.items
    for thing, table in watched.tables.items():
        of = {"TableName": table}
        for word, cap in (("Read", caps.max_reads), ("Write", caps.max_writes)):
            yield Alarm(
                f"{thing}-{word.lower()}-throttled", "items", "notice", "items-throttled",
                f"DynamoDB throttles {word.lower()}s of {table}.",
                (Metric("AWS/DynamoDB", f"{word}ThrottleEvents", of, "Sum"),), ">", 0, 15, 5, NO_EVENT,
                incident=f"{thing}-throttled",
            )  # fmt: skip
            yield Alarm(
                f"{thing}-{word.lower()}-cap", "items", "notice", "items-throttled",
                f"{word}s of {table} have been at four fifths of their cap of {cap} units a second for half an hour.",
                (Metric("AWS/DynamoDB", f"Consumed{word}CapacityUnits", of, "Sum"),), ">", 0.8 * cap * MINUTE,
                30, 30, NO_EVENT, incident=f"{thing}-throttled",
            )  # fmt: skip
        yield Alarm(
            f"{thing}-system-errors", "items", "notice", "items-throttled",
            f"DynamoDB itself fails requests to {table}.",
            tuple(
                Metric("AWS/DynamoDB", "SystemErrors", {**of, "Operation": operation}, "Sum")
                for operation in OPERATIONS
            ), ">", 10, 15, 3, NO_EVENT,
            " + ".join(f"FILL(m{number}, 0)" for number in range(len(OPERATIONS))),
        )  # fmt: skip
    yield Alarm(
        "items-user-errors", "items", "notice", "items-throttled",
        "DynamoDB refuses many requests as wrong; it counts them for the account and region, not for a table.",
        (Metric("AWS/DynamoDB", "UserErrors", {}, "Sum", 5 * MINUTE),), ">", 100, 3, 3, NO_EVENT,
    )  # fmt: skip


def _archive(watched: Watched) -> Iterator[Alarm]:
    for thing, bucket in watched.buckets.items():
        for code, least, share in (("5xx", 3, 5), ("4xx", 3, 20)):
            # Requests by the hundred only: a bucket that is asked twice a night has no rate.
            yield Alarm(
                f"archive-{thing}-{code}", "archive", "notice", "archive-storage",
                f"More than {share} % of the requests to {bucket} get an answer {code}.",
                (
                    Metric("AWS/S3", f"{code}Errors", {"BucketName": bucket, "FilterId": FILTER}, "Sum", 300),
                    Metric("AWS/S3", "AllRequests", {"BucketName": bucket, "FilterId": FILTER}, "Sum", 300),
                ), ">", share, least, least, NO_EVENT, "IF(m1 > 100, 100 * m0 / m1, 0)",
                incident="archive-storage",
            )  # fmt: skip


def _archiver(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    function: Mapping[str, Text] = {"FunctionName": watched.archiver}
    machine: Mapping[str, Text] = {"StateMachineArn": watched.machine}
    table: Mapping[str, Text] = dict(
        zip(archiver_names.DIMENSIONS, (archiver_names.SERVICE, watched.tables["items"]), strict=True)
    )

    def alarm(
        name: str, metrics: tuple[Metric, ...], threshold: float, meaning: str, *,
        expression: str | None = None, severity: Severity = "notice",
    ) -> Alarm:  # fmt: skip
        # It runs once a day: the first bad data point is all there is.
        return Alarm(
            name, "archiver", severity, "archiver-failing", meaning, metrics, ">", threshold, 1, 1, NO_EVENT,
            expression, "archiver-failing",
        )  # fmt: skip

    def of_function(name: str, statistic: Literal["Sum", "Maximum"] = "Sum") -> Metric:
        return Metric("AWS/Lambda", name, function, statistic, 5 * MINUTE)

    yield alarm(
        "archiver-failed",
        (of_function("Errors"),),
        0,
        "A run of the archiver failed: its items are where they were.",
    )
    yield alarm("archiver-error-rate",
        (
            Metric(archiver_names.NAMESPACE, "Errors", table, "Sum", 5 * MINUTE),
            Metric(archiver_names.NAMESPACE, "Scanned", table, "Sum", 5 * MINUTE),
        ), 5, "More than 5 % of the items that the archiver read could not be archived.",
        expression="100 * m0 / IF(m1 < 1, 1, m1)")  # fmt: skip
    yield alarm("archiver-slow", (of_function("Duration", "Maximum"),), long_run(settings.archive.timeout_seconds),
        "A run of the archiver took more than ten minutes; it is ended at"
        f" {settings.archive.timeout_seconds} s and gone on with.")  # fmt: skip
    yield alarm("archiver-throttled", (of_function("Throttles"),), 0,
        "A run of the archiver was refused because another one was going on.")  # fmt: skip
    for word, name in (
        ("failed", "ExecutionsFailed"),
        ("timed-out", "ExecutionsTimedOut"),
        ("aborted", "ExecutionsAborted"),
    ):
        yield alarm(f"archiver-execution-{word}", (Metric("AWS/States", name, machine, "Sum", 5 * MINUTE),), 0,
            f"An execution of the archiver {word.replace('-', ' ')}.")  # fmt: skip
    yield alarm("archiver-undelivered", (of_function("DeadLetterErrors"),), 0,
        "The failure of a run could not be put into the queue for it.")  # fmt: skip
    yield alarm("archiver-dead-letters",
        (
            Metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": watched.failures}, "Maximum",
                5 * MINUTE),
        ), 0, "Failures of the archiver wait in their queue for somebody to look at them.")  # fmt: skip
    yield Alarm(
        "archiver-silent", "archiver", "page", "archiver-failing",
        "The archiver has not finished in 26 hours; it runs daily.",
        (Metric("AWS/States", "ExecutionsSucceeded", machine, "Sum", HOUR),), "<", 1, 26, 26, MUST_COME,
        incident="archiver-stalled",
    )  # fmt: skip


def _publisher(watched: Watched) -> Iterator[Alarm]:
    of = {"FunctionName": watched.publisher}

    def alarm(
        name: str, metric: str, threshold: float, meaning: str, statistic: Literal["Sum", "Maximum"]
    ) -> Alarm:
        return Alarm(
            name, "publisher", "notice", "database-unavailable", meaning,
            (Metric("AWS/Lambda", metric, of, statistic, 5 * MINUTE),), ">", threshold, 3, 3, NO_EVENT,
            incident="publisher",
        )  # fmt: skip

    yield alarm("publisher-failed", "Errors", 0, "The function that publishes figures fails.", "Sum")
    yield alarm("publisher-slow", "Duration", 45_000,
        "The function that publishes figures takes three quarters of its minute.", "Maximum")  # fmt: skip
    yield alarm("publisher-throttled", "Throttles", 0,
        "The function that publishes figures is not started because the one before still runs.", "Sum")  # fmt: skip


def _workers(settings: Settings, watched: Watched) -> Iterator[Alarm]:
    counts = {"worker": settings.workers.workers, "ingest": settings.workers.ingesters}
    for thing, service in watched.services.items():
        of = {"ClusterName": watched.tasks, "ServiceName": service}
        cpu = Metric("AWS/ECS", "CPUUtilization", of, "Average")
        if not counts[thing]:
            continue
        # Each task reports once a minute, so that the number of reports is that of tasks (ECS developer guide,
        # "Service RUNNING task count"); Container Insights would say the same for money.
        yield Alarm(
            f"{thing}-tasks", "workers", "page", "workers-down",
            f"Fewer than {counts[thing]} tasks of {service} run.",
            (replace(cpu, statistic="SampleCount"),), "<", counts[thing], 10, 10, MUST_COME, incident="workers-down",
        )  # fmt: skip
        yield Alarm(
            f"{thing}-cpu", "workers", "notice", "workers-down",
            f"Tasks of {service} have used more than 90 % of their CPU for half an hour.",
            (cpu,), ">", 90, 30, 30, GONE_IS_TOLD,
        )  # fmt: skip
        yield Alarm(
            f"{thing}-memory", "workers", "notice", "workers-down",
            f"Tasks of {service} use more than 90 % of their memory: at all of it they are killed.",
            (replace(cpu, name="MemoryUtilization"),), ">", 90, 15, 15, GONE_IS_TOLD,
        )  # fmt: skip


def _network(watched: Watched) -> Iterator[Alarm]:
    for zone, identifier in watched.nats.items():
        for word, metric, meaning in (
            ("ports", "ErrorPortAllocation", "has no port left for a connection"),
            ("drops", "PacketsDropCount", "drops packets"),
        ):
            yield Alarm(
                f"nat-{zone}-{word}", "network", "notice", "nat-saturated", f"The NAT gateway in {zone} {meaning}.",
                (Metric("AWS/NATGateway", metric, {"NatGatewayId": identifier}, "Sum"),), ">", 0, 15, 5, NO_EVENT,
                incident="nat",
            )  # fmt: skip
    for urgency, topic in watched.topics.items():
        yield Alarm(
            f"undelivered-{urgency}", "notices", "notice", "notices-undelivered",
            f"Messages of the topic {topic} reached nobody.",
            (Metric("AWS/SNS", "NumberOfNotificationsFailed", {"TopicName": topic}, "Sum", 5 * MINUTE),), ">", 0,
            1, 1, NO_EVENT,
        )  # fmt: skip


# -- incidents -------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What an incident says, and while which alarm it keeps quiet."""

    runbook: RunbookName
    meaning: str
    area: Area
    after: str | None = None


TROUBLE: Final = "database-trouble"
PLATFORM: Final = "platform-trouble"
_INCIDENTS: Final[dict[str, _Told]] = {
    "database-unavailable": _Told(
        "database-unavailable",
        "The database gives no figures: it is gone, refuses us, or is not asked.",
        "postgres",
    ),
    "publisher": _Told(
        "database-unavailable",
        "The figures of the database do not all come.",
        "publisher",
        "database-unavailable",
    ),
    "database-overloaded": _Told(
        "database-overloaded", "The primary is at its limit.", "postgres", "database-unavailable"
    ),
    # Of a full disk somebody is told whatever else is known: it is the more urgent message.
    "database-storage": _Told("database-storage", "A disk of the database is nearly full.", "postgres"),
    "replication-slots": _Told(
        "replication-slots", "A replication slot fills the disk with WAL.", "postgres"
    ),
    "replication-slots-notice": _Told(
        "replication-slots", "A replication slot is read late, or by nobody.", "postgres", "replication-slots"
    ),
    "replica-lag": _Told("replica-lag", "A replica is behind or does not stream.", "postgres", TROUBLE),
    "replica-slo": _Told(
        "replica-lag", "A replica misses what readers were promised.", "postgres", "replica-lag"
    ),
    "replica-overloaded": _Told("database-overloaded", "A replica is at its limit.", "postgres", TROUBLE),
    "workers-down": _Told("workers-down", "Tasks do not run.", "workers"),
    "data-flow": _Told("staging-backlog", "Values do not become durable in time.", "postgres", PLATFORM),
    "stream-expiring": _Told("ingest-behind", "Records are about to expire unread.", "stream"),
    "stream-throttled": _Told("stream-throttled", "Kinesis refuses writes or reads.", "stream"),
    "partitions-ahead": _Told("partitions-ahead", "New values soon have no partition.", "postgres"),
    "transaction-wraparound": _Told("transaction-wraparound", "Transaction ids run out.", "postgres"),
    "jobs": _Told("jobs-failing", "Jobs fail or do not run.", "postgres", PLATFORM),
    "partition-archives": _Told(
        "partition-archives", "Partitions do not reach the archive.", "archive", "jobs"
    ),
    "bloat": _Told("table-bloat", "Dead rows stay.", "postgres"),
    "sessions": _Told("blocked-sessions", "Sessions hold others up.", "postgres", TROUBLE),
    "proxy": _Told("proxy-saturated", "The proxy does not reach the database.", "postgres", TROUBLE),
    "proxy-notice": _Told("proxy-saturated", "The proxy is short of connections.", "postgres", TROUBLE),
    "warehouse-unavailable": _Told(
        "warehouse-unavailable", "Redshift is not healthy.", "warehouse", "warehouse-maintenance"
    ),
    "items-throttled": _Told("items-throttled", "The table of items is at its limit.", "items"),
    "archiver-state-throttled": _Told("items-throttled", "The archiver's state is at its limit.", "items"),
    "archive-storage": _Told("archive-storage", "S3 answers with errors.", "archive"),
    "archiver-failing": _Told("archiver-failing", "The archiver of items fails.", "archiver"),
    "archiver-stalled": _Told(
        "archiver-failing", "The archiver of items has not finished for a day.", "archiver"
    ),
    "nat": _Told("nat-saturated", "A NAT gateway is at its limit.", "network"),
}
"""In an order in which each comes after what it waits for, but for the two of _CAUSES."""
_CAUSES: Final = {
    TROUBLE: ("database-unavailable", "database-overloaded"),
    PLATFORM: ("database-unavailable", "database-overloaded", "workers-down"),
}
"""Several incidents as one alarm, which tells nobody: an alarm can be suppressed by one other."""


def incidents(alarms: tuple[Alarm, ...]) -> tuple[Incident, ...]:
    """The incidents that these alarms make, each after what it keeps quiet for."""
    members: dict[str, list[Alarm]] = {}
    for alarm in alarms:
        if alarm.incident is not None:
            members.setdefault(alarm.incident, []).append(alarm)
    if twice := sorted({alarm.name for alarm in alarms} & (_INCIDENTS.keys() | _CAUSES.keys())):
        raise ValueError(f"both an alarm and an incident: {', '.join(twice)}")
    if unknown := sorted(members.keys() - _INCIDENTS.keys()):
        raise ValueError(f"no such incident: {', '.join(unknown)}")
    found: dict[str, Incident] = {}
    for cause, parts in _CAUSES.items():
        found[cause] = Incident(
            cause, "none", "database-unavailable", "What has a cause here keeps quiet.",
            tuple(part for part in parts if part in members), area="postgres",
        )  # fmt: skip
    for name, told in _INCIDENTS.items():
        if name in members:
            severities = {one.severity for one in members[name]}
            if len(severities) > 1:
                raise ValueError(f"{name}: what can wait would page with it: {', '.join(sorted(severities))}")
            found[name] = Incident(
                name, severities.pop(), told.runbook, told.meaning, tuple(one.name for one in members[name]),
                told.after, told.area,
            )  # fmt: skip
    known = found.keys() | {alarm.name for alarm in alarms}
    kept = [replace(one, after=one.after if one.after in known else None) for one in found.values()]
    return tuple(_in_order(kept))


def _in_order(found: list[Incident]) -> list[Incident]:
    """Each after the incidents that it names. Raises ValueError for a circle."""
    names, done, order = {one.name for one in found}, set[str](), list[Incident]()
    while len(order) < len(found):
        ready = [
            one for one in found if one.name not in done and not (({one.after, *one.members} & names) - done)
        ]
        if not ready:
            raise ValueError("incidents wait for each other in a circle")
        order += ready
        done |= {one.name for one in ready}
    return order
