"""`python -m local up|down|url|psql|status|destroy|install|demo`."""

from __future__ import annotations

import sys

from local.errors import LocalError
from local.server import current_server, find_server


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments == ["up"]:
            print(find_server().origin)
        elif arguments == ["url"]:
            server = current_server()
            if server is None:
                raise LocalError("no local PostgreSQL is up: run make up")
            print(server.url)
        elif arguments == ["down"]:
            server = current_server()
            if server:
                server.stop()
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
