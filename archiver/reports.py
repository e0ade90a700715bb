"""What is said by whoever goes over the objects of an archive."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """Of all objects that were looked at."""

    objects: int = 0
    unfinished: list[str] = field(default_factory=list)
    """Their deletes are under way: a run goes on with them."""
    abandoned: list[str] = field(default_factory=list)
    """A run ended before anything was deleted for them: their items are in the table, or in a later object."""
    problems: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
