"""The architecture picture of a stack, as SVG and PNG, drawn from its graph.

The same graph gives the same bytes, so that a picture in the documentation can be compared with what it shows.
"""

from __future__ import annotations

import gc
import io
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.errors import InfraError
from infra.layout import COLORS, Page, Rect, Text, fitted, lay_out, wrapped
from infra.topology import Node, Topology

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS: Final = 100
"""A hundred units, in the PNG."""
FAINT: Final = "#57606a"
PAPER: Final = "#ffffff"
LINES: Final = 2
"""Of a box, under its title."""
SMALL: Final = 7.5
"""Points, of all but titles."""

KINDS: Final = (
    ("compute", "#fdf0e1", "#c9711a", ("ecs.", "lambda.", "ec2.Instance", "sfn.")),
    ("database", "#e3eefb", "#2f6fbf", ("rds.", "redshift", "dynamodb.")),
    ("log and objects", "#e4f4e8", "#2c8a4b", ("kinesis.", "s3.", "ecr.")),
    ("way out", "#efe9f8", "#7a4fb5", ("ec2.",)),
    ("events and notices", "#fde7ec", "#b83a5a", ("scheduler.", "sns.", "sqs.", "cloudwatch.", "budgets.")),
    ("outside", "#f2f3f5", "#57606a", ("",)),
)
"""Name, fill and border of a box by the beginning of its kind; the first that fits."""

LEGEND: Final = (
    ("network", "may open a connection, by security groups (HTTPS where no port is said)"),
    ("data", "may read or write, by the role's policy"),
    ("event", "starts or tells"),
)


def draw(
    topology: Topology, costs: Mapping[str, float], folder: Path, *, png: bool = True
) -> tuple[Path, ...]:
    """Write `architecture-<stack>.svg` and, with `png`, the same as `.png` into a folder; returns what was written.

    `costs`: USD a month by URN.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = _figure(lay_out(topology), topology, costs)
    written = [folder / f"architecture-{topology.stack}.svg"]
    written[0].write_bytes(_svg(figure, topology))
    if png:
        written.append(written[0].with_suffix(".png"))
        written[1].write_bytes(_png(figure))
    return tuple(written)


class Drawer:
    """A process that draws: it gets ready, a second of imports, while the program still runs in this one."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_get_ready)
        self.pool.submit(int)

    def begin(
        self, topology: Topology, costs: Mapping[str, float], folder: Path, *, png: bool = True
    ) -> Callable[[], tuple[Path, ...]]:
        """As `draw`, and returns at once: what it returns waits for the files.

        That raises InfraError if the folder cannot be written to or the process was ended.
        """
        future = self.pool.submit(draw, topology, costs, folder, png=png)

        def finished() -> tuple[Path, ...]:
            try:
                return future.result()
            except OSError as error:
                raise InfraError(f"{error.filename or folder}: {error.strerror or error}") from None
            except BrokenProcessPool:
                raise InfraError("the process that draws the picture was ended from outside") from None

        return finished

    def close(self) -> None:
        """Ends the process."""
        self.pool.shutdown(cancel_futures=True)


def _get_ready() -> None:
    # Ctrl-C ends the plan, and with it the pool; from here it would end in a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(200_000, 50, 50)
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401

    gc.freeze()


def _figure(page: Page, topology: Topology, costs: Mapping[str, float]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    # matplotlib is imported here, half a second that nothing else of the plan should wait for.
    figure = Figure(figsize=(page.width / 100, page.height / 100), facecolor=PAPER)
    place = Affine2D().scale(1 / page.width, -1 / page.height).translate(0, 1) + figure.transFigure
    pen = _Pen(figure, place)
    pen.box(page.region, "#fbfcfd", "#8c959f", 12)
    pen.box(page.vpc, "#f6fbf7", "#1f6f43", 12)
    for rect in page.lanes.values():
        pen.box(rect, "#ffffff", "#d0d7de", 8)
    for rect in page.frames.values():
        pen.box(rect, "#f6f8fa", "#8c959f", 8, dashed=True)
    for route in page.routes:
        pen.arrow(route.points, COLORS[route.edge.sort])
    for node in topology.nodes:
        _node(pen, page.boxes[node.key], node, sum(costs.get(urn, 0) for urn in node.urns))
    for text in page.texts:
        pen.text(text)
    for text in page.labels:
        pen.text(text, backed=True)
    _legend(pen, page, topology)
    if total := sum(costs.values()):
        pen.text(Text(20, 92, f"about ${total:,.0f} a month", 10, color=FAINT))
    return figure


def _node(pen: _Pen, rect: Rect, node: Node, cost: float) -> None:
    _, fill, border, _ = next(one for one in KINDS if node.kind.startswith(one[3]))
    pen.box(rect, fill, border, 6)
    room = rect.w - 16
    pen.text(Text(rect.x + 8, rect.y + 14, fitted(node.title, room, 9, bold=True), 9, bold=True))
    lines = [line for detail in node.detail for line in wrapped(detail, room, SMALL)]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], fitted(f"{lines[LINES - 1]} …", room, SMALL)]
    for index, line in enumerate(lines):
        pen.text(Text(rect.x + 8, rect.y + 32 + 15 * index, line, SMALL, color=FAINT))
    if node.zones:
        zones = " ".join(node.zones)
        pen.text(Text(rect.x + 8, rect.bottom - 12, zones, SMALL, bold=True, color=border))
    if round(cost):
        pen.text(Text(rect.right - 8, rect.bottom - 12, f"${cost:,.0f}", SMALL, align="right", color=FAINT))


