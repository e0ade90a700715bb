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


EVERYWHERE: Final = ("dev", "staging", "prod")

EXEMPTIONS: Final[tuple[Exemption, ...]] = (
    Exemption(
        "rds-managed-password",
        "postgres/rds.Instance/primary",
        ("staging", "prod"),
        "RDS makes no replica of a primary whose password it manages; ours is in Secrets Manager under our key",
    ),
    Exemption(
        "secret-in-inputs",
        "postgres/rds.Instance/primary",
        ("staging", "prod"),
        "the same password, made by AWS's generator once; Pulumi's state has it encrypted",
    ),
    Exemption(
        "secret-in-inputs",
        "postgres/secretsmanager.SecretVersion/master",
        ("staging", "prod"),
        "the same password where it is kept",
    ),
    Exemption(
        "secret-rotation",
        "postgres/secretsmanager.Secret/master",
        ("staging", "prod"),
        "only migrations use it, whose role may log in with tokens too; by hand: docs/database-operations.md",
    ),
    Exemption(
        "schedule-dlq",
        "cost/scheduler.Schedule/rest-*",
        ("dev",),
        "nobody would send one again: the next night's call does the same, and the budget tells of one that failed",
    ),
    Exemption(
        "s3-lock",
        "archive/s3.Bucket/archive-partitions",
        ("prod",),
        "the archive of partitions clears away what was not verified, which a lock keeps; versions undo a mistake",
    ),
    Exemption(
        "sfn-key",
        "archiver/sfn.StateMachine/archiver",
        EVERYWHERE,
        "what passes through it are counts and the names of tables and days, no item",
    ),
)
"""Each must match something in each of its stacks: one that does not is a finding by itself."""
