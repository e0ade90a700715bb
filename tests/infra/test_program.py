"""What the program tells whoever deployed: the outputs that the pages name."""

from __future__ import annotations

import json
import re

import pulumi
import pytest

from infra.graph import ROOT, Graph, record
from tests.infra.conftest import graph_of

PAGES = ("docs/deploy.md", "docs/database-operations.md")


def test_every_output_that_the_pages_name_is_there(graph: Graph) -> None:
    text = "".join((ROOT / page).read_text() for page in PAGES)
    named = set(re.findall(r"pulumi stack output (\w+)", text))
    assert {"postgres", "bastion", "migrate_network"} <= named
    assert named <= graph.stack_outputs.keys()


def test_a_migration_runs_where_the_jobs_do(graph: Graph) -> None:
    (worker,) = (one for one in graph if one.type == "aws:ecs/service:Service" and one.name == "worker")
    place = worker.inputs["networkConfiguration"]
    assert json.loads(graph.stack_outputs["migrate_network"])["awsvpcConfiguration"] == {
        "subnets": place["subnets"],
        "securityGroups": place["securityGroups"],
        "assignPublicIp": "DISABLED",
    }
    text = (ROOT / "docs/deploy.md").read_text()
    names = {str(one.inputs.get("family") or one.inputs.get("name")) for one in graph}
    stack = graph.settings.stack
    for name in re.findall(r"--(?:cluster|task-definition) (\S+)", text):
        assert name.replace("prod", stack) in names


def test_outputs_are_of_this_graph_and_not_of_the_one_before(prod: Graph) -> None:
    assert "bastion" in prod.stack_outputs
    alone = record(prod.settings, lambda _: pulumi.export("own", 1))
    assert alone.stack_outputs == {"own": 1}


@pytest.mark.parametrize("key", re.findall(r"jq -r \.(\w+)", (ROOT / "docs/deploy.md").read_text()))
def test_the_endpoint_that_is_forwarded_is_there(key: str) -> None:
    assert graph_of("prod").stack_outputs["postgres"][key]
