"""The commands as people and the Makefile run them, in a clone of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import local
from local.cluster import Cluster, temporary_folder
from tests import warm

pytestmark = pytest.mark.cluster

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """`python -m local ...` in a clone that holds nothing but the local package."""
    with temporary_folder() as folder:
        clone = folder / "a clone's folder"
        shutil.copytree(Path(local.__file__).parent, clone / "local")

        def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
            clean = {
                name: value
                for name, value in os.environ.items()
                if name not in ("DATABASE_URL", "EAV_SERVER")
            }
            # The emulator is tested in test_aws.py.
            chosen = {**clean, "EAV_SERVER": "binaries", "EAV_AWS": "off", **environ}
            return warm.run("local", *arguments, env=chosen, cwd=clone)

        yield command
        command("destroy", "--yes")


@pytest.fixture
def up(run: Run) -> str:
    """The URL of the clone's server, which is up."""
    done = run("up")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PostgreSQL ")
    return run("url").stdout.strip()


def test_url_prints_the_url_and_nothing_else(run: Run, up: str) -> None:
    done = run("url")
    assert done.stdout == f"{up}\n"
    assert done.stderr == ""
    with psycopg.connect(up) as connection:
        assert connection.info.dbname == "eav"


def test_up_is_safe_to_repeat(run: Run, up: str) -> None:
    assert run("up").returncode == 0
    assert run("url").stdout.strip() == up


def test_psql_hands_on_arguments_and_exit_code_and_hides_the_password(run: Run, up: str) -> None:
    password = psycopg.conninfo.conninfo_to_dict(up)["password"]
    shown = run("psql", "-At", "-c", r"\! tr '\0' ' ' < /proc/$PPID/cmdline", "-c", "SELECT 6 * 7")
    assert shown.stdout.endswith("42\n")
    assert "psql" in shown.stdout
    assert str(password) not in shown.stdout
    assert run("psql", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0").returncode == 1


def test_status_for_people_and_scripts(run: Run, up: str) -> None:
    facts = json.loads(run("status", "--json").stdout)
    assert facts["up"] is True
    assert "pg_partman" in facts["extensions"]
    assert Path(facts["log"]).exists()
    people = run("status")
    assert people.returncode == 0
    password = str(psycopg.conninfo.conninfo_to_dict(up)["password"])
    assert password not in people.stdout + json.dumps(facts)


def test_down_keeps_data_and_what_needs_a_server_says_it_is_down(run: Run, up: str) -> None:
    assert run("psql", "-c", "CREATE TABLE kept AS SELECT 1 AS n").returncode == 0
    assert run("down").returncode == 0
    again = run("down")
    assert (again.returncode, again.stdout) == (0, "no local PostgreSQL is up\n")
    for arguments in (["url"], ["psql"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "error: no local PostgreSQL is up: start it with make up (or python -m local up)\n"
        )
    assert run("status").returncode == 1
    assert run("up").returncode == 0
    assert run("psql", "-At", "-c", "SELECT n FROM kept").stdout == "1\n"


def test_destroy_asks_a_person_and_refuses_a_script(run: Run, up: str) -> None:
    refused = run("destroy")
    assert (refused.returncode, refused.stderr) == (
        1,
        "error: destroy removes all local data: say --yes to mean it\n",
    )
    assert run("url").stdout.strip() == up
    assert run("destroy", "--yes").returncode == 0
    assert run("url").returncode == 1
    assert run("destroy", "--yes").stdout == "there was nothing to remove\n"


def test_a_bad_database_url_is_one_line_for_every_command(run: Run) -> None:
    for arguments in (["up"], ["url"], ["status"], ["psql"]):
        done = run(*arguments, EAV_SERVER="", DATABASE_URL="postgresql://u:Geheim1@127.0.0.1:1/x")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: the server of DATABASE_URL does not let us in: ")
        assert done.stderr.count("\n") == 1
        assert "Geheim1" not in done.stderr


def test_url_and_up_name_the_server_of_database_url(run: Run, cluster: Cluster) -> None:
    url = cluster.url()
    assert "named by DATABASE_URL" in run("up", EAV_SERVER="", DATABASE_URL=url).stdout
    assert run("url", EAV_SERVER="", DATABASE_URL=url).stdout == f"{url}\n"
    assert "not ours to stop" in run("down", EAV_SERVER="", DATABASE_URL=url).stderr
    assert cluster.is_running()


def test_install_with_all_in_place_starts_nothing(run: Run) -> None:
    run("destroy", "--yes")
    done = run("install")
    assert done.returncode == 0
    assert "ready to use" in done.stdout
    assert run("url").returncode == 1


def test_demo_gets_its_arguments(run: Run, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    script = "import local\nlocal.__path__.insert(0, 'DIR')\nfrom local.cli import main\nimport sys\n"
    script = script.replace("DIR", str(tmp_path / "local")) + "sys.exit(main(['demo', '--seconds', '3']))"
    (tmp_path / "local" / "demo.py").write_text("def main(argv):\n    print(argv)\n    return 5\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "['--seconds', '3']\n")


def test_wrong_usage_is_exit_code_2(run: Run) -> None:
    assert run("upp").returncode == 2
    assert run().returncode == 2
    assert run("--help").returncode == 0
