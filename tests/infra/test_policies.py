"""The rules: each can pass and can fail, prod and dev differ where they say so, and the policy pack says the same."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from infra.exceptions import EXEMPTIONS, Exemption
from infra.graph import read_config, record
from infra.policies import LEFT_OUT, RULES, UNUSED, Finding, check
from infra.rules.access import ESCALATION, NO_SOURCE, SEND_SOURCE, UNSCOPABLE, WIDE_FOR_AWS, secrets
from infra.rules.data import log_buckets
from infra.rules.documents import ATTACHED, parse
from infra.rules.general import NAMES
from infra.rules.kit import label
from infra.settings import load
from tests.infra.conftest import STACKS, graph_of
from tests.infra.rule_pairs import KEY, PAIRS
from tests.infra.test_iam import formats

if TYPE_CHECKING:
    from infra.graph import Graph
    from infra.settings import Settings

BY_ID = {rule.id: rule for rule in RULES}


@cache
def declared(side: str) -> Graph:
    """All that keep a rule, or all that break one, in one graph."""

    def declare(_: object) -> None:
        for rule, pair in PAIRS.items():
            getattr(pair, side)(rule)

    return record(settings("prod"), declare)


@cache
def settings(stack: str) -> Settings:
    return load(stack, read_config(stack))


@cache
def findings(side: str, stack: str = "prod") -> tuple[Finding, ...]:
    return tuple(check(dataclasses.replace(declared(side), settings=settings(stack)), ()))


def of_rule(rule: str, side: str, stack: str = "prod") -> list[Finding]:
    """What a rule finds among the resources of its own pair."""
    return [one for one in findings(side, stack) if one.rule == rule == owner(one.resource)]


def owner(resource: str) -> str:
    """The rule in whose pair a resource was declared."""
    name = resource.split("/")[-1]
    return max((rule for rule in PAIRS if f"{name}-".startswith(f"{rule}-")), key=len)


def test_every_rule_has_a_pair() -> None:
    assert set(PAIRS) | {"tags-default"} == set(BY_ID)


@pytest.mark.parametrize("rule", PAIRS)
def test_a_rule_lets_what_keeps_it_pass(rule: str) -> None:
    assert of_rule(rule, "good") == []


@pytest.mark.parametrize("rule", PAIRS)
def test_a_rule_finds_what_breaks_it(rule: str) -> None:
    found = of_rule(rule, "bad")
    assert found
    assert all(one.severity == BY_ID[rule].severity and one.text and one.excepted is None for one in found)


def test_default_tags_are_looked_for() -> None:
    graph = graph_of("dev")
    assert not [one for one in check(graph) if one.rule == "tags-default"]
    bare = dataclasses.replace(graph, settings=graph.settings.model_copy(update={"tags": {"Owner": "x"}}))
    found = [one for one in check(bare) if one.rule == "tags-default"]
    assert {one.resource for one in found} == {"stack"}
    assert len(found) == 4


def test_what_is_for_prod_is_not_asked_of_dev() -> None:
    only_prod = {rule.id for rule in RULES if rule.stacks == ("prod",)}
    assert only_prod
    assert {one.rule for one in findings("bad")} >= only_prod
    assert not {one.rule for one in findings("bad", "dev")} & only_prod


def test_rules_are_told_apart_and_explained() -> None:
    assert len(BY_ID) == len(RULES)
    for rule in RULES:
        assert rule.title
        assert rule.why
        assert not rule.title.endswith(".")
    taken = {ref for rule in RULES for ref in rule.refs}
    assert not taken & {ref for one in LEFT_OUT for ref in one.refs.split() if "." in ref or "_" in ref}
    assert not SEND_SOURCE & set(NO_SOURCE)


# -- exceptions --------------------------------------------------------------------------------------------


def test_an_exception_gives_its_reason_and_hides_nothing() -> None:
    name = next(one.resource for one in findings("bad") if one.rule == "rds-private")
    exemption = Exemption("rds-private", name.rsplit("/", 1)[0] + "/*", ("prod",), "for the test")
    found = check(declared("bad"), (exemption,))
    assert [one.excepted for one in found if one.rule == "rds-private"] == ["for the test"]
    assert all(one.excepted is None for one in found if one.rule != "rds-private")
    assert len(found) == len(findings("bad"))


def test_an_exception_that_matches_nothing_is_a_finding() -> None:
    stale = Exemption("rds-private", "postgres/rds.Instance/gone", ("prod",), "it was once public")
    assert [one.text for one in check(graph_of("prod"), (stale,)) if one.rule == UNUSED] == [
        "the exception from rds-private matches nothing: remove it"
    ]
    assert not [one for one in check(graph_of("dev"), (stale,)) if one.rule == UNUSED]


def test_exceptions_name_rules_and_stacks_that_exist_and_a_reason() -> None:
    for one in EXEMPTIONS:
        assert one.rule in BY_ID
        assert set(one.stacks) <= set(STACKS)
        assert one.stacks
        assert len(one.reason.split()) > 3


# -- the stacks --------------------------------------------------------------------------------------------


def test_no_stack_breaks_a_rule_without_a_written_exception(graph: Graph) -> None:
    assert not [one for one in check(graph) if one.severity == "mandatory" and one.excepted is None]


def test_no_exception_is_left_over(graph: Graph) -> None:
    assert not [one for one in check(graph) if one.rule == UNUSED]


def test_every_resource_belongs_to_a_component(graph: Graph) -> None:
    assert not [label(one) for one in graph if one.custom and label(one).startswith("-/")]


STORES = {
    "cloudwatch.LogGroup": "kmsKeyId",
    "dynamodb.Table": "serverSideEncryption",
    "ecr.Repository": "encryptionConfigurations",
    "kinesis.Stream": "kmsKeyId",
    "rds.Instance": "kmsKeyId",
    "redshift.Cluster": "kmsKeyId",
    "redshiftserverless.Namespace": "kmsKeyId",
    "s3.BucketServerSideEncryptionConfiguration": "rules",
    "sns.Topic": "kmsMasterKeyId",
    "sqs.Queue": "kmsMasterKeyId",
}
"""What keeps data → the input that names its key."""


def test_every_store_is_under_a_key_of_this_stack(graph: Graph) -> None:
    logs = log_buckets(graph)
    stores = [
        one
        for one in graph.of_kind(*STORES)
        if not one.inputs.get("replicateSourceDb") and not logs & {*one.references.get("bucket", ())}
    ]
    assert len({one.kind for one in stores}) >= len(STORES) - 1
    for one in stores:
        keys = [graph.resources[urn] for urn in one.references.get(STORES[one.kind], ())]
        assert [key.kind for key in keys] == ["kms.Key"], label(one)
        # A right to the key of one kind of data is no right to another.
        if one.kind == "cloudwatch.LogGroup":
            assert keys[0].name == "key-logs", label(one)
        elif one.kind in ("sns.Topic", "sqs.Queue"):
            assert keys[0].name == "key-notices", label(one)


def test_rules_have_something_to_look_at() -> None:
    # Kinds that only a mistake would bring in; any other that occurs in no stack is misspelt.
    never = (
        "iam.User", "iam.AccessKey", "iam.UserLoginProfile", "iam.Policy", "iam.GroupPolicy", "iam.UserPolicy",
        "iam.PolicyAttachment", "lambda.FunctionUrl", "lambda.Permission", "s3.BucketAcl",
        "s3.BucketWebsiteConfiguration", "secretsmanager.Secret", "ec2.LaunchTemplate", "ec2.SecurityGroupRule",
        "cloudwatch.EventTarget",
    )  # fmt: skip
    there = {one.kind for stack in STACKS for one in graph_of(stack)}
    for rule in RULES:
        if rule.kinds and not set(rule.kinds) & {*never, *ATTACHED, *NAMES}:
            assert set(rule.kinds) & there, rule.id


@pytest.mark.parametrize("action", sorted(UNSCOPABLE))
def test_what_may_be_allowed_on_everything_cannot_be_narrower(action: str) -> None:
    assert formats(action) == ("*",)


@pytest.mark.parametrize("action", sorted(WIDE_FOR_AWS))
def test_what_could_be_narrower_is_told_apart_and_in_use(action: str) -> None:
    assert formats(action) not in (None, ("*",))
    assert any(action in one.inputs["policy"] for one in graph_of("dev").of_kind("iam.RolePolicy"))


def test_each_way_to_widen_one_s_rights_exists() -> None:
    assert not [action for action in ESCALATION if formats(action) is None]


# -- secrets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        {"password": "x1"},
        {"masterPassword": "x1"},
        {"adminUserPasswordWo": "x1"},
        {"secretString": "x1"},
        {"authToken": "x1"},
        {"environment": {"variables": {"DB_PASSWORD": "x1"}}},
        {"environment": {"variables": {"API_KEY": "x1"}}},
        {"containerDefinitions": json.dumps([{"environment": [{"name": "PGPASSWORD", "value": "x1"}]}])},
        {"containerDefinitions": json.dumps([{"environment": [{"name": "APP_SECRET", "value": "x1"}]}])},
        {"userData": "export AWS_KEY=AKIAABCDEFGHIJKLMNOP"},
        {"environment": {"variables": {"URL": "postgresql://eav:x1@db:5432/eav"}}},
        {"parameters": [{"name": "x", "value": "-----BEGIN RSA PRIVATE KEY-----"}]},
    ],
)
def test_a_secret_is_found_and_not_repeated(inputs: dict[str, Any]) -> None:
    found = list(secrets(inputs))
    assert len(found) == 1
    assert "x1" not in found[0]
    assert "AKIA" not in found[0]


@pytest.mark.parametrize(
    "inputs",
    [
        {"manageMasterUserPassword": True},
        {"masterUserSecretKmsKeyId": KEY},
        {"masterPasswordSecretKmsKeyId": KEY},
        {"passwordWoVersion": 1},
        {"environment": {"variables": {"DATABASE_SECRET_ARN": "arn:aws:secretsmanager:eu:1:secret:x"}}},
        {"environment": {"variables": {"DB_SECRET": "arn:aws:secretsmanager:eu:1:secret:x"}}},
        {"environment": {"variables": {"URL": "postgresql://db:5432/eav"}}},
        {"containerDefinitions": json.dumps([{"secrets": [{"name": "DB_PASSWORD", "valueFrom": "arn:x"}]}])},
        {"auths": [{"authScheme": "SECRETS", "clientPasswordAuthType": "POSTGRES_SCRAM_SHA_256"}]},
        {"parameters": [{"name": "password_encryption", "value": "scram-sha-256"}]},
        {"metadataOptions": {"httpTokens": "required"}},
    ],
)
def test_what_only_tells_of_a_secret_is_none(inputs: dict[str, Any]) -> None:
    assert list(secrets(inputs)) == []


def test_no_stack_gives_a_secret_away(graph: Graph) -> None:
    assert list(secrets(graph.stack_outputs)) == []


# -- documents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"Statement": [{"Action": "s3:GetObject"}]}', '{"Statement": [1]}']
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_single_value_is_a_list_of_one() -> None:
    (clause,) = parse(
        {
            "Statement": {
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": "*",
                "Principal": {"AWS": "*"},
            }
        }
    )
    assert clause.actions == ("s3:GetObject",)
    assert clause.everybody
