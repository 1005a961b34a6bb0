"""`... python jobs/demo.py ARGUMENTS`: the same as `temper demo ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])
