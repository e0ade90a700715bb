"""Pictures of what was measured, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS: Final = "#1f6f5c"
OTHER: Final = "#b0562b"
QUIET: Final = "#9aa0a6"

# The same figures give the same file: no date, and ids that do not change.
mpl.rcParams.update({"svg.hashsalt": "eav-platform", "font.size": 9, "svg.fonttype": "none"})


def save(figure: Figure, path: Path) -> None:
    """Write it as SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")


def draw_table(result: Mapping[str, Any], path: Path) -> None:
    """How far each line with a bar is from it: to the right of the line at 1 it is met."""
    lines = [line for row in result["rows"] for line in row["lines"] if line["bar"] and "value" in line]
    figure = Figure(figsize=(10, 1.2 + 0.36 * max(len(lines), 1)))
    axes = figure.subplots()
    for place, line in enumerate(reversed(lines)):
        margin = line["margin"]
        axes.barh(
            place, math.log10(margin) if margin > 0 else 0, color=OURS if line["verdict"] == "met" else OTHER
        )
        axes.text(
            max(0.0, math.log10(margin)) + 0.03 if margin > 0 else 0.03,
            place,
            f"{line['value_text']} (bar {line['bar']})",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(lines)), [_short(line["what"]) for line in reversed(lines)], fontsize=8)
    axes.axvline(0, color="black", linewidth=1)
    ticks = range(-2, 4)
    axes.set_xticks(list(ticks), [f"{10.0**tick:g} ×" for tick in ticks])
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.5), high + 0.9)
    axes.set_xlabel("times as good as the bar asks; left of 1 × it is missed")
    axes.set_title(f"Bars, PostgreSQL {result['about']['postgresql']}", loc="left")
    _plain(axes)
    save(figure, path)


def draw_curves(result: Mapping[str, Any], path: Path) -> None:
    """Cost against size: a picture for each question, ours beside the reference, both axes logarithmic."""
    panels = result["panels"]
    columns = 2
    count = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(11, 3.4 * count), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for number, (name, points) in enumerate(panel["series"].items()):
            sizes = sorted(points, key=lambda point: point["size"])
            axes.errorbar(
                [point["size"] for point in sizes],
                [point["median"] for point in sizes],
                yerr=[
                    [point["median"] - point["min"] for point in sizes],
                    [point["max"] - point["median"] for point in sizes],
                ],
                marker="o",
                markersize=4,
                linewidth=1.5,
                capsize=2,
                label=name,
                color=OTHER if name.startswith("reference") else OURS,
                linestyle="-" if number < 2 else "--",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes_shown = sorted({point["size"] for points in panel["series"].values() for point in points})
        axes.set_xticks(sizes_shown, [f"{size / 1e6:g} M" for size in sizes_shown])
        axes.minorticks_off()
        axes.set_title(panel["title"], loc="left", fontsize=9)
        axes.set_xlabel(panel["size"])
        axes.set_ylabel(panel["unit"])
        axes.legend(fontsize=7, frameon=False)
        _plain(axes)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    save(figure, path)


def draw_sustained(result: Mapping[str, Any], path: Path) -> None:
    """Each metric over the minutes of the run."""
    metrics = result["metrics"]
    columns = 3
    count = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(12, 2.3 * count), layout="constrained")
    grid = figure.subplots(count, columns, squeeze=False)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        points = [
            (sample["seconds"] / 60, sample[metric["name"]])
            for sample in result["samples"]
            if sample.get(metric["name"]) is not None
        ]
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            color=OTHER if metric["verdict"] == "grows" else OURS,
            linewidth=1,
        )
        axes.set_title(f"{metric['title']} ({metric['unit']}): {metric['verdict']}", loc="left", fontsize=8)
        axes.set_ylim(bottom=0)
        _plain(axes)
    for axes in list(grid.flat)[len(metrics) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("minutes")
    save(figure, path)


def draw_archiver(result: Mapping[str, Any], path: Path) -> None:
    """API calls and memory against the size of the table, ours beside the reference."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = (
        ("calls_per_1000", "API calls for 1,000 items"),
        ("peak_mib", "peak memory of the process (MiB)"),
    )
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for who, colour in (("ours", OURS), ("reference", OTHER)):
            points = [(one["items"], one[name]) for one in result["runs"] if one["who"] == who]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=who)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("items in the table, all of them old")
        axes.set_title(title, loc="left", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        _plain(axes)
    save(figure, path)


def _short(text: str) -> str:
    return text if len(text) <= 70 else text[:69] + "…"


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, axis="both", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
