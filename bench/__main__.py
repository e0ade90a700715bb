"""Side by side with the reference design: `make bench`, the sustained run, curves, the archiver, and their docs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import docs, pictures, report
from bench.run import ROWS, chosen, completed, run
from bench.server import running
from bench.sizes import FULL, QUICK, Sizes, check_disk
from local.errors import LocalError

COMMANDS = ("table", "sustained", "curves", "archive", "archiver", "docs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments.insert(0, "table")
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m bench: interrupted, nothing is left behind", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = "\n".join(f"  {row.name:<12} {row.title}" for row in ROWS)
    top = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    table = commands.add_parser(
        "table",
        help="every bar, reference and ours in turns (the default)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure every row on a throw-away server, print a table and write a JSON file.",
        epilog=f"rows:\n{names}\n\nexit codes: 0 measured, whatever the verdicts; 1 not measured; 130 interrupted",
    )
    common(table)
    table.add_argument("--only", nargs="+", metavar="ROW", help="these rows only")
    table.add_argument("--rows", type=int, help="rows staged; the full partition gets ten times as many")
    table.add_argument(
        "--with",
        type=Path,
        dest="earlier",
        metavar="FILE",
        help="the JSON file of an earlier table of the same sizes: rows that are not measured now are kept from it",
    )
    table.add_argument("--json", action="store_true", help="print the JSON, not a table")
    table.set_defaults(command=table_command)

    sustained = commands.add_parser(
        "sustained",
        help="a steady load for minutes: does anything grow that should not?",
        description="Two producers at a fixed rate, the worker, and a look at everything that could leak.",
    )
    sustained.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    sustained.add_argument("--rate", type=int, default=10_000, help="values a second (default 10000)")
    sustained.add_argument("--every", type=float, default=5.0, help="seconds between samples (default 5)")
    sustained.add_argument("--output", type=Path, help="the JSON file; CSV and SVG are put beside it")
    sustained.set_defaults(command=sustained_command)

    curves = commands.add_parser(
        "curves",
        help="cost against size",
        description="Flush, cold queries and hot filters at several sizes, ours and the reference in turns.",
    )
    common(curves)
    curves.add_argument(
        "--rows", type=millions, default=None, help="rows of a partition, in millions (default 1,10,50)"
    )
    curves.add_argument("--entities", type=millions, default=None, help="in millions (default 0.2,2,5)")
    curves.add_argument(
        "--with",
        type=Path,
        action="append",
        default=[],
        dest="earlier",
        metavar="FILE",
        help="the JSON file of an earlier table or of curves: sizes that are in it are not measured again",
    )
    curves.set_defaults(command=curves_command)

    archiver = commands.add_parser(
        "archiver",
        help="the archiver beside the reference: API calls, memory, ten million items",
        description="Tables of several sizes in an emulator, each archived by a process of its own.",
    )
    archiver.add_argument("--items", type=int, default=100_000, help="of the largest table (default 100000)")
    archiver.add_argument("--segments", type=int, default=4, help="of the scan, a thread each (default 4)")
    archiver.add_argument("--output", type=Path, help="the JSON file; the SVG is put beside it")
    archiver.set_defaults(command=archiver_command)

    archive = commands.add_parser(
        "archive",
        help="a partition out as Parquet, read back, and in again",
        description="MB/s, Parquet over table, and memory, as flushed and compacted.",
    )
    archive.add_argument(
        "--rows",
        type=millions,
        default=(1_000_000, 10_000_000),
        help="of a partition, in millions (default 1,10)",
    )
    archive.add_argument("--output", type=Path, help="the JSON file (default in .local/bench)")
    archive.set_defaults(command=archive_command)

    writing = commands.add_parser(
        "docs", help="docs/benchmarks.md from the JSON files", description="Fill in tables, draw pictures."
    )
    writing.add_argument(
        "--from",
        dest="source",
        type=Path,
        default=docs.RESULTS,
        help="folder of the JSON files (default .local/bench)",
    )
    writing.set_defaults(command=docs_command)
    return top


def common(command: argparse.ArgumentParser) -> None:
    """Options of what measures in rounds."""
    command.add_argument("--quick", action="store_true", help="small sizes: under three minutes")
    command.add_argument("--rounds", type=int, help="the median counts (default 3, with --quick 2)")
    command.add_argument(
        "--set",
        dest="sizes",
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"one size: {', '.join(field.name for field in fields(Sizes))}",
    )
    command.add_argument("--output", type=Path, help="the JSON file (default in .local/bench)")


def sizes_of(options: argparse.Namespace) -> Sizes:
    """The sizes that the options ask for. Raises LocalError."""
    sizes = QUICK if options.quick else FULL
    if options.rounds is None:
        options.rounds = 2 if options.quick else 3
    if options.rounds < 1:
        raise LocalError(f"python -m bench: --rounds must be 1 or more, got {options.rounds}")
    for setting in options.sizes:
        name, _, value = setting.partition("=")
        known = {field.name: field.type for field in fields(Sizes)}
        if name not in known:
            raise LocalError(f"python -m bench: there is no size {name!r}: choose from {', '.join(known)}")
        try:
            number = float(value)
        except ValueError:
            raise LocalError(f"python -m bench: {setting}: {value!r} is no number") from None
        changed: dict[str, Any] = {name: number if known[name] == "float" else int(number)}
        sizes = replace(sizes, **changed)
    return sizes


def millions(text: str) -> tuple[int, ...]:
    """`0.2,2` is (200000, 2000000). Raises ValueError."""
    found = tuple(sorted({round(float(part) * 1_000_000) for part in text.split(",")}))
    if not found or found[0] < 1000:
        raise ValueError(text)
    return found


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def table_command(options: argparse.Namespace) -> int:
    """`python -m bench`."""
    sizes = sizes_of(options)
    if options.rows is not None:
        sizes = sizes.with_rows(options.rows)
    rows = chosen(options.only)
    earlier = docs.read_result(options.earlier) if options.earlier else None
    if earlier is not None and not isinstance(earlier.get("rows"), list):
        raise LocalError(f"{options.earlier} is no table of python -m bench")
    say(check_disk(sizes.disk_bytes()))
    with running(sizes, options.rounds, say) as bench:
        if earlier is not None:  # before hours of work, not after them
            docs.check_same(earlier, bench.about(), ("sizes", "rounds"))
        result = run(bench, rows)
    if earlier is not None:
        result = completed(result, earlier)
    result["about"]["quick"] = bool(options.quick)
    path = docs.write_result("table", result, options.output)
    pictures.draw_table(result, path.with_suffix(".svg"))
    if options.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        report.show(result, Console(width=None if sys.stdout.isatty() else 160))
        print(f"JSON: {path}, with an SVG beside it; for docs/benchmarks.md: python -m bench docs")
    return 1 if any("failed" in row for row in result["rows"]) else 0


def sustained_command(options: argparse.Namespace) -> int:
    """`python -m bench sustained`."""
    from bench import sustained

    return sustained.command(options.minutes, options.rate, options.every, options.output, say)


def curves_command(options: argparse.Namespace) -> int:
    """`python -m bench curves`."""
    from bench import curves

    return curves.command(
        sizes_of(options),
        options.rounds,
        options.rows,
        options.entities,
        options.quick,
        options.output,
        say,
        options.earlier,
    )


def archiver_command(options: argparse.Namespace) -> int:
    """`python -m bench archiver`."""
    from bench import archiving

    return archiving.command(options.items, options.segments, options.output, say)


def archive_command(options: argparse.Namespace) -> int:
    """`python -m bench archive`."""
    from bench import archive

    return archive.command(options.rows, options.output, say)


def docs_command(options: argparse.Namespace) -> int:
    """`python -m bench docs`."""
    for path in docs.write_docs(options.source):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
