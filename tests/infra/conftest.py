"""The graph of each stack, recorded once a test process: recording one takes about a second."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from infra.sdk import load_what_is_used

if TYPE_CHECKING:
    from infra.graph import Graph

# Before a test module imports the SDK.
load_what_is_used()

STACKS = ("dev", "staging", "prod")


@cache
def graph_of(stack: str) -> Graph:
    """Not to be changed by a test."""
    from infra.graph import load_graph

    return load_graph(stack)


@pytest.fixture(params=STACKS)
def graph(request: pytest.FixtureRequest) -> Graph:
    """Of each stack in turn."""
    return graph_of(request.param)


@pytest.fixture
def prod() -> Graph:
    """Of prod."""
    return graph_of("prod")
