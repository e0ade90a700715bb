"""The offline plan: what a stack would be, from the real program, with no CLI, account or network."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.bill import Estimate, estimate
from infra.difference import Difference, difference
from infra.graph import ROOT, Graph, load_graph
from infra.picture import Drawer
from infra.topology import topology

if TYPE_CHECKING:
    from infra.policies import Finding

FOLDER: Final = ROOT / ".local" / "plan"
"""Where pictures go unless --out says otherwise."""
BROKEN: Final = 3
"""Exit code: policies that nobody may break are broken."""
LARGEST: Final = 12
"""Lines of the bill that are shown; --json has all."""
EPILOG: Final = """\
Nothing is asked of AWS: the program runs against recorded answers, prices are those of infra/prices.json.

exit codes: 0 fine; 1 the settings are wrong (a line for each mistake); 2 wrong usage; 3 a mandatory policy is broken"""


@dataclass(frozen=True)
class Plan:
    """One stack, planned."""

    graph: Graph
    findings: tuple[Finding, ...]
    bill: Estimate
    pictures: tuple[Path, ...] = ()
    other: Graph | None = None
    difference: Difference | None = None

    @property
    def broken(self) -> bool:
        """Whether a mandatory policy is broken without an exception."""
        return any(one.severity == "mandatory" and one.excepted is None for one in self.findings)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra plan`; returns the exit code. Raises InfraError."""
    options = _parser().parse_args(argv)
    say = _Steps(sys.stderr.isatty())
    folder = options.out if options.picture else None
    plan = make(options.stack, folder, options.diff, png=options.png, say=say)
    say.end()
    if options.json:
        print(json.dumps(as_json(plan), indent=2))
    else:
        show(plan, _Console(width=None if sys.stdout.isatty() else 140, highlight=False))
    return BROKEN if plan.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra plan",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stack", help="dev, staging, prod: the NAME of a Pulumi.NAME.yaml")
    parser.add_argument(
        "--diff", metavar="STACK", help="and what another stack has, lacks and sets otherwise"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help="for the picture (default: .local/plan)"
    )
    parser.add_argument(
        "--no-png",
        dest="png",
        action="store_false",
        help="draw the SVG only (--out docs renews a page's picture)",
    )
    parser.add_argument("--no-picture", dest="picture", action="store_false", help="draw none: a second less")
    return parser


class _Console(Console):
    """Leaves a reader that has gone to the command line, where Rich would end with 1, as for wrong settings."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Steps:
    """Which step runs, on a terminal's last line."""

    def __init__(self, shown: bool) -> None:
        self.shown = shown

    def __call__(self, text: str) -> None:
        if self.shown:
            print(f"\r\x1b[K==> {text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clears the line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def make(
    stack: str,
    folder: Path | None = None,
    other: str | None = None,
    *,
    png: bool = True,
    root: Path = ROOT,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan a stack. `folder`: where the picture goes, None for none; `other`: the stack to compare with.

    Raises SettingsError with a line for each mistake, InfraError.
    """
    drawer = Drawer() if folder is not None else None
    try:
        say(f"running the program of {stack}")
        graph = load_graph(stack, root)
        bill = estimate(graph)
        drawn = (
            drawer.begin(topology(graph), bill.by_resource(), folder, png=png) if drawer and folder else None
        )
        against, found = None, None
        if other is not None:
            say(f"running the program of {other}")
            against = load_graph(other, root)
            found = difference(graph, against, bill, estimate(against))
        say("checking policies")
        findings = _findings(graph)
        say("drawing the picture")
        return Plan(graph, findings, bill, drawn() if drawn else (), against, found)
    finally:
        if drawer:
            drawer.close()


def _findings(graph: Graph) -> tuple[Finding, ...]:
    from infra.policies import check

    ranks = ("mandatory", "advisory")
    return tuple(
        sorted(
            check(graph),
            key=lambda one: (one.excepted is not None, ranks.index(one.severity), one.rule, one.resource),
        )
    )


def kinds(graph: Graph) -> dict[str, dict[str, int]]:
    """Component → kind → how many."""
    found: dict[str, Counter[str]] = {}
    for one in graph:
        if one.custom:
            found.setdefault(graph.component(one), Counter())[one.kind] += 1
    return {component: dict(sorted(found[component].items())) for component in sorted(found)}


# -- for scripts ---------------------------------------------------------------------------------------------


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, in an order that is the same each time."""
    graph, bill = plan.graph, plan.bill
    shown: dict[str, Any] = {
        "stack": graph.settings.stack,
        "region": graph.settings.region,
        "resources": [
            {
                "component": graph.component(one),
                "kind": one.kind,
                "name": one.name,
                "protected": one.protect,
                "urn": one.urn,
            }
            for one in sorted(graph, key=lambda one: (graph.component(one), one.kind, one.name))
            if one.custom
        ],
        "counts": kinds(graph),
        "findings": [asdict(one) for one in plan.findings],
        "cost": {
            "currency": bill.table.currency,
            "month": round(bill.usd, 2),
            "budget": graph.settings.cost.budget_usd,
            "prices_of": bill.table.as_of,
            "prices_in": bill.table.region,
            "terms": bill.table.terms,
            "components": {name: round(usd, 2) for name, usd in bill.by_component().items()},
            "lines": [asdict(line) | {"usd": round(line.usd, 2)} for line in bill.lines],
            "assumed": {
                name: {"amount": amount, "unit": usage.unit, "why": usage.why}
                for name, (amount, usage) in bill.assumed.items()
            },
            "not_priced": list(bill.unknown),
        },
        "pictures": [str(path) for path in plan.pictures],
    }
    if plan.difference is not None and plan.other is not None:
        shown["difference"] = {"stack": plan.other.settings.stack} | asdict(plan.difference)
    return shown


# -- for people ----------------------------------------------------------------------------------------------


def show(plan: Plan, console: Console) -> None:
    """Tables."""
    graph = plan.graph
    count = sum(sum(found.values()) for found in kinds(graph).values())
    settings = graph.settings
    console.print(Text(f"{settings.stack} · {settings.region} · {count} resources", style="bold"))
    _show_components(plan, console)
    _show_findings(plan.findings, console)
    _show_cost(plan, console)
    if plan.difference is not None and plan.other is not None:
        _show_difference(plan.difference, settings.stack, plan.other.settings.stack, console)
    if plan.pictures:
        console.print(f"picture: {' '.join(str(_short(path)) for path in plan.pictures)}", soft_wrap=True)


def _table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", header_style="dim")
    return table


def _usd(value: float) -> str:
    return f"{value:,.0f}" if value >= 0.5 or value <= -0.5 else f"{value:.2f}" if round(value, 2) else "–"


def _show_components(plan: Plan, console: Console) -> None:
    costs = plan.bill.by_component()
    right = ("resources", "USD a month")
    console.print()
    table = _table("Resources", "component", "resources", "kinds", "USD a month", right=right)
    for component, found in kinds(plan.graph).items():
        words = ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in found.items())
        table.add_row(component, str(sum(found.values())), words, _usd(costs.get(component, 0)))
    console.print(table)


