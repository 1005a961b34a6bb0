"""``python -m temper.cli ARGUMENTS``: the same as ``temper ARGUMENTS``, by whichever Python."""

from temper.cli import main

if __name__ == "__main__":
    main()
