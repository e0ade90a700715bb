from __future__ import annotations

from pathlib import Path

import pytest

from local.binaries import Binaries, choose, inspect, installed


def fake_server(root: Path, major: int, *extensions: str) -> Path:
    """Programs in `root/<major>/bin` that answer as a server's do."""
    bindir, share, lib = root / str(major) / "bin", root / f"share{major}", root / f"lib{major}"
    bindir.mkdir(parents=True)
    (share / "extension").mkdir(parents=True)
    lib.mkdir()
    for name in extensions:
        (share / "extension" / f"{name}.control").touch()
    for name, output in {
        "postgres": f"postgres (PostgreSQL) {major}.4 (Debian {major}.4-1)",
        "pg_config": f"{share}\n{lib}",
        "initdb": "",
        "pg_ctl": "",
    }.items():
        program = bindir / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{output}'\n")
        program.chmod(0o755)
    return bindir


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


def test_newest_with_pg_partman_comes_before_a_newer_one_without(tmp_path: Path, empty_path: None) -> None:
    fake_server(tmp_path, 9, "pg_partman")
    fake_server(tmp_path, 15, "pg_partman")
    fake_server(tmp_path, 16, "pg_partman")
    fake_server(tmp_path, 17)
    servers = installed(tmp_path)
    assert [server.major for server in servers] == [17, 16, 15, 9]
    chosen = choose(servers)
    assert chosen is not None
    assert chosen.major == 16


def test_newest_without_pg_partman_is_better_than_none(tmp_path: Path, empty_path: None) -> None:
    fake_server(tmp_path, 15)
    fake_server(tmp_path, 16)
    chosen = choose(installed(tmp_path))
    assert chosen is not None
    assert chosen.major == 16


def test_too_old_servers_are_not_chosen(tmp_path: Path, empty_path: None) -> None:
    fake_server(tmp_path, 14, "pg_partman")
    assert choose(installed(tmp_path)) is None


def test_data_of_one_version_gets_programs_of_that_version(tmp_path: Path, empty_path: None) -> None:
    fake_server(tmp_path, 15)
    fake_server(tmp_path, 17, "pg_partman")
    chosen = choose(installed(tmp_path), 15)
    assert chosen is not None
    assert chosen.major == 15


def test_a_server_on_path_is_found_last_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fake_server(tmp_path / "custom", 18)
    (other / "pg_config").write_text(
        f'#!/bin/sh\nif [ "$1" = --bindir ]; then echo {other}; else echo /s; echo /l; fi\n'
    )
    fake_server(tmp_path / "debian", 15)
    monkeypatch.setenv("PATH", str(other))
    assert [server.major for server in installed(tmp_path / "debian")] == [15, 18]
    assert [server.major for server in installed(tmp_path / "custom")] == [18]


def test_a_client_only_folder_is_no_server(tmp_path: Path) -> None:
    bindir = fake_server(tmp_path, 15)
    (bindir / "initdb").unlink()
    assert inspect(bindir) is None


def test_only_installed_libraries_are_preloaded(tmp_path: Path) -> None:
    (tmp_path / "pg_cron.so").touch()
    assert Binaries(tmp_path, 15, tmp_path, tmp_path).preload == ("pg_cron",)
