"""`... python jobs/evaluate.py ARGUMENTS`: the same as `temper evaluate ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
