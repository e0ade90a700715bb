from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from local.errors import LocalError
from local.osuser import OsUser, server_user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def test_servers_never_run_as_root() -> None:
    user = server_user()
    assert user.uid != 0
    assert user.run(["id", "-u"]).stdout.strip() == str(user.uid)
    assert user.run(["id", "-G"]).stdout.split()[0] == str(user.gid)


@as_root
def test_a_closed_folder_and_what_is_below_it_cannot_be_entered(folder: Path) -> None:
    user = server_user()
    below = folder / "closed" / "deep" / "deeper"
    below.mkdir(parents=True)
    assert user.can_enter(below)
    (folder / "closed").chmod(0o700)
    assert not user.can_enter(below)
    assert not user.can_enter(below / "not" / "there" / "yet")


def test_settings_of_the_caller_do_not_leak_into_server_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/somewhere")
    monkeypatch.setenv("PGOPTIONS", "-c jit=on")
    output = server_user().run(["env"], env={"PGPASSWORD": "x"}).stdout
    assert "PGDATA" not in output
    assert "PGOPTIONS" not in output
    assert "PGPASSWORD=x" in output


def test_root_without_useradd_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", nobody)
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    with pytest.raises(LocalError, match="add a system user 'postgres'"):
        server_user()


def test_an_ordinary_user_stays_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert server_user() == OsUser("54321", 54321, os.getegid(), switch=False)
