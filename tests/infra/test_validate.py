"""The AWS provider's own validation, where there is a Terraform with it, and an apply against the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi_aws as aws
import pytest

from infra import validate
from infra.errors import InfraError
from infra.graph import Graph, record
from infra.validate import Checked, check
from tests.infra.conftest import graph_of

here = pytest.mark.skipif(
    validate.find_terraform() is None or validate.find_mirror() is None,
    reason="no terraform with the AWS provider on this machine",
)


@here
@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_the_provider_accepts_every_resource(stack: str) -> None:
    checked = check(graph_of(stack))
    assert checked.errors == []
    assert checked.resources > 200


@here
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_is_created_in_the_emulator_and_a_second_run_has_nothing_to_do(prod: Graph) -> None:
    # All but the instances of RDS, for which the provider waits six minutes; `validate --apply` makes them too.
    checked = check(prod, apply=True, without=validate.SLOW)
    assert checked.errors == []
    assert checked.changes == []
    assert checked.created + checked.left_out == checked.resources
    # The primary, two replicas, and the copy of backups.
    assert checked.left_out == 4


@here
def test_what_the_provider_refuses_is_said_with_its_place() -> None:
    def declare(_: Any) -> None:
        aws.dynamodb.Table("items", name="items", billing_mode="PAY_AS_YOU_LIKE", hash_key="id")
        aws.iam.Role("role", assume_role_policy="{not json")

    checked = check(record(graph_of("dev").settings, declare))
    assert not checked.passed
    assert any("billing_mode" in line or "PAY_AS_YOU_LIKE" in line for line in checked.errors), checked.errors
    assert any("aws_iam_role" in line and "JSON" in line for line in checked.errors), checked.errors


def planned(kind: str, actions: list[str], before: Any, after: Any) -> list[dict[str, Any]]:
    change = {"actions": actions, "before": before, "after": after, "after_unknown": {}}
    return [{"address": f"{kind}.one", "type": kind, "change": change}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (planned("aws_sqs_queue", ["no-op"], {"name": "a"}, {"name": "a"}), []),
        (
            planned("aws_sqs_queue", ["update"], {"name": "a"}, {"name": "b"}),
            ["aws_sqs_queue.one: update of name"],
        ),
        (planned("aws_sqs_queue", ["create"], None, {"name": "b"}), ["aws_sqs_queue.one: create of name"]),
    ],
)
def test_what_a_second_run_would_change_is_said(change: Any, says: list[str]) -> None:
    assert list(validate._unexpected(change)) == says


def test_the_newest_provider_for_this_machine_is_taken_where_it_lies_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("5.99.0/linux_amd64", "5.100.0/linux_amd64", "6.0.0/linux_arm64"):
        folder = tmp_path / validate.PROVIDER / name
        folder.mkdir(parents=True)
        (folder / "terraform-provider-aws_v").touch()
    assert validate._unpacked(tmp_path) == tmp_path / validate.PROVIDER / "5.100.0/linux_amd64"
    assert validate._unpacked(tmp_path / "packed") is None


@pytest.mark.parametrize(("mirror", "version"), [(None, validate.VERSION), (Path("/somewhere"), None)])
def test_the_registry_is_asked_for_the_version_that_the_graph_is_written_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Path | None, version: str | None
) -> None:
    monkeypatch.setattr(validate, "find_mirror", lambda: mirror)
    terraform = validate._Terraform("false", tmp_path)  # the program, which fails
    with pytest.raises(InfraError, match="terraform init"):
        terraform.prepare()
    asked = json.loads((tmp_path / "main.tf.json").read_text())["terraform"]["required_providers"]["aws"]
    assert asked.get("version") == version


def test_without_terraform_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "find_terraform", lambda: None)
    with pytest.raises(InfraError, match="no terraform on PATH"):
        check(graph_of("dev"))


def test_errors_or_changes_are_no_pass() -> None:
    def one(**given: Any) -> Checked:
        return Checked("dev", "5.100.0", 1, **given)

    assert [found.passed for found in (one(), one(errors=["x"]), one(changes=["x"]))] == [True, False, False]
