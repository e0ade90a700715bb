"""Logging in with tokens of IAM and with a secret: what is asked for, how often, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from alembic.config import main as alembic
from botocore.exceptions import ClientError, CredentialRetrievalError
from psycopg import OperationalError, conninfo

from jobs import db, login
from jobs.archive import arrow
from jobs.errors import ConnectionLostError, JobsError
from local.server import Server
from tests import aws
from tests.conftest import ROOT, Database

URL = "postgresql://eav_jobs@db.example.com:5432/eav?sslmode=verify-full"
IAM = {"DATABASE_IAM_AUTH": "true"}
SECRET = {"DATABASE_SECRET_ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:master"}


@pytest.fixture(autouse=True)
def no_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that another test has made."""
    monkeypatch.setattr(login, "_clients", {})


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Secrets Manager on loopback; a client of it."""
    aws.use_emulator(monkeypatch)
    return login._client("secretsmanager")


@pytest.fixture
def verified(server: Server, database: Database) -> str:
    """The URL of the test's database with neither user nor password, its server's certificate verified."""
    if server.cluster is None:
        pytest.skip("the certificate of the server is not known")
    parts = conninfo.conninfo_to_dict(database.url)
    certificate = server.cluster.data_dir / "server.crt"
    return (
        f"postgresql://{parts['host']}:{parts['port']}/{parts['dbname']}"
        f"?sslmode=verify-full&sslrootcert={certificate}"
    )


@pytest.fixture
def person(database: Database) -> Iterator[str]:
    """A login that may act as eav_jobs."""
    name = f"iam_{uuid4().hex[:8]}"
    with database.session() as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE eav_jobs".encode())
    yield name
    with database.session() as connection:
        connection.execute(f"DROP ROLE {name}".encode())


def test_a_token_is_signed_here_for_one_user_of_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made up")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    # Nobody answers there: whoever asks AWS for something is found out.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    token = urlsplit("https://" + login.options(URL, IAM)["password"])
    asked = {name: value for name, (value,) in parse_qs(token.query).items()}
    assert token.netloc == "db.example.com:5432"
    assert asked["Action"] == "connect"
    assert asked["DBUser"] == "eav_jobs"
    assert asked["X-Amz-Expires"] == "900"
    assert asked["X-Amz-Credential"].split("/")[2:] == ["eu-west-3", "rds-db", "aws4_request"]
    other = login.options(URL.replace("eav_jobs", "eav_ingest"), IAM)["password"]
    assert parse_qs(other)["X-Amz-Signature"] != parse_qs(token.query)["X-Amz-Signature"]


def test_each_connection_has_a_token_of_its_own(
    database: Database, verified: str, person: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, str]] = []

    def token(host: str, port: int, user: str) -> str:
        # It is the password from now on, so that the one before is of no use.
        made.append((host, port, user))
        with database.session() as connection:
            connection.execute(f"ALTER ROLE {person} PASSWORD 'token {len(made)}'".encode())
        return f"token {len(made)}"

    monkeypatch.setattr(login, "_token", token)
    monkeypatch.setenv("DATABASE_IAM_AUTH", "true")
    url = conninfo.make_conninfo(verified, user=person)
    with closing(db.connect(url, "eav_jobs", "test")) as first:
        assert first.execute("SELECT session_user, current_user").fetchone() == (person, "eav_jobs")
        with db.another(first) as second, arrow.beside(first) as third:
            assert second.execute("SELECT current_user").fetchone() == ("eav_jobs",)
            assert third.one("SELECT current_user::text") == "eav_jobs"
    parts = conninfo.conninfo_to_dict(database.url)
    assert made == [(parts["host"], int(str(parts["port"])), person)] * 3


def test_without_these_settings_nothing_is_asked_for() -> None:
    assert login.options("postgresql://u:p@host/db", {}) == {}
    assert login.options("postgresql://u:p@host/db", {"DATABASE_IAM_AUTH": "false"}) == {}


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        (URL, {"DATABASE_IAM_AUTH": "yes"}, "DATABASE_IAM_AUTH must be true or false, got 'yes'"),
        (URL, IAM | SECRET, "DATABASE_IAM_AUTH and DATABASE_SECRET_ARN are both set"),
        (
            URL.replace("eav_jobs", "eav_jobs:pw"),
            IAM,
            "DATABASE_URL has a password, and DATABASE_IAM_AUTH is set",
        ),
        (
            URL.replace("eav_jobs", "eav_jobs:pw"),
            SECRET,
            "DATABASE_URL has a password, and DATABASE_SECRET_ARN",
        ),
        (URL.replace("verify-full", "require"), IAM, "DATABASE_IAM_AUTH needs sslmode=verify-full"),
        (URL.split("?")[0], SECRET, "DATABASE_SECRET_ARN needs sslmode=verify-full"),
        (URL.replace("eav_jobs@", ""), IAM, "DATABASE_IAM_AUTH needs a user and one host"),
        (
            URL.replace("db.example.com:5432", "a:5432,b:5432"),
            IAM,
            "DATABASE_IAM_AUTH needs a user and one host",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(url: str, environment: Mapping[str, str], said: str) -> None:
    with pytest.raises(JobsError) as error:
        login.options(url, environment)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)


def test_the_mode_may_come_from_libpq_s_own_variable() -> None:
    with pytest.raises(JobsError, match="needs a user and one host"):
        login.options("postgresql://host/db", IAM | {"PGSSLMODE": "verify-full"})


def test_a_secret_is_asked_for_each_time(emulator: Any) -> None:
    arn = emulator.create_secret(Name="master", SecretString='{"username": "root", "password": "one"}')["ARN"]
    environment, url = {"DATABASE_SECRET_ARN": arn}, URL.replace("eav_jobs@", "")
    assert login.options(url, environment) == {"user": "root", "password": "one"}
    emulator.put_secret_value(SecretId=arn, SecretString='{"username": "root", "password": "two"}')
    assert login.options(url, environment) == {"user": "root", "password": "two"}
    with pytest.raises(JobsError, match="is the secret of root, DATABASE_URL names eav_jobs"):
        login.options(URL, environment)


class TestRefused:
    """RDS says that PAM authentication failed where it wants a token; no other server does."""

    PAM = 'connection failed: FATAL:  PAM authentication failed for user "root"'

    def tries(self, url: str, environment: Mapping[str, str], said: str) -> list[dict[str, str]]:
        """What is tried at a server that refuses the first one, saying that."""
        seen: list[dict[str, str]] = []

        def connect(options: dict[str, str]) -> None:
            seen.append(options)
            if len(seen) == 1:
                raise OperationalError(said)

        with suppress(OperationalError):
            login.connected(url, connect, OperationalError, environment)
        return seen

    @pytest.fixture
    def secret(self, emulator: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setattr(login, "_token", lambda host, port, user: f"token of {user} at {host}:{port}")
        text = '{"username": "root", "password": "one"}'
        return {"DATABASE_SECRET_ARN": emulator.create_secret(Name="master", SecretString=text)["ARN"]}

    def test_the_user_of_the_secret_comes_again_with_a_token(self, secret: Mapping[str, str]) -> None:
        assert self.tries(URL.replace("eav_jobs@", ""), secret, self.PAM) == [
            {"user": "root", "password": "one"},
            {"user": "root", "password": "token of root at db.example.com:5432"},
        ]

    def test_for_another_reason_nobody_comes_again(self, secret: Mapping[str, str]) -> None:
        said = 'FATAL:  password authentication failed for user "root"'
        assert len(self.tries(URL.replace("eav_jobs@", ""), secret, said)) == 1
        assert len(self.tries(URL, IAM, self.PAM)) == 1
        assert self.tries("postgresql://u:p@host/db", {}, self.PAM) == [{}]


@pytest.mark.parametrize("text", ["hunter2", '["hunter2"]', '{"password": "hunter2"}'])
def test_a_secret_of_another_form_is_one_line_without_it(emulator: Any, text: str) -> None:
    arn = emulator.create_secret(Name="master", SecretString=text)["ARN"]
    with pytest.raises(JobsError, match="holds no JSON with username and password") as error:
        login.options(URL, {"DATABASE_SECRET_ARN": arn})
    assert "hunter2" not in str(error.value)


def test_a_secret_that_is_not_there_is_one_line(emulator: Any) -> None:
    with pytest.raises(
        JobsError, match=r"cannot get a password from AWS: .*ResourceNotFoundException"
    ) as error:
        login.options(URL, SECRET)
    assert not isinstance(error.value, ConnectionLostError)


def client_error(code: str, status: int) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata}, "GetSecretValue"
    )


@pytest.mark.parametrize(
    "failure",
    [
        CredentialRetrievalError(provider="container-role", error_msg="timed out"),
        client_error("ThrottlingException", 400),
        client_error("InternalServiceError", 500),
    ],
)
def test_what_passes_by_itself_is_tried_again(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def get_secret_value(self, **_: Any) -> Any:
            raise failure

    monkeypatch.setattr(login, "_client", lambda _: Client())
    with pytest.raises(ConnectionLostError, match="cannot get a password from AWS"):
        login.options(URL, SECRET)


class TestAlembic:
    """In this process: a process of its own takes two seconds."""

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)

    def test_it_takes_the_secret_and_lets_roles_in_by_iam(
        self,
        database: Database,
        verified: str,
        person: str,
        emulator: Any,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        parts = conninfo.conninfo_to_dict(database.url)
        text = json.dumps({"username": parts["user"], "password": parts["password"]})
        monkeypatch.setenv("DATABASE_SECRET_ARN", emulator.create_secret(Name="m", SecretString=text)["ARN"])
        monkeypatch.setenv("DATABASE_URL", verified)
        arguments = ["-x", f"iam_logins={person},eav_jobs", "upgrade", "head"]
        with pytest.raises(SystemExit):
            alembic(arguments)
        assert "iam_logins is for RDS: this server has no role rds_iam" in capsys.readouterr().out
        with database.session() as connection:
            connection.execute("CREATE ROLE rds_iam")
            try:
                connection.execute(f"GRANT rds_iam TO {person}".encode())
                alembic(arguments)
                members = database.all(
                    "SELECT member::regrole::text FROM pg_auth_members WHERE roleid = 'rds_iam'::regrole"
                )
            finally:
                connection.execute("DROP ROLE rds_iam")
        assert {name for (name,) in members} == {person, "eav_jobs"}

    def test_a_wrong_setting_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DATABASE_IAM_AUTH", "true")
        monkeypatch.setenv("DATABASE_URL", URL.replace("verify-full", "require"))
        with pytest.raises(SystemExit):
            alembic(["upgrade", "head"])
        assert "DATABASE_IAM_AUTH needs sslmode=verify-full" in capsys.readouterr().out
