"""Every knob of a stack, typed and checked before any resource is declared.

The values are in `Pulumi.<stack>.yaml`, a section each (`eav-platform:postgres` …). What has a default here is the
same in every stack unless a file says otherwise; no component has a default of its own.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from infra import parameters, subnets, week
from infra.errors import SettingsError

PROJECT: Final = "eav-platform"
"""Of Pulumi.yaml; the namespace of the settings."""

STACKS: Final = ("dev", "staging", "prod")
REQUIRED_TAGS: Final = ("Project", "Environment", "Owner", "CostCenter", "ManagedBy")
"""Each stack file has them in `aws:defaultTags`."""

Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", description="an e-mail address")]
REGIONS: Final = frozenset({
    "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
    "ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4",
    "ap-southeast-5", "ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1",
    "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3",
    "il-central-1", "me-central-1", "me-south-1", "me-west-1", "mx-central-1", "sa-east-1", "sa-west-1",
    "us-east-1", "us-east-2", "us-west-1", "us-west-2", "us-gov-east-1", "us-gov-west-1",
})  # fmt: skip
"""Of AWS and GovCloud, whose services end in amazonaws.com; a test holds them against botocore's list."""


def closest(name: str, known: Sequence[str]) -> str | None:
    """What somebody who wrote `name` may have meant."""
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def _region(name: str) -> str:
    if name not in REGIONS:
        close = closest(name, sorted(REGIONS))
        raise ValueError(
            f"must be an AWS region such as eu-central-1, got {name}"
            + (f": did you mean {close}?" if close else "")
        )
    return name


Region = Annotated[str, AfterValidator(_region), Field(description="an AWS region such as eu-central-1")]
InstanceClass = Annotated[
    str,
    Field(
        pattern=r"^db\.(t4g|m6g|m7g|m8g|r6g|r7g|r8g)\.(micro|small|medium|large|[248]xlarge|xlarge|1[26]xlarge)$",
        description="a Graviton class of RDS such as db.r7g.4xlarge",
    ),
]
LogDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
"""Days that CloudWatch Logs can keep (PutRetentionPolicy)."""

Cron = Annotated[
    str, Field(pattern=r"^cron\((\S+ ){5}\S+\)$", description="cron(minutes hours day month weekday year)")
]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="a time of day such as 20:00")]
Window = Annotated[
    str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$", description="hh:mm-hh:mm, UTC")
]
_WEEKLY: Final = r"(mon|tue|wed|thu|fri|sat|sun):([01]\d|2[0-3]):[0-5]\d"
WeeklyWindow = Annotated[
    str,
    Field(
        pattern=f"^{_WEEKLY}-{_WEEKLY}$",
        description="ddd:hh:mm-ddd:hh:mm, UTC",
    ),
]


DatabaseResource = Annotated[
    str,
    Field(pattern=r"^db-[A-Z0-9]{10,40}$", description="the DbiResourceId of an instance such as db-ABC…"),
]


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def overlap(daily: str, weekly: str) -> bool:
    """Whether a daily and a weekly window meet, past midnight too, or one of them is under half an hour."""
    day = 24 * 60
    begin, end = (_minutes(one) for one in daily.split("-"))
    length = (end - begin) % day
    first, last = weekly.split("-")
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    start = days.index(first[:3]) * day + _minutes(first[4:])
    span = (days.index(last[:3]) * day + _minutes(last[4:]) - start) % (7 * day)
    # The daily window comes round from before the weekly one's start.
    since = (start - begin) % day
    return min(length, span) < 30 or since < length or (begin - start) % day < span


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"must be a time zone such as Europe/Berlin, got {name}") from None
    return name


TimeZone = Annotated[str, AfterValidator(_zone)]

Endpoint = Literal[
    "ecr.api", "ecr.dkr", "glue", "kinesis-streams", "kms", "lambda", "logs", "monitoring", "redshift-data",
    "secretsmanager", "sns", "sqs", "ssm", "ssmmessages", "ec2messages", "states", "sts", "xray",
]  # fmt: skip
NEEDED_WITHOUT_NAT: Final[frozenset[str]] = frozenset(
    {"ecr.api", "ecr.dkr", "kinesis-streams", "kms", "logs", "monitoring", "secretsmanager", "sts"}
)
"""What jobs call that has no gateway endpoint: without NAT they reach it through these or not at all."""
NEEDED_BY_SESSIONS: Final[frozenset[str]] = frozenset({"ssm", "ssmmessages"})
"""What the bastion's agent calls to be reached by Session Manager; of ec2messages only agents before 3.3.40 ask."""


