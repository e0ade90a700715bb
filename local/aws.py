"""The AWS of this clone: an emulator (moto) on loopback, in a process of its own. No account, no real credentials.

It keeps what it is given in memory: stopping it empties it. EAV_AWS=off leaves it out; EAV_AWS=env starts nothing and
uses the AWS that the environment names.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast, get_args

import psutil

from local.cluster import LOG_LIMIT_BYTES, PORTS
from local.errors import LocalError
from local.place import Place
from local.processes import lives, wait_for_end
from local.server import Say, say_on_stderr

Mode = Literal["emulator", "off", "env"]

REGION: Final = "us-east-1"
START_SECONDS: Final = 60.0
"""For the first answer. It takes one; where nothing is compiled yet, and something else has the processor, longer."""
ANSWER_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0
PORT_SECONDS: Final = 1.0
BACKLOG: Final = 128
# Without the first, the log is behind; without the second, any web page that somebody has open may read all that
# is in the emulator.
SERVER_ENVIRONMENT: Final = {"PYTHONUNBUFFERED": "1", "MOTO_DISABLE_GLOBAL_CORS": "true"}
AGAIN: Final = "start it with make up (or python -m local up)"
DOWN: Final = f"no AWS emulator is up: {AGAIN}"
LEFT_OUT: Final = "EAV_AWS=off leaves the AWS emulator out: unset it, and start it with python -m local up"


@dataclass(frozen=True)
class Aws:
    """An AWS to use: the emulator of a clone, or the one that the environment names (then `process` is None)."""

    url: str
    origin: str
    """One line for people: which it is."""
    process: psutil.Process | None = None
    log: Path | None = None

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The whole environment of a child process that uses it and nothing else; `environ` is its parent's."""
        return dict(environ) if self.process is None else emulated(self.url, environ)


@dataclass(frozen=True)
class _State:
    """`.local/aws.json`. The port is kept for the next start; without `pid` the emulator was stopped."""

    port: int
    pid: int = 0
    token: str = ""
    """On the command line of the process, so that a stranger with its number is never taken for it. Not its start
    time, which moves when the clock of the machine is set.
    """


# ---- what others use ------------------------------------------------------------------------------------------


