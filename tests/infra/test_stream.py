from __future__ import annotations

import pytest

from infra.errors import SettingsError
from infra.graph import Graph, read_config
from infra.settings import load


def test_the_log_grows_by_itself_and_keeps_what_the_stack_asks_for(graph: Graph) -> None:
    stream = graph.one("kinesis.Stream")
    assert stream.inputs["streamModeDetails"] == {"streamMode": "ON_DEMAND"}
    assert "shardCount" not in stream.inputs
    assert stream.inputs["retentionPeriod"] == graph.settings.stream.retention_hours


def test_the_log_is_encrypted_with_its_own_key(graph: Graph) -> None:
    stream = graph.one("kinesis.Stream")
    assert stream.inputs["encryptionType"] == "KMS"
    (key,) = stream.references["kmsKeyId"]
    assert graph.resources[key].name == "key-stream"


def test_the_log_is_kept_where_data_is_protected(graph: Graph) -> None:
    stream = graph.one("kinesis.Stream")
    keep = graph.settings.protect_data
    assert (stream.protect, stream.retain_on_delete) == (keep, keep)
    assert stream.inputs["enforceConsumerDeletion"] is False


def test_figures_of_shards_are_paid_for_only_where_asked_for(graph: Graph) -> None:
    asked = list(graph.settings.stream.shard_metrics)
    assert graph.one("kinesis.Stream").inputs.get("shardLevelMetrics", []) == asked
    assert bool(asked) == (graph.settings.stack == "prod")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"retention_hours": 23}, "eav-platform:stream.retention_hours"),
        ({"shard_metrics": ["IteratorAge"]}, "eav-platform:stream.shard_metrics"),
        (
            {"shard_metrics": ["IncomingBytes", "IncomingBytes"]},
            "stream.shard_metrics must have each name once",
        ),
    ],
)
def test_wrong_settings_of_the_log_are_refused(values: dict[str, object], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load("dev", read_config("dev") | {"eav-platform:stream": values})
    assert line.removeprefix("eav-platform:") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
