"""What is different between two stacks: settings, resources, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.bill import Estimate
from infra.graph import Graph
from infra.settings import SECTIONS, Settings, unused


@dataclass(frozen=True)
class Difference:
    """From the first stack to the other."""

    settings: Mapping[str, tuple[Any, Any]]
    """`section.key` → its value in each; None where it means nothing there."""
    gone: Mapping[str, tuple[str, ...]]
    """`component kind` → logical names that only the first has."""
    new: Mapping[str, tuple[str, ...]]
    """The same of the other."""
    usd: Mapping[str, tuple[float, float]]
    """Component → USD a month in each, where that is not the same."""
    total: tuple[float, float]


def difference(one: Graph, other: Graph, bill: Estimate, other_bill: Estimate) -> Difference:
    """Between two recorded stacks and their bills. A resource is the same if component, kind and logical name are."""
    here, there = set(_keys(one)), set(_keys(other))
    costs, other_costs = bill.by_component(), other_bill.by_component()
    usd = {
        name: (costs.get(name, 0.0), other_costs.get(name, 0.0)) for name in sorted({*costs, *other_costs})
    }
    return Difference(
        settings=_settings(one.settings, other.settings),
        gone=_grouped(here - there),
        new=_grouped(there - here),
        usd={name: pair for name, pair in usd.items() if round(pair[0], 2) != round(pair[1], 2)},
        total=(bill.usd, other_bill.usd),
    )


def _keys(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for one in graph:
        if one.custom:
            yield graph.component(one), one.kind, one.name


def _grouped(keys: set[tuple[str, str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for component, kind, name in sorted(keys):
        found[f"{component} {kind}"].append(name)
    return {group: tuple(names) for group, names in found.items()}


def _settings(one: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    here, there = _flat(one), _flat(other)
    return {key: (here[key], there[key]) for key in here if here[key] != there[key]}


def _flat(settings: Settings) -> dict[str, Any]:
    plain = settings.model_dump(mode="json", include={"region", *SECTIONS})
    nothing = unused(settings)
    found = {
        f"{section}.{key}" if key else section: value
        for section, values in plain.items()
        for key, value in (values.items() if isinstance(values, dict) else (("", values),))
    }
    return {key: None if key in nothing else value for key, value in found.items()}
