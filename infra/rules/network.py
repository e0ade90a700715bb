"""Who can be reached: security groups, subnets, routes, flow logs."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Final

from infra.graph import Graph, Resource
from infra.reach import Reach, is_public
from infra.rules.kit import (
    GIVEN,
    NOT_FALSE,
    NOT_TRUE,
    TRUE,
    UNKNOWN,
    Rule,
    on,
    one_of,
    over,
    pointing,
    shown,
    values,
    want,
)

_RULES_OF_GROUPS: Final = (
    "vpc.SecurityGroupIngressRule",
    "vpc.SecurityGroupEgressRule",
    "ec2.SecurityGroupRule",
)
_GROUPS: Final = ("ec2.SecurityGroup", "ec2.DefaultSecurityGroup")


def _ranges(inputs: Any) -> Iterator[str]:
    for name in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks"):
        for one in values(inputs, name):
            if one != UNKNOWN and is_public(str(one)):
                yield str(one)


def _open_in(resource: Resource) -> Iterator[str]:
    given = [resource.inputs] if resource.kind not in _GROUPS else values(resource.inputs, "ingress")
    if resource.kind == "ec2.SecurityGroupRule" and resource.inputs.get("type") != "ingress":
        return
    for one in given:
        for block in _ranges(one):
            yield f"{block} may connect"


def _open_out(resource: Resource) -> Iterator[str]:
    given = [resource.inputs] if resource.kind not in _GROUPS else values(resource.inputs, "egress")
    if resource.kind == "ec2.SecurityGroupRule" and resource.inputs.get("type") != "egress":
        return
    for one in given:
        for block in _ranges(one):
            ports = (one.get("fromPort"), one.get("toPort"))
            if one.get("ipProtocol", one.get("protocol")) != "tcp" or ports != (443, 443):
                yield f"it may connect to {block} by more than HTTPS (port 443)"


def _too_wide(resource: Resource) -> Iterator[str]:
    first, last = resource.inputs.get("fromPort"), resource.inputs.get("toPort")
    if resource.inputs.get("ipProtocol") == "-1":
        yield "it is for every protocol and port"
    elif first != last and UNKNOWN not in (first, last):
        yield f"it is for ports {shown(first)} to {shown(last)}"
    for name in ("cidrIpv4", "cidrIpv6"):
        block = str(resource.inputs.get(name) or UNKNOWN)
        known = resource.kind == "vpc.SecurityGroupIngressRule" and block != UNKNOWN
        if known and not is_public(block) and ip_network(block, strict=False).num_addresses > 1:
            yield f"it is for addresses, {block}, not for a group"


def _inline(group: Resource) -> Iterator[str]:
    for name in ("ingress", "egress"):
        if group.inputs.get(name) not in (None, [], UNKNOWN):
            yield f"{name} is inline: such rules undo the separate ones"


def _default_closed(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for vpc in graph.of_kind("ec2.Vpc"):
        found = pointing(graph, vpc, "ec2.DefaultSecurityGroup", "vpcId")
        if not found:
            yield vpc, "its default security group lets its members talk to each other, and out"
        for group in found:
            if group.inputs.get("ingress") or group.inputs.get("egress"):
                yield group, "it has rules"


def _flow_logs(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for vpc in graph.of_kind("ec2.Vpc"):
        if not any(
            one.inputs.get("trafficType") in ("ALL", "REJECT")
            for one in pointing(graph, vpc, "ec2.FlowLog", "vpcId")
        ):
            yield vpc, "it has no flow log of what was refused"


def _unused(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    used = {
        urn
        for one in graph
        if one.kind not in _RULES_OF_GROUPS
        for name, urns in one.references.items()
        if "roup" in name or "etwork" in name or "onfig" in name or "arget" in name
        for urn in urns
    }
    for group in graph.of_kind("ec2.SecurityGroup"):
        if group.urn not in used:
            yield group, "nothing is in it"


def _addresses(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    for address in graph.of_kind("ec2.Eip"):
        attached = any(address.inputs.get(name) for name in ("instance", "networkInterface"))
        if not attached and not any(
            pointing(graph, address, kind, "allocationId")
            for kind in ("ec2.NatGateway", "ec2.EipAssociation")
        ):
            yield address, "a public address that nothing uses"


def _exposed(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
    reach = Reach(graph)
    for place in reach.places:
        for text in reach.exposure(place):
            yield place.resource, text


RULES: Final[tuple[Rule, ...]] = (
    on(("vpc.SecurityGroupIngressRule", "ec2.SecurityGroupRule", *_GROUPS), "group-open-in",
       "No security group is open to the internet", "it tries every port within minutes",
       "CKV_AWS_24 CKV_AWS_25 CKV_AWS_260 CKV_AWS_277 EC2.13 EC2.14 EC2.18 EC2.19 EC2.53 EC2.54", _open_in),
    on(("vpc.SecurityGroupEgressRule", "ec2.SecurityGroupRule", *_GROUPS), "group-open-out",
       "Nothing reaches the internet but by HTTPS", "what breaks in could carry data out by any port", "CKV_AWS_382",
       _open_out),
    on(("vpc.SecurityGroupIngressRule", "vpc.SecurityGroupEgressRule"), "group-narrow",
       "A rule is for one port, and lets a group in rather than addresses",
       "an address is whoever has it tomorrow", "", _too_wide),
    on((*_RULES_OF_GROUPS, "ec2.SecurityGroup"), "group-described", "Groups and rules say what they are for",
       "a rule that nobody can explain is never removed", "CKV_AWS_23", want("description", GIVEN)),
    on("ec2.SecurityGroup", "group-rules-apart", "Rules are resources of their own",
       "inline ones and separate ones undo each other", "", _inline),
    over("group-default-closed", "The default security group lets nothing through",
         "what is put into the VPC without a thought gets it", "CKV2_AWS_12 EC2.2", _default_closed),
    over("group-unused", "Every security group is in use", "a door that leads nowhere is forgotten open",
         "CKV2_AWS_5 EC2.22", _unused),
    over("vpc-flow-logs", "The VPC logs its traffic", "who tried what is known afterwards", "CKV2_AWS_11 EC2.6",
         _flow_logs),
    on("ec2.Vpc", "vpc-names", "The VPC resolves names, and gives them to its endpoints",
       "clients would look for AWS on the internet, or find nothing", "",
       lambda one: (*want("enableDnsSupport", NOT_FALSE)(one), *want("enableDnsHostnames", TRUE)(one))),
    on("ec2.Subnet", "subnet-public-addresses", "Subnets give out no public addresses",
       "what is put there by mistake would be on the internet", "CKV_AWS_130 EC2.15",
       lambda one: (*want("mapPublicIpOnLaunch", NOT_TRUE)(one),
                    *want("assignIpv6AddressOnCreation", NOT_TRUE)(one))),
    over("address-used", "Every public address is in use", "it costs, and somebody may be given it next",
         "CKV2_AWS_19 EC2.12", _addresses),
    over("reach-internet", "Nothing that works with data can be reached from the internet",
         "an address, a route and a rule together are a door; here not even one of them is there",
         "RDS.46 EC2.9 ECS.2", _exposed),
    on("ec2.VpcEndpoint", "endpoint-private-names", "Interface endpoints answer to the services' own names",
       "clients would go round them by the internet", "",
       want("privateDnsEnabled", one_of(True)),
       unless=lambda one: one.inputs.get("vpcEndpointType") != "Interface"),
)  # fmt: skip
