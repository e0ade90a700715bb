"""The rules as policies of a Pulumi policy pack: what the engine sends becomes a graph, and the rules are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)  # fmt: skip
from pulumi_policy.proxy import UnknownValueError

from infra.exceptions import EXEMPTIONS
from infra.graph import Graph, Resource, kind_of, read_config
from infra.policies import RULES
from infra.rules.kit import UNKNOWN, Rule, label
from infra.settings import Settings, load

LEVELS: Final = {"mandatory": EnforcementLevel.MANDATORY, "advisory": EnforcementLevel.ADVISORY}


def settings_of(stack: str) -> Settings:
    """Of a stack, from its file beside the program."""
    return load(stack, read_config(stack))


def policies(settings: Callable[[str], Settings] = settings_of) -> list[Policy]:
    """A policy for each rule; what only the offline plan can see is not among them."""
    return [_policy(rule, settings) for rule in RULES if rule.scope != "plan"]


def _policy(rule: Rule, settings: Callable[[str], Settings]) -> Policy:
    text = f"{rule.title}: {rule.why}" + (f" ({', '.join(rule.refs)})" if rule.refs else "")

    def resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if not rule.kinds or kind_of(args.resource_type) in rule.kinds:
            one = _resource(
                args.resource_type, args.name, args.urn, args.props, args.opts.protect, args.opts.parent
            )
            _report(rule, _graph(settings, [one]), report)

    def stack(args: StackValidationArgs, report: ReportViolation) -> None:
        _report(rule, _graph(settings, map(_of_stack, args.resources)), report)

    level = LEVELS[rule.severity]
    if rule.scope == "resource":
        return ResourceValidationPolicy(rule.id, text, resource, enforcement_level=level)
    return StackValidationPolicy(rule.id, text, stack, enforcement_level=level)


def _report(rule: Rule, graph: Graph, report: ReportViolation) -> None:
    if not rule.applies(graph):
        return
    for one, text in rule.find(graph):
        name = label(one)
        if not any(exemption.covers(rule.id, name, graph.settings.stack) for exemption in EXEMPTIONS):
            report(f"{name}: {text}", one.urn if one else None)


def _graph(settings: Callable[[str], Settings], resources: Iterable[Resource]) -> Graph:
    found = {one.urn: one for one in resources if one.type != "pulumi:pulumi:Stack"}
    stack = next(iter(found), "urn:pulumi:").split(":")[2]
    return Graph(settings(stack), found)


def _of_stack(one: PolicyResource) -> Resource:
    return _resource(
        one.resource_type, one.name, one.urn, one.props, one.opts.protect, one.parent.urn if one.parent else None,
        depends_on=[other.urn for other in one.dependencies],
        references={name: [other.urn for other in found] for name, found in one.property_dependencies.items()},
    )  # fmt: skip


def _resource(
    token: str, name: str, urn: str, props: Mapping[str, Any], protect: bool, parent: str | None,
    depends_on: Sequence[str] = (), references: Mapping[str, Sequence[str]] | None = None,
) -> Resource:  # fmt: skip
    inputs = known(props)
    return Resource(
        urn=urn,
        type=token,
        name=name,
        parent="" if not parent or "pulumi:pulumi:Stack" in parent.split("::")[2:3] else parent,
        inputs=inputs,
        outputs=inputs,
        depends_on=tuple(depends_on),
        references={one: tuple(found) for one, found in (references or {}).items() if found},
        protect=bool(protect),
        retain_on_delete=False,
        # A component has no provider; its type is ours, a resource's is the provider's.
        custom=not token.startswith("eav:"),
    )


def known(value: Any) -> Any:
    """Plain values in place of the engine's, and UNKNOWN for what a preview cannot know."""
    if isinstance(value, Mapping):
        return {str(key): known(_item(value, key)) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [known(_item(value, index)) for index in range(len(value))]
    if isinstance(value, pulumi.FileArchive | pulumi.FileAsset):
        return str(value.path)
    return value


def _item(owner: Any, key: Any) -> Any:
    try:
        return owner[key]
    except UnknownValueError:
        return UNKNOWN
