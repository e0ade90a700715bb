"""Stacks that differ from their file in a few settings."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from infra.settings import PROJECT, Settings, load

if TYPE_CHECKING:
    from infra.graph import Graph

DIGEST = f"sha256:{'ab' * 32}"


def settings(stack: str, **sections: dict[str, Any]) -> Settings:
    """The settings of a stack with these instead of what its file says."""
    from infra.graph import read_config

    config = read_config(stack)
    for section, values in sections.items():
        key = f"{PROJECT}:{section}"
        config[key] = {**config.get(key, {}), **values}
    return load(stack, config)


def graph(stack: str, **sections: dict[str, Any]) -> Graph:
    """The graph of that."""
    from infra.graph import record

    return record(settings(stack, **sections))


@cache
def with_an_image() -> Graph:
    """Of dev, with an image and without Container Insights. Not to be changed by a test."""
    return graph("dev", workers={"image_digest": DIGEST, "workers": 3, "insights": "disabled"})
