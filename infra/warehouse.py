"""Redshift, provisioned or serverless, and the roles that it reads S3 and the stream with."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import pulumi
import pulumi_aws as aws

from infra.archive import PARTITIONS, STAGED, Archive, catalogue_name
from infra.component import Component, Context
from infra.iam import Statement, Text, service_role
from infra.keys import Keys
from infra.network import REDSHIFT_PORT, Network
from infra.notices import Notices
from infra.settings import Warehouse as Settings
from infra.stream import Stream, key_use

ADMIN: Final = "eav_admin"
"""The administrator, whose password AWS makes, keeps in Secrets Manager and changes every 30 days."""

LOGS: Final = ("connectionlog", "userlog", "useractivitylog")
"""What Redshift exports: who connected, which users were changed, every statement."""

ARCHIVED: Final = f"{PARTITIONS}/table="
"""Begin of the keys of archived partitions that were verified (jobs/archive/settings.py): what Spectrum reads."""

SERVICES: Final = ("redshift.amazonaws.com", "redshift-serverless.amazonaws.com")
"""Who takes the roles: the second asks for a namespace of serverless, and both may in its name."""

Use = Literal["copy", "spectrum", "stream"]
DEFAULT_USE: Final[Use] = "copy"
"""The role of `IAM_ROLE default`: it reaches the least, what is there to be loaded anyway."""

MB_A_TB: Final = 1024 * 1024


class Warehouse(Component):
    """Redshift, provisioned or serverless, and the roles that it reads S3 and the stream with.

    Attributes: `cluster` (aws.redshift.Cluster or None), `workgroup` (aws.redshiftserverless.Workgroup or None),
    `namespace` (aws.redshiftserverless.Namespace or None), `catalogue` (aws.glue.CatalogDatabase or None), `roles`
    (use → aws.iam.Role), `log_groups` (log → aws.cloudwatch.LogGroup), `limit` (the usage limit or None), `host`,
    `secret_arn` (of the administrator's password) and `identifier` (of cluster or workgroup), None without a warehouse.
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
        self.settings = context.settings.warehouse
        self.cluster: aws.redshift.Cluster | None = None
        self.namespace: aws.redshiftserverless.Namespace | None = None
        self.workgroup: aws.redshiftserverless.Workgroup | None = None
        self.catalogue: aws.glue.CatalogDatabase | None = None
        self.roles: dict[Use, aws.iam.Role] = {}
        self.log_groups: dict[str, aws.cloudwatch.LogGroup] = {}
        self.limit: aws.redshift.UsageLimit | aws.redshiftserverless.UsageLimit | None = None
        self.host: pulumi.Output[str] | None = None
        self.secret_arn: pulumi.Output[str] | None = None
        self.identifier: pulumi.Output[str] | None = None
        if self.settings.kind != "none":
            self.catalogue = self._catalogue()
            self.roles = self._roles(keys, stream, archive, self.catalogue)
            self.log_groups = self._log_groups(keys)
        if self.settings.kind == "provisioned":
            self._provisioned(keys, notices, network)
        elif self.settings.kind == "serverless":
            self._serverless(keys, network)
        self.register_outputs({"host": self.host, "secret_arn": self.secret_arn})

    @property
    def _called(self) -> str:
        return self.names.of("warehouse", "cluster")

    def _role_arns(self) -> list[pulumi.Output[str]]:
        return [role.arn for role in self.roles.values()]

    # -- what both kinds have --------------------------------------------------------------------------------

    def _catalogue(self) -> aws.glue.CatalogDatabase:
        """Where the external schema `archive` of Redshift has its tables (jobs archive-partitions --ddl)."""
        return aws.glue.CatalogDatabase(
            "catalogue",
            name=catalogue_name(self.names),
            description="Partitions that were archived, as Redshift Spectrum and Athena read them",
            opts=self.options(),
        )

    def _log_groups(self, keys: Keys) -> dict[str, aws.cloudwatch.LogGroup]:
        """Made before Redshift makes them itself, which it does without retention and without our key."""
        prefix = "cluster/" if self.settings.kind == "provisioned" else ""
        return {
            log: self.log_group(
                log, f"/aws/redshift/{prefix}{self._called}/{log}", self.settings.log_days, keys.arn("logs")
            )
            for log in LOGS
        }

    # -- roles -----------------------------------------------------------------------------------------------

    def _roles(
        self, keys: Keys, stream: Stream, archive: Archive, catalogue: aws.glue.CatalogDatabase
    ) -> dict[Use, aws.iam.Role]:
        statements: dict[Use, tuple[Statement, ...]] = {
            "copy": self._reads(keys, archive, STAGED),
            "spectrum": (*self._reads(keys, archive, ARCHIVED), *self._knows_tables(catalogue.name)),
            "stream": (
                Statement(
                    "ReadTheStream",
                    [
                        "kinesis:DescribeStream",
                        "kinesis:DescribeStreamSummary",
                        "kinesis:GetRecords",
                        "kinesis:GetShardIterator",
                        "kinesis:ListShards",
                    ],
                    [stream.stream.arn],
                ),
                # AWS's policy for streaming ingestion has it besides: an external schema is a list of streams. It
                # tells names; Kinesis knows no narrower resource for it.
                Statement("SeeWhatStreamsThereAre", ["kinesis:ListStreams"], ["*"]),
                key_use(self.context, keys, stream, "kms:Decrypt"),
            ),
        }
        services = SERVICES[:1] if self.settings.kind == "provisioned" else SERVICES
        return {
            use: service_role(self, f"warehouse-{use}", services, *allowed, trust=self._own_users())
            for use, allowed in statements.items()
        }

    def _own_users(self) -> dict[str, dict[str, str]]:
        """Redshift says as external ID which database user acts: ours only, so that no other warehouse has the roles.

        It is what AWS documents for that ("Restricting access to IAM roles"); nothing says that aws:SourceAccount is
        sent. A workgroup is there by an identifier that AWS makes, so for serverless it is any of this account.
        """
        if self.settings.kind == "provisioned":
            users = f"dbuser:{self._called}/*"
        else:
            users = f"dbuser:serverless-{self.context.account}-*/*"
        return {"StringLike": {"sts:ExternalId": self.context.arn("redshift", users)}}

    def _reads(self, keys: Keys, archive: Archive, prefix: str) -> tuple[Statement, ...]:
        bucket = archive.partitions
        return (
            Statement("FindTheBucket", ["s3:GetBucketLocation"], [bucket.arn]),
            Statement(
                "ListThePrefix",
                ["s3:ListBucket"],
                [bucket.arn],
                conditions={"StringLike": {"s3:prefix": [f"{prefix}*"]}},
            ),
            Statement("ReadThePrefix", ["s3:GetObject"], [pulumi.Output.concat(bucket.arn, f"/{prefix}*")]),
            Statement(
                "KeyOfTheArchiveByS3",
                ["kms:Decrypt"],
                [keys.arn("archive")],
                conditions={
                    "StringEquals": self.context.via("s3"),
                    # With a bucket key S3 names the bucket, without one the object.
                    "StringLike": {
                        "kms:EncryptionContext:aws:s3:arn": [
                            bucket.arn,
                            pulumi.Output.concat(bucket.arn, f"/{prefix}*"),
                        ]
                    },
                },
            ),
        )

    def _knows_tables(self, database: pulumi.Output[str]) -> tuple[Statement, ...]:
        """Read the catalogue, and keep it: Redshift makes tables and adds months to them by the role of the schema.

        A table there is a description. To drop one deletes no file: the role may not write to the bucket.
        """
        of_tables: list[Text] = [
            self.context.arn("glue", "catalog"),
            pulumi.Output.concat(self.context.arn("glue", "database/"), database),
            pulumi.Output.concat(self.context.arn("glue", "table/"), database, "/*"),
        ]
        return (
            Statement("ReadTheDatabase", ["glue:GetDatabase"], of_tables[:2]),
            Statement(
                "ReadTables",
                [
                    "glue:GetTable",
                    "glue:GetTables",
                    "glue:GetPartition",
                    "glue:GetPartitions",
                    "glue:BatchGetPartition",
                ],
                of_tables,
            ),
            Statement(
                "KeepTables",
                [
                    "glue:CreateTable",
                    "glue:UpdateTable",
                    "glue:DeleteTable",
                    "glue:CreatePartition",
                    "glue:BatchCreatePartition",
                    "glue:UpdatePartition",
                    "glue:DeletePartition",
                    "glue:BatchDeletePartition",
                ],
                of_tables,
            ),
        )

    # -- provisioned -----------------------------------------------------------------------------------------

    def _provisioned(self, keys: Keys, notices: Notices, network: Network) -> None:
        settings, keep = self.settings, self.context.settings.protect_data
        subnets = aws.redshift.SubnetGroup(
            "subnets",
            name=self.names.of("warehouse", "subnet_group"),
            description="The warehouse's tier",
            subnet_ids=network.subnet_ids("warehouse"),
            opts=self.options(),
        )
        parameters = aws.redshift.ParameterGroup(
            "parameters",
            name=self.names.of("warehouse"),
            # The one family in which each of these differs from its default. The provider reads back only what does
            # (in redshift-2.0 require_ssl is true by default), and would find the rest missing on every run.
            family="redshift-1.0",
            description="TLS only, every statement logged, one automatic queue",
            parameters=[
                aws.redshift.ParameterGroupParameterArgs(name=name, value=value)
                for name, value in parameters_of(settings).items()
            ],
            opts=self.options(),
        )
        self.cluster = cluster = aws.redshift.Cluster(
            "cluster",
            cluster_identifier=self._called,
            node_type=settings.node_type,
            cluster_type="multi-node" if settings.nodes > 1 else "single-node",
            number_of_nodes=settings.nodes,
            database_name=settings.database,
            port=REDSHIFT_PORT,
            master_username=ADMIN,
            manage_master_password=True,
            master_password_secret_kms_key_id=keys.arn("warehouse"),
            encrypted="true",
            kms_key_id=keys.arn("warehouse"),
            cluster_subnet_group_name=subnets.name,
            vpc_security_group_ids=[network.group_id("warehouse")],
            publicly_accessible=False,
            enhanced_vpc_routing=True,
            # When its zone fails, Redshift moves the cluster to another at no charge, with its data and its name, on
            # average within 15 minutes. Multi-AZ has twice the nodes for a loss of seconds, cannot be paused, and here
            # what was missed is read again: the stream keeps it for days.
            availability_zone_relocation_enabled=True,
            multi_az=False,
            cluster_parameter_group_name=parameters.name,
            iam_roles=self._role_arns(),
            default_iam_role_arn=self.roles[DEFAULT_USE].arn,
            preferred_maintenance_window=settings.maintenance_window,
            allow_version_upgrade=True,
            # A cluster that is changed between windows restarts under its users: changes wait, as upgrades do.
            apply_immediately=False,
            automated_snapshot_retention_period=settings.snapshot_days,
            manual_snapshot_retention_period=settings.snapshot_days,
            skip_final_snapshot=not keep,
            final_snapshot_identifier=self.names.of("warehouse-final") if keep else None,
            opts=self.data_options(depends_on=list(self.log_groups.values())),
        )
        self.host, self.secret_arn = cluster.dns_name, cluster.master_password_secret_arn
        self.identifier = cluster.cluster_identifier
        aws.redshift.Logging(
            "logging",
            cluster_identifier=cluster.cluster_identifier,
            log_destination_type="cloudwatch",
            log_exports=list(LOGS),
            opts=self.options(depends_on=list(self.log_groups.values())),
        )
        self.limit = aws.redshift.UsageLimit(
            "limit",
            cluster_identifier=cluster.cluster_identifier,
            feature_type="spectrum",
            limit_type="data-scanned",
            amount=settings.spectrum_tb_a_day,
            period="daily",
            breach_action="emit-metric" if self.context.settings.stack == "prod" else "disable",
            opts=self.options(),
        )
        self._snapshots(cluster, keys)
        actions = self._rests(cluster)
        self._tells(cluster, actions, notices)

    def _snapshots(self, cluster: aws.redshift.Cluster, keys: Keys) -> None:
        schedule = aws.redshift.SnapshotSchedule(
            "snapshots",
            identifier=self.names.of("warehouse"),
            description=f"Every {self.settings.snapshot_hours} hours",
            definitions=[f"rate({self.settings.snapshot_hours} hours)"]
            if self.settings.snapshot_hours > 1
            else ["rate(1 hour)"],
            opts=self.options(),
        )
        aws.redshift.SnapshotScheduleAssociation(
            "snapshots",
            cluster_identifier=cluster.cluster_identifier,
            schedule_identifier=schedule.identifier,
            opts=self.options(),
        )
        region = self.settings.snapshot_copy_region
        if region is None:
            return
        # The grant is of the region that the copies are in, and so is the key.
        grant = aws.redshift.SnapshotCopyGrant(
            "copies",
            snapshot_copy_grant_name=self._called,
            kms_key_id=keys.copy("warehouse", region).arn,
            region=region,
            opts=self.options(),
        )
        aws.redshift.SnapshotCopy(
            "copies",
            cluster_identifier=cluster.cluster_identifier,
            destination_region=region,
            snapshot_copy_grant_name=grant.snapshot_copy_grant_name,
            retention_period=self.settings.snapshot_days,
            manual_snapshot_retention_period=self.settings.snapshot_days,
            opts=self.options(),
        )

    def _rests(self, cluster: aws.redshift.Cluster) -> list[aws.redshift.ScheduledAction]:
        """Paused, a cluster costs its storage alone. Empty where it never rests."""
        if self.settings.pause is None or self.settings.resume is None:
            return []
        role = service_role(
            self,
            "warehouse-rest",
            "scheduler.redshift.amazonaws.com",
            Statement(
                "PauseAndResumeThisCluster",
                ["redshift:PauseCluster", "redshift:ResumeCluster"],
                [self.context.arn("redshift", f"cluster:{self._called}")],
            ),
            # Redshift checks the trust when the schedule is made, and documents no condition for it. The role can do
            # no more than stop and start one cluster.
            trust={},
        )
        target = aws.redshift.ScheduledActionTargetActionArgs
        pause = aws.redshift.ScheduledActionTargetActionPauseClusterArgs(
            cluster_identifier=cluster.cluster_identifier
        )
        resume = aws.redshift.ScheduledActionTargetActionResumeClusterArgs(
            cluster_identifier=cluster.cluster_identifier
        )
        return [
            aws.redshift.ScheduledAction(
                thing,
                name=self.names.of(f"warehouse-{thing}"),
                description=f"{thing.title()}s the cluster, by UTC",
                schedule=schedule,
                iam_role=role.arn,
                target_action=action,
                opts=self.options(),
            )
            for thing, schedule, action in (
                ("pause", self.settings.pause, target(pause_cluster=pause)),
                ("resume", self.settings.resume, target(resume_cluster=resume)),
            )
        ]

    def _tells(
        self,
        cluster: aws.redshift.Cluster,
        actions: list[aws.redshift.ScheduledAction],
        notices: Notices,
    ) -> None:
        """What Redshift itself reports. INFO has the errors too, so no category is in two subscriptions."""
        told: list[tuple[str, str, list[Any], str, list[str] | None]] = [
            (
                "failures",
                "cluster",
                [cluster.cluster_identifier],
                "ERROR",
                ["configuration", "management", "monitoring"],
            ),
            ("changes", "cluster", [cluster.cluster_identifier], "INFO", ["pending", "security"]),
        ]
        if actions:
            # A cluster that did not resume is an outage, one that did not pause is a bill.
            told.append(("rest", "scheduled-action", [action.name for action in actions], "ERROR", None))
        for thing, source, names, severity, categories in told:
            aws.redshift.EventSubscription(
                f"events-{thing}",
                name=self.names.of(f"warehouse-{thing}"),
                sns_topic_arn=notices.arn("notice"),
                source_type=source,
                source_ids=names,
                severity=severity,
                event_categories=categories,
                opts=self.options(depends_on=[notices.policies["notice"]]),
            )

    # -- serverless ------------------------------------------------------------------------------------------

    def _serverless(self, keys: Keys, network: Network) -> None:
        settings = self.settings
        self.namespace = namespace = aws.redshiftserverless.Namespace(
            "namespace",
            namespace_name=self._called,
            db_name=settings.database,
            admin_username=ADMIN,
            manage_admin_password=True,
            admin_password_secret_kms_key_id=keys.arn("warehouse"),
            kms_key_id=keys.arn("warehouse"),
            iam_roles=self._role_arns(),
            default_iam_role_arn=self.roles[DEFAULT_USE].arn,
            log_exports=list(LOGS),
            opts=self.data_options(depends_on=list(self.log_groups.values())),
        )
        self.workgroup = workgroup = aws.redshiftserverless.Workgroup(
            "workgroup",
            workgroup_name=self._called,
            namespace_name=namespace.namespace_name,
            base_capacity=settings.base_rpu,
            config_parameters=[
                aws.redshiftserverless.WorkgroupConfigParameterArgs(parameter_key=name, parameter_value=value)
                for name, value in workgroup_parameters_of(settings).items()
            ],
            port=REDSHIFT_PORT,
            subnet_ids=network.subnet_ids("warehouse"),
            security_group_ids=[network.group_id("warehouse")],
            publicly_accessible=False,
            enhanced_vpc_routing=True,
            opts=self.options(),
        )
        self.host = workgroup.endpoints.apply(lambda found: str(found[0].address))
        self.secret_arn, self.identifier = namespace.admin_password_secret_arn, workgroup.workgroup_name
        self.limit = aws.redshiftserverless.UsageLimit(
            "limit",
            resource_arn=workgroup.arn,
            usage_type="serverless-compute",
            amount=settings.max_rpu_hours_a_day,
            period="daily",
            breach_action="emit-metric" if self.context.settings.stack == "prod" else "deactivate",
            opts=self.options(),
        )
        self._daily_snapshot(namespace)

    def _daily_snapshot(self, namespace: aws.redshiftserverless.Namespace) -> None:
        """Redshift keeps recovery points of the last 24 hours by itself: for longer it takes snapshots, one a day."""
        if self.settings.snapshot_days == 1:
            return
        here = self.context
        role = service_role(
            self,
            "warehouse-snapshot",
            "scheduler.amazonaws.com",
            Statement(
                "SnapshotOfThisNamespace",
                ["redshift-serverless:CreateSnapshot"],
                [namespace.arn, here.arn("redshift-serverless", "snapshot/*")],
            ),
        )
        aws.scheduler.Schedule(
            "snapshot",
            name=self.names.of("warehouse-snapshot", "schedule"),
            description=f"A snapshot a day, kept {self.settings.snapshot_days} days",
            schedule_expression="rate(1 days)",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(
                mode="FLEXIBLE", maximum_window_in_minutes=60
            ),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=f"arn:{here.partition}:scheduler:::aws-sdk:redshiftserverless:createSnapshot",
                role_arn=role.arn,
                input=namespace.namespace_name.apply(
                    lambda name: json.dumps(
                        {
                            "NamespaceName": name,
                            "SnapshotName": f"{name}-<aws.scheduler.execution-id>",
                            "RetentionPeriod": self.settings.snapshot_days,
                        }
                    )
                ),
            ),
            opts=self.options(),
        )


