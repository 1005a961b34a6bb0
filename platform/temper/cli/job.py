"""The commands around jobs on a cluster: sending one, and what became of it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.cli.options import Json, Verbose, app
from temper.cli.show import complain, finish, say, table_of
from temper.credentials import shown
from temper.errors import Interrupted, JobError, UsageError

if TYPE_CHECKING:
    from temper.cli.job_command import Words
    from temper.cluster.jobs import Head, Job, JobRequest, PlaceCheck

STOP_PATIENCE_S = 120
"""Longer than a job has between being asked to end and being killed."""

jobs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run temper commands as jobs on a Ray cluster.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs, name="job")

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="URL of the head's dashboard. [default: RAY_ADDRESS, or http://127.0.0.1:8265]"
    ),
]
Name = Annotated[str, typer.Argument(metavar="ID", help="A job (its newest attempt), or a submission id.")]


@jobs.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: temper job submit --id digits -- sweep jobs/recipes/digits.yaml "
    "search_spaces/joint.yaml --out /shared/runs/digits",
)
def submit(
    words: Annotated[list[str], typer.Argument(metavar="-- COMMAND ...", help="The temper command to run.")],
    address: Address = None,
    name: Annotated[
        str | None, typer.Option("--id", help="Job id; the same id resumes. [default: from --out]")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job until it ends.")] = True,
    working_dir: Annotated[
        Path, typer.Option(help="Folder to send; a checkout of temper brings its own code.")
    ] = Path(),
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Environment variable; no secrets.")
    ] = None,
    max_mib: Annotated[
        float, typer.Option(min=0.1, help="Refuse to send a folder larger than this.")
    ] = 100.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything; start nothing.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check, submit and follow a job. Exits with the job's exit status. Submit it again to resume."""
    from temper.cli.job_command import parse_words

    head, request, checks = _checked(parse_words(words), name, working_dir.resolve(), env, max_mib, address)
    for check in checks:
        say(f"{check.name}: {check.found}")
    if dry_run:
        _show_plan(request, checks, as_json)
        return
    job = head.submit(request)
    say(f"job {job.submission_id} runs `{job.command}` into {request.out}")
    if not wait:
        say(_hints(job))
        _finish(head, job, as_json)
        return
    _follow_to_end(head, job, as_json)


