"""The graph of each stack hangs together: no cycle, no reference to nothing, nothing required that got lost."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import pulumi_aws as aws
import pytest

from infra.graph import ACCOUNT, read_config, record
from infra.rules.general import physical
from infra.settings import load

if TYPE_CHECKING:
    from infra.graph import Graph, Resource


def texts(value: Any) -> Iterator[str | None]:
    """All strings, and each None, in a value."""
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str) or value is None:
        yield value


def required(resource: Resource) -> set[str]:
    """The inputs that its kind must have."""
    _, module, kind = resource.type.split(":")
    package = module.split("/")[0]
    loaded = sys.modules[f"pulumi_aws.{'lambda_' if package == 'lambda' else package}"]
    # Where a part of another resource took the name, the arguments of this one have another.
    arguments = getattr(loaded, f"{kind}InitArgs", None) or getattr(loaded, f"{kind}Args")
    names = {
        name: getattr(one.fget, "_pulumi_name", name)
        for name, one in vars(arguments).items()
        if isinstance(one, property) and one.fget
    }
    wanted = inspect.signature(arguments.__init__).parameters.values()
    return {names[one.name] for one in wanted if one.default is inspect.Parameter.empty and one.name in names}


def test_there_is_no_cycle(graph: Graph) -> None:
    order = TopologicalSorter({one.urn: set(one.depends_on) | {one.parent} - {""} for one in graph})
    assert len(list(order.static_order())) == len(graph.resources)


def test_references_and_parents_are_in_the_stack(graph: Graph) -> None:
    for one in graph:
        assert {urn for urns in one.references.values() for urn in urns} <= set(one.depends_on)
        assert {*one.depends_on, *([one.parent] if one.parent else ())} <= set(graph.resources)


def test_no_reference_is_to_nothing(graph: Graph) -> None:
    for one in graph:
        for text in texts(dict(one.inputs)):
            assert text is not None, f"{one.name}: a reference came to nothing"
            assert not re.search(r"\bNone\b|<pulumi\.|Output\[|Calling __str__", text), f"{one.name}: {text}"


# To read the annotations of a class the SDK loads all of its module, what is deprecated there included.
@pytest.mark.filterwarnings("ignore:aws.* has been deprecated in favor of:DeprecationWarning")
def test_nothing_required_got_lost(graph: Graph) -> None:
    # An output that is None where it is used takes the whole property with it, and only AWS would say so.
    for one in graph:
        if one.custom:
            assert required(one) <= set(one.inputs), one.name


def test_what_a_resource_uses_of_another_it_waits_for(graph: Graph) -> None:
    # A name that the program gave, and the ARN with it, is known beforehand: policies and alarms may say it. What AWS
    # makes up is known only of what is there.
    made_up = {
        value: urn
        for value, (urn, output) in graph.made_up().items()
        if len(value) > 12
        and not (output in ("id", "arn", "url") and _given(graph.resources[urn], value))
        and (output != "id" or re.search(r"[0-9a-fA-F]{8}", value))
    }
    pattern = re.compile("|".join(sorted(map(re.escape, made_up), key=len, reverse=True)))
    for one in graph:
        if not one.custom:
            continue
        for text in texts(dict(one.inputs)):
            for value in pattern.findall(text or ""):
                # Two resources may make one value, as a log group's name is also in its ARN.
                owners = {urn for found, urn in made_up.items() if found == value}
                assert owners & {*one.depends_on, one.urn}, (
                    f"{one.kind} {one.name} uses {value}, and does not wait"
                )


def _given(resource: Resource, value: str) -> bool:
    """Whether a value follows from the name that the program gave a resource."""
    name = physical(resource)
    return name is not None and re.search(rf"(^|[:/]){re.escape(name)}(:1)?$", value) is not None


def test_an_arn_is_of_this_account_and_partition(graph: Graph) -> None:
    for one in graph:
        for text in texts(dict(one.inputs)):
            for partition, account in re.findall(
                r"arn:([a-z-]*):[a-z0-9-]*:[a-z0-9-]*:(\d{12})?:", text or ""
            ):
                assert partition == "aws"
                assert account in ("", ACCOUNT)


def test_a_lost_reference_is_noticed() -> None:
    def declare(_: object) -> None:
        key = aws.kms.Key("key")
        nothing: Any = key.policy.apply(lambda _: None)
        aws.ec2.Subnet("subnet", vpc_id=nothing)
        aws.sns.Topic("topic", name=key.policy.apply(lambda _: f"eav-{None}"))

    graph = record(load("dev", read_config("dev")), declare)
    with pytest.raises(AssertionError, match="subnet"):
        test_nothing_required_got_lost(graph)
    with pytest.raises(AssertionError, match="eav-None"):
        test_no_reference_is_to_nothing(graph)
