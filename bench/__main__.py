"""`make bench`: how fast the flush is, beside the reference design and beside a plain INSERT … SELECT."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.table import Table

from bench.flush import Result, measure


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; prints a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows staged for each measurement (default 1000000)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds, of which the median counts (default 3)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(argv)
    if options.rows < 1000 or options.rounds < 1:
        print("python -m bench: --rows must be 1000 or more and --rounds 1 or more", file=sys.stderr)
        return 2
    results = measure(options.rows, options.rounds, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps({name: result.as_dict() for name, result in results.items()}, indent=2))
    else:
        show(results, options.rows)
    return 0


def show(results: dict[str, Result], rows: int) -> None:
    """A table of medians and their ratio to the first row."""
    table = Table(title=f"{rows} staged rows, after a CHECKPOINT, medians")
    for heading in ("what", "rows/s", "lowest", "highest", "ratio to ours"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    ours = next(iter(results.values()))
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.median:,.0f}",
            f"{min(result.rates):,.0f}",
            f"{max(result.rates):,.0f}",
            f"{result.median / ours.median:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
