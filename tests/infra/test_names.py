"""Names: of a form that AWS takes, unique, of their stack, and within AWS's limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InfraError
from infra.naming import LIMITS, Names
from infra.rules.general import NAMES, physical

if TYPE_CHECKING:
    from infra.graph import Graph

OF_KIND = {
    "alarm": "cloudwatch.MetricAlarm",
    "bucket": "s3.Bucket",
    "cluster": "redshift.Cluster",
    "database": "rds.Instance",
    "function": "lambda.Function",
    "proxy": "rds.Proxy",
    "queue": "sqs.Queue",
    "role": "iam.Role",
    "schedule": "scheduler.Schedule",
    "state_machine": "sfn.StateMachine",
    "stream": "kinesis.Stream",
    "subnet_group": "rds.SubnetGroup",
    "table": "dynamodb.Table",
    "topic": "sns.Topic",
}
"""Kind in a name → the kind of resource that bears it."""

words = st.text("abz09", min_size=1, max_size=20)
things = st.lists(words, min_size=1, max_size=6).map("-".join)


@settings(max_examples=60, deadline=None)
@given(things, st.sampled_from(sorted(OF_KIND)))
def test_a_name_is_one_that_aws_takes_or_is_refused(thing: str, kind: str) -> None:
    whole = f"eav-dev-{thing}"
    if len(whole) > LIMITS[kind]:
        with pytest.raises(InfraError, match=f"may have {LIMITS[kind]}"):
            Names("dev").of(thing, kind)
    else:
        assert Names("dev").of(thing, kind) == whole
        assert re.fullmatch(NAMES[OF_KIND[kind]][1], whole)


@pytest.mark.parametrize("thing", ["", "Archive", "a--b", "-a", "a-", "a_b", "a b", "a.b", "a/b", "ä"])
def test_another_form_is_refused(thing: str) -> None:
    with pytest.raises(InfraError, match="lower-case"):
        Names("dev").of(thing)


def test_a_limit_is_told() -> None:
    assert len(Names("dev").of("a" * 56, "role")) == 64
    with pytest.raises(InfraError, match="65 characters, a role may have 64"):
        Names("dev").of("a" * 57, "role")


def test_what_is_shared_with_all_of_aws_has_the_account_in_it() -> None:
    assert Names("prod").unique("archive", "123456789012") == "eav-prod-archive-123456789012"


def test_a_path_begins_with_project_and_stack() -> None:
    assert Names("prod").path("postgres", "slow") == "/eav/prod/postgres/slow"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("s3.Bucket", "eav-dev-archive.old"),
        ("s3.Bucket", "ab"),
        ("s3.Bucket", "a" * 64),
        ("s3.Bucket", "eav-dev-s3alias"),
        ("iam.Role", "a" * 65),
        ("rds.Instance", "eav--dev"),
        ("rds.Instance", "1eav"),
        ("rds.Proxy", "a" * 61),
        ("lambda.Function", "eav.dev"),
        ("sqs.Queue", "a" * 81),
        ("kms.Alias", "eav-dev"),
        ("kms.Alias", "alias/aws/eav"),
        ("ec2.SecurityGroup", "sg-eav"),
        ("secretsmanager.Secret", "eav-dev-abcdef"),
    ],
)
def test_what_aws_refuses_is_refused(kind: str, name: str) -> None:
    assert not re.fullmatch(NAMES[kind][1], name)


def test_what_can_have_a_name_has_one(graph: Graph) -> None:
    # All rules about names are in infra/rules/general.py; this holds that they have something to look at.
    named = [one for one in graph if physical(one) is not None]
    assert len(named) > 10
    assert all(str(physical(one)).isascii() for one in named)


def test_no_kind_with_a_name_is_forgotten(graph: Graph) -> None:
    # What has one of these inputs is named by it, but for parts of a bucket or cluster, and names with other rules.
    inputs = {"name", "identifier", "family", "clusterIdentifier", "bucket"}
    parts = r"s3\.Bucket.+|redshift\.(Logging|SnapshotCopy|SnapshotSchedule.+|ClusterIamRoles|UsageLimit)"
    of_another = re.compile(rf"^({parts}|(appautoscaling|route53|servicediscovery|ssm)\..*)$")
    for one in graph:
        if one.custom and inputs & set(one.inputs) and not of_another.match(one.kind):
            assert one.kind in NAMES, f"infra/rules/general.py: NAMES lacks {one.kind} ({one.name})"
