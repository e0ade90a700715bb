"""Errors whose text is written for the person at the terminal: what is wrong, where, what to do."""

from __future__ import annotations


class LocalError(Exception):
    """A state of this machine or a mistake of its user; the CLI prints its text and exits with 1."""


class ClusterError(LocalError):
    """A PostgreSQL cluster could not be made, started, stopped or read."""


class PortTakenError(ClusterError):
    """The cluster's TCP port on 127.0.0.1 belongs to another process."""
