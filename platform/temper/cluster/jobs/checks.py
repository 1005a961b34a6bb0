"""Checks before a job starts; each failure is one error that says what to do."""

import contextlib
import json
import shlex
import time
import uuid
from dataclasses import dataclass
from typing import Any

from temper.cluster.jobs.address import in_between, is_near, takes_anyone
from temper.cluster.jobs.folder import Parcel
from temper.cluster.jobs.follow import PAUSE_S, last_lines, wait_for_end
from temper.cluster.jobs.head import PROBE_MARK, Head
from temper.cluster.jobs.request import PROBE_ANSWER, JobRequest
from temper.errors import JobError, UsageError

MIB = 2**20
MAX_MIB = 100.0
"""Ray takes up to 512 MiB, compressed; what is larger than this is hardly code."""
NUM_LARGEST = 5
PROBE_PATIENCE_S = 300.0
"""For the job that looks at the storage: its environment may have to be made first."""
STOP_PATIENCE_S = 30.0
"""For that job to end after it was stopped."""
RETURN_PATIENCE_S = 5.0
"""For what was deleted to come back."""


@dataclass(frozen=True)
class PlaceCheck:
    """One check and its finding."""

    name: str
    found: str


def check_folder(parcel: Parcel, max_mib: float = MAX_MIB) -> PlaceCheck:
    """Check that the folder is small enough, and free of keys.

    Raises:
        UsageError: it is not.
    """
    found = f"{len(parcel.files)} files, {parcel.total / MIB:.1f} MiB"
    if parcel.total > max_mib * MIB:
        largest = ", ".join(f"{name} {size / MIB:.1f}" for name, size in parcel.largest(NUM_LARGEST))
        raise UsageError(
            f"{parcel.folder}: {found} would be sent, more than {max_mib:g} MiB; largest, in MiB: "
            f"{largest}. Exclude what the job does not need in .rayignore or in 'excludes' of "
            "jobs/runtime_env.yaml"
        )
    secrets = list(parcel.secrets())
    if secrets:
        name, reason = secrets[0]
        more = f" (and {len(secrets) - 1} more)" if len(secrets) > 1 else ""
        raise UsageError(
            f"{parcel.folder / name}: would be sent, and {reason}{more}; exclude it in .gitignore or "
            ".rayignore, and put keys on the nodes"
        )
    return PlaceCheck("folder", f"{found}, no keys in it")


def check_head(head: Head) -> PlaceCheck:
    """Check that the head asks for the token that it was given.

    Raises:
        JobError: it asks for none, although it is not on this machine.
    """
    version = getattr(head.client, "_server_ray_version", None) or "unknown"
    if not takes_anyone(head.address):
        return PlaceCheck("head", f"{head.address}, Ray {version}, token accepted")
    warning = (
        "requires no token: anyone who can reach it can run code there; start it with RAY_AUTH_MODE=token"
    )
    if not is_near(head.address):
        raise JobError(f"{head.address}: {warning}{in_between(head.address)}")
    return PlaceCheck("head", f"{head.address}, Ray {version}; warning: it {warning}")


def check_storage(head: Head, request: JobRequest) -> PlaceCheck:
    """Whether every node that is up can write where the result goes, sees what the others wrote, and finds
    what is read. A small job asks them.

    Raises:
        JobError: one can't, or the small job fails.
    """
    question = json.dumps({"out": request.out, "reads": request.reads})
    entrypoint = shlex.join(["python", "-m", "temper.cluster.jobs.probe", question])
    name = f"{request.id}-probe-{uuid.uuid4().hex}"
    try:
        job = head.start(name, entrypoint, request.full_runtime_env, {PROBE_MARK: request.id})
        job = wait_for_end(head, job, PROBE_PATIENCE_S)
        log = head.log(name)
    finally:
        _forget(head, name)
    answers = [line.removeprefix(PROBE_ANSWER) for line in log.splitlines() if line.startswith(PROBE_ANSWER)]
    if job.status != "SUCCEEDED" or not answers:
        said = " | ".join(last_lines(log, 3)) or job.message
        raise JobError(f"{head.address}: the job that checks the storage failed: {said}")
    return read_check(json.loads(answers[-1]), request)


def read_check(answer: dict[str, Any], request: JobRequest) -> PlaceCheck:
    nodes: list[dict[str, Any]] = answer["nodes"]
    for node in nodes:
        if node["write_error"] is None:
            raise JobError(f"node {node['node']}: does not respond; submit again once it is back or gone")
        if node["write_error"]:
            raise JobError(
                f"{request.out}: node {node['node']} can't write there ({node['write_error']}); --out must "
                "be storage that every node may write to"
            )
        if node["unseen"]:
            raise JobError(
                f"{request.out}: node {node['node']} does not see what other nodes wrote there; --out must "
                "be storage that they share, such as NFS, or s3://"
            )
        for purpose, path in node["unread"].items():
            raise JobError(f"{purpose}: node {node['node']} cannot find {path}")
    workers = sum(not node["is_head"] for node in nodes)
    who = (
        f"head and {workers} workers"
        if workers
        else "the head; no worker is running yet, so none was checked"
    )
    reads = f", {len(request.reads)} inputs found" if request.reads else ""
    return PlaceCheck("storage", f"{request.out} is written and seen by {who}{reads}")


def _forget(head: Head, name: str) -> None:
    """End the small job, if someone pressed Ctrl-C, and have the head delete it.

    Ray 2.60 watches a job for a second or two after its end, and writes one that it then misses back as
    failed, once: it is deleted twice.
    """
    with contextlib.suppress(JobError):
        if not (job := head.look(name)).is_over:
            head.stop(name)
            wait_for_end(head, job, STOP_PATIENCE_S)
    num_deleted, deadline = 0, time.monotonic() + RETURN_PATIENCE_S
    while num_deleted < 2 and time.monotonic() < deadline:
        with contextlib.suppress(JobError):
            head.delete(name)
            num_deleted += 1
        time.sleep(PAUSE_S)
