"""What the network has to let through: each stack's subnets, ways out, endpoints and logs, in its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.network import EDGES, GATEWAYS, HTTPS, OUT, groups
from infra.reach import Reach

if TYPE_CHECKING:
    from infra.graph import Graph, Resource

WORKING = ("private", "warehouse")
"""Tiers whose inhabitants call AWS."""


def pointed(graph: Graph, one: Resource, name: str) -> list[Resource]:
    """What a property refers to."""
    return [graph.resources[urn] for urn in one.references.get(name, ())]


def subnets(graph: Graph, *tiers: str) -> list[Resource]:
    return [one for one in graph.of_kind("ec2.Subnet") if one.inputs["tags"]["Tier"] in tiers]


def table(graph: Graph, subnet: Resource) -> Resource:
    """The one route table of a subnet."""
    (found,) = [
        target
        for one in graph.of_kind("ec2.RouteTableAssociation")
        if subnet.urn in one.references["subnetId"]
        for target in pointed(graph, one, "routeTableId")
    ]
    return found


def default_route(graph: Graph, subnet: Resource) -> Resource | None:
    found = [
        one
        for one in graph.of_kind("ec2.Route")
        if table(graph, subnet).urn in one.references["routeTableId"]
    ]
    assert all(one.inputs["destinationCidrBlock"] == "0.0.0.0/0" for one in found)
    assert len(found) <= 1
    return found[0] if found else None


def test_all_of_it_is_in_the_one_vpc(graph: Graph) -> None:
    (vpc,) = graph.of_kind("ec2.Vpc")
    assert vpc.inputs["cidrBlock"] == str(graph.settings.network.cidr)
    for one in graph.of_kind(
        "ec2.Subnet", "ec2.RouteTable", "ec2.SecurityGroup", "ec2.DefaultSecurityGroup", "ec2.InternetGateway",
        "ec2.VpcEndpoint", "ec2.FlowLog",
    ):  # fmt: skip
        assert pointed(graph, one, "vpcId") == [vpc], one.name


def test_each_tier_has_a_subnet_in_each_zone(graph: Graph) -> None:
    for tier in ("public", "private", "database", "warehouse"):
        zones = [one.inputs["availabilityZone"] for one in subnets(graph, tier)]
        assert len(zones) == len(set(zones)) == graph.settings.network.zones


def test_public_subnets_lead_to_the_internet_and_the_database_s_nowhere(graph: Graph) -> None:
    for subnet in subnets(graph, "public"):
        route = default_route(graph, subnet)
        assert route is not None
        assert [one.kind for one in pointed(graph, route, "gatewayId")] == ["ec2.InternetGateway"]
    assert not any(default_route(graph, subnet) for subnet in subnets(graph, "database"))


def test_what_works_goes_out_by_the_nat_of_its_zone(graph: Graph) -> None:
    wanted = graph.settings.network.nat
    nats = {"none": 0, "single": 1, "per_zone": graph.settings.network.zones}[wanted]
    assert len(graph.of_kind("ec2.NatGateway")) == nats
    for subnet in subnets(graph, *WORKING):
        route = default_route(graph, subnet)
        assert (route is None) == (wanted == "none")
        if route is None:
            continue
        (nat,) = pointed(graph, route, "natGatewayId")
        (home,) = pointed(graph, nat, "subnetId")
        assert home.inputs["tags"]["Tier"] == "public"
        if wanted == "per_zone":
            assert home.inputs["availabilityZone"] == subnet.inputs["availabilityZone"]
        (address,) = pointed(graph, nat, "allocationId")
        assert address.inputs["domain"] == "vpc"


def test_gateway_endpoints_are_in_every_table_that_works(graph: Graph) -> None:
    gateways = [one for one in graph.of_kind("ec2.VpcEndpoint") if one.inputs["vpcEndpointType"] == "Gateway"]
    assert {one.inputs["serviceName"].rsplit(".", 1)[1] for one in gateways} == GATEWAYS.keys()
    for one in gateways:
        tables = {target.urn for target in pointed(graph, one, "routeTableIds")}
        assert {table(graph, subnet).urn for subnet in subnets(graph, *WORKING)} == tables
        service = one.inputs["serviceName"].rsplit(".", 1)[1]
        users = {
            group.name.removeprefix("group-")
            for rule in graph.of_kind("vpc.SecurityGroupEgressRule")
            if one.urn in rule.references.get("prefixListId", ())
            for group in pointed(graph, rule, "securityGroupId")
        }
        assert users == set(GATEWAYS[service]) & set(groups(graph.settings))


def test_interface_endpoints_have_an_address_in_each_zone(graph: Graph) -> None:
    doors = [one for one in graph.of_kind("ec2.VpcEndpoint") if one.inputs["vpcEndpointType"] == "Interface"]
    assert len(doors) == len(graph.settings.network.interface_endpoints)
    for one in doors:
        homes = {target.urn for target in pointed(graph, one, "subnetIds")}
        assert homes == {subnet.urn for subnet in subnets(graph, "private")}
        assert [target.name for target in pointed(graph, one, "securityGroupIds")] == ["group-endpoints"]


def test_whoever_is_to_connect_can(graph: Graph) -> None:
    # Let out there and let in here: of two rules that belong together one alone is none.
    reach = Reach(graph)
    inhabitants: dict[str, list[Resource]] = {}
    for place in reach.places:
        for urn in place.groups:
            inhabitants.setdefault(graph.resources[urn].name.removeprefix("group-"), []).append(
                place.resource
            )
    for edge in EDGES:
        for source in inhabitants.get(edge.source, ()):
            for target in inhabitants.get(edge.target, ()):
                ends = reach.place(source), reach.place(target)
                assert reach.may_connect(*ends, edge.port), (edge, source.name, target.name)


def test_only_who_is_named_calls_the_internet(graph: Graph) -> None:
    callers = set()
    for rule in graph.of_kind("vpc.SecurityGroupEgressRule"):
        if "cidrIpv4" in rule.inputs:
            assert rule.inputs["cidrIpv4"] == "0.0.0.0/0"
            assert (rule.inputs["fromPort"], rule.inputs["toPort"]) == (HTTPS, HTTPS)
            callers |= {one.name.removeprefix("group-") for one in pointed(graph, rule, "securityGroupId")}
    wanted = set(OUT) & set(groups(graph.settings)) if graph.settings.network.nat != "none" else set()
    assert callers == wanted


def test_the_default_group_lets_nothing_through(graph: Graph) -> None:
    (group,) = graph.of_kind("ec2.DefaultSecurityGroup")
    # Absent would leave what AWS made there: all among themselves, and everything out.
    assert (group.inputs["ingress"], group.inputs["egress"]) == ([], [])


def test_flow_logs_go_to_their_group(graph: Graph) -> None:
    (log,) = graph.of_kind("ec2.FlowLog")
    (group,) = pointed(graph, log, "logDestination")
    assert log.inputs["logDestinationType"] == "cloud-watch-logs"
    assert group.inputs["retentionInDays"] == graph.settings.network.flow_log_days
    (role,) = pointed(graph, log, "iamRoleArn")
    (policy,) = [one for one in graph.of_kind("iam.RolePolicy") if role.urn in one.references["role"]]
    assert group.outputs["arn"] in policy.inputs["policy"]
    assert log.inputs["maxAggregationInterval"] == 60
