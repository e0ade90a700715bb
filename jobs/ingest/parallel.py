"""Several files at once, each in a process of its own: parsing is what takes the time, and holds the interpreter."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from multiprocessing.queues import SimpleQueue

from rich.console import Console

from jobs.errors import JobsError
from jobs.ingest.load import AttributeCache
from jobs.ingest.report import BEGIN, Done, Progress, Report

Event = tuple[int, str]

_events: SimpleQueue[Event] | None = None


def run(url: str, args: argparse.Namespace, progress: Progress, done: Done, errors: Console) -> None:
    """Ingest the files of `args`, `args.jobs` at a time; the result is added to `done`.

    When one fails, those that were begun are finished, and no other is begun.
    """
    context = get_context("spawn")
    events: SimpleQueue[Event] = context.SimpleQueue()
    over = threading.Event()
    listener = threading.Thread(target=_listen, args=(events, progress, over), daemon=True)
    listener.start()
    progress.begin(f"{len(args.file)} files")
    done.at_once = True
    made: dict[str, Report] = {}
    try:
        with ProcessPoolExecutor(
            min(args.jobs, len(args.file)), mp_context=context, initializer=_begin, initargs=(events,)
        ) as pool:
            tasks = {pool.submit(_work, url, name, args): name for name in args.file}
            for task in as_completed(tasks):
                if task.cancelled():
                    continue
                try:
                    answer = task.result()
                except BrokenProcessPool:
                    answer = JobsError(
                        "a process of this ingest was killed: run it again, it goes on where it was"
                    )
                if isinstance(answer, Report):
                    made[tasks[task]] = answer
                    continue
                if done.failure is None:
                    done.failure = answer
                else:
                    errors.print(str(answer), markup=False, highlight=False, soft_wrap=True)
                for other in tasks:
                    other.cancel()
    finally:
        # Nothing is put into the queue from here: a process that was killed may have held its lock.
        over.set()
        listener.join(1)
    done.reports += [made[name] for name in args.file if name in made]


def _listen(events: SimpleQueue[Event], progress: Progress, over: threading.Event) -> None:
    while not over.is_set():
        if events.empty():
            over.wait(0.1)
        else:
            progress.lines(*events.get())


def _begin(events: SimpleQueue[Event]) -> None:
    """In a new process: prepare it, and have it end with the one that started it."""
    global _events
    from jobs.ingest.command import tune

    # Ctrl-C reaches all of us: the one that started us says so.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tune()
    _events = events
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(url: str, name: str, args: argparse.Namespace) -> Report | JobsError:
    from jobs.ingest.command import one_file

    def tell(lines: int, event: str) -> None:
        assert _events is not None
        if not event.startswith(BEGIN):
            _events.put((lines, event))

    try:
        return one_file(url, name, args, tell, lambda _text: None, AttributeCache())
    except JobsError as error:
        return JobsError(str(error))
