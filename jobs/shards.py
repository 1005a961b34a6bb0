"""`... python jobs/shards.py ARGUMENTS`: the same as `temper shards ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["shards", *sys.argv[1:]])
