"""docs/benchmarks.md from what was measured: its tables and pictures; the prose around them is written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench import pictures, report
from bench.server import ROOT
from local.errors import LocalError

RESULTS: Final = ROOT / ".local" / "bench"
"""Where a run leaves its JSON files."""
PARTS: Final = ("table", "curves", "sustained", "archiver")
SAME: Final = ("cpu", "cores", "postgresql", "settings", "partition_interval")
"""What results must have in common to be shown beside each other."""
DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"


def write_result(part: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """The JSON file of a run; returns where it is."""
    path = path or RESULTS / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_result(path: Path) -> dict[str, Any]:
    """What `write_result` wrote. Raises LocalError."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise LocalError(f"{path} is no JSON file: {error}") from None
    if not isinstance(result, dict) or "about" not in result:
        raise LocalError(f"{path} holds no result of python -m bench")
    return result


def check_same(earlier: Mapping[str, Any], about: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    """Raises LocalError if an earlier result was not measured as this one is: figures of both would not compare."""
    for key in (*SAME, *also):
        then, now = earlier["about"].get(key), about.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            # What an earlier result has no word for, nothing of it was measured with.
            now = {name: value for name, value in now.items() if name in then}
        if then != now:
            raise LocalError(
                f"what was measured {earlier['about'].get('date')} had another {key},"
                f" {then}: it does not go beside this"
            )


def write_docs(source: Path = RESULTS, document: Path = DOCUMENT) -> list[Path]:
    """Copy the results to `benchmarks/` beside the document, draw them, fill in the tables; returns what was written.

    A part that has no result in `source` stays as it is. Raises LocalError if there is none at all.
    """
    folder = document.with_suffix("")
    written = []
    for part in PARTS:
        found = source / f"{part}.json"
        if not found.exists():
            continue
        result = read_result(found)
        written.append(write_result(part, result, folder / f"{part}.json"))
        picture = folder / f"{part}.svg"
        text = _render(part, result, picture)
        written.append(picture)
        report.fill_in(document, part, f"{text}\n\n![{part}]({folder.name}/{picture.name})")
    if not written:
        raise LocalError(f"python -m bench docs: {source} holds no results: run make bench first")
    return [*written, document]


def _render(part: str, result: dict[str, Any], picture: Path) -> str:
    if part == "table":
        pictures.draw_table(result, picture)
        return report.markdown(result)
    if part == "curves":
        from bench.curves import markdown

        pictures.draw_curves(result, picture)
        return markdown(result)
    if part == "archiver":
        from bench.archiving import markdown as archiver_markdown

        pictures.draw_archiver(result, picture)
        return archiver_markdown(result)
    from bench.sustained import markdown as sustained_markdown

    pictures.draw_sustained(result, picture)
    return sustained_markdown(result)
