"""What a stack does against a rule, and why it may: written down, or it is a finding."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final


@dataclass(frozen=True)
class Exemption:
    """Leave for some resources of some stacks to break one rule."""

    rule: str
    resource: str
    """A pattern over labels: `postgres/rds.Instance/*`, with * and ? as in a shell."""
    stacks: tuple[str, ...]
    reason: str

    def covers(self, rule: str, resource: str, stack: str) -> bool:
        """Whether it is about this finding."""
        return rule == self.rule and stack in self.stacks and fnmatchcase(resource, self.resource)


_EVERY: Final = ("dev", "staging", "prod")

EXEMPTIONS: Final[tuple[Exemption, ...]] = (
    Exemption(
        "policy-service-bound",
        "keys/kms.Key/key-compute",
        _EVERY,
        "Fargate names account and cluster in the encryption context, which the statements ask for, and sends no"
        " aws:SourceAccount",
    ),
    Exemption(
        "schedule-dlq",
        "cost/scheduler.Schedule/rest-*",
        ("dev",),
        "nobody would send a stop or a start again from a queue: the next night's call does the same",
    ),
    Exemption(
        "alarm-actions",
        "postgres/cloudwatch.CompositeAlarm/incident-*-trouble",
        _EVERY,
        "it tells nobody on purpose: it keeps alarms quiet that its cause would set off too",
    ),
    Exemption(
        "alarm-actions",
        "warehouse/cloudwatch.MetricAlarm/alarm-warehouse-maintenance",
        ("staging", "prod"),
        "as above: maintenance explains that the cluster is not healthy",
    ),
)
"""Each must match something in each of its stacks: one that does not is a finding by itself."""
