"""The head of a cluster, as its job server answers over HTTP."""

import os
import time
from dataclasses import dataclass, field
from typing import Any

from temper.cluster.jobs.address import (
    check_reachable,
    choose,
    environment_variable,
    plain_errors,
    quiet_job_client,
)
from temper.cluster.jobs.request import JobRequest, next_free
from temper.errors import JobError, UsageError

PROBE_MARK = "temper_probe"
"""In the metadata of the small jobs of ``check_storage``."""
NO_AGENT = "No available agent"
AGENT_PATIENCE_S = 60
"""A head answers some seconds before it can start jobs."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """An attempt of a job, as the head knows it."""

    id: str
    submission_id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    command: str
    out: str | None
    message: str
    exit_status: int | None
    """Of its driver; above 128 a signal ended it."""
    started: float | None
    ended: float | None
    """Unix times in seconds."""

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    @property
    def seconds(self) -> float | None:
        return None if self.started is None or self.ended is None else self.ended - self.started


@dataclass(frozen=True)
class Head:
    """Talks with the job server at ``address``; every failure to do so is a JobError."""

    address: str
    client: Any = field(repr=False)

    def jobs(self) -> list[Job]:
        """All submitted jobs but those that only look at the storage, the oldest first."""
        with plain_errors(self.address):
            listed = self.client.list_jobs()
        found = [
            _job_of(one) for one in listed if one.submission_id and PROBE_MARK not in (one.metadata or {})
        ]
        return sorted(found, key=lambda job: job.started or 0)

    def find(self, name: str) -> Job:
        """The newest attempt of the job ``name``, or the attempt of that submission id.

        Raises:
            JobError: there is none.
        """
        jobs = self.jobs()
        for job in reversed(jobs):
            if job.id == name:
                return job
        for job in jobs:
            if job.submission_id == name:
                return job
        known = ", ".join(dict.fromkeys(job.id for job in reversed(jobs))) or "none"
        raise JobError(f"{self.address}: no job {name!r}; jobs here: {known}")

    def look(self, submission_id: str) -> Job:
        """The state of an attempt."""
        with plain_errors(self.address):
            return _job_of(self.client.get_job_info(submission_id))

    def log(self, submission_id: str) -> str:
        """Its whole log, as far as the head still has it."""
        with plain_errors(self.address):
            return str(self.client.get_job_logs(submission_id))

    def stop(self, submission_id: str) -> bool:
        """Ask it to end; whether it was running."""
        with plain_errors(self.address):
            return bool(self.client.stop_job(submission_id))

    def delete(self, submission_id: str) -> None:
        """Have the head forget a job that is over.

        Raises:
            JobError: it is still running, or there is none.
        """
        with plain_errors(self.address):
            self.client.delete_job(submission_id)

    def submit(self, request: JobRequest) -> Job:
        """Send the folder, where the head lacks it, and start the job's next attempt.

        Raises:
            JobError: an attempt of it is at work, or one wrote elsewhere.
        """
        jobs = self.jobs()
        attempts = [job for job in jobs if job.id == request.id]
        if attempts and not attempts[-1].is_over:
            raise JobError(
                f"job {request.id!r} is already {attempts[-1].status.lower()}: `temper job logs -f "
                f"{request.id}` follows it, `temper job stop {request.id}` stops it"
            )
        if attempts and attempts[-1].out not in (None, request.out):
            raise JobError(
                f"job {request.id!r} wrote to {attempts[-1].out} before, not to {request.out}: a "
                "resubmitted job resumes there; choose another --id for another --out"
            )
        submission_id = next_free(request.id, {job.submission_id for job in jobs})
        return self.start(submission_id, request.entrypoint, request.full_runtime_env, request.metadata)

    def start(
        self, submission_id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> Job:
        """Start any command in a folder that is sent. Waits for a head that has just come up."""
        deadline = time.monotonic() + AGENT_PATIENCE_S
        while True:
            try:
                with plain_errors(self.address):
                    self.client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=submission_id,
                        runtime_env=runtime_env,
                        metadata=metadata,
                    )
                break
            except JobError as problem:
                if NO_AGENT not in str(problem) or time.monotonic() > deadline:
                    raise
                time.sleep(1)
        return self.look(submission_id)


def connect(address: str | None = None) -> Head:
    """The head at ``address``, or at RAY_API_SERVER_ADDRESS, RAY_ADDRESS (if it is a URL), or this machine's.

    Raises:
        UsageError: RAY_AUTH_MODE is empty, or the address is none.
        JobError: nothing answers there, it is no head of Ray, or it does not take the token.
    """
    if os.environ.get("RAY_AUTH_MODE") == "":
        raise UsageError(
            "RAY_AUTH_MODE is empty, which silently turns authentication off: set 'token', or unset it"
        )
    url = choose(address)
    check_reachable(url)
    quiet_job_client()
    with plain_errors(url):
        from ray.job_submission import JobSubmissionClient

        with environment_variable("RAY_API_SERVER_ADDRESS", url):  # Ray prefers it to what it is told
            client = JobSubmissionClient(url)
    head = Head(url, client)
    head.jobs()
    return head


def _job_of(details: Any) -> Job:
    metadata = details.metadata or {}
    code = details.driver_exit_code
    return Job(
        id=metadata.get("temper_job", details.submission_id),
        submission_id=details.submission_id,
        status=str(details.status),
        command=metadata.get("command", details.entrypoint),
        out=metadata.get("out"),
        message=details.message or "",
        exit_status=code if code is None or code >= 0 else 128 - code,
        started=None if not details.start_time else details.start_time / 1000,
        ended=None if not details.end_time else details.end_time / 1000,
    )
