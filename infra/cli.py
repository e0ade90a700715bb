"""The command line of the infrastructure: `python -m infra --help`.

A command is a module with `main(argv) -> int`, which is imported when it is asked for and not before: the SDK of AWS
alone takes seconds.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from infra.errors import InfraError

COMMANDS: Final = {
    "plan": (
        "infra.plan",
        "what a stack would be: resources, policy findings, cost, picture; needs no account",
    ),
    "bootstrap": (
        "infra.bootstrap",
        "what a first deployment needs: the state's bucket and key, roles for CI",
    ),
    "validate": (
        "infra.validate",
        "the AWS provider's own validation, by terraform; and an apply to an emulator",
    ),
    "bundle": ("infra.bundle", "what the Lambda functions run, where it is missing or out of date"),
    "image": ("infra.image", "the image of the jobs: built and pushed, or copied from the stack before"),
    "migrate": ("infra.migrate", "the schema: alembic upgrade head as a task in the stack's VPC"),
    "checklist": ("infra.checklist", "the checks before and after a deployment"),
    "restore": ("infra.restore", "the database as it was at a point in time: beside it, or in its place"),
    "upgrade": ("infra.blue_green", "a major version of PostgreSQL by blue/green, step by step"),
    "adopt-instances": (
        "infra.adopt",
        "an exported stack, with the instances that took the place of others",
    ),
}
"""Name → module, what it does."""

USAGE: Final = "usage: python -m infra COMMAND …, and python -m infra COMMAND --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 it cannot go on, 2 wrong usage; others are its own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, *rest = arguments or [""]
    asked = name in ("", "-h", "--help")
    if not asked and name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"python -m infra: no command {name}: {hint}", file=sys.stderr)
        return 2
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for the life of the process)
    try:
        code = _help(0 if name else 2) if asked else importlib.import_module(COMMANDS[name][0]).main(rest)
        sys.stdout.flush()
    except InfraError as error:
        for line in str(error).splitlines():
            print(f"python -m infra {name}: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"python -m infra {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"python -m infra {name}: {error}", file=sys.stderr)
        # What is left to write would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _help(code: int) -> int:
    print(help_text())
    return code


def help_text() -> str:
    """All commands, a line each."""
    wide = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{wide}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([USAGE, "", *lines])
