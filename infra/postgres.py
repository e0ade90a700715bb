"""RDS PostgreSQL, its replicas, its proxy, and what is logged and told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import parameters
from infra.component import Component, Context
from infra.iam import Statement, service_role
from infra.keys import Keys
from infra.network import POSTGRES_PORT, Network
from infra.notices import Notices, Urgency

MASTER: Final = "eav_admin"
"""Who migrates; AWS makes, keeps and rotates the password."""

PASSWORD_LENGTH: Final = 64
PROXY_USERS: Final = ("eav_app", "eav_ingest", "eav_jobs")
"""Who may come through the proxy: roles of short sessions. Analysts read replicas, people come without a pool."""

LOGS: Final = ("postgresql", "upgrade")

EVENTS: Final[dict[Urgency, tuple[str, ...]]] = {
    "page": ("failover", "failure", "low storage"),
    "notice": (
        "availability",
        "backup",
        "configuration change",
        "deletion",
        "maintenance",
        "notification",
        "read replica",
        "recovery",
        "restoration",
    ),
}
"""Categories of RDS events of an instance (docs: RDS event categories): what cannot wait, and the rest."""


def replica_zones(zones: Sequence[str], count: int) -> tuple[str, ...]:
    """A zone for each replica, in turn. Where a Multi-AZ primary runs is AWS's choice, and changes."""
    return tuple(zones[index % len(zones)] for index in range(count))


