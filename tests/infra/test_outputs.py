"""What `pulumi stack output` gives, and the commands of docs/deploy.md take."""

from __future__ import annotations

import json
import re
from pathlib import Path

from infra.graph import Graph

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


def test_the_commands_of_the_page_find_their_outputs(graph: Graph) -> None:
    asked = set(re.findall(r"pulumi stack output ([a-z_]+)", PAGE.read_text()))
    assert {"postgres", "bastion", "migrate_network"} <= asked
    assert asked <= set(graph.stack_outputs)


def test_a_migration_runs_in_the_private_tier_as_the_jobs_do(graph: Graph) -> None:
    network = json.loads(graph.stack_outputs["migrate_network"])["awsvpcConfiguration"]
    private = {
        one.outputs["id"] for one in graph.of_kind("ec2.Subnet") if one.inputs["tags"]["Tier"] == "private"
    }
    assert set(network["subnets"]) == private
    assert network["securityGroups"] == [graph.one("ec2.SecurityGroup", "group-jobs").outputs["id"]]
    assert network["assignPublicIp"] == "DISABLED"


def test_the_writer_is_the_primary(graph: Graph) -> None:
    (primary,) = (one for one in graph.of_kind("rds.Instance") if not one.inputs.get("replicateSourceDb"))
    assert graph.stack_outputs["postgres"]["writer"] == primary.outputs["address"]
