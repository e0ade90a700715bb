"""Where everything of the architecture picture lies: boxes in lanes and columns, arrows routed round them.

Pure arithmetic on the topology. Units are hundredths of an inch, y grows downward.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from infra.topology import Edge, Node, Topology

STEP: Final = 10
"""Between two tracks. Boxes lie on multiples of it, tracks half a step beside."""
WIDTH: Final = 170
HEIGHT: Final = 80
"""Of a box."""
WIDE: Final = 230
"""Of a box with a list in it."""
INNER: Final = 20
"""Between boxes of a frame, and around them."""
TITLE: Final = 20
"""Of a frame."""
GAP: Final = 60
"""Between boxes and frames: room for some tracks."""
LABELS: Final = 130
"""At the left of a lane."""
LANES: Final = ("public", "private", "database", "warehouse")


class Rect(NamedTuple):
    """A place on the page."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """x of the other side."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """y of the other side."""
        return self.y + self.h

    def grown(self, by: float) -> Rect:
        """Wider on every side."""
        return Rect(self.x - by, self.y - by, self.w + 2 * by, self.h + 2 * by)

    def meets(self, other: Rect) -> bool:
        """Whether they share an area."""
        return (
            self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom
        )


Point = tuple[float, float]


class Text(NamedTuple):
    """A line of text with its left (or middle, or right) end at x and its middle at y."""

    x: float
    y: float
    text: str
    size: float
    """Points."""
    bold: bool = False
    align: str = "left"
    color: str = "#24292f"

    def rect(self) -> Rect:
        """What it covers."""
        wide, high = text_width(self.text, self.size, bold=self.bold), self.size * 1.6
        left = self.x - {"left": 0.0, "center": wide / 2, "right": wide}[self.align]
        return Rect(left, self.y - high / 2, wide, high)


@dataclass(frozen=True)
class Route:
    """An arrow's way."""

    edge: Edge
    points: tuple[Point, ...]


@dataclass
class Page:
    """All that is drawn."""

    width: float
    height: float
    boxes: dict[str, Rect]
    """Key of a node → its box."""
    frames: dict[str, Rect]
    """`group:NAME` → the frame around its nodes, where there are several."""
    lanes: dict[str, Rect]
    vpc: Rect
    region: Rect
    texts: list[Text] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    labels: list[Text] = field(default_factory=list)
    """Of routes."""
    failed: list[Edge] = field(default_factory=list)
    """Arrows without a way."""


# -- text ----------------------------------------------------------------------------------------------------

