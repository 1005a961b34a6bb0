"""`... python jobs/train.py ARGUMENTS`: the same as `temper train ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
