from __future__ import annotations

from pathlib import Path

import pytest

from local import packages
from local.binaries import DEBIAN_ROOT, Binaries
from local.errors import LocalError
from local.packages import make_plan

ALL_OF_15 = [f"postgresql-15{part}" for part in ("", "-partman", "-cron", "-wal2json", "-plpgsql-check")]


def server(tmp_path: Path, major: int, *extensions: str, root: Path = DEBIAN_ROOT) -> Binaries:
    share = tmp_path / f"{root.name}{major}"
    (share / "extension").mkdir(parents=True)
    for name in extensions:
        (share / "extension" / f"{name}.control").touch()
    return Binaries(root / str(major) / "bin", major, share, share)


def test_nothing_installed_brings_the_newest_that_has_pg_partman() -> None:
    plan = make_plan([], [*ALL_OF_15, "postgresql-17"])
    assert plan is not None
    assert plan.major == 15
    assert plan.required == ("postgresql-15", "postgresql-15-partman")
    assert plan.optional == ("postgresql-15-cron", "postgresql-15-wal2json", "postgresql-15-plpgsql-check")


def test_an_installed_server_is_completed_before_a_newer_one_is_brought_in(tmp_path: Path) -> None:
    plan = make_plan([server(tmp_path, 15)], [*ALL_OF_15, "postgresql-17", "postgresql-17-partman"])
    assert plan is not None
    assert plan.required == ("postgresql-15-partman",)


def test_what_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    plan = make_plan([server(tmp_path, 15, "pg_partman", "pg_cron")], ALL_OF_15)
    assert plan is not None
    assert plan.required == ()
    assert plan.optional == ("postgresql-15-wal2json", "postgresql-15-plpgsql-check")


def test_a_server_whose_partman_is_not_on_offer_gives_way(tmp_path: Path) -> None:
    plan = make_plan([server(tmp_path, 18)], ALL_OF_15)
    assert plan is not None
    assert plan.required == ("postgresql-15", "postgresql-15-partman")


def test_a_server_of_ones_own_making_gets_no_debian_extension(tmp_path: Path) -> None:
    plan = make_plan([server(tmp_path, 15, root=Path("/opt/pg"))], ALL_OF_15)
    assert plan is not None
    assert plan.required == ("postgresql-15", "postgresql-15-partman")


def test_no_plan_without_pg_partman_or_for_another_version() -> None:
    assert make_plan([], ["postgresql-15"]) is None
    assert make_plan([], ALL_OF_15, major=16) is None


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but a few ordinary programs; more can be put into it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "cat", "mkdir", "rm", "rmdir"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(packages, "installed", list)
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_without_apt_one_line_says_what_to_install(programs: Path) -> None:
    with pytest.raises(LocalError) as caught:
        packages.server_binaries(print)
    assert "\n" not in str(caught.value)
    assert "apt-get install postgresql-15 postgresql-15-partman" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_without_rights_apt_is_not_run(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(programs, "apt-get", f"echo ran >> {tmp_path}/calls")
    program(programs, "sudo", "exit 1")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LocalError, match="no PostgreSQL server found: install it"):
        packages.server_binaries(print)
    assert not (tmp_path / "calls").exists()


def test_a_failing_archive_is_one_line_with_its_reason(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(
        programs, "apt-get", f"echo $1 >> {tmp_path}/calls; echo 'E: Unable to fetch some archives'; exit 100"
    )
    program(programs, "apt-cache", "true")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(LocalError, match=r"^apt-get update failed: E: Unable to fetch some archives$"):
        packages.server_binaries(lambda line: None)
    assert (tmp_path / "calls").read_text() == "update\n"


def test_old_package_lists_are_renewed_once(
    programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first install fails as with lists older than the archive; after the update it works."""
    calls = tmp_path / "calls"
    program(
        programs,
        "apt-get",
        f'echo "$1" >> {calls}\nif [ "$1" = update ]; then : > {tmp_path}/fresh; fi\n'
        f"if [ ! -e {tmp_path}/fresh ]; then echo 'E: 404  Not Found'; exit 100; fi",
    )
    policy = "\n".join(f"{name}:\n  Installed: (none)\n  Candidate: 1.0" for name in ALL_OF_15)
    (tmp_path / "policy").write_text(policy + "\n")
    program(programs, "apt-cache", f"cat {tmp_path}/policy")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(packages, "_lists_present", lambda: True)
    monkeypatch.setattr(packages, "NO_MAIN_CLUSTER", tmp_path / "createcluster.d" / "eav.conf")
    complete = server(tmp_path, 15, "pg_partman", "pg_cron", "plpgsql_check", root=DEBIAN_ROOT)
    monkeypatch.setattr(packages, "installed", lambda: [complete] if (tmp_path / "fresh").exists() else [])

    assert packages.server_binaries(lambda line: None) == complete
    assert calls.read_text().split() == ["install", "update", "install"]
    assert not (tmp_path / "createcluster.d").exists(), "the setting against a second cluster was left behind"


def test_candidates_are_read_from_apt(programs: Path) -> None:
    program(
        programs,
        "apt-cache",
        "cat <<'X'\npostgresql-15:\n  Installed: 15.1\n  Candidate: 15.2\n  Version table:\n"
        "postgresql-16:\n  Installed: (none)\n  Candidate: (none)\nX",
    )
    assert packages.offered() == {"postgresql-15"}
