"""A stack that runs in the emulator, as far as operations on its database look at it, and a person beside it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.ecs.models import ecs_backends
from moto.rds import models

from infra.adopt import adopt
from infra.graph import Graph
from infra.operation import Line, Patience, Site, Step, run
from tests.conftest import Database
from tests.infra.account import empty_account

ACCOUNT = "123456789012"
LONG_AGO = datetime.now(UTC) - timedelta(days=365)


class KilledError(Exception):
    """As if the process had been."""


class Anywhere(frozenset[str]):
    """Has every address."""

    def __contains__(self, address: object) -> bool:
        return address is not None


@dataclass
class Running:
    """The emulator, the stack's state as Pulumi would export it, and how often AWS was asked for a change."""

    graph: Graph
    session: Any
    database_url: str | None
    state: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    mortal: bool = False
    """Each step, and each change that AWS is asked for, is killed once before it and once after it."""
    deaths: set[tuple[str, ...]] = field(default_factory=set)
    at: Collection[str] = field(default_factory=Anywhere)
    """The addresses of every endpoint: wherever the server of the tests is, in a container perhaps."""
    offered: str = "18.1"
    """The version that RDS can upgrade to."""
    slept: Callable[[], None] = lambda: None
    minutes: float = 0.0

    def site(self) -> Site:
        return Site(
            self.graph, self.session, self.database_url, lambda stack: self.state, lambda host: self.at
        )

    def run(self, steps: Callable[[Site], Sequence[Step]], *, execute: bool = True) -> list[Line]:
        """Look at the steps, and do them."""

        def sleep(seconds: float) -> None:
            self.minutes += seconds / 60
            assert self.minutes < 600, "it waits for ever"
            self.slept()

        def mortal(step: Step) -> Step:
            def do() -> None:
                self.die("before", step.title)
                assert step.do is not None
                step.do()
                self.die("after", step.title)

            return replace(step, do=do if step.do else None)

        patience = Patience(every=60, sleep=sleep, clock=lambda: self.minutes * 60)
        found = [mortal(step) for step in steps(self.site())]
        return run(found, execute=execute, say=lambda line: None, patience=patience)

    def die(self, *where: str) -> None:
        """Once in each place."""
        if self.mortal and where not in self.deaths:
            self.deaths.add(where)
            raise KilledError

    def to_the_end(
        self, steps: Callable[[Site], Sequence[Step]], person: Callable[[Line], object], most: int = 100
    ) -> None:
        """Run it again and again, as often as it dies; `person` does what it says is a person's."""
        for _ in range(most):
            try:
                line = left(self.run(steps))
            except KilledError:
                continue
            if line is None:
                return
            assert line.state == "by hand", line
            person(line)
        raise AssertionError("it comes to no end")

    @cached_property
    def rds(self) -> Any:
        return self.session.client("rds")

    @property
    def backend(self) -> Any:
        """The emulator's own, for what its API cannot say."""
        return models.rds_backends[ACCOUNT][self.graph.settings.region]

    def instances(self) -> dict[str, str]:
        """Identifier → DbiResourceId."""
        found = self.rds.describe_db_instances()["DBInstances"]
        return {one["DBInstanceIdentifier"]: one["DbiResourceId"] for one in found}

    # -- what a person does ----------------------------------------------------------------------------------

    def make_group(self, name: str, family: str) -> None:
        """A parameter group as RDS shows it: the program's values and RDS's own."""
        self.rds.create_db_parameter_group(
            DBParameterGroupName=name, DBParameterGroupFamily=family, Description="of this stack"
        )
        values = {
            "shared_preload_libraries": "pg_stat_statements,pg_cron,pgaudit",
            "rds.extensions": "pg_partman, pg_cron, pg_stat_statements, pgaudit, plpgsql",
        }
        self.rds.modify_db_parameter_group(
            DBParameterGroupName=name,
            Parameters=[
                {"ParameterName": one, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
                for one, value in values.items()
            ],
        )

    def let_in(self, *resources: str) -> None:
        """`also_connect`, as `pulumi up` carries it out."""
        iam = self.session.client("iam")
        for role, name, text in connecting(self.graph):
            document = json.loads(text)
            for statement in document["Statement"]:
                if "rds-db:connect" in statement["Action"]:
                    arn, user = statement["Resource"][0].rsplit(":", 1)
                    statement["Resource"] += [f"{arn}:{one}/{user.split('/')[1]}" for one in resources]
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))

    def take_archive_over(self, database: Database) -> None:
        """What `archive-partitions --adopt` leaves in the database."""
        database.all("SELECT ops.archive_take_over('bucket', 'partitions')::text")
        database.all("SELECT ops.archive_taken_over('bucket', 'partitions', gen_random_uuid())::text")

    def scale(self, count: int) -> None:
        """`workers.workers` and `workers.ingesters`, as `pulumi up` carries them out."""
        for service in ecs_backends[ACCOUNT][self.graph.settings.region].services.values():
            service.desired_count = service.running_count = count

    def import_adopted(self, detail: str) -> None:
        """Does what a by-hand line says of the state."""
        pairs = re.findall(r"(db-[A-Z0-9]+)=(db-[A-Z0-9]+)", detail)
        self.state, _ = adopt(self.state, dict(pairs))

    def replace_replicas(self) -> None:
        """Replicas are made anew, of what bears the primary's name now."""
        for one in self.graph.of_kind("rds.Instance"):
            if "replicateSourceDb" in one.inputs:
                self.backend.databases[one.inputs["identifier"]].source_db_instance_identifier = one.inputs[
                    "replicateSourceDb"
                ]


