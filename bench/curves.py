"""Cost against size: curves, not points, and what they say about the design load.

Each size of the history is a partition of its own, filled in both designs, flushed into, asked, compacted where the job
exists, and asked again; then dropped. Each size of the hot projection is a database of its own.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import docs, pictures, report
from bench.model import Figure, Row
from bench.rows.history import ColdActive, ColdCompacted, Compaction, Filled
from bench.rows.hot import HotRead, HotWriteSteady
from bench.run import measure
from bench.server import Bench, Say, running
from bench.sizes import FULL, QUICK, Sizes, check_disk
from bench.worlds import Entities, History, World
from local.errors import LocalError

ROWS: Final = (1_000_000, 10_000_000, 50_000_000)
ENTITIES: Final = (200_000, 2_000_000, 5_000_000)
VARIED: Final = ("staged", "history", "entities")
QUICK_ROWS: Final = (100_000, 300_000, 1_000_000)
QUICK_ENTITIES: Final = (20_000, 50_000, 100_000)

MONTH_ROWS: Final = 26_000_000_000
"""The design load: 10 000 values a second."""
INTERVALS: Final = {"a month": 1.0, "a day": 1 / 30, "an hour": 1 / 720}

HISTORY_SIZE: Final = "rows in the partition"
ENTITY_SIZE: Final = "entities in the projection"

# title, unit, size, and each series with the figure it is made of
PANELS: Final[tuple[tuple[str, str, str, Mapping[str, str]], ...]] = (
    (
        "flush into the partition",
        "µs a row",
        HISTORY_SIZE,
        {"reference": "reference, full partition", "ours": "ours, full partition"},
    ),
    (
        "24 h of one attribute, largest tenant",
        "ms",
        HISTORY_SIZE,
        {
            "reference": "reference, 24 h of one attribute, largest tenant",
            "ours, active": "ours, 24 h of one attribute, largest tenant",
            "ours, compacted": "compacted: ours, 24 h of one attribute, largest tenant",
        },
    ),
    (
        "latest value of 100 entities in the partition, largest tenant",
        "ms",
        HISTORY_SIZE,
        {
            "reference": "reference, latest value of 100 entities, largest tenant",
            "ours, active": "ours, latest value of 100 entities, largest tenant",
            "ours, compacted": "compacted: ours, latest value of 100 entities, largest tenant",
        },
    ),
    (
        "hot projection, every event another entity",
        "µs an event",
        ENTITY_SIZE,
        {"reference": "reference, a changing value", "ours": "ours, a changing value"},
    ),
    (
        "hot selective filter, median tenant",
        "ms",
        ENTITY_SIZE,
        {
            "reference": "reference, hot selective filter, median tenant",
            "ours": "ours, hot selective filter, median tenant",
        },
    ),
    (
        "hot selective filter, largest tenant",
        "ms",
        ENTITY_SIZE,
        {
            "reference": "reference, hot selective filter, largest tenant",
            "ours": "ours, hot selective filter, largest tenant",
        },
    ),
)


def measure_curves(
    bench: Bench, rows: Sequence[int], entities: Sequence[int], earlier: Sequence[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Size after size, the quick ones first: what the JSON file holds, `earlier` results included, after each.

    Hours of work are in it that an interrupted run can be gone on with.
    """
    began = time.monotonic()
    found: dict[tuple[str, int], dict[str, Figure]] = {}
    left_out: list[str] = []
    about = bench.about()
    for result in earlier:
        docs.check_same(result, about)
    sizes = sorted([(size, HISTORY_SIZE) for size in rows] + [(size, ENTITY_SIZE) for size in entities])
    if not sizes:
        yield _result(about, found, left_out, earlier, began)
    for number, (size, kind) in enumerate(sizes, 1):
        bench.say(f"{number} of {len(sizes)}: {size:,} {kind}")
        found[kind, size] = (
            _at(bench, History(bench, size), (Filled, ColdActive, Compaction, ColdCompacted), left_out)
            if kind == HISTORY_SIZE
            else _at(bench, Entities(bench, size), (HotWriteSteady, HotRead), left_out)
        )
        yield _result(about, found, left_out, earlier, began)


def _result(
    about: Mapping[str, Any],
    found: Mapping[tuple[str, int], Mapping[str, Figure]],
    left_out: Sequence[str],
    earlier: Sequence[Mapping[str, Any]],
    began: float,
) -> dict[str, Any]:
    panels = merged([_panels(found), *(panels_of(result) for result in earlier)])
    return {
        "about": {**about, "seconds": round(time.monotonic() - began)},
        "with": [
            {key: about[key] for key in ("date", "commit")}
            for result in earlier
            for about in (result["about"], *result.get("with", ()))
        ],
        "panels": panels,
        "left_out": sorted(
            {*left_out, *(reason for result in earlier for reason in result.get("left_out", ()))}
        ),
        "says": conclusions(panels),
    }


