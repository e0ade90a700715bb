"""The stack's exported state with other instances: exactly these, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.cli import main

OLD, NEW = "db-AAAAAAAAAAAAAAAAAAAAAAAAAA", "db-BBBBBBBBBBBBBBBBBBBBBBBBBB"
REPLICA, NEW_REPLICA = "db-CCCCCCCCCCCCCCCCCCCCCCCCCC", "db-DDDDDDDDDDDDDDDDDDDDDDDDDD"


def instance(name: str, resource: str) -> dict[str, Any]:
    return {
        "urn": f"urn:pulumi:prod::eav-platform::eav:postgres:Postgres$aws:rds/instance:Instance::{name}",
        "custom": True,
        "type": "aws:rds/instance:Instance",
        "id": resource,
        "inputs": {
            "identifier": name,
            "password": {"4dabf18193072939515e22adb298388d": "…", "ciphertext": "v1:x+/="},
        },
        "outputs": {"id": resource, "resourceId": resource, "identifier": name, "throughput": 0.1},
    }


@pytest.fixture
def state() -> dict[str, Any]:
    policy = {
        "urn": "urn:pulumi:prod::eav-platform::aws:iam/rolePolicy:RolePolicy::proxy-policy",
        "type": "aws:iam/rolePolicy:RolePolicy",
        "id": "eav-prod-postgres-proxy",
        # In AWS it still has the old id: the next update says so and changes it.
        "outputs": {"policy": f'{{"Resource":["arn:aws:rds-db:eu-central-1:1:dbuser:{OLD}/eav_app"]}}'},
    }
    return {
        "version": 3,
        "deployment": {"resources": [instance("primary", OLD), instance("replica-1", REPLICA), policy]},
    }


def adopted(tmp_path: Path, state: Any, *pairs: str) -> int:
    path = tmp_path / "before.json"
    path.write_text(state if isinstance(state, str) else json.dumps(state))
    return main(["adopt-instances", str(path), *pairs])


def test_the_instances_that_are_named_and_nothing_else(
    tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adopted(tmp_path, state, f"{OLD}={NEW}") == 0
    printed = capsys.readouterr()
    primary = state["deployment"]["resources"][0]
    primary["id"] = primary["outputs"]["id"] = primary["outputs"]["resourceId"] = NEW
    assert json.loads(printed.out) == state
    assert printed.err == f"primary (primary): {OLD} → {NEW}\n"


def test_two_at_once(tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert adopted(tmp_path, state, f"{OLD}={NEW}", f"{REPLICA}={NEW_REPLICA}") == 0
    found = json.loads(capsys.readouterr().out)["deployment"]["resources"]
    assert [one["id"] for one in found[:2]] == [NEW, NEW_REPLICA]


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([f"{NEW}={OLD}"], f"{OLD} is primary already"),
        ([f"{NEW}={NEW_REPLICA}"], f"{NEW} is no instance of this stack: there are {OLD}, {REPLICA}"),
        ([f"{OLD[:-3]}={NEW}"], f"it is a part of {OLD}, which is primary"),
        ([f"{OLD}={NEW}", f"{REPLICA}={NEW}"], "by the same one"),
        ([f"{OLD}={NEW}", f"{OLD}={NEW_REPLICA}"], "named twice"),
        ([f"{OLD}={REPLICA}"], f"{REPLICA} is replica-1 already"),
        ([OLD], "'' is no DbiResourceId"),
        (["eav-prod-postgres=eav-prod-postgres-old1"], "is no DbiResourceId"),
        ([f"{OLD}={NEW.lower()}"], "is no DbiResourceId"),
    ],
)
def test_what_is_not_meant_is_refused(
    tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str], pairs: list[str], says: str
) -> None:
    assert adopted(tmp_path, state, *pairs) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err


def test_an_id_that_stands_elsewhere_only_is_said_to(
    tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del state["deployment"]["resources"][0]
    assert adopted(tmp_path, state, f"{OLD}={NEW}") == 1
    assert "it stands in proxy-policy (aws:iam/rolePolicy:RolePolicy) only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda state: state["deployment"].update(pending_operations=[{"type": "updating"}]),
            "pending_operations",
        ),
        (
            lambda state: state["deployment"]["resources"][0]["outputs"].update(resourceId=NEW_REPLICA),
            "resourceId is not",
        ),
        (lambda state: state["deployment"]["resources"][0].update(delete=True), "that is to be deleted"),
        (lambda state: state.pop("deployment"), "no exported stack"),
    ],
)
def test_a_state_that_no_update_may_begin_from(
    tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    change(state)
    assert adopted(tmp_path, state, f"{OLD}={NEW}") == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert adopted(tmp_path, text, f"{OLD}={NEW}") == 1
    assert "pulumi stack export" in capsys.readouterr().err
