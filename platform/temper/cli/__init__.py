"""The command line. Heavy packages are imported by the commands that need them, never here."""

import sys
from collections.abc import Sequence

import temper.cli.app
import temper.cli.comparison
import temper.cli.completion
import temper.cli.crossval
import temper.cli.evaluation
import temper.cli.examples
import temper.cli.fit
import temper.cli.job
import temper.cli.leaderboard
import temper.cli.models
import temper.cli.predict
import temper.cli.schema
import temper.cli.sweep
import temper.cli.training
import temper.cli.verification  # noqa: F401  # their commands enter the application as they are imported
from temper.addresses import in_words
from temper.cli.job_command import refuse_lost_results
from temper.cli.options import app
from temper.cli.show import console, write_any_name
from temper.credentials import shown
from temper.errors import Interrupted, TemperError, UsageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    write_any_name()
    try:
        refuse_lost_results(words)
        app(args=words, prog_name="temper")
    except Interrupted as problem:
        console.print(_escape(str(problem)), soft_wrap=True, highlight=False)
        sys.exit(130)
    except TemperError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to resume", highlight=False)
        sys.exit(130)
    except OSError as error:
        # A full disk or a folder without permission is the user's to mend, not a defect of ours.
        console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(shown(in_words(text)))
