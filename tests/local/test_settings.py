from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.settings import parse, render, server_settings, text

names = st.from_regex(r"[a-z_]{1,20}(\.[a-z_]{1,20})?", fullmatch=True)
values = st.one_of(
    st.booleans(), st.integers(), st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))
)


@given(st.dictionaries(names, values))
def test_what_is_rendered_is_parsed_back(settings: dict[str, str | int | bool]) -> None:
    assert parse(render(settings)) == {name: text(value) for name, value in settings.items()}


@pytest.mark.parametrize(
    ("gigabytes", "expected"), [(0.5, "128MB"), (2, "256MB"), (8, "1024MB"), (24, "2048MB"), (512, "2048MB")]
)
def test_buffers_follow_the_machine_within_bounds(gigabytes: float, expected: str) -> None:
    made = server_settings(memory_bytes=int(gigabytes * 2**30), preload=[])
    assert made["shared_buffers"] == expected


def test_pg_cron_is_set_up_only_where_it_is_preloaded() -> None:
    without = server_settings(memory_bytes=2**30, preload=["pg_stat_statements"])
    with_it = server_settings(memory_bytes=2**30, preload=["pg_stat_statements", "pg_cron"])
    assert not any(name.startswith("cron.") for name in without)
    assert with_it["cron.database_name"] == "eav"
    assert with_it["shared_preload_libraries"] == "pg_stat_statements,pg_cron"


def test_overrides_win() -> None:
    made = server_settings(memory_bytes=2**30, preload=[], overrides={"jit": True})
    assert made["jit"] is True
