"""The architecture picture: what it says, where it lies, and that it is drawn the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.layout import Page, Rect, fitted, lay_out, text_width, wrapped
from infra.topology import Topology, topology, verb
from tests.infra.conftest import STACKS, graph_of

if TYPE_CHECKING:
    from infra.graph import Graph

DOCS = Path(__file__).parents[2] / "docs"


@cache
def read(stack: str) -> Topology:
    return topology(graph_of(stack))


@cache
def page(stack: str) -> Page:
    return lay_out(read(stack))


@cache
def costs(stack: str) -> dict[str, float]:
    from infra.bill import estimate

    return estimate(graph_of(stack)).by_resource()


def without(graph: Graph, kind: str, name: str) -> Graph:
    gone = graph.one(kind, name)
    return replace(graph, resources={urn: one for urn, one in graph.resources.items() if urn != gone.urn})


def pairs(found: Topology, sort: str) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.target, edge.label) for edge in found.edges if edge.sort == sort}


# -- what it says --------------------------------------------------------------------------------------------


def test_who_may_talk_to_the_database() -> None:
    found = pairs(read("prod"), "network")
    assert {source for source, target, _ in found if target == "group:postgres"} == {
        "group:jobs", "group:proxy", "group:bastion",
    }  # fmt: skip
    assert ("group:jobs", "group:proxy", "5432") in found
    assert ("people", "ec2.Instance:bastion", "SSM") in found


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vpc.SecurityGroupIngressRule", "proxy-to-postgres-5432-in"),
        ("vpc.SecurityGroupEgressRule", "proxy-to-postgres-5432-out"),
    ],
)
def test_a_connection_needs_a_rule_at_either_end(kind: str, name: str, prod: Graph) -> None:
    arrow = ("group:proxy", "group:postgres", "5432")
    assert arrow in pairs(read("prod"), "network")
    assert arrow not in pairs(topology(without(prod, kind, name)), "network")


def test_a_right_is_an_arrow_as_long_as_the_policy_gives_it(prod: Graph) -> None:
    archiver = "lambda.Function:archiver"
    found = {target: label for source, target, label in pairs(read("prod"), "data") if source == archiver}
    assert found == {
        "dynamodb.Table:items": "reads, writes",
        "dynamodb.Table:archiver-state": "reads, writes",
        "s3.Bucket:archive-items": "reads, writes",
    }
    policy = next(
        one.name
        for one in prod.of_kind("iam.RolePolicy")
        if prod.component(one) == "archiver" and "dynamodb" in one.inputs["policy"]
    )
    less = pairs(topology(without(prod, "iam.RolePolicy", policy)), "data")
    assert not any(source == archiver for source, _, _ in less)


@pytest.mark.parametrize("stack", STACKS)
def test_boxes_and_groups_are_told_apart_by_their_names(stack: str) -> None:
    found = read(stack)
    named = [(node.title, node.zones if node.kind == "ec2.NatGateway" else ()) for node in found.nodes]
    assert len(set(named)) == len(named)
    drawn = {name for name, nodes in found.groups().items() if len(nodes) > 1}
    assert not drawn & {title for title, _ in named}


def test_stacks_differ_in_the_picture_as_they_do_in_fact() -> None:
    kinds = {stack: [node.kind for node in read(stack).nodes] for stack in STACKS}
    assert kinds["prod"].count("rds.Instance") == 3
    assert kinds["dev"].count("rds.Instance") == 1
    assert "rds.Proxy" in kinds["prod"]
    assert "rds.Proxy" not in kinds["dev"]
    assert "redshift.Cluster" in kinds["prod"]
    assert "redshiftserverless.Workgroup" in kinds["dev"]
    assert kinds["prod"].count("ec2.NatGateway") == 3
    assert "copies" in kinds["prod"]
    assert "copies" not in kinds["dev"]


def test_boxes_stand_in_the_tier_of_their_subnets() -> None:
    places = {node.kind: node.place for node in read("prod").nodes}
    assert places["ec2.NatGateway"] == "public"
    assert places["ecs.Service"] == "private"
    assert places["rds.Instance"] == "database"
    assert places["redshift.Cluster"] == "warehouse"
    assert places["s3.Bucket"] == places["dynamodb.Table"] == "region"
    assert {node.place for node in read("prod").nodes if node.group == "postgres"} == {"database"}


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (["s3:GetObject"], "reads"),
        (["s3:GetObject", "s3:PutObject"], "reads, writes"),
        (["dynamodb:DeleteItem"], "writes"),
        (["lambda:InvokeFunction"], "starts"),
        (["rds:StopDBInstance"], "starts"),
        (["sns:Publish"], "sends"),
        (["dynamodb:UpdateItem"], "writes"),
    ],
)
def test_words_for_rights(actions: list[str], words: str) -> None:
    assert verb(actions) == words


# -- where it lies -------------------------------------------------------------------------------------------


def crosses(rect: Rect, one: tuple[float, float], two: tuple[float, float]) -> bool:
    x, y = sorted((one[0], two[0])), sorted((one[1], two[1]))
    return x[0] < rect.right and rect.x < x[1] + 1e-9 and y[0] < rect.bottom and rect.y < y[1] + 1e-9


def rect_of(stack: str, end: str) -> Rect:
    found = page(stack)
    if end in found.boxes or end in found.frames:
        return found.boxes.get(end) or found.frames[end]
    return next(found.boxes[node.key] for node in read(stack).nodes if f"group:{node.group}" == end)


@pytest.mark.parametrize("stack", STACKS)
def test_every_box_and_every_arrow_is_there(stack: str) -> None:
    found = page(stack)
    assert set(found.boxes) == {node.key for node in read(stack).nodes}
    assert found.failed == []
    assert {route.edge for route in found.routes} == set(read(stack).edges)


@pytest.mark.parametrize("stack", STACKS)
def test_no_box_or_word_covers_another(stack: str) -> None:
    found = page(stack)
    whole = Rect(0, 0, found.width, found.height)
    texts = [text.rect() for text in [*found.texts, *found.labels]]
    for one, other in combinations([*found.boxes.values(), *texts], 2):
        assert not one.meets(other)
    for rect in [*found.boxes.values(), *texts, found.region]:
        assert rect.x >= whole.x
        assert rect.y >= whole.y
        assert rect.right <= whole.right
        assert rect.bottom <= whole.bottom
    for node in read(stack).nodes:
        frame = found.frames.get(f"group:{node.group}")
        box = found.boxes[node.key]
        if frame:
            assert frame.x < box.x
            assert box.right < frame.right
            assert frame.y < box.y
            assert box.bottom < frame.bottom


@pytest.mark.parametrize("stack", STACKS)
def test_arrows_go_from_border_to_border_and_through_no_box(stack: str) -> None:
    found = page(stack)
    for route in found.routes:
        for end, point in ((route.edge.source, route.points[0]), (route.edge.target, route.points[-1])):
            rect = rect_of(stack, end)
            assert point[0] in (rect.x, rect.right) or point[1] in (rect.y, rect.bottom)
            assert not rect.grown(-1).meets(Rect(*point, 0.1, 0.1))
        for one, two in pairwise(route.points):
            assert one[0] == two[0] or one[1] == two[1]
            for rect in [*found.boxes.values(), *(text.rect() for text in found.texts)]:
                assert not crosses(rect.grown(-1), one, two)


def segments(found: Page) -> Iterator[tuple[int, int, float, float, float]]:
    """(arrow, axis, position, from, to)"""
    for number, route in enumerate(found.routes):
        for one, two in pairwise(route.points):
            axis = 0 if one[1] == two[1] else 1
            low, high = sorted((one[axis], two[axis]))
            yield number, axis, one[1 - axis], low, high


@pytest.mark.parametrize("stack", STACKS)
def test_no_arrow_runs_on_another(stack: str) -> None:
    for one, other in combinations(segments(page(stack)), 2):
        if one[0] != other[0] and one[1:3] == other[1:3]:
            assert min(one[4], other[4]) <= max(one[3], other[3])


# -- words ---------------------------------------------------------------------------------------------------


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.floats(20, 300))
def test_words_are_cut_to_fit(text: str, width: float) -> None:
    cut = fitted(text, width, 8)
    assert cut == text or cut.endswith("…")
    assert text_width(cut, 8) <= width
    assert all(text_width(line, 8) <= width for line in wrapped(text, width, 8))


@pytest.mark.parametrize("stack", ["prod"])
def test_widths_are_those_of_the_font(stack: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from infra import picture

    figure = picture._figure(page(stack), read(stack), costs(stack))
    figure.set_dpi(100)  # a pixel is a unit then
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    assert len(figure.texts) > 100
    for text in figure.texts:
        guessed = text_width(
            text.get_text(), float(text.get_fontsize()), bold=text.get_fontweight() == "bold"
        )
        # Hinting rounds each letter to whole pixels: some hundredths more or less of the width.
        assert text.get_window_extent(renderer).width <= guessed * 1.04 + 1


# -- the files -----------------------------------------------------------------------------------------------


def test_the_same_graph_gives_the_same_files(tmp_path: Path) -> None:
    from infra.picture import draw

    for folder in ("one", "other"):
        draw(read("dev"), costs("dev"), tmp_path / folder)
    for suffix in ("svg", "png"):
        one, other = (
            (tmp_path / folder / f"architecture-dev.{suffix}").read_bytes() for folder in ("one", "other")
        )
        assert one == other
    assert (tmp_path / "one" / "architecture-dev.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_in_the_docs_is_of_this_graph(tmp_path: Path) -> None:
    from infra.picture import draw

    (drawn,) = draw(read("prod"), costs("prod"), tmp_path, png=False)
    kept = (DOCS / drawn.name).read_bytes()
    assert drawn.read_bytes() == kept, "renew it: python -m infra plan prod --out docs --no-png"