def _legend(pen: _Pen, page: Page, topology: Topology) -> None:
    x, y = 190.0, page.height - 28
    for sort, words in LEGEND:
        pen.arrow(((x, y), (x + 34, y)), COLORS[sort])
        text = Text(x + 42, y, words, 8, color=FAINT)
        pen.text(text)
        x = text.rect().right + 40
    for name, fill, border, _ in KINDS:
        pen.box(Rect(x, y - 6, 14, 12), fill, border, 3)
        text = Text(x + 20, y, name, 8, color=FAINT)
        pen.text(text)
        x = text.rect().right + 20
    facts = f"a b c: zones · $: USD a month, estimated · not drawn: {', '.join(topology.facts)}"
    pen.text(Text(page.region.x, page.region.bottom + 14, facts, 8, color=FAINT))


class _Pen:
    """Shapes on the figure in the units of the page."""

    def __init__(self, figure: Figure, place: Any) -> None:
        self.figure, self.place = figure, place

    def box(self, rect: Rect, fill: str, border: str, radius: float, *, dashed: bool = False) -> None:
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch(
            (rect.x, rect.y), rect.w, rect.h, boxstyle=style, facecolor=fill, edgecolor=border,
            linewidth=0.9, linestyle="--" if dashed else "-", transform=self.place,
        )  # fmt: skip
        self.figure.add_artist(patch)

    def text(self, text: Text, *, backed: bool = False) -> None:
        found = self.figure.text(
            text.x, text.y, text.text, fontsize=text.size, fontweight="bold" if text.bold else "normal",
            ha=text.align, va="center_baseline", color=text.color, transform=self.place,
        )  # fmt: skip
        if backed:
            found.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})

    def arrow(self, points: tuple[tuple[float, float], ...], color: str) -> None:
        """A line with rounded corners and a head, on a white one, so that crossings are told from corners."""
        from matplotlib.patches import PathPatch, Polygon
        from matplotlib.path import Path as Line

        (x0, y0), (x1, y1) = points[-2:]
        long = abs(x1 - x0) + abs(y1 - y0)
        dx, dy = (x1 - x0) / long, (y1 - y0) / long
        neck = (x1 - 7 * dx, y1 - 7 * dy)
        line = _rounded((*points[:-1], neck), Line)
        for width, shade in ((3.6, PAPER), (1.15, color)):
            self.figure.add_artist(
                PathPatch(line, facecolor="none", edgecolor=shade, linewidth=width, transform=self.place)
            )
        head = [
            (x1, y1),
            (neck[0] - dx - 3.4 * dy, neck[1] - dy + 3.4 * dx),
            (neck[0] - dx + 3.4 * dy, neck[1] - dy - 3.4 * dx),
        ]
        self.figure.add_artist(Polygon(head, facecolor=color, edgecolor="none", transform=self.place))


def _rounded(points: tuple[tuple[float, float], ...], line: Any) -> Any:
    places, codes = [points[0]], [line.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        for end, code in ((before, line.LINETO), (after, line.CURVE3)):
            far = abs(end[0] - corner[0]) + abs(end[1] - corner[1])
            near = min(5.0, far / 2) / far
            point = (corner[0] + (end[0] - corner[0]) * near, corner[1] + (end[1] - corner[1]) * near)
            places += [point] if code == line.LINETO else [corner, point]
            codes += [code] if code == line.LINETO else [code, code]
    return line([*places, points[-1]], [*codes, line.LINETO])


def _svg(figure: Figure, topology: Topology) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    # Words stay words: smaller, searchable, and the fonts that stand in for DejaVu are narrower than it.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "eav"}):
        figure.set_canvas(FigureCanvasSVG(figure))
        title = f"eav-platform {topology.stack} in {topology.region}"
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    with rc_context(
        {"text.hinting": "none"}
    ):  # for speed; at this size it moves letters more than it sharpens them
        figure.savefig(
            buffer, format="png", dpi=DOTS, metadata={"Software": None}, pil_kwargs={"compress_level": 3}
        )
    return buffer.getvalue()
