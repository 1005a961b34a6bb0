"""The commands around the leaderboard: its pages, a server for them, and entries of a board folder."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from temper.cli.options import Json, Maker, Record, Sample, Verbose, app, here
from temper.cli.results import board_table
from temper.cli.show import finish, say, table_of
from temper.errors import UsageError

if TYPE_CHECKING:
    from temper.leaderboard import LeaderboardSummary
    from temper.verification import VerificationRecord


@app.command(
    epilog="Example: temper leaderboard runs --out leaderboard\n\n"
    "Example: temper leaderboard runs --compare old/leaderboard.json --pdf"
)
def leaderboard(
    results: Annotated[
        list[Path], typer.Argument(help="Run folders, sweep folders, or record files; also s3://.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder of the pages.")] = Path("leaderboard"),
    compare: Annotated[
        Path | None, typer.Option(metavar="OLD", help="An older leaderboard.json; show what changed since.")
    ] = None,
    require_verified: Annotated[
        bool, typer.Option("--require-verified", help="Rank only entries accepted by submit-entry.")
    ] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print leaderboard.pdf with a browser.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Log a table and an artifact to W&B.")] = False,
    project: Annotated[
        str | None, typer.Option(help="W&B project. [default: WANDB_PROJECT, or temper]")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Rank evaluated models on a page, from their records alone."""
    from temper.leaderboard import leaderboard as publish

    if project is not None and not wandb:
        raise UsageError("--project is that of W&B: add --wandb, or omit it")
    published = publish(results, here(out), compare=compare, require_verified=require_verified)
    board = published.summary
    _tell_unranked(board)
    finish(
        {"page": str(published.page), **board.model_dump(mode="json")},
        board_table(board),
        as_json=as_json,
    )
    say(f"leaderboard: {published.page}")
    _tell_published(board)
    if pdf:
        from temper.leaderboard.pdf import print_pdf

        print_pdf(published.page, out / "leaderboard.pdf")
        say(f"PDF: {out / 'leaderboard.pdf'}")
    if wandb:
        say(f"W&B: {_publish(board, out, project)}")


def _tell_unranked(board: "LeaderboardSummary") -> None:
    for problem in board.skipped:
        say(f"left out {problem.path}: {problem.reason}")
    for part in board.boards:
        for entry in (*part.blocked, *part.unverified):
            say(f"not ranked, {entry.status}: {entry.name}: {'; '.join(entry.reasons)}")


def _tell_published(board: "LeaderboardSummary") -> None:
    """How many results stand there that were not measured here; they alone are a page, but no ranking."""
    from temper.leaderboard.external import NOT_MEASURED

    number = sum(len(table.entries) for table in board.external)
    published = f"{number} published result{'' if number == 1 else 's'}"
    is_empty = not (board.boards or board.crossvals)
    if is_empty and board.skipped:
        beside = f"; the rest, {published}, was {NOT_MEASURED}" if number else ""
        say(f"error: the board is empty: all {len(board.skipped)} records were left out{beside}")
        raise typer.Exit(1)
    if number:
        alone = "; no model was measured here, so nothing is ranked" if is_empty else ""
        say(f"{published}, {NOT_MEASURED}: in grey, without a rank{alone}")


def _publish(board: "LeaderboardSummary", out: Path, project: str | None) -> str:
    from temper.leaderboard.exports import columns_of, to_rows
    from temper.tracking import publish_board

    names = ("index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.json", "leaderboard.schema.json")
    files = [out / name for name in names]
    return publish_board(out, files, columns_of(board), to_rows(board), project)


@app.command(epilog="Example: temper serve runs")
def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of runs, or a sweep.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Serve the leaderboard of a folder to a browser. Rebuilds it whenever its records change."""
    from temper.explain import build_report
    from temper.leaderboard.serve import BoardServer

    with BoardServer(here(folder), host=host, port=port, say=say, explain=build_report) as server:
        finish({"url": server.url}, table_of("leaderboard", ["what", "where"], [["page", server.url]]),
               as_json=as_json)  # fmt: skip
        if not server.is_local:
            say("anyone who can reach this machine can read the board and its records")
        say("press Ctrl-C to stop")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command(name="submit-entry", epilog="Example: temper submit-entry runs/medical board")
def submit_entry(
    record: Record,
    board: Annotated[Path, typer.Argument(metavar="BOARD_FOLDER", help="Where entries are kept.")],
    sample: Sample = 64,
    model: Maker = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Verify a record with its model and add it to a board. Copies the record and its small files."""
    from temper.leaderboard.submit import submit_entry as submit

    def verify(path: Path) -> "VerificationRecord":
        from temper.run.verify import verify_record

        return verify_record(path, num_sampled=sample, model=model, on_stage=say)

    folder, submission = submit(record, here(board), verify)
    rows = [[name, file.sha256[:16]] for name, file in submission.files.items()]
    finish(
        {"entry": str(folder), **submission.model_dump(mode="json")},
        table_of(
            f"{folder.name}: {len(submission.verification.checks)} checks passed", ["file", "SHA-256"], rows
        ),
        as_json=as_json,
    )
    say(f"entry: {folder}")


@app.command(
    name="import-entry",
    epilog="Example: temper import-entry robustbench/model_info/cifar10/Linf board",
)
def import_entry(
    info: Annotated[
        list[Path],
        typer.Argument(metavar="INFO", help="RobustBench's model_info files, or folders of them."),
    ],
    board: Annotated[Path, typer.Argument(metavar="BOARD_FOLDER", help="Where entries are kept.")],
    data: Annotated[str | None, typer.Option(help="Your boards' name for the data set of the files.")] = None,
    norm: Annotated[
        str | None, typer.Option(help="Norm of files outside a folder Linf, L2 or L1: linf, l2 or l1.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace entries of the same name whose content differs.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Import published results into a board folder. The leaderboard shows them in grey, without a rank."""
    from temper.leaderboard.import_entries import import_entries

    found = import_entries(info, here(board), data_name=data, norm=norm, overwrite=overwrite)
    for line in found.left_out:
        say(f"not imported: {line}")
    counts = {"added": found.added, "replaced": found.replaced, "unchanged": found.unchanged}
    rows = [[what, len(names)] for what, names in counts.items()]
    finish({"board": str(board), **counts, "left_out": found.left_out},
           table_of(str(board), ["published entries", "number"], rows),
           as_json=as_json)  # fmt: skip


@app.command(name="check-board", epilog="Example: temper check-board board")
def check_board(
    board: Annotated[Path, typer.Argument(metavar="BOARD_FOLDER", help="Where entries are kept.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check every entry of a board folder without its model. Exit code 1 if any has changed."""
    from temper.leaderboard.submit import check_board as check
    from temper.leaderboard.submit import is_external

    problems = check(here(board))
    external = [name for name in problems if is_external(board / name)]
    fine = dict.fromkeys(external, "not measured here")
    rows = [[name, "; ".join(found) or fine.get(name, "ok")] for name, found in problems.items()]
    table = table_of(str(board), ["entry", "state"], rows)
    finish(
        {"passed": not any(problems.values()), "entries": problems, "external": external},
        table,
        as_json=as_json,
    )
    if any(problems.values()):
        say(f"failed: {', '.join(name for name, found in problems.items() if found)}")
        raise typer.Exit(1)
