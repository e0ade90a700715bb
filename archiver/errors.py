"""Errors whose text is written for a person: what is wrong, where, what to do."""

from __future__ import annotations


class ArchiverError(Exception):
    """A mistake of the user, or a state of AWS that the archiver cannot go on with. One line, no traceback."""

    exit_code = 1


class VerificationError(ArchiverError):
    """What S3 gave back is not what was sent: nothing is deleted for it."""


class RetriesExhaustedError(ArchiverError):
    """AWS went on throttling: what is done stays, a later run goes on."""
