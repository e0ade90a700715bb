"""The archiver beside the reference: API calls, memory as the table grows, and what ten million items would take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from archiver import items
from archiver.settings import Settings
from bench import docs, emulator, pictures
from bench.archivers import Order, Outcome, Who
from bench.server import ROOT, Say, here
from local.aws import emulated
from local.errors import LocalError

SHARES: Final = (0.1, 0.5, 1.0)
"""Table sizes, of the largest."""
RUNS: Final = 4
"""Of the smallest table, which is also archived in so many runs instead of one."""
BAR: Final = 1 / 3
GROWTH: Final = 1.15
"""More memory than that for a table twice as large is growth."""

MILLIONS: Final = 10
LATENCIES: Final[Mapping[str, float]] = {
    "TransactWriteItems": 0.060,
    "Scan": 0.150,
    "PutObject": 0.100,
    "GetObject": 0.100,
}
"""Seconds that a call to AWS is assumed to take from a function in its region; see OTHER_LATENCY. None was measured."""
OTHER_LATENCY: Final = 0.010
"""Of calls for a single row."""
LAMBDA_SECONDS: Final = 15 * 60
LAMBDA_MIB: Final = 1024
LAMBDA_SHARE: Final = LAMBDA_MIB / 1769
"""Of a processor: AWS gives a whole one at 1769 MB."""
SOURCE_RATE: Final = 6_000
"""Items a minute that the source states for itself."""
PRICES: Final[Mapping[str, float]] = {
    "million writes": 0.625,
    "million reads": 0.125,
    "thousand PUT": 0.005,
    "thousand GET": 0.0004,
    "GB second": 0.0000166667,
}
"""US dollars, us-east-1."""
PRICED: Final = "us-east-1 on demand, DynamoDB's as they are since 2024-11-01"


def child(order: Order, url: str) -> Outcome:
    """`archive` in a process of its own, whose memory is the archiver's and nobody else's. Raises LocalError."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.archivers", json.dumps(asdict(order))],
        cwd=ROOT,
        env=emulated(url),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LocalError(
            f"python -m bench archiver: {order.who} failed with {order.items:,} items, see above"
        )
    return Outcome(**json.loads(done.stdout))


def measure(largest: int, segments: int, say: Say) -> dict[str, Any]:
    """All of it; returns what the JSON file holds. Raises LocalError."""
    about = here()
    began = time.monotonic()
    sizes = sorted({max(1, round(largest * share)) for share in SHARES})
    runs: list[dict[str, Any]] = []
    both: tuple[Who, ...] = ("reference", "ours")
    for number, size in enumerate(sizes, 1):
        for who in both:
            say(f"{number} of {len(sizes)}: {size:,} items, {who}")
            with emulator.outside(size) as url:
                outcome = child(Order(who, size, segments), url)
            check(outcome.archived, outcome.deleted, size)
            runs.append(facts(who, size, [outcome]))
            say(
                f"  {runs[-1]['calls_per_1000']:.2f} calls for 1,000 items,"
                f" {runs[-1]['rate']:,.0f} items/s, {outcome.peak_mib:.0f} MiB"
            )
    say(f"{sizes[0]:,} items in {RUNS} runs, each of which is stopped and gone on with")
    with emulator.outside(sizes[0]) as url:
        parts = []
        for part in range(RUNS):
            limit = ceil(sizes[0] / RUNS) if part < RUNS - 1 else None
            parts.append(child(Order("ours", sizes[0], segments, limit), url))
    check(sum(part.archived for part in parts), sum(part.deleted for part in parts), sizes[0])
    if not parts[-1].finished:
        raise LocalError(f"python -m bench archiver: {RUNS} runs did not end the pass")
    return {
        "about": about | {"seconds": round(time.monotonic() - began)},
        "item_bytes": items.size(emulator.item(0)),
        "segments": segments,
        "runs": runs,
        "resumed": facts("ours", sizes[0], parts),
        "memory": memory(runs, segments),
        "ten_million": ten_million(runs, segments, items.size(emulator.item(0))),
    }


def check(archived: int, deleted: int, size: int) -> None:
    """Raises LocalError unless each item was archived and deleted once."""
    if (archived, deleted) != (size, size):
        raise LocalError(
            f"python -m bench archiver: of {size:,} items {archived:,} were archived and {deleted:,} deleted"
        )


def facts(who: str, size: int, parts: Sequence[Outcome]) -> dict[str, Any]:
    """A measurement, in one run or several, for the JSON file."""
    calls: Counter[str] = Counter()
    for part in parts:
        calls.update(part.calls)
    seconds = sum(part.seconds for part in parts)
    return {
        "who": who,
        "items": size,
        "runs": len(parts),
        "calls": dict(sorted(calls.items())),
        "calls_per_1000": calls.total() * 1000 / size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(part.cpu_seconds for part in parts), 2),
        "rate": size / seconds,
        "peak_mib": round(max(part.peak_mib for part in parts), 1),
        "idle_mib": round(max(part.idle_mib for part in parts), 1),
        "objects": sum(part.objects for part in parts),
        "bytes": sum(part.bytes for part in parts),
    }