def _show_findings(findings: Sequence[Finding], console: Console) -> None:
    excepted = [one for one in findings if one.excepted is not None]
    left = [one for one in findings if one.excepted is None]
    console.print()
    console.print(Text("Policies", style="bold"))
    for one in left:
        style = "bold red" if one.severity == "mandatory" else "yellow"
        line = Text.assemble((one.severity, style), f"  {one.rule}  {one.resource}: {one.text}")
        console.print(line, soft_wrap=True)
    for one in excepted:
        console.print(
            Text(f"excepted  {one.rule}  {one.resource}: {one.text} ({one.excepted})", style="dim"),
            soft_wrap=True,
        )
    broken = sum(one.severity == "mandatory" for one in left)
    console.print(
        f"{broken} mandatory, {len(left) - broken} advisory, {len(excepted)} excepted with a reason"
    )


def _show_cost(plan: Plan, console: Console) -> None:
    bill, settings = plan.bill, plan.graph.settings
    console.print()
    table = _table(
        "What costs most", "component", "resource", "what", "quantity", "unit", "USD a month",
        right=("quantity", "USD a month"),
    )  # fmt: skip
    for line in bill.lines[:LARGEST]:
        table.add_row(
            line.component,
            line.name,
            line.what,
            f"{line.quantity:,.0f}",
            f"{line.unit} at {line.price:g}",
            _usd(line.usd),
        )
    rest = bill.lines[LARGEST:]
    if rest:
        table.add_row("", "", f"and {len(rest)} more lines", "", "", _usd(sum(line.usd for line in rest)))
    console.print(table)
    console.print()
    table = _table("Assumed", "what", "amount", "unit", "why", right=("amount",))
    for name, (amount, usage) in bill.assumed.items():
        table.add_row(name.replace("_", " "), f"{amount:,g}", usage.unit, usage.why)
    console.print(table)
    prices = bill.table
    console.print(
        f"About {bill.usd:,.0f} USD a month at prices of {prices.as_of} in {prices.region}: {prices.terms}",
        soft_wrap=True,
    )
    if prices.region != settings.region:
        console.print(f"the stack is in {settings.region}, whose prices are others", style="yellow")
    if bill.unknown:
        console.print(f"without a price: {', '.join(bill.unknown)}", style="yellow")
    if bill.usd > settings.cost.budget_usd:
        over = f"more than cost.budget_usd: {settings.cost.budget_usd:,} in Pulumi.{settings.stack}.yaml"
        console.print(over, style="bold yellow")
    else:
        console.print(f"within cost.budget_usd: {settings.cost.budget_usd:,}")


def _show_difference(found: Difference, one: str, other: str, console: Console) -> None:
    console.print()
    table = _table(f"Settings: {one} → {other}", "setting", one, "", other)
    for key, (here, there) in found.settings.items():
        table.add_row(key, _word(here), "→", _word(there))
    console.print(table)
    for stack, groups in ((one, found.gone), (other, found.new)):
        console.print()
        table = _table(f"Only in {stack}", "component", "kind", "names")
        for group, names in groups.items():
            component, kind = group.split(" ")
            table.add_row(component, kind, ", ".join(names))
        console.print(table)
    console.print()
    table = _table("USD a month", "component", one, other, "difference", right=(one, other, "difference"))
    for name, (here, there) in [*found.usd.items(), ("all", found.total)]:
        table.add_row(name, _usd(here), _usd(there), _usd(there - here))
    console.print(table)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return json.dumps(value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
