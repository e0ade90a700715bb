"""What the resources of a graph cost a month, line by line, by the table of prices.

A kind of resource has a function here, or stands in FREE; what is neither is named in the estimate, so that nothing
is taken for free because nobody thought of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from infra.graph import Graph, Resource
from infra.prices import MONTH_DAYS, MONTH_HOURS, Table, Usage, awake_hours, month, table
from infra.publisher import waking_hours
from infra.settings import Settings

FREE: Final = frozenset(
    {
        # of the network: what is paid for is what passes through a gateway, an endpoint or an address
        "ec2.DefaultSecurityGroup", "ec2.InternetGateway", "ec2.Route", "ec2.RouteTable",
        "ec2.RouteTableAssociation", "ec2.SecurityGroup", "ec2.Subnet", "ec2.LaunchTemplate",
        "vpc.SecurityGroupEgressRule", "vpc.SecurityGroupIngressRule",
        # the log group that it writes to is paid for
        "ec2.FlowLog", "cloudwatch.LogResourcePolicy", "cloudwatch.LogMetricFilter",
        "cloudwatch.QueryDefinition",
        # rights, names and settings
        "iam.InstanceProfile", "iam.OpenIdConnectProvider", "iam.Policy", "iam.Role", "iam.RolePolicy",
        "iam.RolePolicyAttachment", "iam.ServiceLinkedRole", "kms.Alias", "kms.Grant", "lambda.Alias",
        "lambda.EventSourceMapping", "lambda.FunctionEventInvokeConfig", "lambda.LayerVersion",
        "lambda.Permission", "rds.EventSubscription", "rds.OptionGroup", "rds.ParameterGroup",
        "rds.ProxyDefaultTargetGroup", "rds.ProxyTarget", "rds.SubnetGroup", "redshift.ClusterIamRoles",
        "redshift.EventSubscription", "redshift.Logging", "redshift.ParameterGroup",
        "redshift.ScheduledAction", "redshift.SnapshotCopyGrant", "redshift.SnapshotSchedule",
        "redshift.SnapshotScheduleAssociation", "redshift.SubnetGroup", "redshift.UsageLimit",
        "redshiftserverless.UsageLimit", "redshift.ResourcePolicy", "redshiftserverless.ResourcePolicy",
        "kinesis.ResourcePolicy", "dynamodb.ResourcePolicy", "secretsmanager.SecretPolicy",
        "secretsmanager.SecretRotation", "secretsmanager.SecretVersion", "ssm.Document", "ssm.Parameter",
        "sns.TopicPolicy", "sns.TopicSubscription", "sqs.QueuePolicy", "sqs.RedriveAllowPolicy",
        "ecr.LifecyclePolicy", "ecr.RepositoryPolicy", "ecs.Cluster", "ecs.ClusterCapacityProviders",
        "ecs.TaskDefinition", "glue.CatalogDatabase", "glue.CatalogTable", "appautoscaling.Policy",
        "appautoscaling.Target",
        # of a bucket: its objects are paid for
        "s3.BucketLifecycleConfiguration", "s3.BucketLogging", "s3.BucketMetric", "s3.BucketNotification",
        "s3.BucketObjectLockConfiguration", "s3.BucketOwnershipControls", "s3.BucketPolicy",
        "s3.BucketPublicAccessBlock", "s3.BucketServerSideEncryptionConfiguration", "s3.BucketVersioning",
        # EventBridge Scheduler has 14 million calls a month free, rules on a schedule cost nothing
        "scheduler.Schedule", "scheduler.ScheduleGroup", "cloudwatch.EventRule", "cloudwatch.EventTarget",
        "cloudwatch.EventPermission",
        # alerts by mail are free; what a budget does by itself is not used
        "budgets.Budget",
        # a group of resources, and the sampling of traces
        "resourcegroups.Group", "xray.Group", "xray.SamplingRule", "xray.EncryptionConfig",
    }
)  # fmt: skip
"""Kinds that cost nothing by themselves."""


@dataclass(frozen=True)
class Line:
    """One line of the bill."""

    urn: str
    component: str
    kind: str
    name: str
    what: str
    quantity: float
    unit: str
    price: float
    """USD a unit."""
    usd: float
    """A month; quantity × price."""
    note: str


@dataclass(frozen=True)
class Estimate:
    """The bill of a month."""

    table: Table
    lines: tuple[Line, ...]
    assumed: Mapping[str, tuple[float, Usage]]
    """The amounts that lines rest on and that no graph can say, by name."""
    unknown: tuple[str, ...]
    """Kinds that are neither priced nor free."""

    @property
    def usd(self) -> float:
        """All of it."""
        return sum(line.usd for line in self.lines)

    def by_component(self) -> dict[str, float]:
        """The dearest first."""
        return self._sums("component")

    def by_resource(self) -> dict[str, float]:
        """By URN, the dearest first."""
        return self._sums("urn")

    def _sums(self, field: str) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for line in self.lines:
            found[getattr(line, field)] += line.usd
        return dict(sorted(found.items(), key=lambda one: (-round(one[1], 2), one[0])))


def estimate(graph: Graph, prices: Table | None = None) -> Estimate:
    """What a stack costs a month. `prices`: another table than the one of this repository."""
    bill = _Bill(graph, prices or table())
    lines: list[Line] = []
    unknown: set[str] = set()
    for one in graph:
        if one.kind in PRICED:
            lines += [bill.line(one, item) for item in PRICED[one.kind](bill, one)]
        elif one.custom and one.kind not in FREE:
            unknown.add(one.kind)
    lines = [line for line in lines if line.usd]
    lines.sort(key=lambda line: (-round(line.usd, 2), line.component, line.kind, line.name, line.what))
    return Estimate(bill.table, tuple(lines), dict(sorted(bill.assumed.items())), tuple(sorted(unknown)))


@dataclass(frozen=True)
class _Item:
    what: str
    quantity: float
    price: str
    """Key of the table."""


class _Bill:
    """What the functions below ask: the graph, its settings, amounts that are assumed."""

    def __init__(self, graph: Graph, prices: Table) -> None:
        self.graph = graph
        self.settings = graph.settings
        self.table = prices
        self.assumed: dict[str, tuple[float, Usage]] = {}

    def line(self, one: Resource, item: _Item) -> Line:
        price = self.table.prices[item.price]
        return Line(
            urn=one.urn,
            component=self.graph.component(one),
            kind=one.kind,
            name=one.name,
            what=item.what,
            quantity=item.quantity,
            unit=price.unit,
            price=price.usd,
            usd=item.quantity * price.usd,
            note=price.note,
        )

    def usage(self, name: str) -> float:
        """An assumed amount; whoever asks rests on it."""
        found = self.table.usage[name]
        amount = found.of(self.settings.stack)
        self.assumed[name] = (amount, found)
        return amount

    def values(self) -> float:
        """Values that come in a month."""
        return self.usage("values_per_second") * MONTH_HOURS * 3600

    def stream_gb(self) -> float:
        """What the stream takes in a month."""
        return self.values() * self.usage("line_bytes") / 1e9

    def readers(self) -> int:
        """Who reads the whole stream: ingest and, if there is one, the warehouse."""
        return 1 + bool(self.graph.of_kind("redshift.Cluster", "redshiftserverless.Workgroup"))

    def has_endpoint(self, service: str) -> bool:
        return any(
            str(one.inputs.get("serviceName")).endswith(f".{service}")
            for one in self.graph.of_kind("ec2.VpcEndpoint")
        )

    def referred(self, one: Resource, kind: str, *properties: str) -> Resource | None:
        """What a resource refers to, of a kind, by one of these properties or by any."""
        for name, urns in one.references.items():
            for urn in urns:
                found = self.graph.resources.get(urn)
                if found is not None and found.kind == kind and (not properties or name in properties):
                    return found
        return None


# -- PostgreSQL ----------------------------------------------------------------------------------------------

_SIZES: Final[dict[str, tuple[float, int]]] = {
    "micro": (1 / 8, 2), "small": (1 / 4, 2), "medium": (1 / 2, 2), "large": (1, 2), "xlarge": (2, 4),
    "2xlarge": (4, 8), "4xlarge": (8, 16), "8xlarge": (16, 32), "12xlarge": (24, 48), "16xlarge": (32, 64),
}  # fmt: skip
"""Size → price as a multiple of a large one, vCPU."""

GP3_SMALL: Final = (3000, 125)
GP3_STRIPED: Final = (12000, 500)
"""IOPS and MiB/s that gp3 of RDS PostgreSQL has by itself, below 400 GB and from there on."""


def _class(name: str) -> tuple[str, float, int]:
    """Family, multiple of a large one, vCPU of `db.r7g.4xlarge`."""
    _, family, size = name.split(".")
    return family, *_SIZES[size]


def _instance(bill: _Bill, one: Resource) -> Iterator[_Item]:
    inputs = one.inputs
    family, factor, vcpu = _class(inputs["instanceClass"])
    source = bill.referred(one, "rds.Instance", "replicateSourceDb")
    storage = float(inputs.get("allocatedStorage") or (source.inputs["allocatedStorage"] if source else 0))
    twice = 2 if inputs.get("multiAz") else 1
    zones = " in two zones" if twice == 2 else ""
    hours = awake_hours(bill.settings.cost)
    yield _Item(f"{inputs['instanceClass']}{zones}, {hours:.0f} h", hours * factor * twice, f"rds.{family}")
    yield _Item(f"{storage:.0f} GB gp3{zones}", storage * twice, "rds.gp3")
    iops, throughput = GP3_STRIPED if storage >= 400 else GP3_SMALL
    more = (inputs.get("iops") or iops) - iops
    if more > 0:
        yield _Item(f"{more:.0f} IOPS above {iops}{zones}", more * twice, "rds.iops")
    faster = (inputs.get("storageThroughput") or throughput) - throughput
    if faster > 0:
        yield _Item(f"{faster:.0f} MiB/s above {throughput}{zones}", faster * twice, "rds.throughput")
    long = (inputs.get("performanceInsightsRetentionPeriod") or 7) > 7
    if long or inputs.get("databaseInsightsMode") == "advanced":
        yield _Item(f"insights, {vcpu} vCPU{zones}", vcpu * hours * twice, "rds.insights")
    if source is None:
        yield from _backups(bill, one, storage)
    if inputs.get("manageMasterUserPassword"):
        yield _Item("the master's secret", 1, "secrets.secret")


def _backups(bill: _Bill, one: Resource, storage: float) -> Iterator[_Item]:
    """As much as the storage of all instances of the region is free."""
    days = float(one.inputs.get("backupRetentionPeriod") or 0)
    free = storage * len(bill.graph.of_kind("rds.Instance"))
    if days and (paid := _backup_gb(bill, storage, days) - free) > 0:
        yield _Item(f"backups of {days:.0f} days above {free:.0f} GB", paid, "rds.backup")


def _backup_gb(bill: _Bill, storage: float, days: float) -> float:
    return storage * bill.usage("database_fill") * (1 + bill.usage("database_change") * days)


def _backup_copy(bill: _Bill, one: Resource) -> Iterator[_Item]:
    """Automated backups in another region: nothing of it is free, and each day's part travels."""
    primary = bill.referred(one, "rds.Instance")
    storage = float(primary.inputs["allocatedStorage"]) if primary else bill.settings.postgres.storage_gb
    days = float(one.inputs.get("retentionPeriod") or 7)
    yield _Item(
        f"backups of {days:.0f} days in another region", _backup_gb(bill, storage, days), "rds.backup"
    )
    a_month = storage * bill.usage("database_fill") * bill.usage("database_change") * MONTH_DAYS
    yield _Item("their way there", a_month, "transfer.region")