class Postgres(Component):
    """RDS PostgreSQL, its replicas, its proxy, and what is logged and told of them.

    Attributes: `primary` (aws.rds.Instance), `replicas` (tuple of them), `proxy` (aws.rds.Proxy or None),
    `endpoints` (writer, replica-1 …, proxy → host name), `may_connect(users)`.
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
        self.settings = context.settings.postgres
        self.keys = keys
        self.network = network
        self.subnet_group = aws.rds.SubnetGroup(
            "subnets",
            name=self.names.of("postgres", "subnet_group"),
            description="The database tier: no way out of the VPC",
            subnet_ids=network.subnet_ids("database"),
            opts=self.options(),
        )
        self.monitoring_role, self._monitoring_right = self._monitoring_role()
        self.parameter_group = self._parameter_groups()
        password = None if self.settings.managed_master else self._one_time_password()
        self.primary = self._primary(password)
        self.replicas = self._replicas()
        self._copy_of_backups()
        self.proxy = self._proxy() if self.settings.proxy else None
        self.secret_arn: pulumi.Output[str] = (
            self._own_secret(password).arn
            if password is not None
            else self.primary.master_user_secrets.apply(
                lambda found: (found[0].secret_arn or "") if found else ""
            )
        )
        self._events(notices)
        self.endpoints: dict[str, pulumi.Output[str]] = {"writer": self.primary.address}
        self.endpoints |= {
            f"replica-{number}": replica.address for number, replica in enumerate(self.replicas, start=1)
        }
        if self.proxy is not None:
            self.endpoints["proxy"] = self.proxy.endpoint
        self.register_outputs({"endpoints": self.endpoints})

    def may_connect(self, *users: str) -> Statement:
        """A statement that lets its role log in as these database users, with a token of IAM: at the primary, the
        replicas and the proxy of this stack.
        """
        doors: list[pulumi.Output[str]] = [
            instance.resource_id for instance in (self.primary, *self.replicas)
        ] + [pulumi.Output.from_input(one) for one in self.settings.also_connect]
        if self.proxy is not None:
            doors.append(self.proxy.arn.apply(lambda arn: arn.rpartition(":")[2]))
        return Statement("LogInToPostgres", ["rds-db:connect"], self._logins(doors, users))

    def _logins(self, doors: Sequence[pulumi.Output[str]], users: Sequence[str]) -> list[pulumi.Output[str]]:
        prefix = self.context.arn("rds-db", "dbuser")
        return [pulumi.Output.concat(prefix, ":", door, "/", user) for door in doors for user in users]

    # -- instances -------------------------------------------------------------------------------------------

    def _primary(self, password: pulumi.Output[str] | None) -> aws.rds.Instance:
        """`password`: of the master; None where RDS makes and keeps it."""
        wanted, keep = self.settings, self.context.settings.protect_data
        name = self.names.of("postgres", "database")
        # Storage that has grown is no difference: with max_allocated_storage the provider leaves allocated_storage
        # alone, and a bare major in engine_version stands for every minor of it. So nothing has to be ignored here.
        return aws.rds.Instance(
            "primary",
            identifier=name,
            engine="postgres",
            engine_version=wanted.engine_version,
            allow_major_version_upgrade=wanted.allow_major_upgrade,
            instance_class=wanted.instance_class,
            db_name=wanted.database,
            port=POSTGRES_PORT,
            username=MASTER,
            password=password,
            manage_master_user_password=True if password is None else None,
            master_user_secret_kms_key_id=self.keys.arn("postgres") if password is None else None,
            iam_database_authentication_enabled=True,
            ca_cert_identifier="rds-ca-rsa2048-g1",
            allocated_storage=wanted.storage_gb,
            max_allocated_storage=wanted.storage_max_gb,
            storage_type="gp3",
            iops=wanted.iops,
            storage_throughput=wanted.throughput,
            storage_encrypted=True,
            kms_key_id=self.keys.arn("postgres"),
            multi_az=wanted.multi_az,
            db_subnet_group_name=self.subnet_group.name,
            vpc_security_group_ids=[self.network.group_id("postgres")],
            publicly_accessible=False,
            parameter_group_name=self.parameter_group.name,
            backup_retention_period=wanted.backup_days,
            backup_window=wanted.backup_window,
            copy_tags_to_snapshot=True,
            delete_automated_backups=not keep,
            skip_final_snapshot=not keep,
            final_snapshot_identifier=f"{name}-final" if keep else None,
            deletion_protection=wanted.deletion_protection,
            maintenance_window=wanted.maintenance_window,
            auto_minor_version_upgrade=self._takes_minors,
            # In production a change waits for the window, unless it is the upgrade that somebody stands by for.
            apply_immediately=not keep or wanted.allow_major_upgrade,
            performance_insights_enabled=True,
            performance_insights_kms_key_id=self.keys.arn("postgres"),
            performance_insights_retention_period=wanted.insights_days,
            monitoring_interval=wanted.monitoring_seconds,
            monitoring_role_arn=self.monitoring_role.arn,
            enabled_cloudwatch_logs_exports=list(LOGS),
            opts=self.data_options(
                depends_on=[self._monitoring_right, *self._log_groups("primary", name)],
                ignore_changes=None if password is None else ["password"],
            ),
        )

    def _one_time_password(self) -> pulumi.Output[str]:
        """The master's, for a primary that is to have replicas.

        RDS makes no replica of a primary whose password it keeps in Secrets Manager itself. So AWS's generator makes
        one here, once: both that take it ignore that the generator says another one at each run. Pulumi's state has
        it encrypted. It is there for the first migration, which lets the roles of all jobs log in with tokens.
        """
        return pulumi.Output.secret(
            aws.secretsmanager.get_random_password_output(
                password_length=PASSWORD_LENGTH, exclude_punctuation=True
            ).random_password
        )

    def _own_secret(self, password: pulumi.Output[str]) -> aws.secretsmanager.Secret:
        """Where it is kept."""
        secret = aws.secretsmanager.Secret(
            "master",
            name=self.names.path("postgres", "master"),
            description="The master of PostgreSQL",
            kms_key_id=self.keys.arn("postgres"),
            opts=self.data_options(),
        )
        aws.secretsmanager.SecretVersion(
            "master",
            secret_id=secret.id,
            secret_string=pulumi.Output.json_dumps({"username": MASTER, "password": password}),
            opts=self.options(ignore_changes=["secretString"]),
        )
        return secret

    def _replicas(self) -> tuple[aws.rds.Instance, ...]:
        wanted, keep = self.settings, self.context.settings.protect_data
        if not wanted.replicas:
            return ()
        group = self._replica_parameters()
        found = []
        for number, zone in enumerate(replica_zones(self.context.zones, wanted.replicas), start=1):
            name = self.names.of(f"postgres-replica-{number}", "database")
            # Subnets, size of storage, version, users and passwords come from the primary, and the provider refuses
            # them here. So does the key, which RDS refuses for a source of the same region (API reference,
            # CreateDBInstanceReadReplica). A replica has no backups of its own: it is made again faster than restored.
            found.append(
                aws.rds.Instance(
                    f"replica-{number}",
                    identifier=name,
                    replicate_source_db=self.primary.identifier,
                    instance_class=wanted.replica_class or wanted.instance_class,
                    availability_zone=zone,
                    multi_az=False,
                    port=POSTGRES_PORT,
                    iam_database_authentication_enabled=True,
                    ca_cert_identifier="rds-ca-rsa2048-g1",
                    max_allocated_storage=wanted.storage_max_gb,
                    storage_type="gp3",
                    iops=wanted.iops,
                    storage_throughput=wanted.throughput,
                    storage_encrypted=True,
                    vpc_security_group_ids=[self.network.group_id("postgres")],
                    publicly_accessible=False,
                    parameter_group_name=group.name,
                    backup_retention_period=0,
                    copy_tags_to_snapshot=True,
                    skip_final_snapshot=True,
                    deletion_protection=wanted.deletion_protection,
                    maintenance_window=wanted.maintenance_window,
                    auto_minor_version_upgrade=self._takes_minors,
                    apply_immediately=not keep or wanted.allow_major_upgrade,
                    performance_insights_enabled=True,
                    performance_insights_kms_key_id=self.keys.arn("postgres"),
                    performance_insights_retention_period=wanted.insights_days,
                    monitoring_interval=wanted.monitoring_seconds,
                    monitoring_role_arn=self.monitoring_role.arn,
                    enabled_cloudwatch_logs_exports=list(LOGS),
                    opts=self.options(
                        depends_on=[self._monitoring_right, *self._log_groups(f"replica-{number}", name)]
                    ),
                )
            )
        return tuple(found)

    @property
    def _takes_minors(self) -> bool:
        """A version with its minor is held there."""
        return "." not in self.settings.engine_version

    def _log_groups(self, thing: str, instance: str) -> list[aws.cloudwatch.LogGroup]:
        """Made before the instance, or RDS makes them without retention or key."""
        return [self._log_group(f"{thing}-{log}", f"/aws/rds/instance/{instance}/{log}") for log in LOGS]

    def _log_group(self, thing: str, name: str) -> aws.cloudwatch.LogGroup:
        return self.log_group(thing, name, self.settings.log_days, self.keys.arn("logs"))

    def _monitoring_role(self) -> tuple[aws.iam.Role, aws.iam.RolePolicyAttachment]:
        """The role, and its right: RDS makes no instance that is monitored by a role which may not write."""
        role = service_role(self, "postgres-monitoring", "monitoring.rds.amazonaws.com")
        # AWS's own policy: it allows the log groups of the operating system's figures and nothing else.
        right = aws.iam.RolePolicyAttachment(
            "postgres-monitoring",
            role=role.name,
            policy_arn=f"arn:{self.context.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
            opts=self.options(),
        )
        return role, right

    # -- parameters ------------------------------------------------------------------------------------------

    def _parameter_groups(self) -> aws.rds.ParameterGroup:
        """The group in use; the next major version's, where it is prepared, stands beside it."""
        wanted = self.settings
        if wanted.next_major:
            self._parameters("postgres", wanted.next_major)
            if self._replicas_differ:
                self._parameters("postgres-replica", wanted.next_major)
        return self._parameters("postgres", wanted.major)

    def _replica_parameters(self) -> aws.rds.ParameterGroup:
        if self._replicas_differ:
            return self._parameters("postgres-replica", self.settings.major)
        return self.parameter_group

    @property
    def _replicas_differ(self) -> bool:
        wanted = self.settings
        return wanted.replica_class is not None and parameters.size_of(
            wanted.replica_class
        ) != parameters.size_of(wanted.instance_class)

    def _parameters(self, thing: str, major: int) -> aws.rds.ParameterGroup:
        values = self._values(thing, major)
        # One group a family: an instance changes from the one to the other in its upgrade, and Pulumi deletes the
        # old group after that.
        return aws.rds.ParameterGroup(
            f"{thing}-{major}",
            name=self.names.of(f"{thing}-{major}"),
            family=f"postgres{major}",
            description=f"PostgreSQL {major} by the size of the instance: infra/parameters.py",
            parameters=[
                aws.rds.ParameterGroupParameterArgs(
                    name=name, value=value, apply_method=parameters.apply_method(name)
                )
                for name, value in values.items()
            ],
            opts=self.options(),
        )

    def _values(self, thing: str, major: int) -> Mapping[str, str]:
        wanted = self.settings
        own = parameters.size_of(wanted.instance_class)
        primary = None
        if thing == "postgres-replica":
            own, primary = parameters.size_of(wanted.replica_class or wanted.instance_class), own
        return parameters.derive(
            own,
            major=major,
            database=wanted.database,
            storage_gb=wanted.storage_gb,
            slow_statement_ms=wanted.slow_statement_ms,
            standby_delay_seconds=wanted.standby_delay_seconds,
            primary=primary,
        )

    # -- backups, proxy, events ------------------------------------------------------------------------------

    def _copy_of_backups(self) -> None:
        region = self.settings.backup_copy_region
        if region is None:
            return
        aws.rds.InstanceAutomatedBackupsReplication(
            "backups-copy",
            source_db_instance_arn=self.primary.arn,
            kms_key_id=self.keys.copy("postgres", region).arn,
            retention_period=self.settings.backup_days,
            region=region,
            opts=self.data_options(),
        )

    def _proxy(self) -> aws.rds.Proxy:
        name = self.names.of("postgres", "proxy")
        # IAM from end to end: the proxy takes a token and asks for the database with one of its own, so that there
        # is no password anywhere, and it can log in as these roles and not as the master.
        role = service_role(
            self,
            "postgres-proxy",
            "rds.amazonaws.com",
            Statement(
                "LogInAsTheRolesOfPooledSessions",
                ["rds-db:connect"],
                self._logins(
                    [
                        self.primary.resource_id,
                        *(pulumi.Output.from_input(one) for one in self.settings.also_connect),
                    ],
                    PROXY_USERS,
                ),
            ),
            # The guide of the proxy has no condition, and a proxy that may not take its role can log in nowhere. The
            # role is bound to this account by iam:PassRole.
            trust={},
        )
        proxy = aws.rds.Proxy(
            "proxy",
            name=name,
            engine_family="POSTGRESQL",
            default_auth_scheme="IAM_AUTH",
            require_tls=True,
            role_arn=role.arn,
            vpc_subnet_ids=self.network.subnet_ids("private"),
            vpc_security_group_ids=[self.network.group_id("proxy")],
            idle_client_timeout=1800,
            # Its log would have the text of statements.
            debug_logging=False,
            opts=self.options(depends_on=[self._log_group("proxy", f"/aws/rds/proxy/{name}")]),
        )
        group = aws.rds.ProxyDefaultTargetGroup(
            "proxy",
            db_proxy_name=proxy.name,
            connection_pool_config=aws.rds.ProxyDefaultTargetGroupConnectionPoolConfigArgs(
                # The rest is for sessions that come directly: COPY, advisory locks, migrations, people.
                max_connections_percent=70,
                max_idle_connections_percent=35,
                connection_borrow_timeout=30,
            ),
            opts=self.options(),
        )
        aws.rds.ProxyTarget(
            "proxy",
            db_proxy_name=proxy.name,
            target_group_name=group.name,
            db_instance_identifier=self.primary.identifier,
            opts=self.options(),
        )
        return proxy

    def _events(self, notices: Notices) -> None:
        for urgency, categories in EVENTS.items():
            aws.rds.EventSubscription(
                f"events-{urgency}",
                name=self.names.of(f"postgres-{urgency}"),
                sns_topic=notices.arn(urgency),
                source_type="db-instance",
                source_ids=[instance.identifier for instance in (self.primary, *self.replicas)],
                event_categories=list(categories),
                opts=self.options(depends_on=[notices.policies[urgency]]),
            )
