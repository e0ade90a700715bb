"""The AWS emulator of a clone: its process, its commands, and that nothing leaves this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

import local
from local import aws
from local.aws_server import no_browsers, one_at_a_time, watch
from local.cluster import Cluster, temporary_folder
from local.errors import LocalError
from local.place import Place
from local.processes import lives, wait_for_end
from tests import warm
from tests.aws import Aws
from tests.jobs.waiting import until

ENDPOINT = "http://127.0.0.1:1"
# Removes the folder when the tests end, even by a kill: the emulator ends by itself when its clone is gone.
GUARD = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"
PUT_AND_GET = """\
import boto3
s3 = boto3.client("s3")
s3.create_bucket(Bucket="archive")
s3.put_object(Bucket="archive", Key="a/b", Body=b"kept")
print(s3.get_object(Bucket="archive", Key="a/b")["Body"].read().decode(), s3.meta.endpoint_url)
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def guarded_folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        command = [sys.executable, "-c", GUARD, str(folder)]
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        try:
            yield folder
        finally:
            guard.communicate()


@pytest.fixture(autouse=True)
def _no_choice_is_made(environment: pytest.MonkeyPatch) -> None:
    """Whatever the one who runs the tests has chosen."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """A clone for all tests here; whoever stops its emulator leaves that to the next `find_aws`."""
    with guarded_folder() as folder:
        (folder / "a clone").mkdir()
        place = Place(folder / "a clone", folder / "outside")
        yield place
        aws.destroy(place=place)


@pytest.fixture
def place(shared: Place) -> Place:
    """The clone, whose emulator is up."""
    aws.find_aws(place=shared, environ={})
    return shared


@pytest.fixture
def bare(folder: Path) -> Place:
    """A clone in which nothing is started."""
    (folder / "clone").mkdir()
    made = Place(folder / "clone", folder / "outside")
    made.make()
    return made


def up(
    place: Place, environ: dict[str, str] | None = None, say: Callable[[str], None] = pytest.fail
) -> aws.Aws:
    """What find_aws finds; by default it may say nothing."""
    found = aws.find_aws(place=place, environ=environ or {}, say=say)
    assert found is not None
    return found


def process_of(found: aws.Aws | None) -> psutil.Process:
    assert found is not None
    assert found.process is not None
    return found.process


def child(code: str, environment: dict[str, str]) -> str:
    """What the Python program prints in that environment."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def has_open(pid: int, path: Path) -> bool:
    return str(path) in [one.path for one in psutil.Process(pid).open_files()]