def _proxy(bill: _Bill, one: Resource) -> Iterator[_Item]:
    vcpu = max(2, _class(bill.settings.postgres.instance_class)[2])
    yield _Item(f"{vcpu} vCPU", vcpu * MONTH_HOURS, "rds.proxy")


# -- the warehouse -------------------------------------------------------------------------------------------


def _cluster(bill: _Bill, one: Resource) -> Iterator[_Item]:
    nodes, kind = int(one.inputs.get("numberOfNodes") or 1), one.inputs["nodeType"]
    hours = month(bill.settings.warehouse.running_hours_a_week)
    yield _Item(f"{nodes} × {kind}, {hours:.0f} h", nodes * hours, f"redshift.{kind}")
    yield from _managed_storage(bill)
    yield _Item("archived partitions read by Spectrum", bill.usage("spectrum_tb"), "redshift.spectrum")
    if one.inputs.get("manageMasterPassword"):
        yield _Item("the administrator's secret", 1, "secrets.secret")


def _warehouse_gb(bill: _Bill) -> float:
    return bill.values() * bill.usage("kept_months") * bill.usage("warehouse_bytes") / 1e9


def _managed_storage(bill: _Bill) -> Iterator[_Item]:
    yield _Item("managed storage", _warehouse_gb(bill), "redshift.storage")