def of(runs: Sequence[Mapping[str, Any]], who: Who) -> list[Mapping[str, Any]]:
    """The measurements of one of the two, the largest table last."""
    return sorted((one for one in runs if one["who"] == who), key=lambda one: int(one["items"]))


def memory(runs: Sequence[Mapping[str, Any]], segments: int) -> dict[str, Any]:
    """Whether ours grows with the table, once the table is large enough that each segment fills an object."""
    found: dict[str, Any] = {}
    ours = [one for one in of(runs, "ours") if one["objects"] > segments]
    if len(ours) < 2:
        return found | {"verdict": "too small to tell"}
    first, last = ours[-2], ours[-1]
    growth = last["peak_mib"] / first["peak_mib"]
    return found | {
        "from": first["items"],
        "to": last["items"],
        "growth": growth,
        "verdict": "flat" if growth <= GROWTH else "grows",
    }


def ten_million(runs: Sequence[Mapping[str, Any]], segments: int, item_bytes: int) -> dict[str, Any]:
    """What so many items take, by the calls and the processor time of the largest run, and assumed latencies."""
    count = MILLIONS * 1_000_000
    return {
        who: _projected(who, of(runs, who)[-1], count, segments, item_bytes) for who in ("ours", "reference")
    }


def _projected(
    who: str, measured: Mapping[str, Any], count: int, segments: int, item_bytes: int
) -> dict[str, Any]:
    times = count / measured["items"]
    calls = {name: ceil(number * times) for name, number in measured["calls"].items()}
    # Objects are written once a run by the reference, whatever the number of items.
    if who == "reference":
        calls["PutObject"] = ceil(count / (SOURCE_RATE * LAMBDA_SECONDS / 60))
    write_units = ceil(item_bytes / 1024)
    read_units = count * item_bytes / 4096 / 2
    if who == "ours":
        waiting = (
            sum(number * LATENCIES.get(name, OTHER_LATENCY) for name, number in calls.items()) / segments
        )
        computing = measured["cpu_seconds"] * times / LAMBDA_SHARE
        # As if no thread computed while another waited.
        seconds = waiting + computing
        per_run = LAMBDA_SECONDS - Settings((), "").time_reserve
        # Each transaction writes the record of how far it is, twice the units of a plain write like all in it.
        writes = 2 * (count * write_units + calls["TransactWriteItems"])
        found = {"waiting_seconds": round(waiting), "computing_seconds": round(computing)}
    else:
        seconds = count / SOURCE_RATE * 60
        per_run = LAMBDA_SECONDS
        writes = count * write_units
        found = {}
    dollars = {
        "writes": writes / 1e6 * PRICES["million writes"],
        "reads": read_units / 1e6 * PRICES["million reads"],
        "objects": calls.get("PutObject", 0) / 1e3 * PRICES["thousand PUT"]
        + calls.get("GetObject", 0) / 1e3 * PRICES["thousand GET"],
        "lambda": seconds * LAMBDA_MIB / 1024 * PRICES["GB second"],
    }
    return found | {
        "items": count,
        "calls": calls,
        "total_calls": sum(calls.values()),
        "seconds": round(seconds),
        "lambda_runs": ceil(seconds / per_run),
        "rate": count / seconds,
        "write_units": writes,
        "read_units": round(read_units),
        "dollars": {name: round(value, 2) for name, value in dollars.items()},
        "total_dollars": round(sum(dollars.values()), 2),
    }


def ratio(result: Mapping[str, Any]) -> float:
    """API calls for an item, ours over the reference, at the largest size."""
    ours, reference = (of(result["runs"], who)[-1] for who in ("ours", "reference"))
    return float(ours["calls_per_1000"] / reference["calls_per_1000"])


def command(largest: int, segments: int, output: Path | None, say: Say) -> int:
    """`python -m bench archiver`: 0 if the bar is met and memory does not grow, else 1."""
    if largest < 100 or not 1 <= segments <= 64:
        raise LocalError("python -m bench archiver: --items must be 100 or more, --segments 1 to 64")
    result = measure(largest, segments, say)
    path = docs.write_result("archiver", result, output)
    pictures.draw_archiver(result, path.with_suffix(".svg"))
    table = Table(title=verdict(result))
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for one in rows(result):
        table.add_row(*one)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for line in arithmetic(result):
        console.print(line.replace("**", ""), highlight=False)
    print(f"JSON: {path}, with an SVG beside it; for docs/benchmarks.md: python -m bench docs")
    return 0 if ratio(result) <= BAR and result["memory"]["verdict"] != "grows" else 1


