"""What was measured, for people: the table on the terminal and the table in docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.model import figure_text
from local.errors import LocalError

HEADINGS: Final = ("what", "measured", "against", "ratio", "bar", "verdict")


def cells(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table's lines as text, in the order of HEADINGS; rows that were left out or failed say why."""
    for row in result["rows"]:
        for reason in ("left_out", "failed"):
            if reason in row:
                yield (row["title"], f"{reason.replace('_', ' ')}: {row[reason]}", "", "", "", "not measured")
        for line in row["lines"]:
            if line["verdict"] == "not measured":
                yield (line["what"], line["why"], "", "", "", "not measured")
                continue
            unit = line["unit"]
            against = line.get("against")
            yield (
                line["what"],
                f"{line['measured']['name']}: {spread(line['measured'], unit)}",
                f"{against['name']}: {spread(against, unit)}" if against else "",
                line["value_text"] if against else "",
                line["bar"] or "",
                line["verdict"],
            )


def spread(figure: Mapping[str, Any], unit: str) -> str:
    """The median, and lowest to highest where there were several rounds.

    >>> spread({"median": 2.0, "min": 1.5, "max": 2.5, "rounds": [1.5, 2.0, 2.5]}, "ms")
    '2 ms (1.5 … 2.5)'
    """
    text = figure_text(figure["median"], unit)
    if len(figure.get("rounds", ())) < 2:
        return text
    low, high = (figure_text(figure[key], unit).removesuffix(f" {unit}") for key in ("min", "max"))
    return f"{text} ({low} … {high})"


def show(result: Mapping[str, Any], console: Console) -> None:
    """The table on a terminal."""
    about = result["about"]
    table = Table(
        title=f"medians of {about['rounds']} rounds (lowest … highest), PostgreSQL {about['postgresql']}",
        show_lines=True,
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("ratio", "bar") else "left", overflow="fold")
    colours = {"met": "green", "missed": "red", "not measured": "yellow"}
    for *texts, verdict in cells(result):
        table.add_row(
            *texts, f"[{colours[verdict]}]{verdict}[/]" if verdict in colours else f"[dim]{verdict}[/]"
        )
    console.print(table)
    console.print(verdicts(result))


def verdicts(result: Mapping[str, Any]) -> str:
    """One sentence: how many bars were met, and which were not."""
    judged = [line for row in result["rows"] for line in row["lines"] if line["bar"] or "why" in line]
    met = sum(line["verdict"] == "met" for line in judged)
    missed = [
        f"{line['what']} ({line['value_text']}, bar {line['bar']})"
        for line in judged
        if line["verdict"] == "missed"
    ]
    unmeasured = sum(line["verdict"] == "not measured" for line in judged)
    left_out = sum("left_out" in row for row in result["rows"])
    text = f"{met} of {len(judged)} bars met"
    if unmeasured or left_out:
        text += f", {unmeasured} lines and {left_out} rows not measured"
    return text + (". Missed: " + "; ".join(missed) if missed else "") + "."


def markdown(result: Mapping[str, Any]) -> str:
    """The table for docs/benchmarks.md, with where and when it was measured."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    for row in cells(result):
        verdict = f"**{row[-1]}**" if row[-1] == "missed" else row[-1]
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in (*row[:-1], verdict)) + " |")
    states = [
        f"* `{row['name']}`: {row['title']}. {row['state']}."
        + (" Measured {date} at commit {commit}.".format(**row["measured"]) if "measured" in row else "")
        for row in result["rows"]
    ]
    return "\n".join(
        [
            machine(result["about"]),
            "",
            verdicts(result),
            "",
            *lines,
            "",
            "The rows, and the state of the checkpoint:",
            "",
            *states,
        ]
    )


def machine(about: Mapping[str, Any]) -> str:
    """One paragraph: where, when, with which settings."""
    kind = (
        "**A quick run: small sizes, to see that it works, not to be quoted.** " if about.get("quick") else ""
    )
    settings = ", ".join(f"{name} {value}" for name, value in about["settings"].items())
    sizes = ", ".join(f"{name} {value:,}" for name, value in about.get("sizes", {}).items())
    seconds = about.get("seconds", 0)
    took = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    return (
        f"{kind}Measured {about['date']} at commit {about['commit']}, in {took}:"
        f" PostgreSQL {about['postgresql']}, {about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB,"
        f" load average at the start {about['load_average_at_start'][0]}. Medians of {about.get('rounds', 1)} rounds."
        f" Settings: {settings}." + (f" Sizes: {sizes}." if sizes else "")
    )


def fill_in(document: Path, name: str, text: str) -> None:
    """Put `text` between the markers `<!-- NAME: generated -->` and `<!-- NAME: end -->`. Raises LocalError."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    content = document.read_text(encoding="utf-8")
    found, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n\n{text}\n\n{end}",
        content,
        flags=re.DOTALL,
    )
    if count != 1:
        raise LocalError(f"{document}: the markers {begin} and {end} must stand in it once, each on its line")
    document.write_text(found, encoding="utf-8")
