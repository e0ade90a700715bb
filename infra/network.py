"""The VPC: tiers of subnets, ways out, endpoints, and who may talk to whom."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import pulumi
import pulumi_aws as aws

from infra import subnets
from infra.component import Component, Context
from infra.iam import Statement, document, service_role
from infra.keys import Keys
from infra.settings import Settings
from infra.subnets import Tier

Group = Literal["bastion", "jobs", "proxy", "postgres", "warehouse", "endpoints"]
GROUPS: Final[dict[Group, str]] = {
    "bastion": "people, through SSM Session Manager",
    "jobs": "tasks and functions that move data",
    "proxy": "RDS Proxy",
    "postgres": "RDS PostgreSQL and its replicas",
    "warehouse": "Redshift",
    "endpoints": "interface endpoints of AWS services",
}
POSTGRES_PORT: Final = 5432
REDSHIFT_PORT: Final = 5439
HTTPS: Final = 443


class Edge(NamedTuple):
    """Who may open a connection to whom."""

    source: Group
    target: Group
    port: int
    why: str


EDGES: Final = (
    Edge("jobs", "proxy", POSTGRES_PORT, "short sessions of jobs"),
    Edge("jobs", "postgres", POSTGRES_PORT, "COPY, advisory locks and other sessions that a proxy would pin"),
    Edge("bastion", "postgres", POSTGRES_PORT, "psql and alembic"),
    Edge("proxy", "postgres", POSTGRES_PORT, "pooled sessions"),
    Edge("jobs", "warehouse", REDSHIFT_PORT, "migrations and loads"),
    Edge("bastion", "warehouse", REDSHIFT_PORT, "psql and alembic"),
    Edge("jobs", "endpoints", HTTPS, "AWS APIs"),
    Edge("bastion", "endpoints", HTTPS, "AWS APIs"),
    Edge("proxy", "endpoints", HTTPS, "the secret of the database"),
    Edge("warehouse", "endpoints", HTTPS, "the stream, keys and logs"),
)
"""All connections inside the VPC, where a stack has both groups: a rule out of the one, and a rule into the other."""

OUT: Final[dict[Group, str]] = {
    "jobs": "AWS APIs without an endpoint",
    "bastion": "SSM and packages",
    "warehouse": "AWS APIs without an endpoint",
}
"""Who may open HTTPS connections to the internet, through NAT."""

GATEWAYS: Final[dict[Literal["s3", "dynamodb"], tuple[Group, ...]]] = {
    "s3": ("jobs", "bastion", "warehouse"),
    "dynamodb": ("jobs",),
}
"""Who uses the free gateway endpoints; they have no group, only a list of address ranges."""


def groups(settings: Settings) -> tuple[Group, ...]:
    """Those that a stack has members for: a door that leads nowhere is forgotten open."""
    empty = {
        "bastion": not settings.network.bastion,
        "endpoints": not settings.network.interface_endpoints,
        "proxy": not settings.postgres.proxy,
        "warehouse": settings.warehouse.kind == "none",
    }
    return tuple(name for name in GROUPS if not empty.get(name))


class Network(Component):
    """VPC, subnets by tier, NAT, endpoints, flow logs, and security groups.

    Attributes: `vpc`, `subnets` (tier → subnets, a zone each), `groups` (name → security group),
    `nats` (those of the first zones), `ways_out` (routes, endpoints and rules: until they are there nothing inside
    reaches anything outside), `subnet_ids(tier)`, `group_id(name)`.
    """

    KIND = "network"

    def __init__(self, context: Context, keys: Keys, options: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(context, options)
        self.settings = context.settings.network
        self.vpc = aws.ec2.Vpc(
            "vpc",
            cidr_block=str(self.settings.cidr),
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=self._tag("vpc"),
            opts=self.options(),
        )
        # What is put into the VPC without saying where gets a group that lets nothing through.
        aws.ec2.DefaultSecurityGroup(
            "default-closed",
            vpc_id=self.vpc.id,
            ingress=[],
            egress=[],
            tags=self._tag("default-closed"),
            opts=self.options(),
        )
        self.subnets: dict[Tier, tuple[aws.ec2.Subnet, ...]] = {
            tier: tuple(
                aws.ec2.Subnet(
                    f"{tier}-{zone}",
                    vpc_id=self.vpc.id,
                    cidr_block=str(block),
                    availability_zone=zone,
                    map_public_ip_on_launch=False,
                    tags=self._tag(f"{tier}-{zone}") | {"Tier": tier},
                    opts=self.options(),
                )
                for zone, block in zip(context.zones, blocks, strict=True)
            )
            for tier, blocks in subnets.plan(self.settings.cidr, len(context.zones)).items()
        }
        self.ways_out: list[pulumi.Resource] = []
        self.tables = self._route_tables()
        self.groups: dict[Group, aws.ec2.SecurityGroup] = {
            name: aws.ec2.SecurityGroup(
                f"group-{name}",
                name=self.names.of(name),
                description=text,
                vpc_id=self.vpc.id,
                tags=self._tag(name),
                opts=self.options(),
            )
            for name, text in ((name, GROUPS[name]) for name in groups(context.settings))
        }
        self._rules()
        self._endpoints()
        self._flow_logs(keys)
        self.register_outputs({"vpc_id": self.vpc.id})

    def subnet_ids(self, tier: Tier) -> list[pulumi.Output[str]]:
        """One a zone."""
        return [subnet.id for subnet in self.subnets[tier]]

    def group_id(self, name: Group) -> pulumi.Output[str]:
        """Of a security group by its name; `groups` says which a stack has."""
        return self.groups[name].id

    def _tag(self, thing: str) -> dict[str, str]:
        return {"Name": self.names.of(thing)}

    # -- ways out ------------------------------------------------------------------------------------------

    def _route_tables(self) -> dict[str, aws.ec2.RouteTable]:
        """Public: one, to the internet. Private and warehouse: one a zone, to its NAT. Database: one, to nowhere."""
        gateway = aws.ec2.InternetGateway(
            "internet", vpc_id=self.vpc.id, tags=self._tag("internet"), opts=self.options()
        )
        public = self._table("public")
        self._route("public", public, gateway_id=gateway.id)
        self.nats = nats = self._nats(gateway)
        tables = {"public": public, "database": self._table("database")}
        for tier in ("private", "warehouse"):
            for index, zone in enumerate(self.context.zones):
                tables[f"{tier}-{zone}"] = table = self._table(f"{tier}-{zone}")
                if nats:
                    self._route(f"{tier}-{zone}", table, nat_gateway_id=nats[min(index, len(nats) - 1)].id)
        for tier, found in self.subnets.items():
            for zone, subnet in zip(self.context.zones, found, strict=True):
                joined = aws.ec2.RouteTableAssociation(
                    f"{tier}-{zone}",
                    subnet_id=subnet.id,
                    route_table_id=tables.get(f"{tier}-{zone}", tables.get(tier, public)).id,
                    opts=self.options(),
                )
                self.ways_out.append(joined)
        return tables

    def _table(self, thing: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(f"{thing}", vpc_id=self.vpc.id, tags=self._tag(thing), opts=self.options())

    def _route(self, thing: str, table: aws.ec2.RouteTable, **target: pulumi.Output[str]) -> None:
        route = aws.ec2.Route(
            f"{thing}-out",
            route_table_id=table.id,
            destination_cidr_block="0.0.0.0/0",
            opts=self.options(),
            **target,
        )
        self.ways_out.append(route)

    def _nats(self, gateway: aws.ec2.InternetGateway) -> list[aws.ec2.NatGateway]:
        count = {"none": 0, "single": 1, "per_zone": len(self.context.zones)}[self.settings.nat]
        found = []
        for zone, subnet in list(zip(self.context.zones, self.subnets["public"], strict=True))[:count]:
            address = aws.ec2.Eip(
                f"nat-{zone}", domain="vpc", tags=self._tag(f"nat-{zone}"), opts=self.options()
            )
            found.append(
                aws.ec2.NatGateway(
                    f"nat-{zone}",
                    allocation_id=address.id,
                    subnet_id=subnet.id,
                    tags=self._tag(f"nat-{zone}"),
                    opts=self.options(depends_on=[gateway]),
                )
            )
        return found

    # -- who may talk to whom --------------------------------------------------------------------------------

    def _rules(self) -> None:
        for edge in EDGES:
            if not {edge.source, edge.target} <= self.groups.keys():
                continue
            thing = f"{edge.source}-to-{edge.target}-{edge.port}"
            out = aws.vpc.SecurityGroupEgressRule(
                f"{thing}-out",
                security_group_id=self.group_id(edge.source),
                referenced_security_group_id=self.group_id(edge.target),
                ip_protocol="tcp",
                from_port=edge.port,
                to_port=edge.port,
                description=edge.why,
                opts=self.options(),
            )
            self.ways_out.append(out)
            aws.vpc.SecurityGroupIngressRule(
                f"{thing}-in",
                security_group_id=self.group_id(edge.target),
                referenced_security_group_id=self.group_id(edge.source),
                ip_protocol="tcp",
                from_port=edge.port,
                to_port=edge.port,
                description=edge.why,
                opts=self.options(),
            )
        if self.settings.nat != "none":
            for group, why in OUT.items():
                if group not in self.groups:
                    continue
                out = aws.vpc.SecurityGroupEgressRule(
                    f"{group}-to-internet-out",
                    security_group_id=self.group_id(group),
                    cidr_ipv4="0.0.0.0/0",
                    ip_protocol="tcp",
                    from_port=HTTPS,
                    to_port=HTTPS,
                    description=why,
                    opts=self.options(),
                )
                self.ways_out.append(out)

    # -- endpoints -------------------------------------------------------------------------------------------

    def _endpoints(self) -> None:
        closed_in = [table.id for name, table in self.tables.items() if name not in ("public", "database")]
        for service, users in GATEWAYS.items():
            endpoint = aws.ec2.VpcEndpoint(
                f"endpoint-{service}",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{self.context.region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=closed_in,
                policy=self._gateway_policy(service),
                tags=self._tag(service),
                opts=self.options(),
            )
            for group in users:
                if group not in self.groups:
                    continue
                out = aws.vpc.SecurityGroupEgressRule(
                    f"{group}-to-{service}-out",
                    security_group_id=self.group_id(group),
                    prefix_list_id=endpoint.prefix_list_id,
                    ip_protocol="tcp",
                    from_port=HTTPS,
                    to_port=HTTPS,
                    description=f"{service} by its gateway endpoint",
                    opts=self.options(),
                )
                # The rule names the list of its endpoint, so that the endpoint is there before it.
                self.ways_out.append(out)
        for name in self.settings.interface_endpoints:
            door = aws.ec2.VpcEndpoint(
                f"endpoint-{name}",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{self.context.region}.{name}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.subnet_ids("private"),
                security_group_ids=[self.group_id("endpoints")],
                policy=document(self._own_principals()),
                tags=self._tag(name.replace(".", "-")),
                opts=self.options(),
            )
            self.ways_out.append(door)

    def _own_principals(self) -> Statement:
        # Whoever got into the VPC cannot carry data out with credentials of an account of their own.
        return Statement(
            "OwnPrincipals",
            ["*"],
            ["*"],
            conditions={"StringEquals": {"aws:PrincipalAccount": self.context.account}},
            principals="*",
        )

    def _gateway_policy(self, service: str) -> pulumi.Output[str]:
        if service != "s3":
            return document(self._own_principals())
        # Packages of Amazon Linux and layers of images come from buckets of AWS: the former without credentials, the
        # latter with ECR's (its guide, "Minimum Amazon S3 bucket permissions"). Without it no task starts.
        arn, region = f"arn:{self.context.partition}:s3:::", self.context.region
        packages = Statement(
            "AmazonLinuxPackages",
            ["s3:GetObject"],
            [f"{arn}al2023-repos-{region}-de612dc2/*"],
            principals="*",
        )
        layers = Statement(
            "LayersOfImages",
            ["s3:GetObject"],
            [f"{arn}prod-{region}-starport-layer-bucket/*"],
            principals="*",
        )
        return document(self._own_principals(), packages, layers)

    # -- flow logs -------------------------------------------------------------------------------------------

    def _flow_logs(self, keys: Keys) -> None:
        group = self.log_group(
            "flow-logs", self.names.path("flow-logs"), self.settings.flow_log_days, keys.arn("logs")
        )
        role = service_role(
            self,
            "flow-logs",
            "vpc-flow-logs.amazonaws.com",
            Statement(
                "WriteThisGroup",
                ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                [pulumi.Output.concat(group.arn, ":*")],
            ),
        )
        aws.ec2.FlowLog(
            "flow-logs",
            vpc_id=self.vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=60,
            tags=self._tag("flow-logs"),
            opts=self.options(),
        )