HEADINGS: Final = (
    "table",
    "who",
    "calls a 1,000 items",
    "items/s",
    "peak memory",
    "objects",
    "processor a 1,000 items",
)


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line for each measurement."""
    found: list[tuple[str, ...]] = []
    for one in (*result["runs"], result["resumed"]):
        in_runs = f", in {one['runs']} runs" if one["runs"] > 1 else ""
        found.append(
            (
                f"{one['items']:,} items{in_runs}",
                one["who"],
                f"{one['calls_per_1000']:.2f}",
                f"{one['rate']:,.0f}",
                f"{one['peak_mib']:.0f} MiB",
                f"{one['objects']:,}",
                f"{one['cpu_seconds'] * 1e6 / one['items']:.0f} ms",
            )
        )
    return found


def verdict(result: Mapping[str, Any]) -> str:
    """One sentence: the bar, and the memory."""
    found = ratio(result)
    text = f"API calls, ours over the reference: {found:.3f}, bar 1/3: {'met' if found <= BAR else 'missed'}"
    seen = result["memory"]
    if "growth" in seen:
        text += f"; memory from {seen['from']:,} to {seen['to']:,} items: {seen['growth']:.2f} times, {seen['verdict']}"
    else:
        text += f"; memory: {seen['verdict']}"
    return text


def arithmetic(result: Mapping[str, Any]) -> list[str]:
    """What ten million items take, in sentences."""
    ours, reference = result["ten_million"]["ours"], result["ten_million"]["reference"]
    transactions, scans = ours["calls"]["TransactWriteItems"], ours["calls"]["Scan"]
    others = ours["total_calls"] - transactions - scans
    largest = of(result["runs"], "ours")[-1]
    return [
        f"**Calls**: {ours['total_calls']:,}: {transactions:,} transactions, {scans:,} pages, {others:,} others; the"
        f" reference {reference['total_calls']:,}. They are those of {largest['items']:,} items times"
        f" {ours['items'] / largest['items']:g}.",
        f"**Time**: with a transaction at {LATENCIES['TransactWriteItems'] * 1000:.0f} ms, a page at"
        f" {LATENCIES['Scan'] * 1000:.0f}, an object written or read at {LATENCIES['PutObject'] * 1000:.0f} and a"
        f" single row at {OTHER_LATENCY * 1000:.0f} (assumed, not measured), {result['segments']} segments wait"
        f" {ours['waiting_seconds'] / 60:.0f} minutes; what the process computes, measured here, is"
        f" {ours['computing_seconds'] / 60:.0f} minutes at the {LAMBDA_SHARE:.2f} processors of {LAMBDA_MIB} MB. Were"
        f" nothing of it done at the same time, that is {ours['seconds'] / 60:.0f} minutes, {ours['rate']:,.0f}"
        f" items/s: {ours['lambda_runs']} runs of 15 minutes, each of which goes on where the one before it stopped."
        f" At the {SOURCE_RATE:,} items a minute that the source states it is {reference['seconds'] / 3600:.1f} hours,"
        f" {reference['lambda_runs']} runs of 15 minutes.",
        f"**Cost** ({PRICED}): {ours['write_units'] / 1e6:.1f} M write units, twice those of plain deletes"
        f" ({reference['write_units'] / 1e6:.1f} M), since transactions cost double: ${ours['dollars']['writes']:.2f}"
        f" where the reference pays ${reference['dollars']['writes']:.2f}. {ours['read_units'] / 1e6:.2f} M read units"
        f" to scan these items (${ours['dollars']['reads']:.2f}; what is not old costs the same to look at, for both),"
        f" objects ${ours['dollars']['objects']:.2f}, Lambda ${ours['dollars']['lambda']:.2f} (the reference"
        f" ${reference['dollars']['lambda']:.2f}). In all ${ours['total_dollars']:.2f}, the reference"
        f" ${reference['total_dollars']:.2f}.",
        f"**Throughput**: {ours['write_units'] / ours['seconds']:,.0f} write units a second on average. A new on-demand"
        " table takes 4,000 and each partition 1,000, beyond which it throttles and the archiver tries again: were all"
        f" of it in one partition, it would take {ours['write_units'] / 1000 / 3600:.1f} hours.",
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """For docs/benchmarks.md."""
    about = result["about"]
    resumed, whole = result["resumed"], of(result["runs"], "ours")[0]
    extra = sum(resumed["calls"].values()) - sum(whole["calls"].values())
    return "\n".join(
        [
            f"Measured {about['date']} at commit {about['commit']}, in {about['seconds'] / 60:.0f} minutes:"
            f" {about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB, load average at the start"
            f" {about['load_average_at_start'][0]}. Items of {result['item_bytes']} bytes, all old;"
            f" {result['segments']} segments, all other settings as they are by default.",
            "",
            f"{verdict(result)}.",
            "",
            f"| {' | '.join(HEADINGS)} |",
            "| --- | --- |" + " ---: |" * (len(HEADINGS) - 2),
            *("| " + " | ".join(one) + " |" for one in rows(result)),
            "",
            f"To stop and go on {resumed['runs'] - 1} times cost {extra} calls more than one run.",
            "",
            f"Ten million such items, by arithmetic ({result['segments']} segments, {LAMBDA_MIB} MB):",
            "",
            *(f"* {line}" for line in arithmetic(result)),
        ]
    )
