"""Logging in to RDS without a password in the settings: with a token of IAM, or with the secret that RDS keeps.

A token is made here, of the credentials that boto3 finds, without a call to AWS. RDS takes it for 15 minutes, and asks
for it only when a connection begins: so each connection gets one of its own, and none is ever renewed.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from psycopg import conninfo

from jobs.errors import ConnectionLostError, JobsError

IAM: Final = "DATABASE_IAM_AUTH"
SECRET: Final = "DATABASE_SECRET_ARN"  # noqa: S105  (the name of a variable that names a secret)

WANTS_A_TOKEN: Final = "PAM authentication failed"  # noqa: S105  (what RDS answers to a password, then)

Connected = TypeVar("Connected")

_lock: Final = threading.Lock()
_clients: Final[dict[str, Any]] = {}


def connected(
    url: str,
    connect: Callable[[dict[str, str]], Connected],
    refused: type[Exception],
    environment: Mapping[str, str] = os.environ,
) -> Connected:
    """What `connect` returns, which is given the options; it raises `refused` where the server does not let it in.

    Who is a member of rds_iam has to bring a token, also by way of another role: from PostgreSQL 16 on whoever makes a
    role becomes a member of it, so the master may be one as soon as roles that it has made are. Then RDS takes the
    secret's password no more, and the secret's user comes with a token.
    """
    given = options(url, environment)
    try:
        return connect(given)
    except refused as error:
        if _chosen(environment) != SECRET or WANTS_A_TOKEN not in str(error):
            raise
    parts = conninfo.conninfo_to_dict(url)
    token = _token(str(parts.get("host") or ""), int(parts.get("port") or 5432), given["user"])
    return connect({"user": given["user"], "password": token})


def options(url: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a connection to `url` needs beside it, at this moment: a password, or nothing if the URL is to do.

    Raises JobsError for settings that cannot go together, ConnectionLostError if AWS cannot be asked now.
    """
    chosen = _chosen(environment)
    if chosen is None:
        return {}
    parts = conninfo.conninfo_to_dict(url)
    if parts.get("password"):
        raise JobsError(f"DATABASE_URL has a password, and {chosen} is set: take one of them out")
    if (parts.get("sslmode") or environment.get("PGSSLMODE")) != "verify-full":
        raise JobsError(
            f"{chosen} needs sslmode=verify-full in DATABASE_URL (and sslrootcert=FILE with the certificates of RDS):"
            " nobody else may be told the password"
        )
    if chosen == SECRET:
        return _secret(environment[SECRET], parts)
    host, user = str(parts.get("host") or ""), str(parts.get("user") or "")
    if not host or not user or "," in host:
        raise JobsError(
            f"{IAM} needs a user and one host in DATABASE_URL: postgresql://user@host:port/database;"
            " a token is for these alone"
        )
    return {"password": _token(host, int(parts.get("port") or 5432), user)}


def _chosen(environment: Mapping[str, str]) -> str | None:
    """The variable that says how; None if the URL says it all."""
    text = environment.get(IAM, "").lower() or "false"
    if text not in ("true", "false"):
        raise JobsError(f"{IAM} must be true or false, got {text!r}")
    if text == "true" and environment.get(SECRET):
        raise JobsError(f"{IAM} and {SECRET} are both set: take one of them out")
    return IAM if text == "true" else SECRET if environment.get(SECRET) else None


def _token(host: str, port: int, user: str) -> str:
    made: str = _asked("rds", "generate_db_auth_token", DBHostname=host, Port=port, DBUsername=user)
    return made


def _secret(arn: str, parts: Mapping[str, Any]) -> dict[str, str]:
    """User and password of a secret as RDS keeps it; asked for each time, because RDS changes it."""
    answer = _asked("secretsmanager", "get_secret_value", SecretId=arn)
    try:
        found = json.loads(answer["SecretString"])
        user, password = found["username"], found["password"]
    except (KeyError, TypeError, ValueError):
        raise JobsError(f"{SECRET}: {arn} holds no JSON with username and password") from None
    if parts.get("user") not in (None, user):
        raise JobsError(
            f"{SECRET} is the secret of {user}, DATABASE_URL names {parts['user']}: name nobody there"
        )
    return {"user": str(user), "password": str(password)}


def _asked(service: str, call: str, **parameters: Any) -> Any:
    # Here, because importing boto3 takes longer than most commands do.
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, HTTPClientError

    try:
        return getattr(_client(service), call)(**parameters)
    except (CredentialRetrievalError, HTTPClientError) as error:
        raise ConnectionLostError(f"cannot get a password from AWS: {_line(error)}") from None
    except ClientError as error:
        text = f"cannot get a password from AWS: {_line(error)}"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        throttled = "Throttl" in error.response.get("Error", {}).get("Code", "")
        raise (ConnectionLostError if throttled or status >= 500 else JobsError)(text) from None
    except (BotoCoreError, ValueError) as error:
        raise JobsError(f"cannot get a password from AWS: {_line(error)}") from None


def _client(service: str) -> Any:
    """One for all threads: a client is safe to share, the making of one is not. It renews its credentials itself."""
    import boto3
    from botocore.config import Config

    with _lock:
        if service not in _clients:
            session: Any = boto3.Session()  # its types know each service by a literal
            _clients[service] = session.client(
                service,
                region_name=os.environ.get("AWS_REGION"),
                config=Config(
                    connect_timeout=10, read_timeout=10, retries={"mode": "standard", "max_attempts": 3}
                ),
            )
        return _clients[service]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
