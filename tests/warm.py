"""`python -m MODULE` in a process of its own that need not import anything first.

To import alembic or boto3 takes a second, in each of hundreds of processes. Here one process imports them, and each
call is a fork of it: with arguments, environment, folder and files of its own, and an exit code. What is about
start-up, signals or process ids starts a program instead.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Those of others only: what is ours is imported by each, from its folder.
MODULES = (
    "alembic.command",
    "alembic.config",
    "boto3",
    "psutil",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
)
FILES = 4
"""Standard input, output and error, and the socket that takes the exit code."""


def run(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` makes of `python -m MODULE ARGUMENTS`, with nothing to read."""
    order = json.dumps({"module": module, "arguments": arguments, "env": dict(env), "cwd": str(cwd)}).encode()
    ours, theirs = socket.socketpair()
    with (
        ours,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        Path(os.devnull).open("rb") as nothing,
    ):
        with theirs:
            files = array.array("i", [nothing.fileno(), out.fileno(), err.fileno(), theirs.fileno()])
            # The length goes with the files; the order itself may be longer than what one message takes.
            _forker().sendmsg([len(order).to_bytes(8)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        ours.sendall(order)
        code = ours.recv(16)
        assert code, f"python -m {module} ended without an exit code"
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess([module, *arguments], int(code), *said)


@cache
def _forker() -> socket.socket:
    """The process that forks, started at the first call; it ends with this one, whose end of the socket closes."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _fork_for_all(orders: socket.socket) -> None:
    """In the process that forks: returns in a child, as what it is to be; in the parent at the end."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # or a child would copy all that is here to look for garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the tests
    while True:
        files = array.array("i")
        length, more, _, _ = orders.recvmsg(8, socket.CMSG_SPACE(FILES * files.itemsize))
        if not length:
            return
        files.frombytes(more[0][2])
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    orders.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answers = socket.socket(fileno=files[3])
    order = json.loads(answers.recv(int.from_bytes(length), socket.MSG_WAITALL))
    if (child := os.fork()) != 0:
        _, status = os.waitpid(child, 0)
        answers.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    answers.close()
    for number in range(3):
        os.dup2(files[number], number)
        os.close(files[number])
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.path[0] = order["cwd"]
    sys.argv = [order["module"], *order["arguments"]]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _fork_for_all(socket.socket(fileno=int(sys.argv[1])))
