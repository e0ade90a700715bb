"""The policy pack finds what `check` finds, is silent on what cannot be known, and speaks the engine's protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyCustomTimeouts,
    PolicyResource,
    PolicyResourceOptions,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_BOOLEAN_VALUE, UNKNOWN_STRING_VALUE, unknown_checking_proxy

from infra.graph import ROOT
from infra.pack import known, policies
from infra.policies import RULES, UNUSED, check
from infra.rules.kit import UNKNOWN
from tests.infra.conftest import graph_of
from tests.infra.test_policies import declared, owner, settings

if TYPE_CHECKING:
    from infra.graph import Graph, Resource

Found = set[tuple[str, str]]
ALL = policies(settings)


def options(one: Resource) -> PolicyResourceOptions:
    return PolicyResourceOptions(
        one.protect, [], None, [], PolicyCustomTimeouts(0, 0, 0), [], one.parent or None
    )


def as_engine(one: Resource) -> dict[str, Any]:
    """The inputs as the engine's analyzer hands them to a policy."""
    return unknown_checking_proxy(dict(one.inputs))


def into(found: Found, policy: Policy) -> ReportViolation:
    """Where a policy reports to."""

    def report(message: str, urn: str | None = None) -> None:
        found.add((policy.name, message))

    return report


def by_resource(one: Resource, only: list[Policy] = ALL) -> Found:
    """What the policies over one resource report of it: (rule, message)."""
    found: Found = set()
    for policy in only:
        if isinstance(policy, ResourceValidationPolicy):
            args = ResourceValidationArgs(one.type, as_engine(one), one.urn, one.name, options(one), None)
            policy.validate(args, into(found, policy))
    return found


def by_stack(graph: Graph, props: Any = as_engine) -> Found:
    """What the policies over a stack report."""
    made = {
        one.urn: PolicyResource(one.type, props(one), one.urn, one.name, options(one), None, None, [], {})
        for one in graph
    }
    for one in graph:
        made[one.urn].parent = made.get(one.parent)
        made[one.urn].dependencies = [made[urn] for urn in one.depends_on if urn in made]
        made[one.urn].property_dependencies = {
            name: [made[urn] for urn in urns if urn in made] for name, urns in one.references.items()
        }
    found: Found = set()
    for policy in ALL:
        if isinstance(policy, StackValidationPolicy):
            policy.validate(StackValidationArgs(list(made.values())), into(found, policy))
    return found


def by_check(graph: Graph) -> Found:
    """What the offline plan prints, but for what it alone can see."""
    plan = {UNUSED} | {rule.id for rule in RULES if rule.scope == "plan"}
    return {
        (one.rule, one.text if one.resource == "stack" else f"{one.resource}: {one.text}")
        for one in check(graph)
        if one.rule not in plan and one.excepted is None
    }


@pytest.mark.parametrize("side", ["good", "bad"])
def test_the_pack_finds_what_the_plan_finds(side: str) -> None:
    graph = declared(side)
    found = by_stack(graph)
    for one in graph:
        found |= by_resource(one)
    assert found == by_check(graph)


def test_the_pack_finds_what_the_plan_finds_in_a_stack(graph: Graph) -> None:
    found = by_stack(graph)
    for one in graph:
        found |= by_resource(one)
    assert found == by_check(graph)


def test_each_rule_is_a_policy_of_its_severity() -> None:
    assert {one.name for one in ALL} == {rule.id for rule in RULES if rule.scope != "plan"}
    level = {one.name: one.enforcement_level for one in ALL}
    assert level["rds-private"] is EnforcementLevel.MANDATORY
    assert level["s3-lock"] is EnforcementLevel.ADVISORY


def unknown(value: Any) -> Any:
    """What a preview sends where nothing of a value is known yet."""
    return UNKNOWN_BOOLEAN_VALUE if isinstance(value, bool) else UNKNOWN_STRING_VALUE


def test_nothing_is_held_against_what_a_preview_cannot_know() -> None:
    # Each input of a resource that breaks a rule, in turn as if another resource had still to give it.
    rules = {one.name: one for one in ALL if isinstance(one, ResourceValidationPolicy)}
    for one in declared("bad"):
        if (policy := rules.get(owner(one.name))) is None:
            continue
        for name in one.inputs:
            props = unknown_checking_proxy(dict(one.inputs) | {name: unknown(one.inputs[name])})
            args = ResourceValidationArgs(one.type, props, one.urn, one.name, options(one), None)
            found: Found = set()
            policy.validate(args, into(found, policy))
            assert not [text for _, text in found if f": {name} " in text or UNKNOWN in text]


def test_a_stack_of_which_nothing_is_known_is_read_all_the_same() -> None:
    def nothing(one: Resource) -> dict[str, Any]:
        return unknown_checking_proxy({name: unknown(value) for name, value in one.inputs.items()})

    found = by_stack(graph_of("prod"), nothing)
    assert not [text for _, text in found if UNKNOWN in text]


def test_the_engine_s_values_become_plain() -> None:
    proxy = unknown_checking_proxy(
        {"a": [{"b": UNKNOWN_STRING_VALUE}], "c": True, "d": [UNKNOWN_BOOLEAN_VALUE]}
    )
    assert known(proxy) == {"a": [{"b": UNKNOWN}], "c": True, "d": [UNKNOWN]}


# -- over the wire -----------------------------------------------------------------------------------------


@contextmanager
def engine() -> Iterator[analyzer_pb2_grpc.AnalyzerStub]:
    """The pack as the engine starts it: a program that prints its port, in its own folder."""
    folder = ROOT / "infra" / "policypack"
    with subprocess.Popen([sys.executable, "."], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            process.kill()


def struct(inputs: Any) -> Struct:
    found = Struct()
    found.update(inputs)
    return found


def test_the_pack_speaks_the_engine_s_protocol() -> None:
    bad = declared("bad")
    public = bad.one("rds.Instance", "rds-private")
    pair = [one for one in bad if owner(one.name) == "s3-public-access"]
    with engine() as stub:
        told = stub.GetAnalyzerInfo(Empty())
        assert {one.name for one in told.policies} == {one.name for one in ALL}
        answer = stub.Analyze(
            analyzer_pb2.AnalyzeRequest(
                type=public.type, name=public.name, urn=public.urn, properties=struct(public.inputs)
            )
        )
        whole = stub.AnalyzeStack(
            analyzer_pb2.AnalyzeStackRequest(
                resources=[
                    analyzer_pb2.AnalyzerResource(
                        type=one.type,
                        name=one.name,
                        urn=one.urn,
                        properties=struct(one.inputs),
                        propertyDependencies={
                            name: analyzer_pb2.AnalyzerPropertyDependencies(urns=urns)
                            for name, urns in one.references.items()
                        },
                    )
                    for one in pair
                ]
            )
        )
    assert "rds-private" in {one.policyName for one in answer.diagnostics}
    (block,) = [one for one in whole.diagnostics if one.policyName == "s3-public-access"]
    assert block.enforcementLevel == analyzer_pb2.MANDATORY
    assert "blockPublicPolicy must be true, is false" in block.message
    assert block.urn == next(one.urn for one in pair if one.kind == "s3.BucketPublicAccessBlock")
