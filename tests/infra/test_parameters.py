"""Parameters by size: monotone, within memory and disk, and as a real server takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.parameters import (
    AT_START,
    CONNECTION,
    SHARED,
    SIZES,
    SMALLEST_REPLICA,
    STANDBY_AT_LEAST,
    Size,
    apply_method,
    derive,
    size_of,
    usable_memory,
)

if TYPE_CHECKING:
    from tests.conftest import Database

sizes = st.sampled_from(sorted(set(SIZES.values())))
disks = st.integers(20, 65536)


def values(
    size: Size, *, storage_gb: int = 1000, major: int = 17, primary: Size | None = None
) -> dict[str, str]:
    return derive(
        size,
        major=major,
        database="eav",
        storage_gb=storage_gb,
        slow_statement_ms=1000,
        standby_delay_seconds=30,
        primary=primary,
    )


def mib(found: dict[str, str]) -> float:
    """Memory at its worst: every connection sorts, three sessions build indexes, all of autovacuum is at work."""
    connections = int(found["max_connections"])
    return (
        connections * (CONNECTION + int(found["work_mem"]) / 1024)
        + 3 * int(found["maintenance_work_mem"]) / 1024
        + int(found["autovacuum_max_workers"]) * int(found["autovacuum_work_mem"]) / 1024
    )


@given(sizes)
def test_memory_is_enough_for_all_at_once(size: Size) -> None:
    usable = usable_memory(size)
    assert 0 < usable < size.memory_gib * 1024
    assert SHARED * usable + mib(values(size)) <= 0.9 * usable


@given(sizes, sizes)
def test_more_memory_is_never_less_of_anything(one: Size, other: Size) -> None:
    small, large = sorted((one, other), key=lambda size: (size.memory_gib, size.vcpus))
    below, above = values(small), values(large)
    for name in (
        "max_connections",
        "maintenance_work_mem",
        "autovacuum_work_mem",
        "effective_cache_size",
        "max_wal_size",
        "max_slot_wal_keep_size",
    ):
        assert int(below[name]) <= int(above[name]), name


@given(sizes, disks)
def test_the_log_never_takes_the_disk(size: Size, storage_gb: int) -> None:
    found, disk = values(size, storage_gb=storage_gb), storage_gb * 1024
    assert int(found["min_wal_size"]) <= int(found["max_wal_size"]) <= int(found["max_slot_wal_keep_size"])
    assert int(found["max_wal_size"]) <= disk / 20
    assert int(found["max_slot_wal_keep_size"]) + int(found["wal_keep_size"]) <= disk / 4


@given(sizes)
def test_cache_is_what_is_left_beside_sessions(size: Size) -> None:
    pages = int(values(size)["effective_cache_size"])
    assert SHARED * usable_memory(size) < pages * 8 / 1024 < usable_memory(size)


@given(sizes, sizes)
def test_a_replica_takes_what_its_primary_allows(size: Size, primary: Size) -> None:
    if size.memory_gib * SMALLEST_REPLICA < primary.memory_gib:
        with pytest.raises(ValueError, match="at least half the primary's memory"):
            values(size, primary=primary)
        return
    own, alone, above = values(size, primary=primary), values(size), values(primary)
    for name in STANDBY_AT_LEAST:
        assert int(own[name]) == max(int(alone[name]), int(above[name])), name
    # Larger limits are paid for by smaller sorts, so that it still fits where a sort has not its least already.
    usable = usable_memory(size)
    if int(own["work_mem"]) > 4096:
        assert SHARED * usable + mib(own) <= 0.95 * usable


def test_unknown_class() -> None:
    assert size_of("db.r7g.4xlarge") == Size(16, 128)
    assert size_of("db.m8g.large") == Size(2, 8)
    with pytest.raises(
        ValueError, match=r"db\.t4g\.4xlarge does not exist: db\.t4g has micro, small, medium, large"
    ):
        size_of("db.t4g.4xlarge")


def test_settings_reach_their_parameters() -> None:
    found = derive(
        SIZES["db.r7g.large"],
        major=16,
        database="other",
        storage_gb=100,
        slow_statement_ms=250,
        standby_delay_seconds=7,
    )
    assert found["cron.database_name"] == "other"
    assert found["log_min_duration_statement"] == "250"
    assert found["max_standby_streaming_delay"] == found["max_standby_archive_delay"] == "7000"
    assert {"pg_cron", "pg_stat_statements", "pgaudit"} <= set(found["shared_preload_libraries"].split(","))
    assert (found["rds.logical_replication"], found["rds.force_ssl"], found["hot_standby_feedback"]) == (
        "1",
    ) * 3


ELSEWHERE = ("rds.", "pgaudit.", "auto_explain.")
"""What a server has only on RDS, or with a library that ours does not load."""


@pytest.mark.parametrize("instance_class", ["db.t4g.micro", "db.r7g.4xlarge", "db.r8g.16xlarge"])
def test_a_real_server_takes_each(database: Database, instance_class: str) -> None:
    """A wrong unit lies outside the limits, and what needs a start would be refused if applied at once."""
    found = values(SIZES[instance_class], major=15)
    known = {
        name: (kind, context, low, high, choices)
        for name, kind, context, low, high, choices in database.all(
            "SELECT name, vartype, context, min_val, max_val, enumvals FROM pg_settings"
        )
    }
    for name, value in found.items():
        if name.startswith(ELSEWHERE):
            continue
        if name.startswith("cron.") and name not in known:
            continue  # where Debian's pg_cron is not on offer
        kind, context, low, high, choices = known[name]
        if kind in ("integer", "real"):
            assert float(low) <= float(value) <= float(high), name
            assert kind == "real" or value == str(int(value)), name
        elif kind == "enum":
            assert value in choices, name
        elif kind == "bool":
            assert value in ("0", "1"), name
        assert (context == "postmaster") == (name in AT_START), f"{name} is {context}"
        assert context != "internal", name
        if context == "postmaster":
            assert apply_method(name) == "pending-reboot", name


def test_what_a_unit_amounts_to_on_a_real_server(database: Database) -> None:
    """kB, 8 kB pages, MB, ms and s: as the server reads the bare number."""
    found = values(SIZES["db.r7g.4xlarge"], storage_gb=4000)
    with database.session() as connection:
        for name, expected in (
            ("work_mem", "30MB"),
            ("maintenance_work_mem", "2GB"),
            ("effective_cache_size", "84266MB"),
            ("idle_in_transaction_session_timeout", "10min"),
        ):
            connection.execute("SELECT set_config(%s, %s, false)", [name, found[name]])
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchall() == [(expected,)]
    units = dict(database.all("SELECT name, unit FROM pg_settings WHERE unit IS NOT NULL"))
    assert units["max_wal_size"] == units["max_slot_wal_keep_size"] == units["wal_keep_size"] == "MB"
    assert (units["checkpoint_timeout"], units["tcp_keepalives_idle"], units["autovacuum_naptime"]) == (
        "s",
    ) * 3
    assert (units["log_temp_files"], units["autovacuum_work_mem"]) == ("kB", "kB")
    assert units["max_standby_streaming_delay"] == units["log_min_duration_statement"] == "ms"