class TestProcess:
    def test_real_boto3_puts_and_gets_through_it(self, place: Place) -> None:
        found = up(place)
        environment = aws.environment(place=place)
        assert child(PUT_AND_GET, environment) == f"kept {found.url}"

    def test_starting_it_again_is_the_same_one(self, place: Place) -> None:
        before = process_of(aws.current_aws(place=place, environ={}))
        assert process_of(up(place)) == before

    def test_it_listens_on_loopback_and_nowhere_else(self, place: Place) -> None:
        found = up(place)
        sockets = process_of(found).net_connections()
        listening = [one.laddr for one in sockets if one.status == psutil.CONN_LISTEN]
        assert [(one.ip, f"http://{one.ip}:{one.port}") for one in listening] == [("127.0.0.1", found.url)]

    def test_it_is_no_child_of_the_terminal_that_started_it(self, place: Place) -> None:
        process = process_of(up(place))
        assert os.getsid(process.pid) == process.pid
        assert process.cwd() == "/"

    def test_stopped_it_is_gone_and_comes_back_empty_on_its_port(self, place: Place) -> None:
        found = up(place)
        environment = aws.environment(place=place)
        made = "import boto3; s = boto3.client('s3'); s.create_bucket(Bucket='gone')"
        child(made, environment)
        process = process_of(found)
        assert aws.stop(place=place) == found.origin
        assert not lives(process)
        assert aws.current_aws(place=place, environ={}) is None
        assert aws.stop(place=place) is None
        with pytest.raises(LocalError, match=r"^no AWS emulator is up: start it with make up"):
            aws.environment(place=place, environ={})
        assert up(place).url == found.url
        listed = "import boto3; print(boto3.client('s3').list_buckets()['Buckets'])"
        assert child(listed, environment) == "[]"

    def test_one_that_was_killed_is_noticed_and_started_again(self, place: Place) -> None:
        found = up(place)
        process = process_of(found)
        process.kill()
        assert not wait_for_end([process], 30)
        assert aws.current_aws(place=place, environ={}) is None
        with pytest.raises(LocalError, match=r"has ended by itself, with all that it held: see .*aws\.log"):
            aws.environment(place=place, environ={})
        again = up(place)
        assert again.url == found.url
        assert process_of(again) != process

    def test_two_at_once_start_one(self, place: Place) -> None:
        aws.stop(place=place)
        code = (
            "import sys; from pathlib import Path; from local.aws import find_aws; from local.place import Place\n"
            "print(find_aws(place=Place(Path(sys.argv[1]), Path(sys.argv[2])), environ={}).process.pid)"
        )
        command = [sys.executable, "-c", code, str(place.clone), str(place.outside)]
        with place.lock():
            both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
            until(lambda: all(has_open(one.pid, place.folder / "lock") for one in both))
        pids = {one.communicate(timeout=60)[0] for one in both}
        assert [one.returncode for one in both] == [0, 0]
        assert pids == {f"{process_of(up(place)).pid}\n"}

    def test_a_taken_port_is_said_in_one_line(self, place: Place) -> None:
        port = int(up(place).url.rpartition(":")[2])
        aws.stop(place=place)
        lines: list[str] = []
        with aws._listen(port) as other:
            assert other.getsockname()[1] == port
            moved = up(place, say=lines.append)
        assert lines == [
            f"port {port} was taken by another program: the AWS emulator is now on "
            + moved.url.rpartition(":")[2]
        ]

    def test_one_that_does_not_answer_is_one_line_and_can_be_stopped(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = process_of(up(place))
        monkeypatch.setattr(aws, "ANSWER_SECONDS", 0.1)
        monkeypatch.setattr(aws, "STOP_SECONDS", 0.1)
        process.suspend()
        try:
            with pytest.raises(LocalError, match=rf"\(process {process.pid}\) does not answer"):
                up(place)
        finally:
            aws.stop(place=place)  # SIGTERM waits until it goes on, SIGKILL does not
        assert not lives(process)

    def test_one_that_cannot_start_says_why(
        self, place: Place, bare: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "moto.py").write_text("raise ImportError('moto is not here')\n", encoding="utf-8")
        with pytest.raises(LocalError) as caught:
            up(bare, {"PYTHONPATH": str(tmp_path)})
        assert str(caught.value) == (
            f"the AWS emulator did not start: ImportError: moto is not here (see {bare.folder / 'aws.log'})"
        )
        assert aws.why_none(place=bare, environ={}) == aws.DOWN

    def test_destroyed_it_leaves_nothing(self, place: Place) -> None:
        process = process_of(up(place))
        assert len(aws.destroy(place=place)) == 2
        assert not lives(process)
        assert not list(place.folder.glob("aws*"))
        assert aws.destroy(place=place) == []

    def test_it_ends_with_its_clone(self, place: Place) -> None:
        process = process_of(up(place))
        (place.folder / "aws.json").unlink()
        assert not wait_for_end([process], 30)

    def test_it_ends_when_another_one_is_named(self, tmp_path: Path) -> None:
        ended = threading.Event()
        (tmp_path / "aws.json").write_text('{"token": "theirs"}', encoding="utf-8")
        watch(tmp_path / "aws.json", "ours", ended.set)
        assert ended.is_set()

    def test_one_whose_starter_died_before_it_was_written_down_ends(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "local.aws_server", "0", str(tmp_path / "aws.json"), "token"],
            cwd=Path(local.__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0

    def test_the_log_has_no_line_for_each_request(self, place: Place) -> None:
        found = up(place)
        assert found.log is not None
        before = found.log.read_text(encoding="utf-8")
        child(PUT_AND_GET, found.environment())
        assert found.log.read_text(encoding="utf-8") == before
        assert "takes requests on 127.0.0.1" in before

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to leave")
    def test_root_becomes_nobody_where_nobody_can_read_the_code(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path; from local.aws_server import leave_root\n"
            "for path in sys.argv[1:]: leave_root([Path(path)]); print(os.getuid(), os.geteuid(), os.getgid())"
        )
        closed = tmp_path / "closed"
        closed.touch(0o600)
        command = [sys.executable, "-c", code, str(closed), "/etc/passwd"]
        first, second = subprocess.check_output(command, text=True, timeout=60).splitlines()
        assert first == "0 0 0"
        assert "0" not in second.split()


class TestState:
    """`.local/aws.json`, whatever is in it."""

    def stale(self, place: Place, pid: int) -> None:
        state = {"port": 20001, "pid": pid, "token": "0123456789abcdef"}
        (place.folder / "aws.json").write_text(json.dumps(state), encoding="utf-8")

    def test_a_stranger_with_the_number_is_neither_taken_for_it_nor_stopped(self, bare: Place) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
            self.stale(bare, stranger.pid)
            assert aws.current_aws(place=bare, environ={}) is None
            assert aws.stop(place=bare) is None
            self.stale(bare, stranger.pid)
            aws.destroy(place=bare)
            assert stranger.poll() is None
            stranger.communicate(b"\n")

    @pytest.mark.parametrize("pid", [0, 1, -1, 2**22 + 1, 2**70])
    def test_a_number_that_is_no_emulator_s(self, bare: Place, pid: int) -> None:
        self.stale(bare, pid)
        assert aws.current_aws(place=bare, environ={}) is None
        assert aws.stop(place=bare) is None

    @pytest.mark.parametrize(
        "text", ["{", "[]", "null", '{"pid": 1}', '{"port": "x"}', '{"port": 1, "x": 2}']
    )
    def test_a_spoilt_one_is_one_line_and_destroy_removes_it(self, bare: Place, text: str) -> None:
        (bare.folder / "aws.json").write_text(text, encoding="utf-8")
        for use in (aws.find_aws, aws.current_aws, aws.why_none):
            with pytest.raises(LocalError, match=r"aws\.json cannot be read \(.*\): remove it and run: "):
                use(place=bare, environ={})
        with pytest.raises(LocalError, match="cannot be read"):
            aws.stop(place=bare)
        assert aws.destroy(place=bare) == [str(bare.folder / "aws.json")]


class TestChoice:
    def test_what_is_wanted(self) -> None:
        assert aws.wanted({}) == aws.wanted({"EAV_AWS": ""}) == "emulator"
        assert aws.wanted({"EAV_AWS": "off"}) == "off"
        assert aws.wanted({"EAV_AWS": "env", "AWS_ENDPOINT_URL": ENDPOINT}) == "env"
        with pytest.raises(LocalError, match="EAV_AWS must be one of emulator, off, env, got 'real'"):
            aws.wanted({"EAV_AWS": "real"})
        with pytest.raises(LocalError, match="EAV_AWS=env needs AWS_ENDPOINT_URL: set it, or unset EAV_AWS"):
            aws.wanted({"EAV_AWS": "env", "AWS_PROFILE": "work"})

    def test_off_starts_nothing(self, bare: Place) -> None:
        assert aws.find_aws(place=bare, environ={"EAV_AWS": "off"}) is None
        with pytest.raises(LocalError, match=r"^EAV_AWS=off leaves the AWS emulator out"):
            aws.environment(place=bare, environ={"EAV_AWS": "off"})
        assert not list(bare.folder.glob("aws*"))

    def test_env_starts_nothing_and_changes_nothing(self, bare: Place) -> None:
        environ = {"EAV_AWS": "env", "AWS_ENDPOINT_URL": ENDPOINT, "AWS_PROFILE": "work"}
        found = up(bare, environ)
        assert (found.url, found.process) == (ENDPOINT, None)
        assert aws.environment(place=bare, environ=environ) == environ
        assert not list(bare.folder.glob("aws*"))


class TestEnvironment:
    ELSEWHERE = "http://127.0.0.1:9"

    @pytest.fixture
    def theirs(self, tmp_path: Path) -> dict[str, str]:
        """The environment of somebody who works with real accounts, by all means that boto3 knows."""
        home = tmp_path / "home"
        (home / ".aws").mkdir(parents=True)
        config = (
            f"[default]\nregion = eu-west-1\nendpoint_url = {self.ELSEWHERE}\nservices = mine\n"
            "ignore_configured_endpoint_urls = true\n"  # those of the environment, too
            f"[profile work]\nregion = eu-west-1\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n"
            f"[services mine]\ns3 =\n  endpoint_url = {self.ELSEWHERE}\n"
        )
        credentials = "[default]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n"
        for folder in (home / ".aws", tmp_path):
            (folder / "config").write_text(config, encoding="utf-8")
            (folder / "credentials").write_text(credentials, encoding="utf-8")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_PROFILE": "work",
            "AWS_DEFAULT_PROFILE": "work",
            "AWS_ACCESS_KEY_ID": "AKIAREAL",
            "AWS_SECRET_ACCESS_KEY": "real",
            "AWS_SESSION_TOKEN": "real",
            "AWS_REGION": "eu-west-1",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "AWS_ENDPOINT_URL": self.ELSEWHERE,
            "AWS_ENDPOINT_URL_S3": self.ELSEWHERE,
            "AWS_ENDPOINT_URL_DYNAMODB": self.ELSEWHERE,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self.ELSEWHERE,
            "AWS_USE_FIPS_ENDPOINT": "true",
            "HTTP_PROXY": self.ELSEWHERE,
            "NO_PROXY": "intern.example",
        }

    LOOK = """\
import boto3, json
session = boto3.Session()
clients = [session.client(name) for name in ("s3", "dynamodb", "kinesis", "sts")]
keys = session.get_credentials().get_frozen_credentials()
endpoints = sorted({one.meta.endpoint_url for one in clients})
print(json.dumps([endpoints, keys.access_key, keys.secret_key, keys.token, session.region_name]))
"""

    def test_a_client_sees_the_emulator_and_nothing_else(self, theirs: dict[str, str]) -> None:
        found = json.loads(child(self.LOOK, aws.emulated(ENDPOINT, theirs)))
        assert found == [[ENDPOINT], "local", "local", None, "us-east-1"]

    def test_so_would_the_test_itself_notice(self, theirs: dict[str, str]) -> None:
        del (
            theirs["AWS_PROFILE"],
            theirs["AWS_DEFAULT_PROFILE"],
            theirs["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"],
        )
        endpoints, key, *_, region = json.loads(child(self.LOOK, theirs))
        assert all(one.endswith(".amazonaws.com") for one in endpoints)  # nobody connects
        assert (key, region) == ("AKIAREAL", "eu-west-1")

    def test_what_is_put_arrives_there_past_a_proxy(self, place: Place, theirs: dict[str, str]) -> None:
        found = up(place)
        aws.stop(place=place)  # what an earlier test has put
        up(place)
        environment = aws.environment(place=place, environ=theirs)
        assert child(PUT_AND_GET, environment) == f"kept {found.url}"

    def test_the_rest_stays_and_the_lists_of_a_proxy_are_added_to(self, theirs: dict[str, str]) -> None:
        environment = aws.emulated(ENDPOINT, theirs)
        assert environment["HOME"] == theirs["HOME"]
        assert environment["NO_PROXY"] == environment["no_proxy"] == "intern.example,127.0.0.1"
        assert aws.emulated(ENDPOINT, environment) == environment
        assert aws.emulated(ENDPOINT, {"ALL_PROXY": "x", "no_proxy": "*"})["NO_PROXY"] == "*"
        assert "NO_PROXY" not in aws.emulated(ENDPOINT, {"HTTP_PROXY": ""})

    def test_its_shell_lines_do_the_same_in_sh(self, theirs: dict[str, str]) -> None:
        target = aws.emulated("http://127.0.0.1:1/a'b $c", theirs)
        lines = "\n".join(aws.shell_lines(target, theirs | {"AWS_NO.NAME": "x"}))
        done = subprocess.run(
            ["sh", "-c", 'eval "$1"; env -0', "sh", lines], env=theirs, capture_output=True, check=True
        )
        found = dict(one.split("=", 1) for one in done.stdout.decode().split("\0") if one)
        assert {name: found.get(name) for name in target} == target
        assert not {name for name in found if name.startswith("AWS_")} - target.keys()


def test_requests_wait_for_each_other() -> None:
    """What the emulator does to a table takes several steps of Python, and it has no locks of its own."""
    inside, most = 0, 0
    met = threading.Barrier(3)

    def app(environ: dict[str, Any], start_response: object) -> list[bytes]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)  # long enough for another thread to come in, if it could
        inside -= 1
        return []

    alone = one_at_a_time(app)

    def ask() -> None:
        met.wait(10)
        alone({}, lambda *_: None)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1


