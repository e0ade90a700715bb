"""`python -m infra`: see `python -m infra --help`."""

import gc
import sys

from infra.cli import main

# A command makes some 100 000 objects, lets few of them go, and ends: looking for cycles each 700 took a third of it.
gc.set_threshold(200_000, 50, 50)

if __name__ == "__main__":  # the process that draws imports this module too
    code = main()
    gc.freeze()  # else Python looks through all of them once more before it ends, for most of a second
    sys.exit(code)