PRIVATE: Final = tuple(IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918. Python calls other ranges private too, such as 127.0.0.0/8, which no VPC takes."""


class Section(BaseModel):
    """One section of a stack file: nothing unknown, nothing converted behind one's back, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Network(Section):
    """The VPC."""

    cidr: IPv4Network
    """/16 to /20, private, and another one for each stack, so that two can be peered."""
    zones: Literal[2, 3] = 2
    nat: Literal["none", "single", "per_zone"] = "single"
    interface_endpoints: tuple[Endpoint, ...] = ()
    flow_log_days: LogDays = 30
    bastion: bool = False
    """An instance without inbound rules, reached by SSM Session Manager."""
    bastion_instance: str = Field("t4g.nano", pattern=r"^t4g\.(nano|micro|small)$")
    bastion_log_days: LogDays = 365
    """What people typed there."""

    @field_validator("cidr")
    @classmethod
    def _room(cls, cidr: IPv4Network) -> IPv4Network:
        if not 16 <= cidr.prefixlen <= 20:
            raise ValueError(f"must be /16 to /20 to hold four tiers in three zones, got {cidr}")
        if not any(cidr.subnet_of(block) for block in PRIVATE):
            raise ValueError(
                f"must be a private range (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16), got {cidr}"
            )
        return cidr

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        missing = NEEDED_WITHOUT_NAT - set(self.interface_endpoints)
        if self.nat == "none" and missing:
            raise ValueError(
                f"nat is none, so interface_endpoints must have {', '.join(sorted(missing))} too: the jobs reach them"
                " no other way"
            )
        missing = NEEDED_BY_SESSIONS - set(self.interface_endpoints)
        if self.nat == "none" and self.bastion and missing:
            raise ValueError(
                f"nat is none and bastion is true, so interface_endpoints must have {', '.join(sorted(missing))} too:"
                " nobody can reach it another way"
            )
        if len(set(self.interface_endpoints)) != len(self.interface_endpoints):
            raise ValueError("interface_endpoints has one twice")
        return self

    def choose_zones(self, names: Sequence[str]) -> tuple[str, ...]:
        """The first of a region's zones. Raises SettingsError where it has too few."""
        if len(names) < self.zones:
            raise SettingsError(
                f"network.zones is {self.zones}, the region has {len(names)}: {', '.join(names)}"
            )
        return tuple(sorted(names)[: self.zones])


class Postgres(Section):
    """RDS PostgreSQL, its replicas and its proxy."""

    engine_version: str = Field(
        pattern=r"^1[678](\.[0-9]+)?$", description='16 to 18 in quotes such as "17" or "17.4"'
    )
    """16 or newer; major.minor holds it there, a major alone takes minor upgrades."""
    instance_class: InstanceClass
    replica_class: InstanceClass | None = None
    """None: as the primary."""
    replicas: int = Field(0, ge=0, le=5)
    storage_gb: int = Field(ge=20, le=65536)
    storage_max_gb: int = Field(ge=22, le=65536)
    """Storage grows by itself up to here."""
    iops: int | None = Field(None, ge=12000, le=64000)
    """None: what gp3 has by itself, 3000, or 12000 from 400 GB on."""
    throughput: int | None = Field(None, ge=500, le=4000)
    """MiB/s."""
    multi_az: bool = False
    database: str = Field("eav", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    backup_days: int = Field(7, ge=1, le=35)
    backup_window: Window = "03:00-04:00"
    maintenance_window: WeeklyWindow = "sun:04:30-sun:05:30"
    backup_copy_region: Region | None = None
    deletion_protection: bool = True
    managed_master: bool = True
    """RDS keeps and rotates the master's password, but then makes no replica; false: a secret of ours has it."""
    insights_days: int = Field(7, ge=7, le=731)
    """Performance Insights: 7, a multiple of 31, or 731 (two years)."""
    monitoring_seconds: Literal[1, 5, 10, 15, 30, 60] = 60
    proxy: bool = True
    slow_statement_ms: int = Field(1000, ge=0, le=3_600_000)
    """log_min_duration_statement."""
    standby_delay_seconds: int = Field(30, ge=0, le=3600)
    """max_standby_streaming_delay."""
    log_days: LogDays = 30
    allow_major_upgrade: bool = False
    """True only for the one deployment that upgrades in place; see docs/database-operations.md."""
    next_major: int | None = Field(None, ge=17, le=18)
    """Makes the parameter group of this major version beside the one in use, for a blue/green deployment."""
    also_connect: tuple[DatabaseResource, ...] = ()
    """Resource ids of instances that are to take the place of this one: who may log in here may log in there."""

    @property
    def major(self) -> int:
        """16, 17 or 18."""
        return int(self.engine_version.split(".")[0])

    @field_validator("instance_class", "replica_class")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        if name is not None:
            parameters.size_of(name)
        return name

    @field_validator("insights_days")
    @classmethod
    def _kept(cls, days: int) -> int:
        if days not in (7, 731) and days % 31:
            raise ValueError(f"must be 7, 731, or a multiple of 31 between, got {days}")
        return days

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.storage_max_gb < self.storage_gb * 1.1:
            raise ValueError(
                f"storage_max_gb must be at least a tenth more than storage_gb ({self.storage_gb}),"
                f" got {self.storage_max_gb}: RDS refuses less"
            )
        if (self.iops or self.throughput) and self.storage_gb < 400:
            raise ValueError(
                "iops and throughput need storage_gb of 400 or more: below, gp3 has 3000 and 125 MiB/s"
            )
        if self.throughput and self.iops and self.throughput > self.iops / 4:
            raise ValueError(
                f"throughput may be a quarter of iops ({self.iops // 4} MiB/s), got {self.throughput}"
            )
        if self.replicas and self.managed_master:
            raise ValueError(
                "managed_master must be false with replicas: RDS makes none of a primary whose password it manages"
            )
        if self.replica_class and not self.replicas:
            raise ValueError("replica_class is set, replicas is 0: remove the one or raise the other")
        if self.replica_class:
            own, primary = parameters.size_of(self.replica_class), parameters.size_of(self.instance_class)
            if own.memory_gib * parameters.SMALLEST_REPLICA < primary.memory_gib:
                raise ValueError(
                    f"replica_class must have at least half the memory of {self.instance_class}, {self.replica_class}"
                    " has less: a replica must allow as many connections as its primary"
                )
        if self.next_major and self.next_major <= self.major:
            raise ValueError(
                f"next_major must be above engine_version ({self.engine_version}), got {self.next_major}:"
                " remove it after the upgrade"
            )
        if overlap(self.backup_window, self.maintenance_window):
            raise ValueError(
                f"backup_window {self.backup_window} and maintenance_window {self.maintenance_window} overlap,"
                " or one is shorter than 30 minutes: RDS refuses both"
            )
        return self


ShardMetric = Literal[
    "IncomingBytes", "IncomingRecords", "OutgoingBytes", "OutgoingRecords", "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded", "IteratorAgeMilliseconds",
]  # fmt: skip
"""Kinesis publishes them for each shard if asked to, at the price of a custom metric each."""


class Warehouse(Section):
    """Redshift: a provisioned RA3 cluster, serverless, or none."""

    kind: Literal["provisioned", "serverless", "none"]
    node_type: Literal["ra3.large", "ra3.xlplus", "ra3.4xlarge", "ra3.16xlarge"] = "ra3.xlplus"
    nodes: int = Field(2, ge=1, le=128)
    base_rpu: int = Field(8, ge=4, le=512)
    """Serverless: Redshift processing units; billed by the second while queries run."""
    max_rpu_hours_a_day: int = Field(16, ge=1, le=10_000)
    """Serverless: then queries are refused till midnight UTC; in prod they are counted instead."""
    spectrum_tb_a_day: int = Field(2, ge=1, le=1000)
    """Provisioned: what queries may scan in the archive, billed by the terabyte; then they are refused till midnight
    UTC, in prod counted instead. A single query that would scan it all is stopped in every stack."""
    longest_query_minutes: int = Field(60, ge=1, le=1439)
    """A statement that runs longer is stopped."""
    database: str = Field("eav", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    snapshot_hours: Literal[1, 2, 4, 6, 8, 12, 24] = 8
    """Provisioned: between two snapshots."""
    snapshot_days: int = Field(7, ge=1, le=35)
    snapshot_copy_region: Region | None = None
    pause: Cron | None = None
    resume: Cron | None = None
    maintenance_window: WeeklyWindow = "sun:05:30-sun:06:30"
    log_days: LogDays = 90

    @property
    def running_hours_a_week(self) -> float:
        """Of a provisioned cluster; the rest of the 168 it is paused."""
        if self.pause is None or self.resume is None:
            return week.WEEK / 60
        return sum(span.length for span in week.running(self.resume, self.pause)) / 60

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.pause is None) != (self.resume is None):
            raise ValueError(
                "pause and resume come together: a cluster that is paused and never resumed is an outage"
            )
        if self.pause and self.kind != "provisioned":
            raise ValueError(
                f"pause is for a provisioned cluster, kind is {self.kind} (serverless stops by itself)"
            )
        for kind, names in _OF_KIND.items():
            strange = [name for name in names if name in self.model_fields_set]
            if strange and self.kind not in (kind, "none"):
                raise ValueError(f"{strange[0]} is for a {kind} warehouse, kind is {self.kind}: remove it")
        if self.kind == "serverless":
            self._serverless()
        else:
            self._provisioned()
        return self

    def _serverless(self) -> None:
        if self.base_rpu != 4 and self.base_rpu % 8:
            raise ValueError(f"base_rpu must be 4, 8, or a multiple of 8, got {self.base_rpu}")
        if self.max_rpu_hours_a_day < self.base_rpu:
            raise ValueError(
                f"max_rpu_hours_a_day must be at least base_rpu ({self.base_rpu}), an hour of work a day, got"
                f" {self.max_rpu_hours_a_day}"
            )

    def _provisioned(self) -> None:
        limits = {"ra3.large": 16, "ra3.xlplus": 32, "ra3.4xlarge": 128, "ra3.16xlarge": 128}
        if self.nodes > limits[self.node_type]:
            raise ValueError(f"nodes may be {limits[self.node_type]} for {self.node_type}, got {self.nodes}")
        if self.nodes == 1 and self.node_type in ("ra3.4xlarge", "ra3.16xlarge"):
            raise ValueError(
                f"{self.node_type} needs 2 nodes or more: only ra3.large and ra3.xlplus run alone"
            )
        maintained = week.window(self.maintenance_window)
        if maintained.length < 30:
            raise ValueError(
                f"maintenance_window must be 30 minutes or longer, got {self.maintenance_window}: Redshift refuses less"
            )
        if self.pause is None or self.resume is None:
            return
        try:
            spans = week.running(self.resume, self.pause)
        except ValueError as error:
            raise ValueError(f"resume and pause {error}") from None
        if not any(span.holds(maintained) for span in spans):
            raise ValueError(
                f"maintenance_window ({self.maintenance_window}) must lie where the cluster runs, which pause and"
                f" resume allow {', '.join(map(str, spans))}: a paused cluster gets no patches"
            )


_OF_KIND: Final[dict[str, tuple[str, ...]]] = {
    "provisioned": (
        "node_type", "nodes", "spectrum_tb_a_day", "snapshot_hours", "snapshot_copy_region", "maintenance_window",
    ),
    "serverless": ("base_rpu", "max_rpu_hours_a_day"),
}  # fmt: skip
"""Settings of Warehouse that mean nothing to the other kind; a stack without a warehouse may keep them for later."""


class Stream(Section):
    """The replayable log: a Kinesis stream on demand."""

    retention_hours: int = Field(24, ge=24, le=8760)
    shard_metrics: tuple[ShardMetric, ...] = ()
    """Which shard is behind or refuses, where the stream's own figures only say that one is."""

    @field_validator("shard_metrics")
    @classmethod
    def _once(cls, metrics: tuple[ShardMetric, ...]) -> tuple[ShardMetric, ...]:
        if len(set(metrics)) != len(metrics):
            raise ValueError("must have each name once")
        return metrics


class Items(Section):
    """The DynamoDB table that the archiver reads."""

    hash_key: str = Field("itemId", min_length=1, max_length=255)
    hash_key_type: Literal["S", "N", "B"] = "S"
    range_key: str | None = Field(None, min_length=1, max_length=255)
    range_key_type: Literal["S", "N", "B"] = "S"
    time_attribute: str = Field("createdAt", min_length=1, max_length=255)
    time_format: Literal["iso", "epoch", "epoch-ms"] = "iso"
    ttl_attribute: str | None = Field(None, min_length=1, max_length=255)
    """DynamoDB deletes what it says is over without an archive: an attribute of its own, never time_attribute."""
    max_reads: int = Field(1000, ge=1, le=40_000)
    """A second, on demand."""
    max_writes: int = Field(1000, ge=1, le=40_000)
    deletion_protection: bool = True

    @model_validator(mode="after")
    def _nothing_expires_unarchived(self) -> Self:
        if self.range_key == self.hash_key:
            raise ValueError(f"range_key and hash_key are both {self.hash_key}: a key needs two names")
        if self.ttl_attribute == self.time_attribute:
            raise ValueError(
                f"ttl_attribute and time_attribute are both {self.time_attribute}: DynamoDB would delete items that"
                " the archiver has not archived"
            )
        return self


class Archive(Section):
    """The archive buckets, and the archiver Lambda that fills one of them."""

    archive_days: int = Field(30, ge=1, le=36500)
    glacier_days: int = Field(90, ge=1, le=36500)
    expire_days: int = Field(2555, ge=1, le=36500)
    lock_mode: Literal["none", "governance", "compliance"] = "none"
    """Object lock: governance may be lifted by a right of its own, compliance by nobody."""
    lock_days: int = Field(0, ge=0, le=36500)
    schedule: Cron = "cron(0 2 * * ? *)"
    """UTC."""
    memory_mb: int = Field(1024, ge=512, le=10240)
    timeout_seconds: int = Field(900, ge=180, le=900)
    """Of one run, of which the archiver keeps the last 60 seconds for stopping."""
    batch_size: int = Field(100, ge=2, le=100)
    log_days: LogDays = 30
    partitions_leave: bool = False
    """True: partitions are detached and dropped once their archive is verified (PARTITIONS_LEAVE)."""
    partitions_cool_days: int = Field(30, ge=30, le=36500)
    """Parquet of partitions goes to Standard-IA; it stays readable by Spectrum."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.expire_days < self.glacier_days + 90:
            raise ValueError(
                f"expire_days must be at least 90 more than glacier_days ({self.glacier_days}): Glacier bills 90 days"
                f" for less, got {self.expire_days}"
            )
        if (self.lock_mode == "none") != (self.lock_days == 0):
            raise ValueError("lock_mode and lock_days go together: a mode needs days, no mode has 0")
        if self.lock_days > self.expire_days:
            raise ValueError(
                f"lock_days ({self.lock_days}) must not outlast expire_days ({self.expire_days})"
            )
        return self


class Workers(Section):
    """The jobs in the VPC, as Fargate tasks: the scheduler, ingest from the stream, and migrations when asked."""

    image_digest: str | None = Field(
        None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="sha256: and 64 hexadecimal digits, as `python -m infra image dev --build` prints them",
    )
    """Of the image in the stack's registry. None: nothing was pushed yet, and no task runs."""
    worker_cpu: Literal[256, 512, 1024, 2048, 4096] = 512
    worker_memory_mb: int = Field(1024, ge=512, le=30720, multiple_of=512)
    ingest_cpu: Literal[256, 512, 1024, 2048, 4096] = 1024
    ingest_memory_mb: int = Field(2048, ge=512, le=30720, multiple_of=512)
    workers: int = Field(1, ge=0, le=4)
    ingesters: int = Field(1, ge=0, le=1)
    """One: a shard is read by one process (jobs ingest kinesis:// reads them all)."""
    insights: Literal["disabled", "enabled", "enhanced"] = "enabled"
    """Container Insights: `enabled` counts tasks that run and wait, about 10 USD a month; `enhanced` has figures of
    each task and container, and is billed for each."""
    log_days: LogDays = 30

    @model_validator(mode="after")
    def _fargate_sizes(self) -> Self:
        for name in ("worker", "ingest"):
            cpu, memory = getattr(self, f"{name}_cpu"), getattr(self, f"{name}_memory_mb")
            least, most = {256: (512, 2048), 512: (1024, 4096)}.get(
                cpu, (cpu * 2, cpu * 8 if cpu < 4096 else 30720)
            )
            if not least <= memory <= most:
                raise ValueError(
                    f"{name}_memory_mb must be {least} to {most} with {name}_cpu {cpu}, got {memory}"
                )
        return self


class Monitoring(Section):
    """Alarms, the dashboard, and who is told."""

    page: tuple[Email, ...]
    """Told of what cannot wait."""
    notice: tuple[Email, ...]
    """Told of the rest, and of each archiver run."""
    dashboard: bool = True
    publish_minutes: int = Field(1, ge=1, le=60)
    """How often the database's own figures are published."""
    log_days: LogDays = 30

    @field_validator("page", "notice")
    @classmethod
    def _somebody(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name somebody: an alarm that nobody hears is none")
        if len(set(value)) != len(value):
            raise ValueError("must name each address once")
        return value


ALERTS_MOST: Final = 4
AWAKE_LEAST: Final = 120
"""Minutes."""


def minutes(clock: str) -> int:
    """Of a time of day, since midnight."""
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


class Cost(Section):
    """What may be spent, and when a stack rests."""

    budget_usd: int = Field(ge=1, le=10_000_000)
    """A month."""
    alert_percent: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = (50, 80, 100)
    """Of the budget, when it is spent."""
    rest: bool = False
    """Stop the tasks and PostgreSQL at night and at weekends."""
    rest_zone: TimeZone = "Europe/Berlin"
    rest_from: Clock = "20:00"
    rest_to: Clock = "07:00"
    """Of working days: then it is up again."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        percents = self.alert_percent
        if len(set(percents)) != len(percents) or not 1 <= len(percents) <= ALERTS_MOST:
            raise ValueError(
                f"alert_percent must be 1 to {ALERTS_MOST} numbers, each once: a budget has 5 notices, and one is the"
                f" forecast's, got {', '.join(map(str, percents)) or 'none'}"
            )
        awake = (minutes(self.rest_from) - minutes(self.rest_to)) % (24 * 60)
        if not AWAKE_LEAST <= awake <= 24 * 60 - AWAKE_LEAST:
            raise ValueError(
                f"rest_from and rest_to must be at least {AWAKE_LEAST // 60} hours apart, both ways round: stopping and"
                f" starting a database takes half an hour, got {self.rest_from} and {self.rest_to}"
            )
        return self


_TAG: Final = re.compile(r"(?! )[\w .:/=+@-]+(?<! )")
_TAG_FORM: Final = "letters, digits, spaces within and _.:/=+-@"


class Settings(Section):
    """One stack."""

    stack: str = Field(pattern=r"^[a-z][a-z0-9]{0,11}$")
    region: Region
    tags: dict[str, str]
    """`aws:defaultTags`: the provider puts them on all that can have tags."""
    protect_data: bool = False
    """Pulumi neither deletes nor replaces what holds data."""
    network: Network
    postgres: Postgres
    warehouse: Warehouse
    stream: Stream = Stream()
    items: Items = Items()
    archive: Archive = Archive()
    workers: Workers = Workers()
    monitoring: Monitoring
    cost: Cost

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        missing = [tag for tag in REQUIRED_TAGS if not self.tags.get(tag)]
        if missing:
            raise ValueError(f"aws:defaultTags must have {', '.join(missing)}")
        for name, value in self.tags.items():
            if not _TAG.fullmatch(name) or len(name) > 128 or name.lower().startswith("aws:"):
                raise ValueError(
                    f"aws:defaultTags: {name} must be {_TAG_FORM}, 128 at most, and not begin with aws:"
                )
            if not _TAG.fullmatch(value) or len(value) > 256:
                raise ValueError(f"aws:defaultTags: the value of {name} must be {_TAG_FORM}, 256 at most")
        if self.tags["Environment"] != self.stack:
            raise ValueError(
                f"aws:defaultTags: Environment must be {self.stack}, got {self.tags['Environment']}"
            )
        for name, other in (
            ("postgres.backup_copy_region", self.postgres.backup_copy_region),
            ("warehouse.snapshot_copy_region", self.warehouse.snapshot_copy_region),
        ):
            if other == self.region:
                raise ValueError(f"{name} must be another region than aws:region ({self.region})")
        if self.postgres.replicas and self.cost.rest:
            raise ValueError(
                "cost.rest with postgres.replicas: RDS does not stop an instance that has replicas"
            )
        self._warehouse_fits()
        if self.stack == "prod":
            self._prod()
        return self

    def _warehouse_fits(self) -> None:
        """What Redshift wants of the network: with enhanced VPC routing all its connections start there."""
        if self.warehouse.kind == "none":
            return
        if self.network.nat == "none" and "glue" not in self.network.interface_endpoints:
            raise ValueError(
                "network.nat is none, so network.interface_endpoints must have glue too: Redshift asks the catalogue"
                " where archived partitions are"
            )
        if self.warehouse.kind == "serverless":
            if self.network.zones != 3:
                raise ValueError(
                    "warehouse.kind serverless needs network.zones 3, got"
                    f" {self.network.zones}: Redshift puts a workgroup with enhanced VPC routing into three zones"
                )
            # 13 addresses for 32 units, 21 for 64, 37, 69, 133 for 512 (AWS, "Considerations when using Amazon
            # Redshift Serverless"), which is a quarter of the units and five.
            needed = self.warehouse.base_rpu // 4 + 5
            block = subnets.plan(self.network.cidr, self.network.zones)["warehouse"][0]
            free = block.num_addresses - subnets.TAKEN_BY_AWS
            if needed > free:
                raise ValueError(
                    f"warehouse.base_rpu {self.warehouse.base_rpu} needs {needed} free addresses in each subnet of the"
                    f" warehouse, network.cidr {self.network.cidr} leaves {free}: lower the one or widen the other"
                )

    def _prod(self) -> None:
        """What production may not do without, whoever edits its file."""
        wants = (
            ("protect_data must be true", self.protect_data),
            ("postgres.deletion_protection must be true", self.postgres.deletion_protection),
            ("postgres.multi_az must be true", self.postgres.multi_az),
            ("postgres.backup_days must be 14 or more", self.postgres.backup_days >= 14),
            ("postgres.backup_copy_region must be set", self.postgres.backup_copy_region is not None),
            ("items.deletion_protection must be true", self.items.deletion_protection),
            ("archive.lock_mode must be governance or compliance", self.archive.lock_mode != "none"),
            (
                "warehouse.nodes must be 2 or more",
                self.warehouse.kind != "provisioned" or self.warehouse.nodes >= 2,
            ),
            ("warehouse.pause must not be set", self.warehouse.pause is None),
            (
                "warehouse.snapshot_days must be 7 or more",
                self.warehouse.kind == "none" or self.warehouse.snapshot_days >= 7,
            ),
            ("stream.retention_hours must be 168 or more", self.stream.retention_hours >= 168),
            ("network.zones must be 3", self.network.zones == 3),
            ("cost.rest must be false", not self.cost.rest),
        )
        for text, kept in wants:
            if not kept:
                raise ValueError(f"{text} in prod")


def unused(settings: Settings) -> frozenset[str]:
    """Settings (`section.key`) that mean nothing with what the others of this stack say, whatever they are."""
    found = {
        f"warehouse.{name}"
        for name in Warehouse.model_fields
        if name != "kind"
        and (
            settings.warehouse.kind == "none"
            or any(name in names for kind, names in _OF_KIND.items() if kind != settings.warehouse.kind)
        )
    }
    if not settings.network.bastion:
        found |= {"network.bastion_instance", "network.bastion_log_days"}
    if not settings.cost.rest:
        found |= {"cost.rest_zone", "cost.rest_from", "cost.rest_to"}
    if settings.archive.lock_mode == "none":
        found.add("archive.lock_days")
    return frozenset(found)


SECTIONS: Final = tuple(name for name in Settings.model_fields if name not in ("stack", "region", "tags"))
"""What stands in a stack file as `eav-platform:<section>`."""


def load(stack: str, config: Mapping[str, Any]) -> Settings:
    """Settings from the configuration of a stack file, as Pulumi or a YAML reader gives it.

    `config`: keys with their namespace (`aws:region`, `eav-platform:network`), values plain. Raises SettingsError with
    a line for each thing that is wrong: file, key, what is allowed, what was found.
    """
    file = f"Pulumi.{stack}.yaml"
    values: dict[str, Any] = {"stack": stack}
    lines: list[str] = []
    hidden: set[str] = set()
    for key, value in config.items():
        if _secret(value):
            lines.append(f"{key} holds a secret, and no setting is one: AWS makes and keeps the passwords")
            hidden.add({"aws:region": "region", "aws:defaultTags": "tags"}.get(key, key.partition(":")[2]))
        elif key == "aws:region":
            values["region"] = value
        elif key == "aws:defaultTags":
            values["tags"] = value.get("tags", {}) if isinstance(value, Mapping) else value
        elif key.startswith(f"{PROJECT}:"):
            section = key.removeprefix(f"{PROJECT}:")
            if section in SECTIONS:
                values[section] = value
            else:
                lines.append(f"{key} is no setting{_nearest(section, SECTIONS)}")
                # That the right one is missing then is the same mistake, told twice.
                meant = closest(section, SECTIONS)
                if meant and f"{PROJECT}:{meant}" not in config:
                    hidden.add(meant)
        elif key.startswith("aws:"):
            lines.append(f"{key} is not used here; aws:region and aws:defaultTags are")
            meant = closest(key, tuple(_KEYS.values()))
            hidden |= {name for name, known in _KEYS.items() if known == meant and known not in config}
        elif not key.startswith("pulumi:"):
            lines.append(f"{key} is no setting: those of this program begin with {PROJECT}: or aws:")
    try:
        # As JSON, of which a list is a tuple and a text a network: strictly, so that true is no number and "3" is none.
        found = Settings.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        told = [_line(one, values) for one in error.errors() if not hidden & {*one["loc"][:1]}]
        # A rule between sections has no place, and names what it is about first.
        lines += [line for line in told if line.partition(".")[0] not in hidden]
    if lines:
        raise SettingsError("\n".join(f"{file}: {_printable(line)}" for line in lines))
    return found


def _printable(text: str) -> str:
    """On one line, whatever somebody wrote as a name or value."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "secure" in value or any(_secret(one) for one in value.values())
    return isinstance(value, list) and any(map(_secret, value))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = closest(name, known)
    return f": did you mean {close}?" if close else f"; there are {', '.join(known)}"


def _field(path: Sequence[str | int]) -> tuple[type[BaseModel], Any]:
    """The model and the field that a path of names leads to (None past the last model)."""
    model: type[BaseModel] = Settings
    field = None
    for part in path:
        field = model.model_fields.get(part) if isinstance(part, str) else field
        inner = getattr(field, "annotation", None)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return model, field


_TYPES: Final = {
    "int_type": "a whole number", "bool_type": "true or false", "string_type": "text in quotes",
    "tuple_type": "a list", "model_type": "a section of settings", "dict_type": "names with values",
}  # fmt: skip
"""Error of pydantic → what the setting must be."""
_KEYS: Final = {"region": "aws:region", "tags": "aws:defaultTags"}


def _line(error: Any, values: Mapping[str, Any]) -> str:
    """One error of pydantic as one line: key, what is allowed, what was found."""
    path = [part for part in error["loc"] if isinstance(part, int) or not part.startswith("function-")]
    key = ".".join(
        _KEYS.get(str(part), str(part)) if depth == 0 else str(part) for depth, part in enumerate(path)
    )
    kind, context, got = error["type"], error.get("ctx", {}), error["input"]
    model, field = _field(path)
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        return f"{key} is no setting{_nearest(str(path[-1]), tuple(model.model_fields))}"
    if kind == "value_error":
        text = str(context["error"])
        return f"{key} {text}" if text.startswith("must ") else ": ".join(filter(None, (key, text)))
    if kind in ("greater_than_equal", "less_than_equal"):
        bounds = {
            name: getattr(one, name)
            for one in getattr(field, "metadata", ())
            for name in ("ge", "le")
            if hasattr(one, name)
        }
        if set(bounds) == {"ge", "le"}:
            return f"{key} must be {bounds['ge']} to {bounds['le']}, got {got}"
    if kind == "literal_error":
        # A text among numbers, or the other way round, shows its quotes: "3" is not 3.
        expected = context["expected"]
        quoted = isinstance(got, str) and "'" not in expected
        return f"{key} must be {expected.replace(chr(39), '')}, got {json.dumps(got) if quoted else got}"
    if kind in _TYPES:
        told = "nothing" if got is None else json.dumps(got, ensure_ascii=False)
        wanted = _described(field) if kind == "string_type" else None
        return f"{key} must be {wanted or _TYPES[kind]}, got {told}"
    if kind == "string_pattern_mismatch":
        form = _described(field) or f"of the form {context['pattern']}"
        return f"{key} must be {form}, got {got}"
    text = re.sub(r"^Input should be", "must be", error["msg"])
    shown = got if isinstance(got, str | int | float | bool | None) else type(got).__name__
    return f"{key} {text}, got {shown}"


def _described(field: Any) -> str | None:
    """The description of a field, or of what it is a tuple or an alternative of."""
    if getattr(field, "description", None):
        return str(field.description)
    stack = [getattr(field, "annotation", None)]
    while stack:
        one = stack.pop()
        for meta in getattr(one, "__metadata__", ()):
            if getattr(meta, "description", None):
                return str(meta.description)
        stack += list(getattr(one, "__args__", ()))
    return None