def test_a_web_page_gets_nothing() -> None:
    def answer(**environ: str) -> str:
        status: list[str] = []
        app = no_browsers(lambda environ, start: start("200 OK", []) or [])
        list(app(environ, lambda line, headers: status.append(line)))
        return status[0][:3]

    assert answer(HTTP_HOST="127.0.0.1:20001") == answer(HTTP_HOST="localhost") == "200"
    assert answer(HTTP_HOST="127.0.0.1:20001", HTTP_ORIGIN="https://evil.example") == "403"
    assert answer(HTTP_HOST="rebound.example:20001") == answer() == "403"


def test_a_service_that_is_not_emulated_says_so_at_once(place: Place) -> None:
    code = (
        "import boto3, botocore.exceptions as e\n"
        "try: boto3.client('lambda').list_functions()\n"
        "except e.ClientError as error: print(error.response['ResponseMetadata']['RetryAttempts'], error)"
    )
    attempts, _, text = child(code, up(place).environment()).partition(" ")
    assert attempts == "0"
    assert "awslambda is not emulated here: only dynamodb, s3" in text


@pytest.fixture(scope="module")
def run(cluster: Cluster) -> Iterator[Run]:
    """`python -m local` in a clone that holds nothing but the local package, on a server of DATABASE_URL."""
    with guarded_folder() as folder:
        shutil.copytree(Path(local.__file__).parent, folder / "clone/local")

        def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
            clean = {name: value for name, value in os.environ.items() if not name.startswith("EAV_")}
            chosen = {**clean, "DATABASE_URL": cluster.url(), **environ}
            return warm.run("local", *arguments, env=chosen, cwd=folder / "clone")

        yield command
        command("destroy", "--yes")