def _panels(found: Mapping[tuple[str, int], Mapping[str, Figure]]) -> list[dict[str, Any]]:
    """What was measured at each (kind of size, size), as what is drawn."""
    panels = []
    for title, unit, of, series in PANELS:
        lines = {
            name: [
                {"size": size, **_cost(figures[figure], unit)}
                for (kind, size), figures in found.items()
                if kind == of and figure in figures
            ]
            for name, figure in series.items()
        }
        measured = {name: points for name, points in lines.items() if points}
        if measured:
            panels.append({"title": title, "unit": unit, "size": of, "series": measured})
    return panels


def panels_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of an earlier result: of curves all, of a table those of its one size of each kind."""
    if "panels" in result:
        return list(result["panels"])
    sizes = result["about"]["sizes"]
    kinds: dict[str, tuple[str, int]] = {
        kind.name: (HISTORY_SIZE, sizes["history"])
        for kind in (Filled, ColdActive, Compaction, ColdCompacted)
    }
    kinds |= {kind.name: (ENTITY_SIZE, sizes["entities"]) for kind in (HotWriteSteady, HotRead)}
    found: dict[tuple[str, int], dict[str, Figure]] = {}
    for row in result["rows"]:
        if row["name"] in kinds:
            prefix = "compacted: " if row["name"] == ColdCompacted.name else ""
            found.setdefault(kinds[row["name"]], {}).update(
                {prefix + name: Figure(figure["rounds"]) for name, figure in row["figures"].items()}
            )
    return _panels(found)


def merged(results: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The points of all; of two of the same size the first one's. In the order of PANELS, and of size."""
    panels = []
    for title, unit, of, series in PANELS:
        lines: dict[str, list[Any]] = {}
        for name in series:
            points: dict[int, Any] = {}
            for panel in (panel for result in results for panel in result if panel["title"] == title):
                for point in panel["series"].get(name, ()):
                    points.setdefault(point["size"], point)
            if points:
                lines[name] = [points[size] for size in sorted(points)]
        if lines:
            panels.append({"title": title, "unit": unit, "size": of, "series": lines})
    return panels


def sizes_of(panels: Sequence[Mapping[str, Any]], kind: str) -> set[int]:
    """The sizes of a kind that every series of PANELS has a point of."""
    lines = {panel["title"]: panel["series"] for panel in panels}
    return set.intersection(
        *(
            {point["size"] for point in lines.get(title, {}).get(name, ())}
            for title, _, of, series in PANELS
            if of == kind
            for name in series
        )
    )


