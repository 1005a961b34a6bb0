"""`... python jobs/leaderboard.py ARGUMENTS`: the same as `temper leaderboard ARGUMENTS`."""

import sys

from temper.cli import main

if __name__ == "__main__":
    main(["leaderboard", *sys.argv[1:]])