def _snapshot_copy(bill: _Bill, one: Resource) -> Iterator[_Item]:
    changed = _warehouse_gb(bill) * bill.usage("warehouse_change")
    yield _Item("snapshots in another region", _warehouse_gb(bill) + changed, "redshift.snapshot")
    yield _Item("their way there", changed, "transfer.region")


def _workgroup(bill: _Bill, one: Resource) -> Iterator[_Item]:
    warehouse = bill.settings.warehouse
    base = float(one.inputs.get("baseCapacity") or warehouse.base_rpu)
    daily = min(base * bill.usage("warehouse_hours"), warehouse.max_rpu_hours_a_day)
    yield _Item(f"{base:.0f} RPU, {daily:.0f} RPU-hours a day", daily * MONTH_DAYS, "redshift.rpu")


def _namespace(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield from _managed_storage(bill)
    if one.inputs.get("manageAdminPassword"):
        yield _Item("the administrator's secret", 1, "secrets.secret")


# -- network -------------------------------------------------------------------------------------------------


def _vpc(bill: _Bill, one: Resource) -> Iterator[_Item]:
    """No price of the VPC, but of what its parts say to each other: ingest writes into the zone of the primary."""
    zones = bill.settings.network.zones
    yield _Item("values that cross zones", bill.stream_gb() * (zones - 1) / zones, "transfer.zone")


def _nat(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item(f"{MONTH_HOURS} h", MONTH_HOURS, "vpc.nat.hour")
    through = bill.usage("nat_gb")
    if not bill.has_endpoint("kinesis-streams"):
        through += bill.stream_gb() * bill.readers()
    yield _Item("what passes", through / len(bill.graph.of_kind("ec2.NatGateway")), "vpc.nat.gb")


def _address(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("public IPv4", MONTH_HOURS, "vpc.ipv4")


def _endpoint(bill: _Bill, one: Resource) -> Iterator[_Item]:
    if one.inputs.get("vpcEndpointType", "Gateway") != "Interface":
        return
    zones = len(one.inputs.get("subnetIds") or ())
    yield _Item(f"{zones} zones", zones * MONTH_HOURS, "vpc.endpoint.hour")
    stream = str(one.inputs["serviceName"]).endswith(".kinesis-streams")
    passes = bill.stream_gb() * bill.readers() if stream else bill.usage("endpoint_gb")
    yield _Item("what passes", passes, "vpc.endpoint.gb")


def _machine(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item(one.inputs["instanceType"], MONTH_HOURS, f"ec2.{one.inputs['instanceType']}")
    volume = (one.inputs.get("rootBlockDevice") or {}).get("volumeSize") or 8
    yield _Item(f"{volume:.0f} GB gp3", volume, "ebs.gp3")
    if one.inputs.get("associatePublicIpAddress"):
        yield _Item("public IPv4", MONTH_HOURS, "vpc.ipv4")


def _zone(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("private zone", 1, "route53.zone")


# -- stream, items, archive ----------------------------------------------------------------------------------


def _stream(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("on demand", MONTH_HOURS, "kinesis.stream")
    gigabytes = bill.stream_gb()
    yield _Item(f"{gigabytes:.0f} GB written", gigabytes, "kinesis.in")
    readers = bill.readers()
    yield _Item(f"read by {readers}", gigabytes * readers, "kinesis.out")
    days = float(one.inputs.get("retentionPeriod") or 24) / 24
    daily = gigabytes / MONTH_DAYS
    yield _Item("kept from the 2nd to the 7th day", daily * (min(days, 7) - 1), "kinesis.kept")
    yield _Item("kept after the 7th day", daily * max(days - 7, 0), "kinesis.kept_long")
    if metrics := one.inputs.get("shardLevelMetrics"):
        shards = bill.usage("shards")
        yield _Item(
            f"{len(metrics)} metrics of {shards:.0f} shards", len(metrics) * shards, "cloudwatch.metric"
        )


def _table(bill: _Bill, one: Resource) -> Iterator[_Item]:
    state = "state" in one.name
    size = bill.usage("state_gb" if state else "items_gb")
    yield _Item(f"{size:g} GB", size, "dynamodb.storage")
    if (one.inputs.get("pointInTimeRecovery") or {}).get("enabled"):
        yield _Item("continuous backups", size, "dynamodb.pitr")
    if not state:
        # An item is written once and, after its archive was verified, deleted once.
        yield _Item("writes, and deletes by the archiver", 2 * bill.usage("items_written"), "dynamodb.write")
        yield _Item("reads", bill.usage("items_read"), "dynamodb.read")


_CLASSES: Final = {
    "STANDARD": "s3.standard", "STANDARD_IA": "s3.ia", "GLACIER": "s3.glacier", "GLACIER_IR": "s3.glacier_ir",
    "DEEP_ARCHIVE": "s3.deep_archive",
}  # fmt: skip


def _bucket(bill: _Bill, one: Resource) -> Iterator[_Item]:
    """What has come in by the end of the first year lies in the class that its age gives it."""
    if "partitions" in one.name:
        monthly = bill.values() * bill.usage("parquet_bytes") / 1e9
    elif "items" in one.name:
        monthly = bill.usage("items_archived_gb")
    else:
        yield _Item("access logs and the like", bill.usage("access_log_gb"), "s3.standard")
        return
    steps, end = _lifecycle(bill, one)
    horizon = min(bill.usage("kept_months") * MONTH_DAYS, end)
    for index, (begin, storage) in enumerate(steps):
        until = min(steps[index + 1][0] if index + 1 < len(steps) else horizon, horizon)
        gigabytes = monthly / MONTH_DAYS * max(until - begin, 0)
        yield _Item(f"{gigabytes:.0f} GB {storage.replace('_', ' ').lower()}", gigabytes, _CLASSES[storage])
    yield _Item("writes", bill.usage("s3_writes"), "s3.put")


def _lifecycle(bill: _Bill, bucket: Resource) -> tuple[list[tuple[float, str]], float]:
    """(age in days, class) from the day of arrival on, and the age at which an object goes."""
    steps: list[tuple[float, str]] = [(0.0, "STANDARD")]
    end = float("inf")
    for one in bill.graph.of_kind("s3.BucketLifecycleConfiguration"):
        if one.inputs.get("bucket") != bucket.inputs.get("bucket"):
            continue
        for rule in one.inputs.get("rules") or ():
            for move in rule.get("transitions") or ():
                steps.append((float(move["days"]), move["storageClass"]))
                end = float((rule.get("expiration") or {}).get("days") or end)
    return sorted(steps), end


# -- functions and tasks -------------------------------------------------------------------------------------


def _function(bill: _Bill, one: Resource) -> Iterator[_Item]:
    component = bill.graph.component(one)
    runs = MONTH_DAYS
    if component == "publisher":
        runs = _publications(bill.settings)
        seconds = runs * bill.usage("publisher_seconds")
    else:
        seconds = bill.usage("function_seconds")
    memory = float(one.inputs.get("memorySize") or 128) / 1024
    kind = "lambda.arm" if "arm64" in (one.inputs.get("architectures") or ()) else "lambda.x86"
    yield _Item(f"{seconds:.0f} s of {memory:g} GB", seconds * memory, kind)
    yield _Item("requests", runs / 1e6, "lambda.request")
    if component == "publisher":
        # Billed by the hours in which there was a figure.
        metrics, hours = bill.usage("custom_metrics"), _publishing_hours(bill.settings)
        yield _Item(
            f"{metrics:.0f} custom metrics, {hours:.0f} h", metrics * hours / MONTH_HOURS, "cloudwatch.metric"
        )


def _publishing_hours(settings: Settings) -> float:
    """Hours a month in which the publisher is called: as infra/publisher.py has its schedule."""
    if not settings.cost.rest:
        return MONTH_HOURS
    first, last = waking_hours(settings.cost)
    return month(5 * (last + 1 - first))


def _publications(settings: Settings) -> float:
    """How often the publisher is called in a month: at a rate, or in a stack that rests from each hour's beginning."""
    often = settings.monitoring.publish_minutes
    an_hour = -(-60 // often) if settings.cost.rest else 60 / often
    return _publishing_hours(settings) * an_hour


def _states(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("transitions", bill.usage("transitions") / 1e6, "sfn.transition")


def _service(bill: _Bill, one: Resource) -> Iterator[_Item]:
    """A service that waits for its first image is priced as it will run; the assumption says so."""
    task = bill.referred(one, "ecs.TaskDefinition", "taskDefinition")
    if task is None:
        return
    workers = bill.settings.workers
    wanted = workers.ingesters if "ingest" in one.name else workers.workers
    count = int(one.inputs.get("desiredCount") or wanted)
    awake = awake_hours(bill.settings.cost)
    hours = awake * count * bill.usage("tasks_run")
    cpu, memory = int(task.inputs["cpu"]) / 1024, int(task.inputs["memory"]) / 1024
    when = f"{awake:.0f} h" + (", once an image is set" if workers.image_digest is None else "")
    yield _Item(f"{count} × {cpu:g} vCPU, {when}", hours * cpu, "fargate.cpu")
    yield _Item(f"{count} × {memory:g} GB, {when}", hours * memory, "fargate.memory")


def _images(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("images", bill.usage("image_gb"), "ecr.storage")


# -- keys, secrets, what is watched --------------------------------------------------------------------------


def _key(bill: _Bill, one: Resource) -> Iterator[_Item]:
    rotated = 1 if one.inputs.get("enableKeyRotation") else 0
    yield _Item("key" + ", rotated once" * rotated, 1 + rotated, "kms.key")
    yield _Item("requests", bill.usage("kms_requests"), "kms.request")


def _secret(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("secret", 1, "secrets.secret")


def _log_group(bill: _Bill, one: Resource) -> Iterator[_Item]:
    if "flow" in one.name:
        monthly = bill.usage("flow_log_gb")
    elif bill.graph.component(one) == "postgres":
        groups = [
            other for other in bill.graph.of_kind(one.kind) if bill.graph.component(other) == "postgres"
        ]
        monthly = bill.usage("postgres_log_gb") / len(groups)
    else:
        monthly = bill.usage("log_gb")
    yield _Item(f"{monthly:g} GB written", monthly, "logs.in")
    months = min(float(one.inputs.get("retentionInDays") or 1e9) / MONTH_DAYS, bill.usage("kept_months"))
    yield _Item("kept", monthly * bill.usage("log_compression") * months, "logs.kept")


def _alarm(bill: _Bill, one: Resource) -> Iterator[_Item]:
    queries = [query for query in one.inputs.get("metricQueries") or () if query.get("metric")]
    yield _Item("alarm", max(1, len(queries)), "cloudwatch.alarm")


def _composite(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("composite alarm", 1, "cloudwatch.composite")


def _dashboard(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("dashboard", 1, "cloudwatch.dashboard")


def _topic(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("messages", bill.usage("messages"), "sns.publish")


def _queue(bill: _Bill, one: Resource) -> Iterator[_Item]:
    yield _Item("requests", bill.usage("messages"), "sqs.request")


PRICED: Final[dict[str, Callable[[_Bill, Resource], Iterator[_Item]]]] = {
    "cloudwatch.CompositeAlarm": _composite,
    "cloudwatch.Dashboard": _dashboard,
    "cloudwatch.LogGroup": _log_group,
    "cloudwatch.MetricAlarm": _alarm,
    "dynamodb.Table": _table,
    "ec2.Eip": _address,
    "ec2.Instance": _machine,
    "ec2.NatGateway": _nat,
    "ec2.Vpc": _vpc,
    "ec2.VpcEndpoint": _endpoint,
    "ecr.Repository": _images,
    "ecs.Service": _service,
    "kinesis.Stream": _stream,
    "kms.Key": _key,
    "lambda.Function": _function,
    "rds.Instance": _instance,
    "rds.InstanceAutomatedBackupsReplication": _backup_copy,
    "rds.Proxy": _proxy,
    "redshift.Cluster": _cluster,
    "redshift.SnapshotCopy": _snapshot_copy,
    "redshiftserverless.Namespace": _namespace,
    "redshiftserverless.Workgroup": _workgroup,
    "route53.Zone": _zone,
    "s3.Bucket": _bucket,
    "secretsmanager.Secret": _secret,
    "sfn.StateMachine": _states,
    "sns.Topic": _topic,
    "sqs.Queue": _queue,
}
"""Kind → what it is billed for."""
