"""The metrics that the archiver publishes of each run: who watches them has their names from here too."""

from __future__ import annotations

from typing import Final

SERVICE: Final = "archiver"
NAMESPACE: Final = "EavPlatform/Archiver"
DIMENSIONS: Final = ("service", "table")
"""Of every metric; `service` is SERVICE, which the library adds by itself."""
STATISTICS: Final = {
    "scanned": "Count",
    "archived": "Count",
    "deleted": "Count",
    "kept": "Count",
    "unreadable": "Count",
    "unsafe": "Count",
    "errors": "Count",
    "objects": "Count",
    "bytes": "Bytes",
}
"""Statistic of a run to its unit; the metric is called like the statistic, with a capital letter."""
METRICS: Final[dict[str, str]] = {name.capitalize(): unit for name, unit in STATISTICS.items()} | {
    "Duration": "Seconds",
    "ApiCalls": "Count",
    "Finished": "Count",
}
"""Metric to its unit."""