class TestCommands:
    def test_up_says_both_and_status_shows_both(self, run: Run) -> None:
        for _ in range(2):
            done = run("up")
            assert (done.returncode, done.stderr) == (0, "")
            server, emulator = done.stdout.splitlines()
            assert server.startswith("PostgreSQL ")
            assert emulator.startswith("AWS emulator on http://127.0.0.1:")
        facts = json.loads(run("status", "--json").stdout)["aws"]
        assert facts.items() >= {"up": True, "kind": "emulator"}.items()
        assert facts["url"] in emulator
        assert psutil.pid_exists(facts["process"])
        assert Path(facts["log"]).exists()
        people = run("status")
        assert people.returncode == 0
        (line,) = [line for line in people.stdout.splitlines() if line.startswith("aws ")]
        assert facts["url"] in line

    def test_aws_env_is_for_a_shell_to_evaluate(self, run: Run) -> None:
        run("up")
        done = run("aws-env", AWS_PROFILE="work")
        assert (done.returncode, done.stderr) == (0, "")
        assert all(line.split()[0] in ("unset", "export") for line in done.stdout.splitlines())
        script = f'eval "$1"\n{sys.executable} -c "$2"'
        shell = ["sh", "-c", script, "sh", done.stdout, PUT_AND_GET]
        environ = {**os.environ, "AWS_PROFILE": "work"}
        output = subprocess.check_output(shell, env=environ, text=True, timeout=60)
        assert output.startswith("kept http://127.0.0.1:")

    def test_down_says_that_it_is_empty_and_aws_env_that_it_is_down(self, run: Run) -> None:
        run("up")
        done = run("down")
        assert done.returncode == 0
        first, *_ = done.stdout.splitlines()
        assert first.startswith("stopped: AWS emulator on ")
        assert first.endswith("; what it held is gone")
        done = run("aws-env")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"error: {aws.DOWN}\n"
        facts = json.loads(run("status", "--json").stdout)
        assert (facts["up"], facts["aws"]) == (True, {"up": False, "hint": aws.DOWN})

    def test_one_that_does_not_start_is_one_line_and_keeps_nothing_from_being_up(
        self, run: Run, tmp_path: Path
    ) -> None:
        run("down")
        (tmp_path / "moto.py").write_text("raise ImportError('moto is not here')\n", encoding="utf-8")
        done = run("up", PYTHONPATH=str(tmp_path))
        assert done.returncode == 0
        assert done.stdout.startswith("PostgreSQL ")
        (line,) = done.stderr.splitlines()
        assert line.startswith("going on without AWS: the AWS emulator did not start: ImportError")

    def test_off_and_env(self, run: Run) -> None:
        done = run("up", EAV_AWS="off")
        assert done.stdout.splitlines()[1:] == ["no AWS emulator: EAV_AWS=off"]
        secret = "a-real-one"
        theirs = {"EAV_AWS": "env", "AWS_ENDPOINT_URL": ENDPOINT, "AWS_SECRET_ACCESS_KEY": secret}
        done = run("up", **theirs)
        assert done.stdout.splitlines()[1:] == [f"AWS at {ENDPOINT}, named by AWS_ENDPOINT_URL"]
        done = run("aws-env", **theirs)
        assert (done.returncode, done.stdout) == (0, "")
        assert secret not in done.stderr

    def test_a_mistake_is_said_before_anything_is_started(self, run: Run) -> None:
        done = run("up", EAV_AWS="nix")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: EAV_AWS must be one of emulator, off, env, got 'nix'\n"

    def test_destroy_stops_it(self, run: Run) -> None:
        run("up")
        process = psutil.Process(json.loads(run("status", "--json").stdout)["aws"]["process"])
        assert "aws.json" in run("destroy", "--yes").stdout
        assert not lives(process)


class TestFixture:
    """`aws` of tests/conftest.py."""

    @pytest.mark.parametrize("turn", ["first", "second"])
    def test_it_is_empty_for_each_test(self, aws: Aws, turn: str) -> None:
        assert aws.s3.list_buckets()["Buckets"] == []
        assert aws.dynamodb.list_tables()["TableNames"] == []
        aws.s3.create_bucket(Bucket="archive")
        aws.dynamodb.create_table(
            TableName="items",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def test_the_environment_of_the_test_and_of_its_children_names_it(self, aws: Aws) -> None:
        assert boto3.Session().client("s3").meta.endpoint_url == aws.url
        assert child(PUT_AND_GET, aws.environment()) == f"kept {aws.url}"
        assert [one["Name"] for one in aws.s3.list_buckets()["Buckets"]] == ["archive"]

    def test_its_log_is_silent(self, aws: Aws, capfd: pytest.CaptureFixture[str]) -> None:
        aws.s3.create_bucket(Bucket="archive")
        assert capfd.readouterr() == ("", "")
