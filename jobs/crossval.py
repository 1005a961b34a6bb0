"""`... python jobs/crossval.py ARGUMENTS`: the same as `temper crossval ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["crossval", *sys.argv[1:]])