def _at(bench: Bench, world: World, kinds: Sequence[type[Row]], left_out: list[str]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    world.open()
    try:
        for number, kind in enumerate(kinds):
            result = measure(bench, kind(bench, world), f"{number + 1} of {len(kinds)}")
            if reason := result.get("left_out") or result.get("failed"):
                left_out.append(f"{kind.name}: {reason}")
            prefix = "compacted: " if kind is ColdCompacted else ""
            for name, figure in result["figures"].items():
                figures[prefix + name] = Figure(figure["rounds"])
    finally:
        world.close()
    return figures


def _cost(figure: Figure, unit: str) -> dict[str, float]:
    """As a cost, which is what is drawn: a rate becomes microseconds."""
    values = [1e6 / value for value in figure.rounds] if unit.startswith("µs") else figure.rounds
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def exponent(points: Sequence[Mapping[str, float]]) -> float | None:
    """The power of the size that the cost grows with, by least squares on logarithms; None of fewer than two sizes.

    >>> round(exponent([{"size": 1, "median": 3}, {"size": 10, "median": 30}, {"size": 100, "median": 300}]), 3)
    1.0
    """
    if len({point["size"] for point in points}) < 2:
        return None
    fit = statistics.linear_regression(
        [math.log(point["size"]) for point in points], [math.log(point["median"]) for point in points]
    )
    return fit.slope


def conclusions(panels: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the curves say, as sentences with their figures."""
    said = []
    for panel in panels:
        for name, points in panel["series"].items():
            power = exponent(points)
            if power is None:
                continue
            largest = max(points, key=lambda point: point["size"])
            said.append(
                f"{panel['title']}, {name}: {largest['median']:,.3g} {panel['unit']} at"
                f" {largest['size']:,.0f} {panel['size'].split()[0]}, growing with the power {power:.2f} of the size"
                f" (doubled, it costs {2**power:.2f} times as much)."
            )
    sizes = [
        point["size"]
        for panel in panels
        if panel["size"] == HISTORY_SIZE
        for points in panel["series"].values()
        for point in points
    ]
    if sizes:
        parts = [
            f"{MONTH_ROWS * share / 1e6:,.0f} million in {interval}"
            + (
                " (measured)"
                if MONTH_ROWS * share <= max(sizes)
                else f" ({MONTH_ROWS * share / max(sizes):,.0f} times the largest measured)"
            )
            for interval, share in INTERVALS.items()
        ]
        said.append(
            f"26 billion rows a month are {', '.join(parts)}: a partition's cost depends on its own rows, so that the"
            " partition interval decides which point of these curves the month is at."
        )
        flush = next((panel for panel in panels if panel["title"] == "flush into the partition"), None)
        for name, points in (flush["series"] if flush else {}).items():
            largest = max(points, key=lambda point: point["size"])
            who = "the reference" if name == "reference" else "ours"
            said.append(
                f"At {largest['size']:,.0f} rows a partition one flusher of {who} stores"
                f" {1e6 / largest['median']:,.0f} rows/s here; the design load is {MONTH_ROWS / 30 / 86400:,.0f}."
            )
    return said


def command(
    sizes: Sizes,
    rounds: int,
    rows: Sequence[int] | None,
    entities: Sequence[int] | None,
    quick: bool,
    output: Path | None,
    say: Say,
    earlier: Sequence[Path] = (),
) -> int:
    """`python -m bench curves`. Raises LocalError for a file of `earlier` that is no result of ours."""
    results = [docs.read_result(path) for path in earlier]
    for path, result in zip(earlier, results, strict=True):
        if not isinstance(result.get("panels", result.get("rows")), list):
            raise LocalError(f"{path} is neither a table nor curves")
        if bool(result["about"].get("quick")) != quick:
            raise LocalError(f"{path}: quick points go beside quick points only")
    known = merged([panels_of(result) for result in results])
    rows = [
        size for size in rows or (QUICK_ROWS if quick else ROWS) if size not in sizes_of(known, HISTORY_SIZE)
    ]
    entities = [
        size
        for size in entities or (QUICK_ENTITIES if quick else ENTITIES)
        if size not in sizes_of(known, ENTITY_SIZE)
    ]
    # The same work at every size, and not more than the smallest bears.
    base = QUICK if quick else FULL
    sizes = replace(
        sizes,
        history=max(rows, default=1),
        entities=max(entities, default=1),
        flushed=min(sizes.flushed, base.flushed, *rows),
        events=min(sizes.events, base.events, *entities),
        staged=min(rows, default=1),
    )
    say(check_disk(sizes.disk_bytes()))
    with running(sizes, rounds, say) as bench:
        for result in measure_curves(bench, rows, entities, results):
            result["about"]["quick"] = quick
            path = docs.write_result("curves", result, output)
            say(f"kept in {path}: after an interruption go on with --with {path}")
    pictures.draw_curves(result, path.with_suffix(".svg"))
    table = Table(title="cost against size, medians")
    table.add_column("question")
    table.add_column("who")
    table.add_column("cost at each size")
    table.add_column("power", justify="right")
    for row in _table(result):
        table.add_row(*row)
    Console(width=160).print(table)
    for sentence in result["says"]:
        print(sentence)
    print(f"JSON: {path}, with an SVG beside it; for docs/benchmarks.md: python -m bench docs")
    return 0


def _table(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    found = []
    for panel in result["panels"]:
        for name, points in panel["series"].items():
            power = exponent(points)
            costs = "; ".join(f"{point['size'] / 1e6:g} M: {point['median']:,.3g}" for point in points)
            found.append(
                (
                    f"{panel['title']} ({panel['unit']})",
                    name,
                    costs,
                    "" if power is None else f"{power:.2f}",
                )
            )
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """For docs/benchmarks.md."""
    lines = [
        "| question | who | cost at each size | power of the size |",
        "| --- | --- | --- | ---: |",
        *("| " + " | ".join(row) + " |" for row in _table(result)),
    ]
    said = [f"* {sentence}" for sentence in result["says"]]
    absent = [f"* Not measured: {reason}." for reason in result["left_out"]]
    # The sizes that vary are in the table.
    fixed = {name: size for name, size in result["about"].get("sizes", {}).items() if name not in VARIED}
    others = dict.fromkeys(f"{about['date']} at commit {about['commit']}" for about in result.get("with", ()))
    beside = f" Other points were measured {', '.join(others)}." if others else ""
    return "\n".join(
        [
            report.machine({**result["about"], "sizes": fixed}) + beside,
            "", *lines, "", "What they say:", "", *said, *absent,
        ]
    )  # fmt: skip
