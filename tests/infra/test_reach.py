"""Who can reach whom: first on small graphs of which the answer is known, then on the graph of every stack."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pulumi_aws as aws
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.graph import read_config, record
from infra.network import EDGES, GROUPS, HTTPS, OUT, POSTGRES_PORT, REDSHIFT_PORT, groups
from infra.reach import Place, Reach, is_public
from infra.rules.documents import parse
from infra.settings import load

if TYPE_CHECKING:
    from infra.graph import Graph


ROUTE = "subnet subnet has a route to an internet gateway"


def small(declare: Callable[[], None]) -> Reach:
    return Reach(record(load("dev", read_config("dev")), lambda _: declare()))


def two(**rule: Any) -> Callable[[], None]:
    """A client and a database in one VPC, and a way from one group to the other."""

    def declare() -> None:
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")
        subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block="10.0.1.0/24")
        client, database = (aws.ec2.SecurityGroup(name, vpc_id=vpc.id) for name in ("client", "database"))
        ports: Any = {"ip_protocol": "tcp", "from_port": 5432, "to_port": 5432}
        aws.vpc.SecurityGroupEgressRule(
            "out", security_group_id=client.id, referenced_security_group_id=database.id, **ports
        )
        if rule:
            peer: Any = {"referenced_security_group_id": client.id} if "cidr_ipv4" not in rule else {}
            aws.vpc.SecurityGroupIngressRule("in", security_group_id=database.id, **(ports | peer | rule))
        aws.ec2.Instance(
            "client",
            ami="ami-0",
            instance_type="t4g.nano",
            subnet_id=subnet.id,
            vpc_security_group_ids=[client.id],
        )
        group = aws.rds.SubnetGroup("db", subnet_ids=[subnet.id])
        aws.rds.Instance(
            "db",
            instance_class="db.t4g.large",
            db_subnet_group_name=group.name,
            vpc_security_group_ids=[database.id],
        )

    return declare


def connects(declare: Callable[[], None], port: int = 5432) -> bool:
    reach = small(declare)
    database = reach.place(reach.graph.one("rds.Instance"))
    return [one.resource.name for one in reach.who(database, port)] == ["client"]


def test_a_connection_takes_a_rule_on_both_sides() -> None:
    assert connects(two(from_port=5432))
    assert not connects(two())


@pytest.mark.parametrize(
    ("rule", "open_"),
    [
        ({"from_port": 5000, "to_port": 6000}, True),
        ({"from_port": 5433, "to_port": 6000}, False),
        ({"ip_protocol": "udp"}, False),
        ({"ip_protocol": "-1", "from_port": None, "to_port": None}, True),
        ({"cidr_ipv4": "10.0.0.0/16"}, True),
        ({"cidr_ipv4": "10.1.0.0/16"}, False),
    ],
)
def test_a_rule_is_for_a_port_a_protocol_and_a_peer(rule: dict[str, Any], open_: bool) -> None:
    assert connects(two(**rule)) is open_


def test_inline_rules_count_as_rules() -> None:
    def declare() -> None:
        anybody: Any = [{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr_blocks": ["0.0.0.0/0"]}]
        group = aws.ec2.SecurityGroup("open", ingress=anybody)
        aws.ec2.Instance("host", ami="ami-0", instance_type="t4g.nano", vpc_security_group_ids=[group.id])

    reach = small(declare)
    assert reach.exposure(reach.places[0]) == ("security group open lets 0.0.0.0/0 in",)


def in_subnet(**given: Any) -> Callable[[], None]:
    """An instance in a subnet: with a switch of the instance or the subnet, or behind a route."""

    def declare() -> None:
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")
        subnet = aws.ec2.Subnet(
            "subnet", vpc_id=vpc.id, map_public_ip_on_launch=given.get("map_public_ip_on_launch")
        )
        host = aws.ec2.Instance(
            "host",
            ami="ami-0",
            instance_type="t4g.nano",
            subnet_id=subnet.id,
            associate_public_ip_address=given.get("associate_public_ip_address"),
        )
        if given.get("eip"):
            aws.ec2.Eip("fixed", instance=host.id)
        if "main" in given:
            aws.ec2.DefaultRouteTable("main", default_route_table_id="rtb-0", routes=[given["main"]])
        if "route" in given:
            table = aws.ec2.RouteTable("table", vpc_id=vpc.id, routes=[given["route"]])
            aws.ec2.RouteTableAssociation("table", subnet_id=subnet.id, route_table_id=table.id)

    return declare


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"map_public_ip_on_launch": True}, "subnet subnet gives it a public address"),
        ({"associate_public_ip_address": True}, "it has a public address"),
        ({"eip": True}, "it has a public address"),
        (
            {"route": {"cidr_block": "0.0.0.0/0", "gateway_id": "igw-1"}},
            ROUTE,
        ),
        (
            {"main": {"cidr_block": "0.0.0.0/0", "gateway_id": "igw-1"}},
            ROUTE,
        ),
        ({"route": {"cidr_block": "0.0.0.0/0", "nat_gateway_id": "nat-1"}}, None),
        ({"route": {"cidr_block": "10.9.0.0/16", "gateway_id": "vgw-1"}}, None),
        ({}, None),
    ],
)
def test_each_way_to_the_internet_is_told(given: dict[str, Any], why: str | None) -> None:
    reach = small(in_subnet(**given))
    host = reach.place(reach.graph.one("ec2.Instance"))
    assert reach.exposure(host) == ((why,) if why else ())


@settings(max_examples=60, deadline=None)
@given(st.ip_addresses(v=4), st.integers(8, 32))
def test_a_range_is_public_unless_all_of_it_is_private(address: Any, bits: int) -> None:
    block = f"{address}/{bits}"
    private = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    if any(address in ip_network(one) for one in private) and bits >= 16:
        assert not is_public(block)
    assert is_public("0.0.0.0/0")
    assert is_public("::/0")
    assert not is_public("fd00::/8")


# -- the stacks --------------------------------------------------------------------------------------------


@cache
def _reach(stack: str) -> Reach:
    from tests.infra.conftest import graph_of

    return Reach(graph_of(stack))


@pytest.fixture
def reach(graph: Graph) -> Reach:
    return _reach(graph.settings.stack)


def tiers(reach: Reach, place: Place) -> set[str]:
    return {reach.graph.resources[urn].inputs["tags"]["Tier"] for urn in place.subnets}


def group_names(reach: Reach, urns: frozenset[str]) -> set[str]:
    return {reach.graph.resources[urn].name.removeprefix("group-") for urn in urns}


def test_nothing_but_nat_is_in_a_public_subnet_or_has_an_address(reach: Reach) -> None:
    for place in reach.places:
        if place.resource.kind != "ec2.NatGateway":
            assert "public" not in tiers(reach, place)
            assert reach.exposure(place) == ()


def test_only_public_subnets_have_a_route_from_the_internet(reach: Reach) -> None:
    for subnet in reach.graph.of_kind("ec2.Subnet"):
        ways = reach.ways_out(subnet)
        assert ("the internet" in ways) is (subnet.inputs["tags"]["Tier"] == "public")
        if subnet.inputs["tags"]["Tier"] == "database":
            assert ways == frozenset()


def test_only_jobs_bastion_and_proxy_reach_postgresql(reach: Reach) -> None:
    (group,) = [one for one in reach.graph.of_kind("ec2.SecurityGroup") if one.name == "group-postgres"]
    allowed = group_names(reach, reach.let_in(group, POSTGRES_PORT))
    assert allowed == {"jobs", "bastion", "proxy"} & set(groups(reach.graph.settings))
    for database in reach.graph.of_kind("rds.Instance"):
        place = reach.place(database)
        assert tiers(reach, place) == {"database"}
        assert group_names(reach, place.groups) == {"postgres"}
        for caller in reach.who(place, POSTGRES_PORT):
            assert group_names(reach, caller.groups) & allowed


def test_postgresql_opens_no_connection(reach: Reach) -> None:
    for database in reach.graph.of_kind("rds.Instance"):
        place = reach.place(database)
        assert not [one for one in reach.places if reach.may_connect(place, one, POSTGRES_PORT)]


def test_only_jobs_and_bastion_reach_the_warehouse(reach: Reach) -> None:
    (group,) = [one for one in reach.graph.of_kind("ec2.SecurityGroup") if one.name == "group-warehouse"]
    assert group_names(reach, reach.let_in(group, REDSHIFT_PORT)) == {"jobs", "bastion"}
    for warehouse in reach.graph.of_kind("redshift.Cluster", "redshiftserverless.Workgroup"):
        assert tiers(reach, reach.place(warehouse)) == {"warehouse"}


def test_nobody_connects_to_the_bastion(reach: Reach) -> None:
    for bastion in reach.graph.of_kind("ec2.Instance"):
        place = reach.place(bastion)
        assert not [port for port in (22, 443, 5432) if reach.who(place, port)]
        assert tiers(reach, place) == {"private"}


def test_ports_that_nobody_asked_for_are_shut(reach: Reach) -> None:
    for group in reach.graph.of_kind("ec2.SecurityGroup"):
        for port in (22, 3389, 80, 8080):
            assert not reach.let_in(group, port)


def test_groups_let_in_who_they_are_said_to_and_nobody_else(reach: Reach) -> None:
    made = {one.name.removeprefix("group-"): one for one in reach.graph.of_kind("ec2.SecurityGroup")}
    assert set(made) == set(groups(reach.graph.settings))
    for name, group in made.items():
        for port in (HTTPS, POSTGRES_PORT, REDSHIFT_PORT):
            callers = {edge.source for edge in EDGES if (edge.target, edge.port) == (name, port)}
            assert group_names(reach, reach.let_in(group, port)) == callers & set(made)


def test_a_group_is_there_for_whom_it_is_for() -> None:
    dev = load("dev", read_config("dev"))
    assert set(groups(dev)) == set(GROUPS) - {"proxy", "endpoints"}
    none = dev.model_copy(
        update={
            "network": dev.network.model_copy(update={"bastion": False}),
            "warehouse": dev.warehouse.model_copy(update={"kind": "none"}),
        }
    )
    assert set(groups(none)) == {"jobs", "postgres"}
    assert set(OUT) <= set(GROUPS)


def test_tasks_can_pull_their_images_through_the_gateway(graph: Graph) -> None:
    # ECR's guide: layers are fetched from a bucket of ECR's with its own credentials, which no rule about ours lets by.
    (endpoint,) = [one for one in graph.of_kind("ec2.VpcEndpoint") if one.name == "endpoint-s3"]
    bucket = f"arn:aws:s3:::prod-{graph.settings.region}-starport-layer-bucket/*"
    for clause in parse(endpoint.inputs["policy"]):
        if bucket in clause.resources:
            assert clause.actions == ("s3:GetObject",)
            assert not clause.conditions
            return
    raise AssertionError("no image can be pulled")


def test_eventbridge_has_no_right_that_would_not_work(graph: Graph) -> None:
    for one in graph.of_kind("kms.Key", "sns.TopicPolicy"):
        assert "events.amazonaws.com" not in one.inputs["policy"]
