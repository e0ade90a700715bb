"""What the roles of a recorded graph may do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.graph import Graph


def statements(graph: Graph, name: str) -> dict[str, dict[str, Any]]:
    """The statements of an inline policy, by their Sid."""
    document = json.loads(graph.one("iam.RolePolicy", name).inputs["policy"])
    return {one["Sid"]: one for one in document["Statement"]}