_REGULAR: Final = (
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61,
    69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59,
    82, 59, 59, 52, 64, 34, 64, 84,
)  # fmt: skip
"""Widths of DejaVu Sans from the blank on, in hundredths of its size."""
_BOLD: Final = (
    35, 46, 52, 84, 70, 100, 87, 31, 46, 46, 52, 84, 38, 42, 38, 37, 70, 70, 70, 70, 70, 70, 70, 70, 70, 70, 40,
    40, 84, 84, 84, 58, 100, 77, 76, 73, 83, 68, 68, 82, 84, 37, 37, 77, 64, 100, 84, 85, 73, 85, 77, 72, 68,
    81, 77, 110, 77, 72, 73, 46, 37, 46, 84, 50, 50, 67, 72, 59, 72, 68, 44, 72, 71, 34, 34, 67, 34, 104, 71,
    69, 72, 72, 49, 60, 48, 71, 65, 92, 65, 65, 58, 71, 37, 71, 84,
)  # fmt: skip
_OTHER: Final = 100
"""Of what is not ASCII: as wide as … is."""
_UNITS: Final = 100 / 72
"""Units a point."""


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Of a line of DejaVu Sans."""
    widths = _BOLD if bold else _REGULAR
    signs = (ord(sign) - 32 for sign in text)
    hundredths = sum(widths[sign] if 0 <= sign < len(widths) else _OTHER for sign in signs)
    return hundredths / 100 * size * _UNITS


def fitted(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """As much of it as fits, with … where something is left out."""
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold=bold) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Lines that fit."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return [fitted(line, width, size) for line in lines]


# -- places --------------------------------------------------------------------------------------------------

_ORDER: Final = (
    "nat", "bastion", "jobs", "proxy", "postgres", "warehouse", "endpoints",
)  # fmt: skip
"""Groups of a lane from the left: people come from there, and the services of the region are on the right."""

_BELOW: Final = ("sns.Topic", "cloudwatch.MetricAlarm", "budgets.Budget")
"""Under the VPC: what watches, and whom it tells."""
_CHAIN: Final = ("scheduler.Schedule", "sfn.StateMachine", "sqs.Queue")
"""In the last column: what starts, and what is left of failures."""


def lay_out(topology: Topology) -> Page:
    """The page of a topology."""
    placer = _Placer(topology)
    page = placer.place()
    router = _Router(page, topology)
    for edge in sorted(topology.edges, key=router.order):
        points = router.way(edge)
        if points:
            page.routes.append(Route(edge, points))
        else:
            page.failed.append(edge)
    _label(page)
    return page


def _up(value: float) -> float:
    return -(-value // STEP) * STEP


class _Placer:
    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.nodes = {node.key: node for node in topology.nodes}
        self.boxes: dict[str, Rect] = {}
        self.frames: dict[str, Rect] = {}
        self.lanes: dict[str, Rect] = {}

    def place(self) -> Page:
        top, left = 110.0, 190.0
        blocks = {lane: self._blocks(lane) for lane in LANES}
        lanes = [lane for lane in LANES if blocks[lane]]
        inside = max(self._wide(blocks[lane]) for lane in lanes)
        vpc_width = LABELS + inside + 2 * GAP + 20
        y = top + 70
        for lane in lanes:
            high = max(size[1] for _, size in blocks[lane]) + 60
            self.lanes[lane] = Rect(left + 40, y, vpc_width - 40, high)
            x = left + 40 + LABELS + GAP / 2
            # What is short lies in the middle of the lane, so that both of its sides are passable.
            x += _up((inside - self._wide(blocks[lane])) / 2)
            for nodes, (wide, tall) in blocks[lane]:
                self._block(nodes, x, y + _up((high - tall) / 2))
                x += wide + GAP
            y += high + 20
        vpc = Rect(left + 20, top + 40, vpc_width, y - top - 40)
        right = self._columns(vpc)
        below = vpc.bottom + 50
        self._row(vpc.x + 20, below)
        bottom = max([vpc.bottom, *(box.bottom for box in self.boxes.values())]) + 60
        region = Rect(left, top, right + 30 - left, bottom - top)
        self._outside(region)
        page = Page(region.right + 20, region.bottom + 60, self.boxes, self.frames, self.lanes, vpc, region)
        self._write(page)
        return page

    # -- lanes -----------------------------------------------------------------------------------------------

    def _blocks(self, lane: str) -> list[tuple[tuple[Node, ...], tuple[float, float]]]:
        """The groups of a lane from the left, with their sizes."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.topology.nodes:
            if node.place == lane:
                found[node.group].append(node)
        ranks = {name: rank for rank, name in enumerate(_ORDER)}
        ordered = sorted(found.items(), key=lambda one: (ranks.get(one[0], len(ranks) - 2), one[0]))
        return [(tuple(nodes), self._size(nodes)) for _, nodes in ordered]

    def _size(self, nodes: Sequence[Node]) -> tuple[float, float]:
        if len(nodes) == 1:
            return _size_of(nodes[0])
        across = _across(nodes)
        rows = -(-len(nodes) // across)
        wide = max(_size_of(node)[0] for node in nodes)
        return (
            across * (wide + INNER) + INNER,
            rows * (HEIGHT + INNER) + INNER + TITLE,
        )

    def _wide(self, blocks: Sequence[tuple[tuple[Node, ...], tuple[float, float]]]) -> float:
        return sum(size[0] for _, size in blocks) + GAP * (len(blocks) - 1)

    def _block(self, nodes: tuple[Node, ...], x: float, y: float) -> None:
        wide, tall = self._size(nodes)
        if len(nodes) == 1:
            self.boxes[nodes[0].key] = Rect(x, y, wide, tall)
            return
        self.frames[f"group:{nodes[0].group}"] = Rect(x, y, wide, tall)
        across = _across(nodes)
        each = (wide - INNER) / across
        for index, node in enumerate(nodes):
            row, column = divmod(index, across)
            self.boxes[node.key] = Rect(
                x + INNER + column * each, y + TITLE + INNER + row * (HEIGHT + INNER), each - INNER, HEIGHT
            )

    # -- beside and below the VPC ----------------------------------------------------------------------------

    def _columns(self, vpc: Rect) -> float:
        """Services of the region; returns where they end."""
        inside = {node.key for node in self.topology.nodes if node.place in LANES}
        groups = {f"group:{node.group}" for node in self.topology.nodes if node.group}
        near = {
            key
            for edge in self.topology.edges
            if edge.sort == "data"
            for key, other in ((edge.source, edge.target), (edge.target, edge.source))
            if other in inside | groups
        }
        columns: tuple[list[Node], list[Node], list[Node]] = ([], [], [])
        for node in self.topology.nodes:
            if node.place != "region" or node.kind in _BELOW or self._serves_inside(node, inside):
                continue
            columns[2 if node.kind in _CHAIN else 0 if node.key in near else 1].append(node)
        x = vpc.right + GAP + 20
        for column in columns:
            if not column:
                continue
            column.sort(key=_rank)
            room = vpc.h - 40
            gap = max(30.0, (room - HEIGHT * len(column)) / max(1, len(column)))
            y = vpc.y + 20 + (gap / 2 if gap > 30 else 0)
            for node in column:
                self.boxes[node.key] = Rect(x, _up(y), WIDTH, HEIGHT)
                y += HEIGHT + gap
            x += WIDTH + GAP + 10
        return x - GAP

    def _serves_inside(self, node: Node, inside: set[str]) -> bool:
        """A schedule of something in the VPC, or a queue of what it failed: it lies under it."""
        if node.kind not in _CHAIN:
            return False
        ends = {
            end
            for edge in self.topology.edges
            for end in (edge.source, edge.target)
            if node.key in (edge.source, edge.target)
        } - {node.key}
        hosts = {end for end in ends if self.nodes.get(end, node).kind not in _CHAIN}
        return bool(hosts) and hosts <= inside

    def _row(self, x: float, y: float) -> None:
        for node in sorted(self.topology.nodes, key=_rank):
            if node.place == "region" and node.key not in self.boxes:
                self.boxes[node.key] = Rect(x, _up(y), WIDTH, HEIGHT)
                x += WIDTH + GAP

    def _outside(self, region: Rect) -> None:
        x, wide = 20.0, 130.0
        middle = {lane: _up(rect.y + rect.h / 2 - HEIGHT / 2) for lane, rect in self.lanes.items()}
        places = {
            "internet": middle.get("public"),
            "people": middle.get("private"),
            "copies": middle.get("database"),
        }
        for key, y in places.items():
            if key in self.nodes and y is not None:
                self.boxes[key] = Rect(x, y, wide, HEIGHT)
        if "producers" in self.nodes:
            # Above what they write to.
            target = next(edge.target for edge in self.topology.edges if edge.source == "producers")
            self.boxes["producers"] = Rect(self.boxes[target].x, 20, WIDTH, HEIGHT)

    # -- words -----------------------------------------------------------------------------------------------

    def _write(self, page: Page) -> None:
        topology = self.topology
        add = page.texts.append
        add(Text(20, 40, f"eav-platform · {topology.stack}", 17, bold=True))
        add(Text(20, 72, f"{topology.region}, {len(topology.zones)} zones", 10, color="#57606a"))
        add(Text(page.region.x + 14, page.region.y + 20, f"AWS region {topology.region}", 10, bold=True))
        add(Text(page.vpc.x + 14, page.vpc.y + 16, "VPC", 10, bold=True, color="#1f6f43"))
        for lane, rect in page.lanes.items():
            add(Text(rect.x + 10, rect.y + 18, lane, 10, bold=True, color="#57606a"))
            for index, (zone, block) in enumerate(
                zip(topology.zones, topology.subnets.get(lane, ()), strict=False)
            ):
                add(Text(rect.x + 10, rect.y + 38 + 16 * index, f"{zone[-1]}  {block}", 7.5, color="#57606a"))
        for key, rect in page.frames.items():
            name = key.removeprefix("group:")
            add(Text(rect.x + 10, rect.y + 14, name, 8.5, bold=True, color="#57606a"))


def _size_of(node: Node) -> tuple[float, float]:
    return (WIDE if node.kind == "ec2.VpcEndpoint" else WIDTH), HEIGHT


def _across(nodes: Sequence[Node]) -> int:
    """Boxes side by side in a frame."""
    return 1 if nodes[0].kind == "ec2.VpcEndpoint" else len(nodes) if len(nodes) <= 3 else 2


_RANKS: Final = (
    "kinesis.Stream", "ecr.Repository", "dynamodb.Table", "sns.Topic", "cloudwatch.MetricAlarm", "budgets.Budget",
    "scheduler.Schedule", "sfn.StateMachine", "lambda.Function", "sqs.Queue", "s3.Bucket",
)  # fmt: skip


def _rank(node: Node) -> tuple[int, str]:
    return (_RANKS.index(node.kind) if node.kind in _RANKS else len(_RANKS)), node.key


# -- routes --------------------------------------------------------------------------------------------------

_TURN: Final = 4.0
_CROSS: Final = 3.0
_NEAR: Final = 1.5
"""Costs in steps: of a corner, of crossing another arrow, of running beside one."""
_OFF_MIDDLE: Final = 0.3
"""Of each step away from the middle of a side, where an arrow begins or ends."""
_HASTE: Final = 1.2
"""What a step that is left counts while ways are compared."""
_CLEAR: Final = 8.0
"""Kept free around a box."""
_TAKEN: Final = 1e6
_ALONG: Final = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Directions; the first two along x."""
_TURNS: Final = ((0, 2, 3), (1, 2, 3), (2, 0, 1), (3, 0, 1))
"""Straight on, and to both sides."""
_ARRIVED: Final = -1


class _Router:
    """Finds a way for each arrow on a grid of tracks by A*. No box is crossed, no track used twice along."""

    def __init__(self, page: Page, topology: Topology) -> None:
        self.page = page
        self.columns, self.rows = int(page.width // STEP), int(page.height // STEP)
        cells = self.columns * self.rows
        self.solid = bytearray(cells)
        for column in range(self.columns):
            self.solid[column] = self.solid[cells - 1 - column] = 1
        for row in range(self.rows):
            self.solid[row * self.columns] = self.solid[row * self.columns + self.columns - 1] = 1
        self.frames: dict[str, list[int]] = {}
        self.cost = ([1.0] * cells, [1.0] * cells)
        """Of a step along x and along y into a cell."""
        self.frame_of: dict[str, str] = {}
        self.inside = {node.key for node in topology.nodes if node.place in LANES}
        self.inside |= {f"group:{node.group}" for node in topology.nodes if node.place in LANES}
        self.alone: dict[str, Rect] = {}
        for node in topology.nodes:
            if f"group:{node.group}" in page.frames:
                self.frame_of[node.key] = f"group:{node.group}"
            elif node.group:
                self.alone[f"group:{node.group}"] = page.boxes[node.key]
        for rect in [
            *(box.grown(_CLEAR) for box in page.boxes.values()),
            *(text.rect().grown(6) for text in page.texts),
        ]:
            for cell in self._cells(rect):
                self.solid[cell] = 1
        for key, rect in [("vpc", page.vpc), *page.frames.items()]:
            self.frames[key] = list(self._cells(rect.grown(_CLEAR)))
        here = set(self._cells(page.region.grown(-_CLEAR)))
        self.frames["outside"] = [cell for cell in range(cells) if cell not in here]
        self.outside = {node.key for node in topology.nodes if node.place == "outside"}

    def _cells(self, rect: Rect) -> Iterator[int]:
        """Whose middle lies in it."""
        half = STEP / 2
        first, last = int(-(-(rect.x - half) // STEP)), int((rect.right - half) // STEP)
        top, bottom = int(-(-(rect.y - half) // STEP)), int((rect.bottom - half) // STEP)
        for row in range(max(0, top), min(self.rows - 1, bottom) + 1):
            for column in range(max(0, first), min(self.columns - 1, last) + 1):
                yield row * self.columns + column

    def _rect(self, end: str) -> Rect:
        """Of a node, of a frame, or of a group's only node."""
        return self.page.boxes.get(end) or self.page.frames.get(end) or self.alone[end]

    def order(self, edge: Edge) -> tuple[float, Edge]:
        """The shortest first: they have the least choice."""
        one, other = self._rect(edge.source), self._rect(edge.target)
        far = abs(one.x + one.w / 2 - other.x - other.w / 2) + abs(one.y + one.h / 2 - other.y - other.h / 2)
        return far, edge

    def _slots(self, rect: Rect) -> Iterator[tuple[int, int, float]]:
        """(cell beside the rectangle, direction away from it, distance from the middle of that side in steps)."""
        left, right = int(rect.x // STEP) - 2, int(rect.right // STEP) + 1
        top, bottom = int(rect.y // STEP) - 2, int(rect.bottom // STEP) + 1
        for column in range(left + 3, right - 2):
            off = abs(column * STEP + STEP / 2 - rect.x - rect.w / 2) / STEP
            yield top * self.columns + column, 3, off
            yield bottom * self.columns + column, 2, off
        for row in range(top + 3, bottom - 2):
            off = abs(row * STEP + STEP / 2 - rect.y - rect.h / 2) / STEP
            yield row * self.columns + left, 1, off
            yield row * self.columns + right, 0, off

    def way(self, edge: Edge) -> tuple[Point, ...]:
        """From border to border; empty if there is none. The tracks are taken."""
        source, target = self._rect(edge.source), self._rect(edge.target)
        open_frames = {"", self.frame_of.get(edge.source, ""), self.frame_of.get(edge.target, "")}
        if {edge.source, edge.target} & self.inside:
            open_frames.add("vpc")
        if {edge.source, edge.target} & self.outside:
            open_frames.add("outside")
        found = self._search(source, target, open_frames)
        if not found:
            return ()
        self._take(found)
        cells = [divmod(state >> 2, self.columns) for state in found]
        middle = [(column * STEP + STEP / 2, row * STEP + STEP / 2) for row, column in cells]
        points = [
            _onto(source, middle[0], found[0] & 3, -1),
            *middle,
            _onto(target, middle[-1], found[-1] & 3, 1),
        ]
        return tuple(
            point
            for index, point in enumerate(points)
            if index in (0, len(points) - 1) or not _straight(points[index - 1], point, points[index + 1])
        )

    def _closed(self, open_frames: set[str]) -> bytearray:
        """1 for each cell that an arrow may not go through."""
        closed = bytearray(self.solid)
        for key, cells in self.frames.items():
            if key not in open_frames:
                for cell in cells:
                    closed[cell] = 1
        return closed

    def _remaining(self, target: Rect) -> list[float]:
        """Steps from each cell to a rectangle, a little more of them: fewer cells are looked at for it."""
        left, right = target.x / STEP - 2, target.right / STEP + 1
        top, bottom = target.y / STEP - 2, target.bottom / STEP + 1
        aside = [max(left - column, column - right, 0) * _HASTE for column in range(self.columns)]
        ahead = [max(top - row, row - bottom, 0) * _HASTE for row in range(self.rows)]
        return [down + across for down in ahead for across in aside]

    def _search(self, source: Rect, target: Rect, open_frames: set[str]) -> list[int]:
        """States (cell × 4 + direction) from the first cell to the last."""
        closed, remaining, costs = self._closed(open_frames), self._remaining(target), self.cost
        moves = tuple(dx + dy * self.columns for dx, dy in _ALONG)
        goals = {cell * 4 + (way ^ 1): off * _OFF_MIDDLE for cell, way, off in self._slots(target)}
        best: dict[int, float] = {}
        came: dict[int, int] = {}
        heap: list[tuple[float, float, int]] = []

        def reach(state: int, spent: float, left: float, before: int | None) -> None:
            if spent < best.get(state, _TAKEN):
                best[state] = spent
                if before is not None:
                    came[state] = before
                heapq.heappush(heap, (spent + left, spent, state))

        for cell, way, off in self._slots(source):
            if not closed[cell]:
                reach(cell * 4 + way, off * _OFF_MIDDLE + costs[way >> 1][cell], remaining[cell], None)
        while heap:
            _, spent, state = heapq.heappop(heap)
            if state == _ARRIVED:
                return _traced(came, came[_ARRIVED])
            if spent > best[state]:
                continue
            if state in goals:
                reach(_ARRIVED, spent + goals[state], 0, state)
            cell, way = state >> 2, state & 3
            for turn in _TURNS[way]:
                further, cost = cell + moves[turn], costs[turn >> 1]
                if not closed[further]:
                    corner = 0.0 if turn == way else _TURN + cost[cell] - 1
                    reach(further * 4 + turn, spent + cost[further] + corner, remaining[further], state)
        return []

    def _take(self, states: Sequence[int]) -> None:
        """What an arrow runs on is no other's, what it is crossed by or runs beside costs more."""
        before = states[0] & 3
        for state in [*states, states[-1]]:
            cell, way = state >> 2, state & 3
            for axis in {before >> 1, way >> 1}:
                aside = self.columns if axis == 0 else 1
                self.cost[axis][cell] = _TAKEN
                self.cost[axis][cell - aside] += _NEAR
                self.cost[axis][cell + aside] += _NEAR
                self.cost[1 - axis][cell] += _CROSS
            before = way


def _traced(came: Mapping[int, int], state: int) -> list[int]:
    found = [state]
    while state in came:
        state = came[state]
        found.append(state)
    return found[::-1]


def _onto(rect: Rect, point: Point, way: int, sign: int) -> Point:
    """Where a line through a point, along a direction (against it with -1), meets the border of a rectangle."""
    x, y = point
    dx, dy = (part * sign for part in _ALONG[way])
    if dx:
        return (rect.x if dx > 0 else rect.right), y
    return x, (rect.y if dy > 0 else rect.bottom)


def _straight(one: Point, two: Point, three: Point) -> bool:
    return one[0] == two[0] == three[0] or one[1] == two[1] == three[1]


# -- labels of routes ----------------------------------------------------------------------------------------

_LABEL: Final = 7.5
COLORS: Final = {"network": "#2f6fbf", "data": "#2c8a4b", "event": "#c9711a"}
_SILENT: Final = ("443", "starts", "sends", "mail", "copies", "")
"""What the legend says for all."""


def _label(page: Page) -> None:
    """A word at each arrow that has one, where it covers no box, no word and as few arrows as may be."""
    lines = [(route, *segment) for route in page.routes for segment in pairwise(route.points)]
    for route in page.routes:
        if route.edge.label in _SILENT:
            continue
        choices: list[tuple[float, int, Text]] = []
        for order, (one, two) in enumerate(reversed(list(pairwise(route.points)))):
            long = abs(one[0] - two[0]) + abs(one[1] - two[1])
            level = one[1] == two[1]
            for part in (0.5, 0.3, 0.7):
                x, y = one[0] + (two[0] - one[0]) * part, one[1] + (two[1] - one[1]) * part
                text = Text(x, y, route.edge.label, _LABEL, align="center", color=COLORS[route.edge.sort])
                rect = text.rect()
                if long < (rect.w + 20 if level else 30) or _covers(page, rect):
                    continue
                crossed = sum(other is not route and _passes(rect, a, b) for other, a, b in lines)
                choices.append(
                    (crossed * 4 + (0 if level else 1) + order * 0.5 + abs(part - 0.5), len(choices), text)
                )
        if choices:
            page.labels.append(min(choices)[2])


def _covers(page: Page, rect: Rect) -> bool:
    taken = [*page.boxes.values(), *(text.rect() for text in [*page.texts, *page.labels])]
    return any(rect.meets(other) for other in taken)


def _passes(rect: Rect, one: Point, two: Point) -> bool:
    """Whether a level or upright line goes through a rectangle."""
    low, high = (min(one[0], two[0]), min(one[1], two[1])), (max(one[0], two[0]), max(one[1], two[1]))
    return low[0] <= rect.right and rect.x <= high[0] and low[1] <= rect.bottom and rect.y <= high[1]
