"""The bastion: reachable by Session Manager and by nothing else, and what is typed there is kept."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import pytest

from infra import bastion
from infra.errors import SettingsError
from infra.graph import Graph, Resource
from infra.settings import NEEDED_BY_SESSIONS, NEEDED_WITHOUT_NAT
from tests.infra import changed
from tests.infra.policies import statements


@cache
def without() -> Graph:
    return changed.graph("dev", network={"bastion": False})


def instance(graph: Graph) -> Resource:
    return graph.one("ec2.Instance", "bastion")


def test_it_is_there_only_where_the_settings_say_so(graph: Graph) -> None:
    assert graph.settings.network.bastion
    assert len(graph.of_kind("ec2.Instance", "eav:bastion:Bastion", "ssm.Document")) == 3
    assert without().of_kind("ec2.Instance", "eav:bastion:Bastion", "ssm.Document") == []


def test_nobody_can_open_a_connection_to_it(graph: Graph) -> None:
    found = instance(graph).inputs
    private = [
        one.outputs["id"] for one in graph.of_kind("ec2.Subnet") if one.inputs["tags"]["Tier"] == "private"
    ]
    group = graph.one("ec2.SecurityGroup", "group-bastion").outputs["id"]
    assert found["subnetId"] in private
    assert found["associatePublicIpAddress"] is False
    assert found["vpcSecurityGroupIds"] == [group]
    assert "keyName" not in found
    assert not [
        one for one in graph.of_kind("vpc.SecurityGroupIngressRule") if one.inputs["securityGroupId"] == group
    ]


def test_its_metadata_needs_a_token_and_stays_on_it(graph: Graph) -> None:
    options = instance(graph).inputs["metadataOptions"]
    assert options["httpTokens"] == "required"
    assert options["httpPutResponseHopLimit"] == 1


def test_its_disk_is_encrypted_with_our_key(graph: Graph) -> None:
    disk = instance(graph).inputs["rootBlockDevice"]
    assert disk["encrypted"] is True
    assert disk["kmsKeyId"] == graph.one("kms.Key", "key-compute").outputs["arn"]


def test_a_newer_image_does_not_replace_it_by_itself(graph: Graph) -> None:
    found = instance(graph)
    assert found.inputs["ami"].startswith("ami-")
    assert found.ignore_changes == ("ami",)
    assert bastion.IMAGE.endswith("-arm64"), "t4g is an ARM"


def test_what_it_fetches_once_can_be_reached_when_it_is_made(graph: Graph) -> None:
    waits = set(instance(graph).depends_on)
    group = graph.one("ec2.SecurityGroup", "group-bastion").outputs["id"]
    out = [
        one for one in graph.of_kind("vpc.SecurityGroupEgressRule") if one.inputs["securityGroupId"] == group
    ]
    ways = [*out, *graph.of_kind("ec2.Route", "ec2.RouteTableAssociation")]
    ways += [one for one in graph.of_kind("ec2.VpcEndpoint") if one.inputs["vpcEndpointType"] == "Interface"]
    assert len(out) >= 3
    assert {one.urn for one in ways} <= waits
    assert " --quiet" not in bastion.user_data(17), "Amazon Linux's mkswap (util-linux 2.37) does not know it"


def test_it_may_be_reached_and_recorded_and_nothing_else(graph: Graph) -> None:
    found = statements(graph, "bastion-policy")
    services = {action.partition(":")[0] for one in found.values() for action in one["Action"]}
    assert services == {"kms", "logs", "ssm", "ssmmessages"}
    assert {sid for sid, one in found.items() if "*" in one["Resource"]} == {"Sessions", "LookAtLogGroups"}
    assert all(action.startswith("ssmmessages:") for action in found["Sessions"]["Action"])
    log = graph.one("cloudwatch.LogGroup", "bastion").outputs["arn"]
    assert found["RecordSessions"]["Resource"] == [f"{log}:*"]
    # The rights that AWS's own policy gives besides: every parameter of the account.
    assert not any("Parameter" in action for one in found.values() for action in one["Action"])
    profile = graph.one("iam.InstanceProfile", "bastion")
    assert instance(graph).inputs["iamInstanceProfile"] == profile.inputs["name"]
    assert profile.inputs["role"] == graph.one("iam.Role", "bastion-role").inputs["name"]


def test_sessions_are_encrypted_and_recorded_in_a_group_with_an_end(graph: Graph) -> None:
    document = graph.one("ssm.Document", "shell")
    group = graph.one("cloudwatch.LogGroup", "bastion")
    content = json.loads(document.inputs["content"])
    assert document.inputs["documentType"] == "Session"
    assert document.inputs["name"] != "SSM-SessionManagerRunShell", "that is every stack's"
    assert content["inputs"]["cloudWatchLogGroupName"] == group.inputs["name"]
    assert content["inputs"]["cloudWatchEncryptionEnabled"] is True
    assert content["inputs"]["kmsKeyId"] == graph.one("kms.Key", "key-compute").outputs["arn"]
    assert 1 <= int(content["inputs"]["idleSessionTimeout"]) <= 60
    assert 1 <= int(content["inputs"]["maxSessionDuration"]) <= 1440
    assert group.inputs["retentionInDays"] == graph.settings.network.bastion_log_days
    assert group.inputs["kmsKeyId"] == graph.one("kms.Key", "key-logs").outputs["arn"]


@pytest.mark.parametrize(("major", "client"), [(16, 16), (17, 17), (18, 17)])
def test_it_installs_psql_of_the_server_s_version_as_far_as_there_is_one(major: int, client: int) -> None:
    text = bastion.user_data(major)
    assert f"dnf -y -q install postgresql{client}\n" in text
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_nat_it_needs_the_endpoints_of_sessions() -> None:
    jobs = sorted({"glue", *NEEDED_WITHOUT_NAT})
    with pytest.raises(SettingsError) as error:
        changed.settings("dev", network={"nat": "none", "interface_endpoints": [*jobs, "ssm"]})
    assert str(error.value).splitlines() == [
        "Pulumi.dev.yaml: network: nat is none and bastion is true, so interface_endpoints must have ssmmessages too:"
        " nobody can reach it another way"
    ]
    for bastion_too, endpoints in ((True, [*jobs, *sorted(NEEDED_BY_SESSIONS)]), (False, jobs)):
        network = {"nat": "none", "interface_endpoints": endpoints, "bastion": bastion_too}
        assert changed.settings("dev", network=network).network.bastion is bastion_too