def parameters_of(settings: Settings) -> dict[str, str]:
    """Of the parameter group: only what differs from the default of its family."""
    return {
        "require_ssl": "true",
        "enable_user_activity_logging": "true",
        "statement_timeout": str(settings.longest_query_minutes * 60_000),
        "wlm_json_configuration": json.dumps(queues(settings), separators=(",", ":")),
    }


def queues(settings: Settings) -> list[dict[str, Any]]:
    """Workload management: one automatic queue, short queries past it, and no query that scans a day's allowance."""
    wide: dict[str, Any] = {
        "rule_name": "wide_scan",
        "predicate": [
            {
                "metric_name": "spectrum_scan_size_mb",
                "operator": ">",
                "value": settings.spectrum_tb_a_day * MB_A_TB,
            }
        ],
        "action": "abort",
    }
    return [{"auto_wlm": True, "queue_type": "auto", "rules": [wide]}, {"short_query_queue": True}]


def workgroup_parameters_of(settings: Settings) -> dict[str, str]:
    """Of a workgroup: all there are, since AWS returns all and what is not said here would be a change each time."""
    return {
        "auto_mv": "true",
        "datestyle": "ISO, MDY",
        "enable_case_sensitive_identifier": "false",
        "enable_user_activity_logging": "true",
        "max_query_execution_time": str(settings.longest_query_minutes * 60),
        "query_group": "default",
        "require_ssl": "true",
        "search_path": "$user, public",
        # Endpoints with FIPS 140 are of regions in North America; require_ssl has TLS 1.2 or newer everywhere.
        "use_fips_ssl": "false",
    }
