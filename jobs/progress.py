"""What a long step says of its progress, for people: on stderr, with the time."""

from __future__ import annotations

import logging
import sys


def say_progress() -> None:
    """From now on."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("jobs").setLevel(logging.INFO)
