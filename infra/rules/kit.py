"""What a rule is, and the few words that most rules are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from infra.graph import Graph, Resource

Severity = Literal["mandatory", "advisory"]
Scope = Literal["resource", "stack", "plan"]
Find = Callable[[Graph], Iterable[tuple[Resource | None, str]]]
Look = Callable[[Resource], Iterable[str]]

PROD: Final = ("prod",)
UNKNOWN: Final = "<known once it exists>"
"""Stands for a value that a preview cannot know. No rule holds it against a resource: the offline plan, where all is
known, and the deployment itself look again."""


@dataclass(frozen=True)
class Rule:
    """What must be so, why, and who else says so."""

    id: str
    title: str
    """What must be so, as a sentence."""
    why: str
    refs: tuple[str, ...]
    """The same rule in the lists of Checkov (CKV_…) and AWS Security Hub (RDS.3 …); none where it is our own."""
    severity: Severity
    scope: Scope
    """Whether it looks at one resource by its inputs, at the whole stack, or at what only the offline plan knows."""
    stacks: tuple[str, ...]
    """The stacks that it is for; () for all."""
    find: Find
    kinds: tuple[str, ...] = ()
    """What it looks at, if it looks at one resource; () for all."""

    def applies(self, graph: Graph) -> bool:
        """Whether it is for this stack."""
        return not self.stacks or graph.settings.stack in self.stacks


def on(
    kinds: str | tuple[str, ...],
    id: str,  # noqa: A002 (a rule has an id)
    title: str,
    why: str,
    refs: str,
    look: Look,
    *,
    severity: Severity = "mandatory",
    scope: Literal["resource", "plan"] = "resource",
    stacks: tuple[str, ...] = (),
    unless: Callable[[Resource], bool] | None = None,
) -> Rule:
    """A rule over each resource of these kinds (() for all), by its inputs alone."""
    wanted = (kinds,) if isinstance(kinds, str) else kinds

    def find(graph: Graph) -> Iterator[tuple[Resource | None, str]]:
        for one in graph.of_kind(*wanted) if wanted else graph:
            if one.custom and not (unless and unless(one)):
                for text in look(one):
                    yield one, text

    return Rule(id, title, why, tuple(refs.split()), severity, scope, stacks, find, wanted)


def over(
    id: str,  # noqa: A002
    title: str,
    why: str,
    refs: str,
    find: Find,
    *,
    severity: Severity = "mandatory",
    scope: Scope = "stack",
    stacks: tuple[str, ...] = (),
) -> Rule:
    """A rule over the whole graph. It joins resources by what refers to what, never by names."""
    return Rule(id, title, why, tuple(refs.split()), severity, scope, stacks, find)


# -- what is asked of a value ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Want:
    """A test of a value, and how to say what passes it."""

    text: str
    test: Callable[[Any], bool]


def _is_true(value: Any) -> bool:
    return value in (True, "true")


def _is_key(value: Any) -> bool:
    return bool(value) and "alias/aws/" not in str(value)


TRUE: Final = Want("must be true", _is_true)
NOT_TRUE: Final = Want("must not be true", lambda value: not _is_true(value))
NOT_FALSE: Final = Want("must not be false", lambda value: value not in (False, "false"))
GIVEN: Final = Want("must be given", lambda value: value not in (None, "", [], {}))
ABSENT: Final = Want("must be absent", lambda value: value in (None, "", [], {}))
KEY: Final = Want("must be a customer managed key", _is_key)


def at_least(least: int) -> Want:
    """A number of at least so much."""
    return Want(
        f"must be {least} or more", lambda value: _number(value) is not None and _number(value) >= least
    )


def one_of(*allowed: Any) -> Want:
    """One of these values."""
    return Want(f"must be {' or '.join(map(str, allowed))}", lambda value: value in allowed)


def none_of(*refused: Any) -> Want:
    """Given, and none of these values."""
    return Want(
        f"must be given, and not {' or '.join(map(str, refused))}",
        lambda value: bool(value) and value not in refused,
    )


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def want(path: str, wanted: Want) -> Look:
    """A look at the inputs by a path such as `metadataOptions.httpTokens`: every value there must pass."""

    def look(resource: Resource) -> Iterator[str]:
        for value in values(resource.inputs, path) or [None]:
            if value != UNKNOWN and not wanted.test(value):
                yield f"{path} {wanted.text}, {told(value)}"

    return look


def told(value: Any) -> str:
    """`is 5`, or `is absent`."""
    return "is absent" if value is None else f"is {shown(value)}"


def shown(value: Any) -> str:
    """As a person writes it: the engine has no integers, and other words for true and false."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def values(inputs: Any, path: str) -> list[Any]:
    """All values at a path; a list on the way stands for each of its members. UNKNOWN stays what it is."""
    found = [inputs]
    for part in path.split("."):
        deeper: list[Any] = []
        for one in found:
            if one == UNKNOWN:
                deeper.append(one)
            elif isinstance(one, Mapping) and one.get(part) is not None:
                deeper += one[part] if isinstance(one[part], list) else [one[part]]
        found = deeper
    return found


def parameters(resource: Resource) -> Mapping[str, Any] | None:
    """Name → value of a parameter group of RDS or Redshift; None while it cannot be known."""
    given = resource.inputs.get("parameters")
    if given == UNKNOWN:
        return None
    return {one["name"]: one.get("value") for one in given or () if isinstance(one, Mapping)}


def parameter(name: str, *allowed: str) -> Look:
    """A look at one parameter of a parameter group."""

    def look(resource: Resource) -> Iterator[str]:
        found = parameters(resource)
        if found is not None and str(found.get(name)) not in (*allowed, UNKNOWN):
            yield f"parameter {name} must be {' or '.join(allowed)}, {told(found.get(name))}"

    return look


# -- what refers to what -----------------------------------------------------------------------------------


def pointing(graph: Graph, target: Resource, kind: str, *properties: str) -> list[Resource]:
    """Resources of a kind that refer to another by one of these properties (any, if none is named)."""
    return [
        one
        for one in graph.of_kind(kind)
        if any(
            target.urn in urns
            for name, urns in one.references.items()
            if not properties or name in properties
        )
    ]


def targets(graph: Graph, resource: Resource, prop: str, *kinds: str) -> list[Resource]:
    """The resources of these kinds that a property refers to."""
    found = (graph.resources.get(urn) for urn in resource.references.get(prop, ()))
    return [one for one in found if one is not None and (not kinds or one.kind in kinds)]


def label(resource: Resource | None) -> str:
    """`postgres/rds.Instance/primary`: component, kind and name; `stack` where it is about no resource."""
    if resource is None:
        return "stack"
    chain = resource.urn.split("::")[2].split("$")
    component = next((part.split(":")[1] for part in chain if part.startswith("eav:")), "-")
    return f"{component}/{resource.kind}/{resource.name}"
