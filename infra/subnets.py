"""Where subnets lie: a plan from the VPC's range alone, that stays as it is when a zone is added."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Final, Literal

Tier = Literal["public", "private", "database", "warehouse"]
TIERS: Final[tuple[Tier, ...]] = ("public", "private", "database", "warehouse")
ZONES: Final = 3
"""Room is kept for so many, whatever a stack uses."""
TAKEN_BY_AWS: Final = 5
"""Addresses of every subnet: network, router, DNS, one kept back, broadcast."""


def plan(cidr: IPv4Network, zones: int) -> dict[Tier, tuple[IPv4Network, ...]]:
    """Subnets of each tier, one a zone; none overlaps another.

    The range is cut in eight. The first three are the private tier, which holds tasks and endpoints; of the next
    three each holds one other tier, cut in eight again; two are left free. A /16 has private subnets of 8192
    addresses and others of 1024, a /20 of 512 and 64.
    """
    eighths = list(cidr.subnets(prefixlen_diff=3))
    found: dict[Tier, tuple[IPv4Network, ...]] = {"private": tuple(eighths[:zones])}
    others: tuple[Tier, ...] = ("public", "database", "warehouse")
    for tier, block in zip(others, eighths[ZONES:], strict=False):
        found[tier] = tuple(block.subnets(prefixlen_diff=3))[:zones]
    return {tier: found[tier] for tier in TIERS}