@jobs.command(epilog="Example: temper job status digits")
def status(
    name: Annotated[str | None, typer.Argument(metavar="ID", help="A job. [default: all jobs]")] = None,
    address: Address = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show a job and the end of its log, or list all jobs."""
    from temper.cluster.jobs import connect

    head = connect(address)
    if name is not None:
        _finish(head, head.find(name), as_json)
        return
    found = head.jobs()
    rows = [[job.submission_id, job.status, _seconds(job), job.out or "–"] for job in found]
    table = table_of(f"{len(found)} jobs at {head.address}", ["job", "status", "time", "result"], rows)
    finish({"jobs": [_summary(job) for job in found]}, table, as_json=as_json)


@jobs.command(epilog="Example: temper job logs -f digits")
def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Print a job's log."""
    from temper.cluster.jobs import connect

    head = connect(address)
    job = head.find(name)
    if follow:
        _follow_to_end(head, job, as_json)
        return
    log = head.log(job.submission_id)
    if as_json:
        finish({**_summary(job), "log": shown(log)}, table_of("", [], []), as_json=True)
    else:
        typer.echo(shown(log), nl=False)


@jobs.command(epilog="Example: temper job stop digits")
def stop(name: Name, address: Address = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Stop a job. What it saved stays; submit it again with the same --id and --out to resume."""
    from temper.cluster.jobs import connect, wait_for_end

    head = connect(address)
    job = head.find(name)
    if job.is_over:
        say(f"job {job.submission_id} has already ended: {job.status.lower()}")
    else:
        head.stop(job.submission_id)
        job = wait_for_end(head, job, STOP_PATIENCE_S)
        if not job.is_over:
            raise JobError(
                f"job {job.submission_id}: still running {STOP_PATIENCE_S} s after the request to stop"
            )
        say(
            f"job {job.submission_id} is stopped; submit it again with --id {job.id} to resume from {job.out}"
        )
    _finish(head, job, as_json)


def _checked(
    words: "Words", name: str | None, working_dir: Path, env: list[str] | None, max_mib: float, at: str | None
) -> tuple["Head", "JobRequest", list["PlaceCheck"]]:
    """The head at ``at``, what it is asked to run, and what was found on the way."""
    from temper.cli.job_command import check_words
    from temper.cluster.jobs import check_folder, check_head, check_storage, connect, pack

    request = _request(words, name, working_dir, env or [])
    parcel = pack(request.working_dir, request.runtime_env.get("excludes", []))
    folder = check_folder(parcel, max_mib)
    request = request.model_copy(update={"reads": check_words(words, parcel)})
    head = connect(at)
    return head, request, [folder, check_head(head), check_storage(head, request)]


def _request(words: "Words", name: str | None, working_dir: Path, env: list[str]) -> "JobRequest":
    import re

    from temper.cluster.jobs.request import JobRequest, load_runtime_env
    from temper.spec import validate

    variables = dict(one.split("=", 1) for one in env if "=" in one)
    if len(variables) != len(env):
        raise UsageError(f"--env: expected NAME=VALUE, got {' '.join(env)}")
    document = {
        "id": name or re.sub(r"[^A-Za-z0-9_-]+", "-", words.out).strip("-")[-60:].strip("-_"),
        "words": words.sent,
        "out": words.out,
        "working_dir": working_dir,
        "runtime_env": load_runtime_env(working_dir, variables),
    }
    return validate(JobRequest, document, "job")


def _follow_to_end(head: "Head", job: "Job", as_json: bool) -> None:
    from temper.cluster.jobs import follow

    def write(piece: str) -> None:
        sys.stderr.write(shown(piece))
        sys.stderr.flush()

    try:
        job = follow(head, job.submission_id, write)
    except KeyboardInterrupt:
        raise Interrupted(f"job {job.submission_id} keeps running; {_hints(job)}") from None
    _finish(head, job, as_json)
    if job.status != "SUCCEEDED":
        raise typer.Exit(_exit_status(job))


def _finish(head: "Head", job: "Job", as_json: bool) -> None:
    """How it stands, its last lines, and where its result is."""
    from temper.cluster.jobs import last_lines

    lines = last_lines(shown(head.log(job.submission_id)))
    rows: list[list[object]] = [
        ["status", job.status.lower()],
        ["exit status", "–" if job.exit_status is None else job.exit_status],
        ["time", _seconds(job)],
        ["result", job.out or "–"],
    ]
    finish(
        {**_summary(job), "last_lines": lines},
        table_of(job.submission_id, ["job", ""], rows),
        as_json=as_json,
    )
    if job.status == "FAILED":
        reason = lines[-1] if lines else job.message
        code = f" with exit status {job.exit_status}" if job.exit_status is not None else ""
        complain(f"job {job.submission_id} failed{code}: {reason}")


def _exit_status(job: "Job") -> int:
    """The driver's own; 130 for a job that someone stopped, 1 for one that never started."""
    if job.status == "STOPPED":
        return 130
    return job.exit_status or 1


def _show_plan(request: "JobRequest", checks: list["PlaceCheck"], as_json: bool) -> None:
    rows = [[check.name, check.found] for check in checks]
    summary = {"job": request.id, "entrypoint": request.entrypoint, "out": request.out} | {
        check.name: check.found for check in checks
    }
    finish(
        summary, table_of(f"{request.id}: {request.entrypoint}", ["check", "found"], rows), as_json=as_json
    )


def _summary(job: "Job") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(job), "message": shown(job.message), "command": shown(job.command)}


def _seconds(job: "Job") -> str:
    return "–" if job.seconds is None else f"{job.seconds:.0f} s"


def _hints(job: "Job") -> str:
    return f"`temper job logs -f {job.id}` follows it, `temper job stop {job.id}` stops it"
