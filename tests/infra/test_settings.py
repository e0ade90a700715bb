"""Settings: each wrong one is refused by one clear line, and before any resource is declared."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
import yaml
from botocore.loaders import create_loader
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import bundle, program, subnets
from infra.errors import InfraError, SettingsError
from infra.graph import check_apart, load_graph, read_config, record
from infra.settings import (
    NEEDED_WITHOUT_NAT,
    PROJECT,
    REGIONS,
    REQUIRED_TAGS,
    SECTIONS,
    Settings,
    load,
    unused,
)
from tests.infra.conftest import STACKS


def config(stack: str, **changes: Any) -> dict[str, Any]:
    """The file of a stack with some values changed: `network__nat="none"`; None takes one away."""
    found = copy.deepcopy(read_config(stack))
    for path, value in changes.items():
        section, *rest = path.split("__")
        key = {"region": "aws:region", "tags": "aws:defaultTags"}.get(section, f"{PROJECT}:{section}")
        owner = found
        for part in [key, *rest][:-1]:
            owner = owner.setdefault(part, {})
        last = [key, *rest][-1]
        if value is None:
            owner.pop(last, None)
        else:
            owner[last] = value
    return found


def refused(stack: str, **changes: Any) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(SettingsError) as caught:
        load(stack, config(stack, **changes))
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize("stack", STACKS)
def test_the_files_are_right(stack: str) -> None:
    found = load(stack, read_config(stack))
    assert found.stack == stack
    assert set(found.tags) == set(REQUIRED_TAGS)


def test_every_section_has_a_description() -> None:
    for name in SECTIONS:
        owner = Settings.model_fields[name].annotation
        assert owner is bool or (isinstance(owner, type) and owner.__doc__)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # unknown
        ({"netwrk": {}}, "eav-platform:netwrk is no setting: did you mean network?"),
        ({"network__ciddr": "10.0.0.0/16"}, "network.ciddr is no setting: did you mean cidr?"),
        ({"postgres__volume": 1}, "postgres.volume is no setting"),
        # missing
        ({"network": None}, "network is missing"),
        ({"region": None}, "aws:region is missing"),
        ({"tags": None}, "aws:defaultTags is missing"),
        ({"postgres__instance_class": None}, "postgres.instance_class is missing"),
        ({"tags__tags__Owner": None}, "aws:defaultTags must have Owner"),
        # wrong types and values
        ({"network": "10.0.0.0/16"}, "network"),
        ({"network__zones": 4}, "network.zones must be 2 or 3, got 4"),
        ({"network__cidr": "10.0.0.0/24"}, "network.cidr must be /16 to /20"),
        ({"network__cidr": "8.8.0.0/16"}, "network.cidr must be a private range"),
        ({"network__cidr": "127.0.0.0/16"}, "network.cidr must be a private range"),
        ({"network__cidr": "10.0.0.1/16"}, "network.cidr"),
        ({"network__cidr": 5}, "network.cidr"),
        ({"network__bastion": "maybe"}, "network.bastion"),
        ({"network__bastion_instance": "m7g.large"}, "network.bastion_instance must be"),
        ({"network__interface_endpoints": ["ec2"]}, "network.interface_endpoints.0 must be"),
        ({"network__interface_endpoints": ["logs", "logs"]}, "interface_endpoints has one twice"),
        ({"network__flow_log_days": 31}, "network.flow_log_days must be"),
        ({"region": "europe"}, "aws:region must be an AWS region such as eu-central-1, got europe"),
        ({"region": "eu-central-7"}, "got eu-central-7: did you mean eu-central-"),
        ({"tags__tags__Environment": "prod"}, "aws:defaultTags: Environment must be dev, got prod"),
        ({"protect_data": "sometimes"}, "protect_data"),
        ({"stream__retention_hours": 23}, "stream.retention_hours must be 24 to 8760, got 23"),
        ({"items__ttl_attribute": "createdAt"}, "items: ttl_attribute and time_attribute are both createdAt"),
        ({"monitoring__page": []}, "monitoring.page must name somebody"),
        ({"monitoring__page": ["nobody"]}, "monitoring.page.0 must be an e-mail address, got nobody"),
        ({"monitoring__page": "a@example.com"}, 'monitoring.page must be a list, got "a@example.com"'),
        ({"monitoring__page": ["a@b.cc", "a@b.cc"]}, "monitoring.page must name each address once"),
        # nothing is converted: true is no number, and text is none either
        ({"postgres__replicas": True}, "postgres.replicas must be a whole number, got true"),
        ({"postgres__storage_gb": "100"}, 'postgres.storage_gb must be a whole number, got "100"'),
        ({"postgres__storage_gb": [1]}, "postgres.storage_gb must be a whole number, got [1]"),
        ({"network__zones": "3"}, 'network.zones must be 2 or 3, got "3"'),
        ({"network__bastion": 1}, "network.bastion must be true or false, got 1"),
        ({"postgres__engine_version": 17}, 'postgres.engine_version must be 16 to 18 in quotes such as "17"'),
        ({"postgres__engine_version": "17.١"}, "postgres.engine_version must be 16 to 18"),
        ({"items": ["a"]}, 'items must be a section of settings, got ["a"]'),
        ({"tags__tags__CostCenter": 7}, "aws:defaultTags.CostCenter must be text in quotes, got 7"),
        ({"tags__tags__CostCenter": " "}, "aws:defaultTags: the value of CostCenter must be letters"),
        ({"tags__tags__CostCenter": "x" * 257}, "aws:defaultTags: the value of CostCenter must be letters"),
        ({"tags__tags__aws:x": "y"}, "aws:defaultTags: aws:x must be letters"),
        ({"cost__budget_usd": 0}, "cost.budget_usd must be 1 to 10000000, got 0"),
        (
            {"cost__rest_zone": "Berlin"},
            "cost.rest_zone must be a time zone such as Europe/Berlin, got Berlin",
        ),
        ({"cost__rest_from": "25:00"}, "cost.rest_from must be a time of day such as 20:00, got 25:00"),
        ({"archive__schedule": "daily"}, "archive.schedule must be cron("),
        # contradictions
        ({"network__nat": "none"}, "network: nat is none, so interface_endpoints must have"),
        ({"postgres__replicas": 1, "postgres__managed_master": False}, "cost.rest with postgres.replicas"),
        (
            {"postgres__backup_copy_region": "eu-central-1"},
            "postgres.backup_copy_region must be another region",
        ),
    ],
)
def test_each_wrong_setting_is_refused_by_one_line(changes: dict[str, Any], said: str) -> None:
    line = refused("dev", **changes)
    assert line.startswith("Pulumi.dev.yaml: ")
    assert said in line
    assert "validation error" not in line
    assert "pydantic" not in line


@pytest.mark.parametrize(
    "changes",
    [
        {"protect_data": False},
        {"postgres__deletion_protection": False},
        {"postgres__multi_az": False},
        {"postgres__backup_days": 13},
        {"postgres__backup_copy_region": None},
        {"items__deletion_protection": False},
        {"archive__lock_mode": "none", "archive__lock_days": 0},
        {"stream__retention_hours": 167},
        {"network__zones": 2},
        {"cost__rest": True, "postgres__replicas": 0},
    ],
)
def test_prod_may_not_go_without(changes: dict[str, Any]) -> None:
    assert refused("prod", **changes).endswith(" in prod")


def test_each_of_several_mistakes_has_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load("dev", config("dev", network__zones=4, region="x", cots={}))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Pulumi.dev.yaml: ") for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"postgres__database": {"secure": "AAABAA"}},
        {"postgres": {"secure": "AAABAA"}},
        {"monitoring__page": [{"secure": "AAABAA"}]},
        {"region": {"secure": "AAABAA"}},
    ],
)
def test_no_setting_is_a_secret(changes: dict[str, Any]) -> None:
    line = refused("dev", **changes)
    assert "holds a secret, and no setting is one" in line
    assert "AAABAA" not in line


@pytest.mark.parametrize("name", ["aws:accessKey", "aws:secretKey", "aws:token", "aws:profile"])
def test_credentials_have_no_place_in_a_stack_file(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load("dev", config("dev") | {name: "AKIAABCDEFGHIJKLMNOP"})
    assert "is not used here" in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_a_secret_in_plain_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        load("dev", config("dev", postgres__password="correct horse"))
    assert "postgres.password is no setting" in str(caught.value)
    assert "correct horse" not in str(caught.value)


def test_nothing_is_declared_before_settings_are_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a resource was declared")

    monkeypatch.setattr("pulumi.runtime.mocks.MockMonitor.RegisterResource", never)
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config("dev", network__zones=9)}))
    with pytest.raises(SettingsError, match="zones must be"):
        load_graph("dev", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("config: [", "not YAML"),
        ("", "must have config"),
        ("config: 1", "must have config"),
        ("encryptionsalt: x", "must have config"),
        ("config:\n  aws:region: a\n  aws:region: b", "aws:region is there twice at line 3"),
        ("config:\n  a:b: {x: 1, x: 2}", "x is there twice"),
        (b"config: \xff", "not UTF-8"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    if text is not None:
        (tmp_path / "Pulumi.dev.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        read_config("dev", tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("Pulumi.dev.yaml")
    assert said in line


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.dev.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"^Pulumi\.dev\.yaml: Is a directory$"):
        read_config("dev", tmp_path)


def test_yaml_is_read_as_pulumi_reads_it(tmp_path: Path) -> None:
    text = "config: {a: yes, b: true, c: 20:00, d: 010, e: 3, f: on, g: 1.5, h: mon:05:30}"
    (tmp_path / "Pulumi.dev.yaml").write_text(text)
    assert read_config("dev", tmp_path) == {
        "a": "yes", "b": True, "c": "20:00", "d": 8, "e": 3, "f": "on", "g": 1.5, "h": "mon:05:30",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["eav-platfrom:archive", "archive", "other:thing"])
def test_a_namespace_that_nobody_reads_is_told(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} is no setting: those of this program begin with"):
        load("dev", config("dev") | {key: {"archive_days": 1}})
    assert load("dev", config("dev") | {"pulumi:disable-default-providers": ["*"]}).stack == "dev"


def test_a_region_with_too_few_zones_is_told() -> None:
    network = load("prod", read_config("prod")).network
    assert network.choose_zones(["c", "a", "b", "d"]) == ("a", "b", "c")
    with pytest.raises(SettingsError, match=r"network\.zones is 3, the region has 2: a, b$"):
        network.choose_zones(["a", "b"])


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(NEEDED_WITHOUT_NAT))))
def test_without_nat_what_is_needed_must_be_there(some: set[str]) -> None:
    # The jobs alone: bastion and warehouse need more.
    changes = config(
        "dev",
        network__nat="none",
        network__bastion=False,
        network__interface_endpoints=sorted(some),
        warehouse={"kind": "none"},
    )
    missing = sorted(NEEDED_WITHOUT_NAT - some)
    if missing:
        with pytest.raises(SettingsError) as caught:
            load("dev", changes)
        assert f"must have {', '.join(missing)} too" in str(caught.value)
    else:
        assert load("dev", changes).network.nat == "none"


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SECTIONS), junk)
def test_whatever_stands_in_a_section_it_is_a_line_or_it_is_settings(section: str, value: Any) -> None:
    told = "Pulumi.dev.yaml: "
    with suppress(SettingsError):
        load("dev", config("dev") | {f"{PROJECT}:{section}": value})
        return
    with pytest.raises(SettingsError) as caught:
        load("dev", config("dev") | {f"{PROJECT}:{section}": value})
    assert all(line.startswith(told) for line in str(caught.value).splitlines())


# -- subnets -----------------------------------------------------------------------------------------------

ranges = st.builds(
    lambda length, index: list(IPv4Network("10.0.0.0/8").subnets(new_prefix=length))[
        index % 2 ** (length - 8)
    ],
    st.integers(16, 20),
    st.integers(0, 4095),
)


@settings(max_examples=40, deadline=None)
@given(ranges, st.integers(1, subnets.ZONES))
def test_subnets_lie_in_the_vpc_and_do_not_overlap(cidr: IPv4Network, zones: int) -> None:
    plan = subnets.plan(cidr, zones)
    assert tuple(plan) == subnets.TIERS
    blocks = [block for tier in plan.values() for block in tier]
    assert len(blocks) == zones * len(subnets.TIERS)
    assert all(block.subnet_of(cidr) for block in blocks)
    ordered = sorted(blocks)
    assert all(one.broadcast_address < other.network_address for one, other in pairwise(ordered))
    # AWS takes /16 to /28, and keeps five addresses of each.
    assert all(16 <= block.prefixlen <= 28 for block in blocks)
    assert all(block.num_addresses >= 512 for block in plan["private"])


@settings(max_examples=40, deadline=None)
@given(ranges)
def test_adding_a_zone_moves_nothing(cidr: IPv4Network) -> None:
    for zones in range(1, subnets.ZONES):
        fewer, more = subnets.plan(cidr, zones), subnets.plan(cidr, zones + 1)
        assert all(more[tier][:zones] == fewer[tier] for tier in subnets.TIERS)


@settings(max_examples=40, deadline=None)
@given(ranges, ranges)
def test_stacks_of_different_ranges_can_be_peered(one: IPv4Network, other: IPv4Network) -> None:
    if not one.overlaps(other):
        blocks = [block for tier in subnets.plan(other, 3).values() for block in tier]
        assert not [
            block
            for tier in subnets.plan(one, 3).values()
            for own in tier
            for block in blocks
            if own.overlaps(block)
        ]


def test_the_regions_are_those_that_botocore_knows() -> None:
    known = {
        region
        for partition in create_loader().load_data("partitions")["partitions"]
        for region in partition["regions"]
        # China and the sovereign cloud have other names for their services, which policies here do not spell.
        if partition["outputs"]["dnsSuffix"] == "amazonaws.com" and not region.endswith("-global")
    }
    assert known == REGIONS


def test_stacks_that_overlap_are_refused_before_anything_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stack, cidr in (("dev", "10.0.0.0/16"), ("prod", "10.20.128.0/20"), ("staging", "10.20.0.0/16")):
        values = config(stack, network__cidr=cidr)
        (tmp_path / f"Pulumi.{stack}.yaml").write_text(json.dumps({"config": values}))
    (tmp_path / "Pulumi.old.yaml").write_text("config: [")  # another one's mistake is not this one's
    with pytest.raises(SettingsError) as caught:
        load_graph("staging", tmp_path)
    assert str(caught.value) == (
        "Pulumi.staging.yaml: network.cidr 10.20.0.0/16 overlaps 10.20.128.0/20 of Pulumi.prod.yaml: give each stack"
        " a range of its own, or two can never be peered"
    )
    assert load_graph("dev", tmp_path).of_kind("ec2.Vpc")
    # And so does the program that Pulumi runs.
    monkeypatch.setattr(program, "check_apart", lambda one: check_apart(one, tmp_path))
    monkeypatch.setattr(bundle, "check_all", lambda: None)
    monkeypatch.setattr(pulumi, "get_stack", lambda: "staging")
    as_pulumi(monkeypatch, read_config("staging", tmp_path))
    with pytest.raises(pulumi.RunError, match="overlaps"):
        program.main()


@pytest.mark.parametrize(
    ("given", "key", "other"),
    [
        ({}, "cost__rest_from", "22:00"),
        ({}, "cost__rest_zone", "Asia/Tokyo"),
        ({"network__bastion": False}, "network__bastion_instance", "t4g.small"),
        ({"network__bastion": False}, "network__bastion_log_days", 7),
    ],
)
def test_what_means_nothing_changes_nothing(given: dict[str, Any], key: str, other: Any) -> None:
    one, two = (load("prod", config("prod", **given, **more)) for more in ({}, {key: other}))
    assert one != two
    assert key.replace("__", ".") in unused(one)
    assert record(one).resources == record(two).resources


# -- the program -------------------------------------------------------------------------------------------


def as_pulumi(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], *secret: str) -> None:
    """The configuration as the engine hands it to the program: all text, and a list of what is secret."""
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in given.items()}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(texts))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(secret))


@pytest.mark.parametrize("stack", STACKS)
def test_the_program_gets_what_stands_in_the_file(monkeypatch: pytest.MonkeyPatch, stack: str) -> None:
    as_pulumi(monkeypatch, read_config(stack))
    assert program.settings_of(stack) == load(stack, read_config(stack))


def test_the_program_passes_over_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    as_pulumi(monkeypatch, config("dev") | {f"{PROJECT}:strem": {"retention_hours": 48}})
    with pytest.raises(SettingsError, match=r"strem is no setting: did you mean stream\?"):
        program.settings_of("dev")


@pytest.mark.parametrize(
    ("key", "written", "line"),
    [
        ("warehouse", "warehous", "eav-platform:warehous is no setting: did you mean warehouse?"),
        # A rule of prod is about what then is missing.
        ("stream", "streem", "eav-platform:streem is no setting: did you mean stream?"),
        ("aws:region", "aws:regoin", "aws:regoin is not used here; aws:region and aws:defaultTags are"),
    ],
)
def test_a_misspelt_key_is_one_mistake(key: str, written: str, line: str) -> None:
    given = config("prod")
    key, written = (one if ":" in one else f"{PROJECT}:{one}" for one in (key, written))
    given[written] = given.pop(key)
    with pytest.raises(SettingsError) as caught:
        load("prod", given)
    assert str(caught.value).splitlines() == [f"Pulumi.prod.yaml: {line}"]


def test_the_program_takes_no_secret_that_pulumi_has_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    as_pulumi(monkeypatch, config("dev", postgres__database="correct"), f"{PROJECT}:postgres")
    with pytest.raises(SettingsError) as caught:
        program.settings_of("dev")
    assert "eav-platform:postgres holds a secret" in str(caught.value)
    assert "correct" not in str(caught.value)


def test_wrong_names_stop_the_program_with_one_line() -> None:
    def declare(_: Settings) -> None:
        for _twice in range(2):
            aws.sqs.Queue("same")

    with pytest.raises(InfraError, match="two resources are called same"):
        record(load("dev", read_config("dev")), declare)
