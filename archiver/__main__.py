"""`python -m archiver`: see `python -m archiver --help`."""

import sys

from archiver.cli import main

sys.exit(main())