def left(lines: list[Line]) -> Line | None:
    """The first step that is not done."""
    return next((line for line in lines if line.state != "done"), None)


def connecting(graph: Graph) -> list[tuple[str, str, str]]:
    """Role, name and text of each policy that lets somebody log in to the database."""
    return [
        (one.inputs["role"], one.inputs["name"], one.inputs["policy"])
        for one in graph.of_kind("iam.RolePolicy")
        if "rds-db:connect" in one.inputs["policy"]
    ]


@contextmanager
def running(
    graph: Graph, patch: pytest.MonkeyPatch, database_url: str | None = None, *, managed: bool = False
) -> Iterator[Running]:
    """The stack of `graph`, running: instances and groups by the names it declares, its rights, its tasks."""
    _mend(patch)
    with empty_account(patch):
        session = boto3.Session(region_name=graph.settings.region)
        found = Running(graph, session, database_url)
        _build(found, managed=managed)
        _watch(found, patch)
        yield found


def _mend(patch: pytest.MonkeyPatch) -> None:
    """What the emulator leaves out: ids that differ, green replicas, and space in a parameter group for AWS's own."""
    original = models.DBInstance.__init__

    def made(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        self.dbi_resource_id = new_id()
        # Before the server of these tests was started, as a server of RDS is started after its instance was made.
        self.instance_create_time = LONG_AGO

    patch.setattr(models.DBInstance, "__init__", made)
    patch.setattr(models, "BlueGreenDeployment", WithReplicas)
    delete = models.RDSBackend.delete_blue_green_deployment

    def delete_all(self: Any, blue_green_deployment_identifier: str, delete_target: bool = False) -> Any:
        found = delete(self, blue_green_deployment_identifier, delete_target)
        members = found.members if isinstance(found, WithReplicas) else ()
        for _, green in members if delete_target else ():
            assert not green.deletion_protection
            del self.databases[green.db_instance_identifier]
        return found

    patch.setattr(models.RDSBackend, "delete_blue_green_deployment", delete_all)


def new_id() -> str:
    """A DbiResourceId."""
    return f"db-{uuid4().hex[:26].upper()}"


class WithReplicas(models.BlueGreenDeployment):
    """The emulator makes a green primary; RDS makes a green instance for each."""

    def __init__(self, backend: Any, *arguments: Any, **settings: Any) -> None:
        self.members: list[tuple[Any, Any]] = []
        super().__init__(backend, *arguments, **settings)
        blue, green = (backend.find_db_from_id(one) for one in (self.source, self.target))
        for name in blue.replicas:
            made = copy.copy(green)
            made.dbi_resource_id, made.db_instance_identifier = new_id(), self._generate_green_id(name)
            made.source_db_instance_identifier = green.db_instance_identifier
            backend.databases[made.db_instance_identifier] = made
            self.members.append((backend.databases[name], made))
        self.set_status(self.SupportedStates.AVAILABLE)

    def set_status(self, value: Any) -> None:
        super().set_status(value)
        self.switchover_details += [
            models.SwitchoverDetails(blue.arn, green.arn, self.status) for blue, green in self.members
        ]

    def switchover(self) -> None:
        super().switchover()
        databases = self.backend.databases
        for blue, green in self.members:
            name = blue.db_instance_identifier
            for one, to in ((blue, f"{name}-old1"), (green, name)):
                del databases[one.db_instance_identifier]
                one.db_instance_identifier = to
                databases[to] = one
        self.set_status(self.SupportedStates.SWITCHOVER_COMPLETED)


def _watch(found: Running, patch: pytest.MonkeyPatch) -> None:
    """Count what changes anything, kill where it is asked for, and answer what the emulator cannot."""
    client = found.session.client
    last: list[str] = []

    def is_change(model: Any) -> bool:
        return not model.name.startswith(("Describe", "List", "Get"))

    def before(model: Any, params: Any, **_: Any) -> None:
        if is_change(model):
            last[:] = ["before", model.name, str(params["body"].get("DBInstanceIdentifier"))]
            found.die(*last)
            found.changes.append(model.name)

    def after(model: Any, **_: Any) -> None:
        if is_change(model):
            found.die("after", *last[1:])

    def versions(params: Any, **_: Any) -> Any:
        target = {"Engine": "postgres", "EngineVersion": found.offered, "IsMajorVersionUpgrade": True}
        version = {"EngineVersion": params["body"]["EngineVersion"], "ValidUpgradeTarget": [target]}
        return SimpleNamespace(status_code=200), {"DBEngineVersions": [version]}

    def watched(name: str, **settings: Any) -> Any:
        made = client(name, **settings)
        if name == "rds":
            made.meta.events.register("before-call.rds.DescribeDBEngineVersions", versions)
            made.meta.events.register("before-call.rds", before)
            made.meta.events.register("after-call.rds", after)
        return made

    patch.setattr(found.session, "client", watched)


def _build(found: Running, *, managed: bool) -> None:
    graph, rds = found.graph, found.rds
    ec2 = found.session.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{graph.settings.region}{zone}"
        )["Subnet"]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    key = found.session.client("kms").create_key()["KeyMetadata"]["Arn"]
    group = ec2.create_security_group(GroupName="postgres", Description="postgres", VpcId=vpc)["GroupId"]
    for one in graph.of_kind("rds.ParameterGroup"):
        found.make_group(one.inputs["name"], one.inputs["family"])
    for one in graph.of_kind("rds.SubnetGroup"):
        rds.create_db_subnet_group(
            DBSubnetGroupName=one.inputs["name"], DBSubnetGroupDescription="database", SubnetIds=subnets
        )
    for one in graph.of_kind("rds.Instance"):
        inputs = one.inputs
        if "replicateSourceDb" in inputs:
            rds.create_db_instance_read_replica(
                DBInstanceIdentifier=inputs["identifier"],
                SourceDBInstanceIdentifier=inputs["replicateSourceDb"],
                DBInstanceClass=inputs["instanceClass"],
            )
            found.backend.databases[inputs["identifier"]].dbi_resource_id = new_id()
            continue
        master: dict[str, Any] = (
            {"ManageMasterUserPassword": True} if managed else {"MasterUserPassword": uuid4().hex}
        )
        rds.create_db_instance(
            DBInstanceIdentifier=inputs["identifier"],
            DBInstanceClass=inputs["instanceClass"],
            Engine="postgres",
            EngineVersion=f"{graph.settings.postgres.major}.4",
            StorageEncrypted=True,
            KmsKeyId=key,
            AllocatedStorage=int(inputs["allocatedStorage"]),
            MaxAllocatedStorage=int(inputs["maxAllocatedStorage"]),
            StorageType="gp3",
            Iops=int(inputs.get("iops") or 3000),
            StorageThroughput=int(inputs.get("storageThroughput") or 125),
            MasterUsername=inputs["username"],
            MultiAZ=inputs["multiAz"],
            DBSubnetGroupName=inputs["dbSubnetGroupName"],
            VpcSecurityGroupIds=[group],
            DBParameterGroupName=inputs["parameterGroupName"],
            BackupRetentionPeriod=int(inputs["backupRetentionPeriod"]),
            DeletionProtection=inputs["deletionProtection"],
            EnableIAMDatabaseAuthentication=inputs["iamDatabaseAuthenticationEnabled"],
            EnableCloudwatchLogsExports=list(inputs["enabledCloudwatchLogsExports"]),
            CopyTagsToSnapshot=inputs["copyTagsToSnapshot"],
            AutoMinorVersionUpgrade=inputs["autoMinorVersionUpgrade"],
            Tags=[{"Key": "Project", "Value": "eav-platform"}],
            **master,
        )
    for one in graph.of_kind("rds.Proxy"):
        rds.create_db_proxy(
            DBProxyName=one.inputs["name"],
            EngineFamily="POSTGRESQL",
            Auth=[],
            RoleArn="arn:aws:iam::123456789012:role/proxy",
            VpcSubnetIds=subnets,
        )
    for one in graph.of_kind("rds.ProxyTarget"):
        rds.register_db_proxy_targets(
            DBProxyName=one.inputs["dbProxyName"], DBInstanceIdentifiers=[one.inputs["dbInstanceIdentifier"]]
        )
    iam = found.session.client("iam")
    for role, name, text in connecting(graph):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=text)
    ecs = found.session.client("ecs")
    ecs.create_cluster(clusterName=graph.of_kind("ecs.Service")[0].inputs["cluster"].rsplit("/", 1)[-1])
    ecs.register_task_definition(
        family="task", containerDefinitions=[{"name": "task", "image": "task", "memory": 64}]
    )
    for one in graph.of_kind("ecs.Service"):
        ecs.create_service(
            cluster=one.inputs["cluster"].rsplit("/", 1)[-1],
            serviceName=one.inputs["name"],
            taskDefinition="task",
            desiredCount=1,
        )
    found.scale(1)
    found.state = exported(found)


def exported(found: Running) -> dict[str, Any]:
    """The stack's state, as far as instances go, and one resource that has their ids in its text."""
    resources: list[dict[str, Any]] = []
    for name, resource in found.instances().items():
        resources.append(
            {
                "urn": f"urn:pulumi:{found.graph.settings.stack}::eav-platform::aws:rds/instance:Instance::{name}",
                "type": "aws:rds/instance:Instance",
                "id": resource,
                "outputs": {"id": resource, "resourceId": resource, "identifier": name},
            }
        )
    role, _, text = connecting(found.graph)[0]
    resources.append(
        {"urn": f"urn::{role}", "type": "aws:iam/rolePolicy:RolePolicy", "id": role, "inputs": text}
    )
    return {"version": 3, "deployment": {"resources": resources}}
