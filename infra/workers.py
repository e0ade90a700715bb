"""The jobs as Fargate tasks: scheduler, ingest, and migrations when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import pulumi
import pulumi_aws as aws

from infra.archive import Archive, catalogue_name, partition_statements
from infra.component import Component, Context
from infra.iam import Statement, Text, service_role
from infra.keys import CLUSTER, Keys
from infra.network import POSTGRES_PORT, Network
from infra.postgres import MASTER, Postgres
from infra.settings import Workers as Settings
from infra.stream import Stream, key_use

Task = Literal["worker", "ingest", "migrate"]

USER: Final = "10001:10001"
"""Of jobs/Dockerfile, which has nobody else but root."""
SCRATCH: Final = "/scratch"
"""The only folder that a task may write to; of jobs/Dockerfile, which gives it to USER."""
CERTIFICATES: Final = "/etc/eav/rds-ca.pem"
"""Of jobs/Dockerfile: who may say to be a server of RDS."""
ALIVE: Final = f"{SCRATCH}/alive"
ALIVE_MINUTES: Final = 10
"""Older than this, the file of `--alive` says that the loop hangs: the longest statement of eav_ingest is 5 minutes."""
STOP_SECONDS: Final = 60
"""From SIGTERM to SIGKILL. The worker ends within 10 seconds, an ingester with the batch that it is at; 30 is ECS's own
choice, and a server that is slow just then can need more."""

NOTHING_PUSHED: Final = f"sha256:{'0' * 64}"
"""The digest of no image, for a stack whose registry is still empty."""
IMAGES_KEPT: Final = 100

MIGRATE_CPU: Final = 256
MIGRATE_MEMORY_MB: Final = 512
IAM_LOGINS: Final = ("eav_analyst", "eav_app", "eav_ingest", "eav_jobs", "eav_monitor", "eav_superadmin")
"""Roles that log in with tokens of IAM; a migration grants them rds_iam (docs/jobs.md)."""


def counts(settings: Settings) -> dict[Literal["worker", "ingest"], int]:
    """How many tasks of each service run: none while there is no image."""
    if settings.image_digest is None:
        return {"worker": 0, "ingest": 0}
    return {"worker": settings.workers, "ingest": settings.ingesters}


class Workers(Component):
    """The jobs as Fargate tasks: scheduler, ingest, and migrations when asked.

    Attributes: `cluster` (aws.ecs.Cluster), `worker`, `ingest` (aws.ecs.Service), `repository` (aws.ecr.Repository),
    `tasks` (name → aws.ecs.TaskDefinition), `logs` (name → aws.cloudwatch.LogGroup).

    A stack without an image has all of this with services of no tasks, so that the first image is a change of one
    setting, and what watches the services is there before they are.
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
        self.settings = context.settings.workers
        self.keys = keys
        self.network = network
        self.postgres = postgres
        self.repository = self._repository()
        self.cluster = self._cluster()
        self.logs: dict[Task, aws.cloudwatch.LogGroup] = {
            "worker": self._log_group("worker"),
            "ingest": self._log_group("ingest"),
            "migrate": self._log_group("migrate"),
        }
        # Who pulls the image and opens the log stream, before there is a task to do it.
        self._starter = service_role(
            self, "tasks-start", "ecs-tasks.amazonaws.com", *self._start_statements(), trust=self._trust()
        )
        self.tasks: dict[Task, aws.ecs.TaskDefinition] = {
            "worker": self._worker_task(archive),
            "ingest": self._ingest_task(stream),
            "migrate": self._migrate_task(),
        }
        self.worker = self._service("worker")
        self.ingest = self._service("ingest")
        self.register_outputs(
            {
                "repository": self.repository.repository_url,
                "cluster": self.cluster.name,
                "migrate": self.tasks["migrate"].family,
            }
        )

    # -- where images are, and where tasks run -----------------------------------------------------------------

    def _repository(self) -> aws.ecr.Repository:
        repository = aws.ecr.Repository(
            "jobs",
            name=self.names.of("jobs"),
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(
                    encryption_type="KMS", kms_key=self.keys.arn("compute")
                )
            ],
            # Images can be built again from the commit that they are tagged with.
            force_delete=not self.context.settings.protect_data,
            opts=self.options(),
        )
        rules = [
            # Left behind by a push that was cut short. Parts of an image of several platforms have no tag either, and
            # ECR keeps them as long as the image.
            _expire(1, "Pushed and never tagged", {"tagStatus": "untagged", **_older(days=7)}),
            # The newest hundred are years of releases: what runs is among them.
            _expire(2, "All but the newest", {"tagStatus": "any", **_beyond(IMAGES_KEPT)}),
        ]
        aws.ecr.LifecyclePolicy(
            "jobs",
            repository=repository.name,
            policy=json.dumps({"rules": rules}),
            opts=self.options(),
        )
        return repository

    def _cluster(self) -> aws.ecs.Cluster:
        # Nobody may open a shell in a task: no service enables it and no task has the rights. Should somebody change
        # that, what is typed there is encrypted and kept from the first moment.
        shells = self._log_group("shells")
        name = self.names.of(CLUSTER, "cluster")
        watched = []
        if self.settings.insights != "disabled":
            # Made before the cluster, or ECS makes it without a key.
            watched.append(self._log_group("insights", f"/aws/ecs/containerinsights/{name}/performance"))
        return aws.ecs.Cluster(
            "tasks",
            name=name,
            # How many tasks run is in no other metric; without it, that a service has none shows in what it left
            # undone.
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value=self.settings.insights)],
            configuration=aws.ecs.ClusterConfigurationArgs(
                # Partitions lie on the disk of the worker while they are archived.
                managed_storage_configuration=aws.ecs.ClusterConfigurationManagedStorageConfigurationArgs(
                    fargate_ephemeral_storage_kms_key_id=self.keys.arn("compute")
                ),
                execute_command_configuration=aws.ecs.ClusterConfigurationExecuteCommandConfigurationArgs(
                    kms_key_id=self.keys.arn("compute"),
                    logging="OVERRIDE",
                    log_configuration=aws.ecs.ClusterConfigurationExecuteCommandConfigurationLogConfigurationArgs(
                        cloud_watch_encryption_enabled=True, cloud_watch_log_group_name=shells.name
                    ),
                ),
            ),
            opts=self.options(depends_on=watched),
        )

    def _log_group(self, thing: str, name: str | None = None) -> aws.cloudwatch.LogGroup:
        name = name or self.names.path("tasks", thing)
        return self.log_group(f"tasks-{thing}", name, self.settings.log_days, self.keys.arn("logs"))

    # -- what each may do --------------------------------------------------------------------------------------

    def _trust(self) -> dict[str, dict[str, str]]:
        # Tasks of this account and region; a cluster's name is no part of what ECS says here.
        return {
            "StringEquals": {"aws:SourceAccount": self.context.account},
            "ArnLike": {"aws:SourceArn": self.context.arn("ecs", "*")},
        }

    def _start_statements(self) -> tuple[Statement, ...]:
        return (
            # A token for the registry as a whole: ECR knows no narrower one. What can be pulled says the next.
            Statement("LogInToTheRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
            Statement(
                "PullTheImage",
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                [self.repository.arn],
            ),
            Statement(
                "WriteLogs",
                ["logs:CreateLogStream", "logs:PutLogEvents"],
                [pulumi.Output.concat(group.arn, ":*") for group in self.logs.values()],
            ),
        )

    def _worker_task(self, archive: Archive) -> aws.ecs.TaskDefinition:
        wanted = self.context.settings
        # Where `archive-partitions --ddl` puts its tables; there is none without a warehouse.
        catalogue = {"GLUE_DATABASE": catalogue_name(self.names)} if wanted.warehouse.kind != "none" else {}
        return self._task(
            "worker",
            ["python", "-m", "jobs", "worker", "--json", "--alive", ALIVE],
            size=(wanted.workers.worker_cpu, wanted.workers.worker_memory_mb),
            statements=[
                self.postgres.may_connect("eav_jobs"),
                *partition_statements(self.context, archive, self.keys),
            ],
            environment={
                **self._log_in_as("eav_jobs"),
                "ARCHIVE_BUCKET": archive.partitions.bucket,
                # The bucket takes objects under this key only.
                "KMS_KEY_ID": self.keys.arn("archive"),
                "PARTITIONS_LEAVE": str(wanted.archive.partitions_leave).lower(),
                **catalogue,
            },
        )

    def _ingest_task(self, stream: Stream) -> aws.ecs.TaskDefinition:
        return self._task(
            "ingest",
            ["python", "-m", "jobs", "ingest", self._source(stream), "--follow", "--alive", ALIVE],
            size=(self.settings.ingest_cpu, self.settings.ingest_memory_mb),
            statements=[
                self.postgres.may_connect("eav_ingest"),
                Statement(
                    "ReadTheStream",
                    [
                        "kinesis:DescribeStreamSummary",
                        "kinesis:GetRecords",
                        "kinesis:GetShardIterator",
                        "kinesis:ListShards",
                    ],
                    [stream.stream.arn],
                ),
                key_use(self.context, self.keys, stream, "kms:Decrypt"),
            ],
            environment=self._log_in_as("eav_ingest"),
        )

    def _migrate_task(self) -> aws.ecs.TaskDefinition:
        # The master migrates: nobody else may make roles and extensions. The task reads the secret itself, so that no
        # environment has it. Once roles that it has made log in with tokens RDS may want one of the master, too.
        secret = self.postgres.secret_arn
        return self._task(
            "migrate",
            ["python", "-m", "alembic", "-x", f"iam_logins={','.join(IAM_LOGINS)}", "upgrade", "head"],
            size=(MIGRATE_CPU, MIGRATE_MEMORY_MB),
            statements=[
                self.postgres.may_connect(MASTER),
                Statement("ReadTheMastersSecret", ["secretsmanager:GetSecretValue"], [secret]),
                Statement(
                    "KeyOfTheSecret",
                    ["kms:Decrypt"],
                    [self.keys.arn("postgres")],
                    conditions={
                        "StringEquals": {
                            **self.context.via("secretsmanager"),
                            "kms:EncryptionContext:SecretARN": secret,
                        }
                    },
                ),
            ],
            environment={"DATABASE_URL": self._url(), "DATABASE_SECRET_ARN": secret},
        )

    def _source(self, stream: Stream) -> pulumi.Output[str]:
        return pulumi.Output.concat("kinesis://", stream.stream.name)

    # -- tasks -------------------------------------------------------------------------------------------------

    def _url(self, user: str | None = None) -> pulumi.Output[str]:
        """The primary itself: COPY and advisory locks would pin every session of the proxy."""
        return pulumi.Output.concat(
            "postgresql://",
            f"{user}@" if user else "",
            self.postgres.primary.address,
            f":{POSTGRES_PORT}/{self.context.settings.postgres.database}",
            f"?sslmode=verify-full&sslrootcert={CERTIFICATES}",
        )

    def _log_in_as(self, user: str) -> dict[str, Text]:
        return {"DATABASE_URL": self._url(user), "DATABASE_IAM_AUTH": "true"}

    def _task(
        self,
        thing: Task,
        command: Sequence[Text],
        *,
        size: tuple[int, int],
        statements: Sequence[Statement],
        environment: Mapping[str, Text],
    ) -> aws.ecs.TaskDefinition:
        role = service_role(
            self, f"task-{thing}", "ecs-tasks.amazonaws.com", *statements, trust=self._trust()
        )
        cpu, memory = size
        return aws.ecs.TaskDefinition(
            thing,
            family=self.names.of(thing),
            cpu=str(cpu),
            memory=str(memory),
            network_mode="awsvpc",
            requires_compatibilities=["FARGATE"],
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                cpu_architecture="ARM64", operating_system_family="LINUX"
            ),
            execution_role_arn=self._starter.arn,
            task_role_arn=role.arn,
            # On Fargate's own 20 GiB. An archive needs its largest file twice, 2 GiB; the image takes 1 GiB.
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name="scratch")],
            container_definitions=self._containers(thing, command, environment),
            opts=self.options(),
        )

    def _containers(
        self, thing: Task, command: Sequence[Text], environment: Mapping[str, Text]
    ) -> pulumi.Output[str]:
        region = self.context.region
        variables: dict[str, Text] = {
            "AWS_DEFAULT_REGION": region,
            "AWS_REGION": region,
            "TMPDIR": SCRATCH,
            "TZ": "UTC",
            **environment,
        }
        digest = self.settings.image_digest or NOTHING_PUSHED
        container: dict[str, Any] = {
            "name": thing,
            "image": pulumi.Output.concat(self.repository.repository_url, "@", digest),
            "essential": True,
            "command": list(command),
            "user": USER,
            "privileged": False,
            "readonlyRootFilesystem": True,
            # The first process of a container is sent no signal that it has no handler for: with an init of its own,
            # a SIGTERM ends a task also while Python is still starting.
            "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True},
            "environment": [{"name": name, "value": variables[name]} for name in sorted(variables)],
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": SCRATCH, "readOnly": False}],
            "stopTimeout": STOP_SECONDS,
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": self.logs[thing].name,
                    "awslogs-region": region,
                    "awslogs-stream-prefix": thing,
                    # What is said must not hold up what is done when CloudWatch is away.
                    "mode": "non-blocking",
                    "max-buffer-size": "4m",
                },
            },
        }
        if ALIVE in command:
            container["healthCheck"] = {
                "command": ["CMD-SHELL", f'test -n "$(find {ALIVE} -mmin -{ALIVE_MINUTES})"'],
                "interval": 60,
                "timeout": 5,
                "retries": 3,
                "startPeriod": 120,
            }
        return pulumi.Output.from_input([container]).apply(lambda known: json.dumps(known, sort_keys=True))

    def _service(self, thing: Literal["worker", "ingest"]) -> aws.ecs.Service:
        return aws.ecs.Service(
            thing,
            name=self.names.of(thing),
            cluster=self.cluster.arn,
            task_definition=self.tasks[thing].arn,
            desired_count=counts(self.settings)[thing],
            launch_type="FARGATE",
            platform_version="LATEST",
            # The new task is there before the old one goes. Both at once do no harm: of the workers one leads, and of a
            # shard there is one ingester at a time, by its lock; the new one takes each as it becomes free.
            deployment_minimum_healthy_percent=100,
            deployment_maximum_percent=200,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(
                enable=True, rollback=True
            ),
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=self.network.subnet_ids("private"),
                security_groups=[self.network.group_id("jobs")],
                assign_public_ip=False,
            ),
            enable_execute_command=False,
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            opts=self.options(),
        )


def _expire(priority: int, text: str, selection: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rulePriority": priority,
        "description": text,
        "selection": dict(selection),
        "action": {"type": "expire"},
    }


def _older(*, days: int) -> dict[str, Any]:
    return {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}


def _beyond(count: int) -> dict[str, Any]:
    return {"countType": "imageCountMoreThan", "countNumber": count}
