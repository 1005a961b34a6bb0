"""`... python jobs/sweep.py ARGUMENTS`: the same as `temper sweep ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
