"""The process behind `local.aws`: moto on a socket that its parent has bound to loopback.

    python -m local.aws_server SOCKET STATE TOKEN

SOCKET is the number of the listening file descriptor, STATE the file that names this process by TOKEN. It ends
on SIGTERM, and by itself once STATE is gone or names another one: with its clone, for instance.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import moto
from flask import Flask
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

SERVICES: Final = ("dynamodb", "s3", "kinesis", "sts", "moto_api")
"""What is emulated. moto has more, some of which start containers or read files for whoever asks."""
WARM: Final = ("dynamodb", "s3")
"""What is imported before the first answer, so that no request has to wait for it."""
WATCH_SECONDS: Final = 1.0
HOSTS: Final = ("127.0.0.1", "localhost")
NOBODY: Final = "nobody"

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_log = logging.getLogger("local.aws")


def main(arguments: list[str]) -> int:
    """Serve until told to end; returns the exit code."""
    # Whoever started us says so once our state is on disk. If it died before, nobody would know of us.
    if not sys.stdin.buffer.read(1):
        return 0
    descriptor, state, token = int(arguments[0]), Path(arguments[1]), arguments[2]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The access log; errors are kept.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    app = application()
    leave_root([Path(moto.__file__), Path(os.__file__), Path(__file__), state])
    os.chdir("/")
    listener = socket.socket(fileno=descriptor)
    host, port = listener.getsockname()
    server = make_server(
        host, port, app, threaded=True, request_handler=MotoRequestHandler, fd=listener.fileno()
    )
    listener.close()  # the server has a copy
    threading.Thread(target=watch, args=(state, token, server.shutdown), daemon=True).start()
    _log.info("process %s takes requests on %s:%s", os.getpid(), host, port)
    server.serve_forever()
    return 0


def application() -> WsgiApp:
    """moto's application, less what nobody here needs."""

    def create(service: Any) -> Flask:
        return create_backend_app(service) if service in SERVICES else _not_emulated(service)

    dispatcher = DomainDispatcherApplication(create)
    for service in WARM:
        dispatcher.app_instances[service] = create(service)
    return no_browsers(one_at_a_time(dispatcher))


def one_at_a_time(app: WsgiApp) -> WsgiApp:
    """Requests wait for each other: moto copies a table for a transaction while another request may write to it."""
    lock = threading.Lock()

    def alone(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            return app(environ, start_response)

    return alone


def serve_in_thread(app: WsgiApp) -> str:
    """Serve on loopback for as long as this process lives; the URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, name="moto", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def no_browsers(app: WsgiApp) -> WsgiApp:
    """Refuse what a web page sends: it names its origin, or (by DNS rebinding) a host that is not this one."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        if "HTTP_ORIGIN" in environ or host not in HOSTS:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"the local AWS emulator is not for web pages\n"]
        return app(environ, start_response)

    return guarded


def _not_emulated(service: object) -> Flask:
    text = f"{service} is not emulated here: only {', '.join(SERVICES[:-1])} are (local/aws_server.py)"
    app = Flask("not emulated")

    # 400, not 501: clients try again on the latter.
    @app.before_request
    def refuse() -> tuple[dict[str, str], int, dict[str, str]]:
        return {"__type": "NotEmulated", "message": text}, 400, {"x-amzn-errortype": "NotEmulated"}

    return app


def leave_root(needed: list[Path]) -> None:
    """As root, become nobody, unless that user could not read `needed` (a clone under /root, say)."""
    if os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(NOBODY)
    except KeyError:
        _log.warning("no user %s here: going on as root", NOBODY)
        return
    if (closed := _closed_to(entry, needed)) is not None:
        _log.warning("user %s cannot read %s: going on as root", NOBODY, closed)
        return
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _closed_to(entry: pwd.struct_passwd, needed: list[Path]) -> Path | None:
    """The first path that the user cannot read."""
    # Asked by becoming that user for a moment: modes alone do not tell (ACLs, mounts).
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        for path in needed:
            try:
                path.open("rb").close()
            except OSError:
                return path
        return None
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def watch(state: Path, token: str, end: Callable[[], None]) -> None:
    """Call `end` once the file is gone or names another process."""
    pause = threading.Event()
    while _names(state, token):
        pause.wait(WATCH_SECONDS)
    _log.info("%s does not name this process any more: ending", state)
    end()


def _names(state: Path, token: str) -> bool:
    try:
        return bool(json.loads(state.read_text(encoding="utf-8"))["token"] == token)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False
    except OSError:  # a moment's trouble is no reason to lose what is in memory
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