def wanted(environ: Mapping[str, str] = os.environ) -> Mode:
    """What EAV_AWS asks for; the emulator if it is not set. Raises LocalError."""
    mode = environ.get("EAV_AWS") or "emulator"
    if mode not in get_args(Mode):
        raise LocalError(f"EAV_AWS must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    # Else boto3 would go to the account of whoever is logged in here.
    if mode == "env" and not environ.get("AWS_ENDPOINT_URL"):
        raise LocalError("EAV_AWS=env needs AWS_ENDPOINT_URL: set it, or unset EAV_AWS")
    return cast(Mode, mode)


def find_aws(
    *, place: Place | None = None, environ: Mapping[str, str] = os.environ, say: Say = say_on_stderr
) -> Aws | None:
    """The AWS of this clone, started if need be; None if EAV_AWS=off. Safe to repeat. Raises LocalError."""
    mode = wanted(environ)
    if mode != "emulator":
        return None if mode == "off" else _named(environ)
    place = place or Place()
    with place.lock():
        state = _recall(place)
        process = _process(state)
        if state is None or process is None:
            state, process = _start(place, state.port if state else 0, environ, say)
        elif not _answers(state.port, ANSWER_SECONDS):
            raise LocalError(
                f"the AWS emulator (process {state.pid}) does not answer: python -m local down, then up"
            )
        return _of(place, state, process)


def current_aws(*, place: Place | None = None, environ: Mapping[str, str] = os.environ) -> Aws | None:
    """The AWS that commands use now, if there is one; starts nothing. Raises LocalError."""
    mode = wanted(environ)
    if mode != "emulator":
        return None if mode == "off" else _named(environ)
    place = place or Place()
    state = _recall(place)
    process = _process(state)
    return _of(place, state, process) if state and process else None


def why_none(*, place: Place | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Why `current_aws` is None, and what to do, in one line. Raises LocalError."""
    if wanted(environ) == "off":
        return LEFT_OUT
    place = place or Place()
    state = _recall(place)
    if state is not None and state.pid:
        return f"the AWS emulator has ended by itself, with all that it held: see {_log(place)}, and {AGAIN}"
    return DOWN


def environment(*, place: Place | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The whole environment of a child process that uses this clone's AWS and cannot reach another one.

    Raises LocalError if there is none.
    """
    aws = current_aws(place=place, environ=environ)
    if aws is None:
        raise LocalError(why_none(place=place, environ=environ))
    return aws.environment(environ)


def emulated(url: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` with the AWS at `url`, made-up credentials, and nothing of the AWS that it named before.

    >>> sorted(emulated("http://127.0.0.1:1", {"AWS_PROFILE": "work", "AWS_ENDPOINT_URL_S3": "https://x"}))[:3]
    ['AWS_ACCESS_KEY_ID', 'AWS_CONFIG_FILE', 'AWS_DEFAULT_REGION']
    """
    # All of them: an endpoint per service, a profile, a role or a container's credentials would each win over, or
    # mix with, what is set here.
    kept = {name: value for name, value in environ.items() if not _of_aws(name)}
    kept |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        # Not unset, which means those in the home folder: they can name endpoints too.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if any(name.lower() in ("http_proxy", "all_proxy") and value for name, value in environ.items()):
        # A proxy would take 127.0.0.1 for its own machine. Programs differ in which of the two they read.
        direct = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        if direct != "*" and "127.0.0.1" not in direct.split(","):
            direct = f"{direct},127.0.0.1".removeprefix(",")
        kept |= {"no_proxy": direct, "NO_PROXY": direct}
    return kept


def shell_lines(target: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """What turns the AWS settings of a shell with `environ` into those of `target`, for POSIX shells."""
    gone = sorted(name for name in environ if name not in target and re.fullmatch(r"\w+", name, re.ASCII))
    ours = sorted(name for name in target if _of_aws(name) or name.lower() == "no_proxy")
    unset = [f"unset {' '.join(gone)}"] if gone else []
    return unset + [f"export {name}={shlex.quote(target[name])}" for name in ours]


def stop(*, place: Place | None = None) -> str | None:
    """End this clone's emulator, whatever EAV_AWS says; the origin of what was stopped. Raises LocalError."""
    place = place or Place()
    if not _path(place).exists():
        return None
    with place.lock():
        state = _recall(place)
        if state is None or not state.pid:
            return None
        process = _process(state)
        if process is not None:
            _end(process)
        _remember(place, _State(state.port))
        return _of(place, state, process).origin if process else None


def destroy(*, place: Place | None = None) -> list[str]:
    """End it and forget its port and log; returns what was removed, one line each. Raises LocalError."""
    place = place or Place()
    try:
        stop(place=place)
    except LocalError:
        if _readable(place):
            raise
    removed = []
    for path in (_path(place), _log(place), _old_log(place)):
        if path.exists():
            path.unlink()
            removed.append(str(path))
    return removed


# ---- inside ---------------------------------------------------------------------------------------------------


def _named(environ: Mapping[str, str]) -> Aws:
    url = environ["AWS_ENDPOINT_URL"]
    return Aws(url, f"AWS at {url}, named by AWS_ENDPOINT_URL")


def _of(place: Place, state: _State, process: psutil.Process) -> Aws:
    url = f"http://127.0.0.1:{state.port}"
    return Aws(url, f"AWS emulator on {url} (moto: DynamoDB, S3; in memory)", process, _log(place))


def _of_aws(name: str) -> bool:
    return name.upper().startswith("AWS_") or name == "BOTO_CONFIG"


def _path(place: Place) -> Path:
    return place.folder / "aws.json"


def _log(place: Place) -> Path:
    return place.folder / "aws.log"


def _old_log(place: Place) -> Path:
    return place.folder / "aws.log.1"


def _recall(place: Place) -> _State | None:
    try:
        found = _State(**json.loads(_path(place).read_text(encoding="utf-8")))
        if not (type(found.port) is type(found.pid) is int and isinstance(found.token, str)):
            raise TypeError("a value of another type")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LocalError(
            f"{_path(place)} cannot be read ({error}): remove it and run: python -m local up"
        ) from None


def _readable(place: Place) -> bool:
    try:
        _recall(place)
    except LocalError:
        return False
    return True


def _remember(place: Place, state: _State) -> None:
    staged = _path(place).with_name("aws.json.new")
    staged.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
    staged.chmod(0o644)  # under any umask: the process looks at it, and is another user's when root starts it
    staged.replace(_path(place))


def _process(state: _State | None) -> psutil.Process | None:
    """The emulator's process, if it lives and is ours."""
    if state is None or not 0 < state.pid < 2**31 or not state.token:
        return None
    try:
        process = psutil.Process(state.pid)
        return process if lives(process) and state.token in process.cmdline() else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _start(place: Place, port: int, environ: Mapping[str, str], say: Say) -> tuple[_State, psutil.Process]:
    log, old = _log(place), _old_log(place)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(old)
    listener = _listen(port)
    chosen = listener.getsockname()[1]
    if port and chosen != port:
        say(f"port {port} was taken by another program: the AWS emulator is now on {chosen}")
    state = _State(chosen, token=secrets.token_hex(16))
    # Bound here and handed on: no other program can come between, and requests wait until they are answered.
    with listener, log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "local.aws_server",
             str(listener.fileno()), str(_path(place)), state.token],
            cwd=Path(__file__).resolve().parent.parent,
            env={**emulated(f"http://127.0.0.1:{chosen}", environ), **SERVER_ENVIRONMENT},
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()], start_new_session=True,
        )  # fmt: skip
    # It outlives us; if it is the other way round, somebody has to collect it.
    threading.Thread(target=child.wait, daemon=True).start()
    state = replace(state, pid=child.pid)
    assert child.stdin is not None
    with child.stdin, contextlib.suppress(BrokenPipeError):
        _remember(place, state)
        child.stdin.write(b"1")
        child.stdin.flush()
    if _answers(chosen, START_SECONDS) and (process := _process(state)) is not None:
        return state, process
    why = _why(child, log, begin)
    _remember(place, _State(chosen))
    raise LocalError(f"the AWS emulator did not start: {why} (see {log})")


def _listen(port: int) -> socket.socket:
    """A listening socket at 127.0.0.1, on `port` if it is to be had."""
    # A process that has just ended holds its port for as long as it takes to end its threads.
    deadline = time.monotonic() + PORT_SECONDS
    while port in PORTS and time.monotonic() < deadline:
        if (listener := _bound(port)) is not None:
            return listener
        time.sleep(0.02)
    for candidate in random.sample(PORTS, 200):
        if (listener := _bound(candidate)) is not None:
            return listener
    raise LocalError(f"no free port on 127.0.0.1 among 200 tried between {PORTS.start} and {PORTS.stop - 1}")


def _bound(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    except OSError:
        return None


def _answers(port: int, seconds: float) -> bool:
    """Whether a request gets an answer. Not through a client of AWS, which would take a second to import."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _why(child: subprocess.Popen[bytes], log: Path, begin: int) -> str:
    """Why there was no answer; the child is ended if it has not ended."""
    try:
        child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return f"no answer within {START_SECONDS:g} s"
    with log.open("rb") as stream:
        stream.seek(begin)
        lines = stream.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {child.returncode}")


def _end(process: psutil.Process) -> None:
    try:
        process.terminate()
        if wait_for_end([process], STOP_SECONDS):
            process.kill()
        if wait_for_end([process], STOP_SECONDS):
            raise LocalError(f"the AWS emulator (process {process.pid}) outlived SIGKILL")
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise LocalError(
            f"the AWS emulator (process {process.pid}) is another user's: run this as the one who started it"
        ) from None
