"""Following a job remotely, also over a connection that breaks."""

import asyncio
import time
from collections.abc import Callable

from temper.cluster.jobs.head import Head, Job
from temper.errors import JobError

PATIENCE_S = 30.0
"""How long a head may not answer before following gives up."""
PAUSE_S = 0.3
NUM_LAST_LINES = 20


def follow(
    head: Head, submission_id: str, write: Callable[[str], None], *, patience_s: float = PATIENCE_S
) -> Job:
    """Pass each new piece of the job's log to ``write`` until the job is over; return how it ended.

    Raises:
        JobError: the head has not answered for ``patience_s`` seconds.
    """
    num_seen, heard = 0, time.monotonic()
    while True:
        try:
            job = head.look(submission_id)
            heard = time.monotonic()
            num_seen = asyncio.run(_tail(head, submission_id, num_seen, write))
            if job.is_over:
                return job
        except JobError as problem:
            if time.monotonic() - heard > patience_s:
                raise JobError(
                    f"{problem}; job {submission_id!r} ends with its head. Once a head is running, the same "
                    "`temper job submit` resumes from what --out holds"
                ) from None
        time.sleep(PAUSE_S)


async def _tail(head: Head, submission_id: str, num_seen: int, write: Callable[[str], None]) -> int:
    """Write what follows the first ``num_seen`` characters; return how many there are now.

    Ray sends a log from its beginning each time, and closes the connection when the job is over.
    """
    import aiohttp

    position = 0
    try:
        async for piece in head.client.tail_job_logs(submission_id):
            new = piece[max(0, num_seen - position) :]
            position += len(piece)
            if new:
                write(new)
    except (aiohttp.ClientError, OSError, RuntimeError):
        pass  # whether the head is gone, or only this connection, the next look will tell
    return max(num_seen, position)


def wait_for_end(head: Head, job: Job, patience_s: float) -> Job:
    """The job's state when it is over, or after ``patience_s`` seconds."""
    deadline = time.monotonic() + patience_s
    while not job.is_over and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
        job = head.look(job.submission_id)
    return job


def last_lines(log: str, count: int = NUM_LAST_LINES) -> list[str]:
    """The last lines of a log that are not empty."""
    return [line for line in log.splitlines() if line.strip()][-count:]
