"""A stack that runs in the emulator, as far as operations on its database look at it, and a person beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto import mock_aws
from moto.rds import models

from infra.adopt import adopt
from infra.graph import Graph
from infra.operation import Line, Patience, Site, Step, run

LONG_AGO = datetime.now(UTC) - timedelta(days=365)


class Killed(Exception):
    """As if the process had been."""


@dataclass
class Running:
    """The emulator, the stack's state as Pulumi would export it, and how often AWS was asked for a change."""

    graph: Graph
    session: Any
    database_url: str | None
    state: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    kill_at: int | None = None
    """At which change the process is killed: before it is asked for if even, after it if odd, of 2 n."""
    slept: Callable[[], None] = lambda: None
    minutes: float = 0.0

    def site(self) -> Site:
        return Site(self.graph, self.session, self.database_url, lambda stack: self.state)

    def run(self, steps: Callable[[Site], Sequence[Step]], *, execute: bool = True) -> list[Line]:
        """Look at the steps, and do them."""

        def sleep(seconds: float) -> None:
            self.minutes += seconds / 60
            assert self.minutes < 600, "it waits for ever"
            self.slept()

        patience = Patience(every=60, sleep=sleep, clock=lambda: self.minutes * 60)
        return run(steps(self.site()), execute=execute, say=lambda line: None, patience=patience)

    @cached_property
    def rds(self) -> Any:
        return self.session.client("rds")

    def instances(self) -> dict[str, str]:
        """Identifier → DbiResourceId."""
        found = self.rds.describe_db_instances()["DBInstances"]
        return {one["DBInstanceIdentifier"]: one["DbiResourceId"] for one in found}

    # -- what a person does ----------------------------------------------------------------------------------

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

    def scale(self, count: int) -> None:
        """`workers.workers` and `workers.ingesters`, as `pulumi up` carries them out."""
        for backend in self._ecs().values():
            backend.desired_count = backend.running_count = count

    def _ecs(self) -> dict[str, Any]:
        from moto.ecs.models import ecs_backends

        return dict(ecs_backends["123456789012"][self.graph.settings.region].services)

    def import_adopted(self, detail: str) -> None:
        """Does what a by-hand line says of the state."""
        pairs = re.findall(r"(db-[A-Z0-9]+)=(db-[A-Z0-9]+)", detail)
        self.state, _ = adopt(self.state, dict(pairs))

    def replace_replicas(self) -> None:
        """Replicas are made anew, of what bears the primary's name now."""
        backend = models.rds_backends["123456789012"][self.graph.settings.region]
        for one in self.graph.of_kind("rds.Instance"):
            if "replicateSourceDb" in one.inputs:
                backend.databases[one.inputs["identifier"]].source_db_instance_identifier = one.inputs[
                    "replicateSourceDb"
                ]


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
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "emulated")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        patch.delenv(name, raising=False)
    _mend(patch)
    with mock_aws():
        session = boto3.Session(region_name=graph.settings.region)
        found = Running(graph, session, database_url)
        _build(found, managed=managed)
        _watch(found, patch)
        yield found


def _mend(patch: pytest.MonkeyPatch) -> None:
    """What the emulator leaves out: all its instances have one DbiResourceId, and were made just now."""
    original = models.DBInstance.__init__

    def made(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        self.dbi_resource_id = f"db-{uuid4().hex[:26].upper()}"
        # Before the server of these tests was started, as a server of RDS is started after its instance was made.
        self.instance_create_time = LONG_AGO

    patch.setattr(models.DBInstance, "__init__", made)


def _watch(found: Running, patch: pytest.MonkeyPatch) -> None:
    """Count what changes anything, and kill where it is asked for."""
    client = found.session.client

    def watched(name: str, **settings: Any) -> Any:
        made = client(name, **settings)

        def is_change(model: Any) -> bool:
            return name == "rds" and not model.name.startswith(("Describe", "List"))

        def before(model: Any, **_: Any) -> None:
            if is_change(model):
                found.changes.append(model.name)
                if found.kill_at == 2 * (len(found.changes) - 1):
                    raise Killed

        def after(model: Any, **_: Any) -> None:
            if is_change(model) and found.kill_at == 2 * (len(found.changes) - 1) + 1:
                raise Killed

        made.meta.events.register("before-call.*.*", before)
        made.meta.events.register("after-call.*.*", after)
        return made

    patch.setattr(found.session, "client", watched)


def _build(found: Running, *, managed: bool) -> None:
    graph, rds = found.graph, found.rds
    ec2 = found.session.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{graph.settings.region}{zone}")[
            "Subnet"
        ]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="postgres", Description="postgres", VpcId=vpc)["GroupId"]
    for one in graph.of_kind("rds.ParameterGroup"):
        rds.create_db_parameter_group(
            DBParameterGroupName=one.inputs["name"],
            DBParameterGroupFamily=one.inputs["family"],
            Description="of this stack",
        )
    names = {}
    for one in graph.of_kind("rds.SubnetGroup"):
        names[one.inputs["name"]] = rds.create_db_subnet_group(
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
            backend = models.rds_backends["123456789012"][graph.settings.region]
            backend.databases[inputs["identifier"]].dbi_resource_id = f"db-{uuid4().hex[:26].upper()}"
            continue
        master: dict[str, Any] = (
            {"ManageMasterUserPassword": True} if managed else {"MasterUserPassword": uuid4().hex}
        )
        rds.create_db_instance(
            DBInstanceIdentifier=inputs["identifier"],
            DBInstanceClass=inputs["instanceClass"],
            Engine="postgres",
            EngineVersion=f"{graph.settings.postgres.major}.4",
            AllocatedStorage=int(inputs["allocatedStorage"]),
            MaxAllocatedStorage=int(inputs["maxAllocatedStorage"]),
            StorageType="gp3",
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
    ecs.register_task_definition(family="task", containerDefinitions=[{"name": "task", "image": "task", "memory": 64}])
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
    resources.append({"urn": f"urn::{role}", "type": "aws:iam/rolePolicy:RolePolicy", "id": role, "inputs": text})
    return {"version": 3, "deployment": {"resources": resources}}
