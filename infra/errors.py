"""What stops the program, as one line for a person."""

from __future__ import annotations


class InfraError(Exception):
    """Something the user can mend: what is wrong, where, and what to do."""


class SettingsError(InfraError):
    """The settings of a stack are wrong: one line for each of them."""
