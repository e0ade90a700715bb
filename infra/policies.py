"""The rules of the platform, applied to the graph of a stack.

They are in substance those of Checkov and of AWS Security Hub (FSBP, CIS) for the services used here, and some of our
own; `RULES` is the table, `LEFT_OUT` says what was not taken over and why. The same rules run as a Pulumi policy pack
(`infra/policypack`), so that a deployment that breaks one stops, and as tests over the graph of every stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from infra.exceptions import EXEMPTIONS, Exemption
from infra.graph import Graph
from infra.rules import access, compute, data, general, network, watch
from infra.rules.kit import Rule, Severity, label

RULES: Final[tuple[Rule, ...]] = (
    *access.RULES, *data.RULES, *network.RULES, *compute.RULES, *watch.RULES, *general.RULES,
)  # fmt: skip

UNUSED: Final = "exception-unused"
"""The rule that an exception breaks which matches nothing."""


@dataclass(frozen=True)
class Finding:
    """A resource that breaks a rule."""

    rule: str
    severity: Severity
    resource: str
    """component/kind/name, such as `postgres/rds.Instance/primary`; `stack` where it is about no resource."""
    text: str
    excepted: str | None
    """The reason why it may, where that is written down."""


def check(graph: Graph, exemptions: tuple[Exemption, ...] = EXEMPTIONS) -> list[Finding]:
    """All that breaks a rule in a stack, by severity, rule and resource; what is excepted has its reason with it."""
    stack, found, used = graph.settings.stack, [], set()
    for rule in RULES:
        if not rule.applies(graph):
            continue
        for resource, text in rule.find(graph):
            name = label(resource)
            exemption = next((one for one in exemptions if one.covers(rule.id, name, stack)), None)
            used.add(exemption)
            found.append(Finding(rule.id, rule.severity, name, text, exemption.reason if exemption else None))
    found += [
        Finding(
            UNUSED,
            "advisory",
            one.resource,
            f"the exception from {one.rule} matches nothing: remove it",
            None,
        )
        for one in exemptions
        if stack in one.stacks and one not in used
    ]
    return sorted(found, key=lambda one: (one.severity != "mandatory", one.rule, one.resource, one.text))


@dataclass(frozen=True)
class LeftOut:
    """A rule of the lists that is not ours."""

    refs: str
    what: str
    reason: str


LEFT_OUT: Final[tuple[LeftOut, ...]] = (
    LeftOut("CKV_AWS_117 Lambda.3", "functions in the VPC",
            "the archiver calls AWS APIs only: in the VPC it would need endpoints or NAT, and be no safer"),
    LeftOut("CKV_AWS_272", "code signing of functions",
            "the package is built and deployed by the same CI role that could also sign it"),
    LeftOut("RDS.23", "PostgreSQL on another port than 5432",
            "two security groups let anybody in at all; another port is found by a scan, and breaks every tool"),
    LeftOut("RDS.24 RDS.14 RDS.15 RDS.16 RDS.27 RDS.34 RDS.35", "rules for Aurora and clusters", "there is none"),
    LeftOut("RDS.26 DynamoDB.4 EC2.28 S3.19", "plans of AWS Backup",
            "RDS and DynamoDB keep points in time by themselves, copied to a second region in prod"),
    LeftOut("RDS.42 RDS.43 RDS.45", "audit logs of MariaDB, MySQL and proxies", "pgaudit and log exports are it here"),
    LeftOut("Redshift.18", "Redshift in several zones",
            "doubles the price of what can be loaded again from the archive within hours"),
    LeftOut("Redshift.15 Redshift.16", "Redshift's groups and subnets", "reach-internet and group-open-in say more"),
    LeftOut("S3.7 CKV_AWS_144", "replication of buckets to another region",
            "the archive is locked and versioned; a copy of seven years in a second region costs as much again, and is "
            "a decision for whoever owns the data"),
    LeftOut("S3.11 CKV2_AWS_62", "event notifications of buckets", "nothing listens; access logs tell who did what"),
    LeftOut("S3.20 CKV_AWS_252", "MFA delete",
            "it needs the root user, and rules out a lifecycle; prod has object lock"),
    LeftOut("S3.22 S3.23", "object-level events in CloudTrail",
            "CloudTrail belongs to the organisation, not to a stack"),
    LeftOut("EC2.10 EC2.55 EC2.56 EC2.57 EC2.58 EC2.60", "an endpoint for each service",
            "each costs by the hour and zone; settings name those that pay, and what is needed without NAT"),
    LeftOut("EC2.21 CKV_AWS_229 CKV_AWS_230 CKV_AWS_231 CKV_AWS_232", "network ACLs",
            "groups say who may talk to whom; a second list without state is where rules go to disagree"),
    LeftOut("EC2.7 CKV_AWS_106", "encryption of volumes by default in the account",
            "a setting of the account, not of a stack; ec2-volumes looks at each"),
    LeftOut("EC2.172", "blocking of public access to the VPC", "an account's setting, and NAT needs the gateway"),
    LeftOut("CKV_AWS_126 CKV_AWS_135", "detailed monitoring and EBS optimisation of instances",
            "the one instance is a bastion; t4g is optimised for EBS by nature"),
    LeftOut("ECS.19 ECS.21 CKV_AWS_97", "capacity providers and EFS of ECS", "tasks run on Fargate, without EFS"),
    LeftOut("CKV_AWS_297", "customer managed keys of schedules", "what a schedule holds is the name of its target"),
    LeftOut("SNS.2", "delivery status of topics", "AWS retired the rule; deliveries that fail are a metric"),
    LeftOut("IAM.4 IAM.5 IAM.6 IAM.7 IAM.9 IAM.10 IAM.15 IAM.16", "root user and passwords of the account",
            "of the account, not of a stack"),
    LeftOut("CloudWatch.1 to CloudWatch.14", "metric filters over CloudTrail", "of the account, not of a stack"),
    LeftOut("KMS.1 KMS.2", "decryption on all keys", "iam-star-resource and iam-wide-resource cover it"),
    LeftOut("Kinesis.2 SQS.2 SNS.3 DynamoDB.5 and so on", "tags of each kind of resource",
            "aws:defaultTags puts them on all; tags-default and tags-kept hold that"),
)  # fmt: skip
"""Rules of the lists for these services that are not taken over."""
