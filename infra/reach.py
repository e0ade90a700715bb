"""Who can reach whom: security groups, subnets, routes and addresses of a graph, and nothing asked of AWS.

Inside a VPC every subnet routes to every other, so a connection is a matter of groups: one rule that lets it out of
the source, one that lets it into the target. From the internet it takes three things together: a public address, a
route to an internet gateway, and a rule that lets a public range in. `exposure` reports each of them by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from typing import Any, Final

from infra.graph import Graph, Resource

GROUPS: Final = ("ec2.SecurityGroup", "ec2.DefaultSecurityGroup")
_SUBNETS: Final = ("ec2.Subnet", "ec2.DefaultSubnet")
_SUBNET_GROUPS: Final = ("rds.SubnetGroup", "redshift.SubnetGroup")
_NO_PLACE: Final = (
    "ec2.NetworkAcl", "ec2.RouteTableAssociation", "ec2.SecurityGroupRule", "vpc.SecurityGroupEgressRule",
    "vpc.SecurityGroupIngressRule", *GROUPS, *_SUBNETS, *_SUBNET_GROUPS,
)  # fmt: skip
"""What refers to groups or subnets without being in them."""

_PUBLIC_SWITCHES: Final = frozenset({"associatePublicIpAddress", "assignPublicIp", "publiclyAccessible"})
_WAYS: Final = {
    "carrierGatewayId": "a carrier network",
    "coreNetworkArn": "a wide area network",
    "egressOnlyGatewayId": "the internet, outwards",
    "gatewayId": "the internet",
    "localGatewayId": "an outpost",
    "natGatewayId": "the internet, outwards",
    "networkInterfaceId": "an instance",
    "transitGatewayId": "a transit gateway",
    "vpcEndpointId": "an endpoint",
    "vpcPeeringConnectionId": "another VPC",
}
"""Where a route leads, by the input that says so."""


def is_public(block: str) -> bool:
    """Whether a range of addresses has any that are not private."""
    network = ip_network(block, strict=False)
    return not network.is_private


@dataclass(frozen=True)
class Place:
    """Something with an address in a VPC."""

    resource: Resource
    groups: frozenset[str]
    """URNs of its security groups."""
    subnets: frozenset[str]
    """URNs of the subnets that it may be in."""
    addressed: bool
    """Whether it asks for a public address."""


class Reach:
    """The connections that a graph allows."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """All that is in a security group or in a subnet."""
        return tuple(place for one in self.graph if (place := self._place(one)) is not None)

    def place(self, resource: Resource) -> Place:
        """Where a resource is. Raises LookupError for one without an address."""
        found = self._place(resource)
        if found is None:
            raise LookupError(f"{resource.kind} {resource.name} is in no subnet and in no security group")
        return found

    def _place(self, one: Resource) -> Place | None:
        # A policy that names a subnet in a condition is not in it.
        if one.kind in _NO_PLACE or one.kind.startswith("iam.") or not one.custom:
            return None
        pointed = [
            target
            for urns in one.references.values()
            for urn in urns
            if (target := self.graph.resources.get(urn)) is not None
        ]
        groups = frozenset(target.urn for target in pointed if target.kind in GROUPS)
        subnets = {target.urn for target in pointed if target.kind in _SUBNETS}
        for target in pointed:
            if target.kind in _SUBNET_GROUPS:
                subnets.update(target.references.get("subnetIds", ()))
        if not subnets:
            # A replica in the same region lies in the subnets of what it copies.
            for urn in one.references.get("replicateSourceDb", ()):
                source = self._place(self.graph.resources[urn])
                subnets |= source.subnets if source else frozenset()
        if not groups and not subnets:
            return None
        return Place(one, groups, frozenset(subnets), _asks_for_address(one.inputs))

    # -- rules ----------------------------------------------------------------------------------------------

    def may_connect(self, source: Place, target: Place, port: int) -> bool:
        """Whether a TCP connection goes from one place to another: let out there, and let in here."""
        return any(self._lets(group, "egress", port, target) for group in source.groups) and any(
            self._lets(group, "ingress", port, source) for group in target.groups
        )

    def who(self, target: Place, port: int) -> tuple[Place, ...]:
        """All places that may connect to one, itself left out."""
        return tuple(
            place
            for place in self.places
            if place.resource is not target.resource and self.may_connect(place, target, port)
        )

    def let_in(self, group: Resource, port: int) -> frozenset[str]:
        """URNs of the groups, and ranges of addresses, that one group lets in at a port."""
        return frozenset(
            found
            for rule in self._rules.get((group.urn, "ingress"), ())
            if _covers(rule, port)
            for found in rule.peers
        )

    def _lets(self, group: str, direction: str, port: int, peer: Place) -> bool:
        return any(
            _covers(rule, port)
            and (peer.groups & rule.peers or any(self._may_be_in(peer, block) for block in rule.ranges))
            for rule in self._rules.get((group, direction), ())
        )

    def _may_be_in(self, place: Place, block: str) -> bool:
        """Whether an address of a place may be in a range; one whose subnets are not known may be anywhere."""
        blocks = [self.graph.resources[urn].inputs.get("cidrBlock") for urn in place.subnets]
        known = [ip_network(one) for one in blocks if one and _is_block(one)]
        wanted = ip_network(block, strict=False)
        return not known or any(one.version == wanted.version and one.overlaps(wanted) for one in known)

    @cached_property
    def _rules(self) -> dict[tuple[str, str], tuple[_Rule, ...]]:
        """(URN of a group, direction) → its rules, however they are declared."""
        found: dict[tuple[str, str], list[_Rule]] = {}
        for one in self.graph:
            for direction, group, rule in _declared(one):
                found.setdefault((group, direction), []).append(rule)
        return {key: tuple(rules) for key, rules in found.items()}

    # -- routes ---------------------------------------------------------------------------------------------

    def ways_out(self, subnet: Resource) -> frozenset[str]:
        """Where the routes of a subnet lead, in words; `the internet` is both ways.

        A subnet without a table of its own follows the VPC's main table.
        """
        return self._ways.get(subnet.urn, self._main)

    @cached_property
    def _main(self) -> frozenset[str]:
        tables = self.graph.of_kind("ec2.DefaultRouteTable")
        for one in self.graph.of_kind("ec2.MainRouteTableAssociation"):
            tables += [self.graph.resources[urn] for urn in one.references.get("routeTableId", ())]
        return frozenset(way for table in tables for way in self._ways_of_table(table))

    @cached_property
    def _ways(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for one in self.graph.of_kind("ec2.RouteTableAssociation"):
            tables = [self.graph.resources[urn] for urn in one.references.get("routeTableId", ())]
            for urn in one.references.get("subnetId", ()):
                found[urn] = frozenset(way for table in tables for way in self._ways_of_table(table))
        return found

    def _ways_of_table(self, table: Resource) -> set[str]:
        given = table.inputs.get("routes") or ()
        routes: list[Mapping[str, Any]] = [one for one in given if isinstance(one, Mapping)]
        routes += [
            one.inputs
            for one in self.graph.of_kind("ec2.Route")
            if table.urn in one.references.get("routeTableId", ())
        ]
        return {
            way
            for route in routes
            for prop, way in _WAYS.items()
            # A route to the VPC itself, or to a private network behind a VPN gateway, is none to the internet.
            if route.get(prop) and not str(route[prop]).startswith(("local", "vgw-"))
        }

    # -- the internet ---------------------------------------------------------------------------------------

    def exposure(self, place: Place) -> tuple[str, ...]:
        """What of a place is open towards the internet: its address, its subnets' routes, its groups' rules.

        A NAT gateway has an address and a route by nature, and answers nobody who was not asked.
        """
        if place.resource.kind == "ec2.NatGateway":
            return ()
        found = []
        outside = place.resource.kind.startswith("lb.") and place.resource.inputs.get("internal") is not True
        if place.addressed or outside or self._fixed_address(place.resource):
            found.append("it has a public address")
        for urn in sorted(place.subnets):
            subnet = self.graph.resources[urn]
            if subnet.inputs.get("mapPublicIpOnLaunch") is True:
                found.append(f"subnet {subnet.name} gives it a public address")
            if "the internet" in self.ways_out(subnet):
                found.append(f"subnet {subnet.name} has a route to an internet gateway")
        for urn in sorted(place.groups):
            rules = self._rules.get((urn, "ingress"), ())
            name, ranges = self.graph.resources[urn].name, {one for rule in rules for one in rule.ranges}
            found += [f"security group {name} lets {one} in" for one in sorted(filter(is_public, ranges))]
        return tuple(found)

    def _fixed_address(self, resource: Resource) -> bool:
        addresses = self.graph.of_kind("ec2.Eip", "ec2.EipAssociation")
        return any(
            resource.urn in one.references.get(prop, ())
            for one in addresses
            for prop in ("instance", "instanceId")
        )


@dataclass(frozen=True)
class _Rule:
    protocol: str
    first: int
    last: int
    peers: frozenset[str]
    """URNs of groups."""
    ranges: frozenset[str]
    """CIDR blocks."""


def _covers(rule: _Rule, port: int) -> bool:
    return rule.protocol == "-1" or (rule.protocol in ("tcp", "6") and rule.first <= port <= rule.last)


def _declared(one: Resource) -> Iterator[tuple[str, str, _Rule]]:
    """(direction, URN of the group, rule) that a resource declares."""
    if one.kind in ("vpc.SecurityGroupIngressRule", "vpc.SecurityGroupEgressRule"):
        direction = "ingress" if "Ingress" in one.kind else "egress"
        peers = one.references.get("referencedSecurityGroupId", ())
        for group in one.references.get("securityGroupId", ()):
            yield direction, group, _rule(one.inputs, peers)
    elif one.kind == "ec2.SecurityGroupRule":
        peers = one.references.get("sourceSecurityGroupId", ())
        for group in one.references.get("securityGroupId", ()):
            own = (group,) if one.inputs.get("self") else ()
            yield str(one.inputs.get("type")), group, _rule(one.inputs, (*peers, *own))
    elif one.kind in GROUPS:
        for direction in ("ingress", "egress"):
            for rule in _members(one.inputs.get(direction), Mapping):
                own = (one.urn,) if rule.get("self") else ()
                yield direction, one.urn, _rule(rule, (*one.references.get(direction, ()), *own))


def _rule(inputs: Mapping[str, Any], peers: tuple[str, ...]) -> _Rule:
    blocks = [inputs.get("cidrIpv4"), inputs.get("cidrIpv6")]
    for name in ("cidrBlocks", "ipv6CidrBlocks"):
        blocks += _members(inputs.get(name), str)
    return _Rule(
        protocol=str(inputs.get("ipProtocol", inputs.get("protocol"))),
        first=_port(inputs.get("fromPort"), 0),
        last=_port(inputs.get("toPort"), 65535),
        peers=frozenset(peers),
        ranges=frozenset(str(one) for one in blocks if one and _is_block(one)),
    )


def _port(value: Any, otherwise: int) -> int:
    """A port; numbers arrive as floats from the engine, and what is not known may be any."""
    return int(value) if isinstance(value, int | float) and value >= 0 else otherwise


def _members(value: Any, kind: Any) -> list[Any]:
    """Those of a list that are of a kind; none of what is no list, or not known yet."""
    return [one for one in value if isinstance(one, kind)] if isinstance(value, list) else []


def _is_block(text: Any) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _asks_for_address(value: Any) -> bool:
    """Whether a switch anywhere in the inputs is on that gives a public address."""
    if isinstance(value, Mapping):
        return any(
            (key in _PUBLIC_SWITCHES and one in (True, "true", "ENABLED")) or _asks_for_address(one)
            for key, one in value.items()
        )
    return isinstance(value, list) and any(map(_asks_for_address, value))
