"""The jobs as a user runs them: `python -m jobs …` in processes of their own, ended by their pids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

from local.errors import LocalError
from local.place import CLONE

PATIENCE: Final = 30.0
"""Seconds that a process may take longer than it was asked to."""
LISTENS: Final = 10.0
"""Seconds in which it must end once it is told to."""


@dataclass(frozen=True)
class Jobs:
    """Runs jobs on one database."""

    url: str

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """What `python -m jobs ARGUMENTS` prints. Raises LocalError with its own words if it fails."""
        try:
            done = subprocess.run(
                command(*arguments),
                cwd=CLONE,
                env=self._environment(),
                input=stdin,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LocalError(
                f"python -m jobs {' '.join(arguments)} took longer than {PATIENCE:.0f} s"
            ) from None
        if done.returncode:
            raise LocalError(last_line(done.stderr) or f"python -m jobs {arguments[0]} failed")
        return done.stdout.decode()

    def run_json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """The same with --json, decoded."""
        return json.loads(self.run(*arguments, "--json", stdin=stdin))

    @contextmanager
    def worker(self) -> Iterator[Process]:
        """`python -m jobs worker` beside what is done meanwhile."""
        with ExitStack() as stack:
            process = self._start(stack, "worker")
            process.await_word(PATIENCE)
            yield process

    @contextmanager
    def stream(self, tenant: str, seconds: float) -> Iterator[tuple[Process, Process]]:
        """`python -m jobs telemetry … | python -m jobs ingest --json -`; gives both."""
        with ExitStack() as stack:
            source = self._start(
                stack, "telemetry", "--seconds", f"{seconds:g}", "--tenant", tenant, pipe=True
            )
            assert source.popen.stdout is not None
            sink = self._start(stack, "ingest", "--wait", "--json", "-", stdin=source.popen.stdout, pipe=True)
            # Ours is a copy: the sampler must notice when its reader is gone.
            source.popen.stdout.close()
            yield source, sink
            source.check(PATIENCE)

    def _start(
        self, stack: ExitStack, *arguments: str, stdin: IO[bytes] | None = None, pipe: bool = False
    ) -> Process:
        log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
        popen = subprocess.Popen(
            command(*arguments),
            cwd=CLONE,
            env=self._environment(),
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stderr=log,
        )
        process = Process(arguments[0], popen, log)
        stack.callback(process.stop)
        return process

    def _environment(self) -> dict[str, str]:
        return os.environ | {"DATABASE_URL": self.url}


@dataclass(frozen=True)
class Process:
    """One that was started and will be ended."""

    name: str
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    """What it says on standard error."""

    def check(self, patience: float = 0.0) -> None:
        """Raise LocalError if it has failed, or does not end within `patience` seconds if that is asked for."""
        if patience:
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                raise LocalError(f"python -m jobs {self.name} did not end") from None
        if self.popen.poll():
            self.log.seek(0)
            raise LocalError(last_line(self.log.read()) or f"python -m jobs {self.name} failed")

    def await_word(self, patience: float) -> None:
        """Return once it has said something: then it is at work. Raises LocalError."""
        deadline = time.monotonic() + patience
        while os.fstat(self.log.fileno()).st_size == 0:
            self.check()
            if time.monotonic() > deadline:
                raise LocalError(f"python -m jobs {self.name} has not begun within {patience:.0f} s")
            time.sleep(0.05)

    def output(self) -> Any:
        """What it printed, as JSON, once it has ended. Raises LocalError if it failed."""
        try:
            out, _ = self.popen.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise LocalError(f"python -m jobs {self.name} did not end") from None
        self.check()
        return json.loads(out)

    def stop(self) -> None:
        """End it: asked first, killed if it does not listen."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(LISTENS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()


def command(*arguments: str) -> list[str]:
    """`python -m jobs ARGUMENTS` with the Python that runs this."""
    return [sys.executable, "-m", "jobs", *arguments]


def last_line(stderr: bytes) -> str:
    """What a program said last, which is why it failed."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
