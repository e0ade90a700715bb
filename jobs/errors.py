"""Errors whose text is written for the person at the terminal: what is wrong, where, what to do."""

from __future__ import annotations


class JobsError(Exception):
    """A mistake of the user or a state of the server. The CLI prints the text as one line, no traceback.

    `exit_code` is what the process ends with: 1 unless a subclass says otherwise.
    """

    exit_code = 1


class ConnectionLostError(JobsError):
    """The server cannot be reached right now: trying again later may help."""
