"""Jobs: checks before a command is sent to a cluster, and following it remotely."""

from temper.cluster.jobs.checks import PlaceCheck, check_folder, check_head, check_storage
from temper.cluster.jobs.folder import Parcel, pack
from temper.cluster.jobs.follow import follow, last_lines, wait_for_end
from temper.cluster.jobs.head import Head, Job, connect
from temper.cluster.jobs.request import JobRequest

__all__ = [
    "Head",
    "Job",
    "JobRequest",
    "Parcel",
    "PlaceCheck",
    "check_folder",
    "check_head",
    "check_storage",
    "connect",
    "follow",
    "last_lines",
    "pack",
    "wait_for_end",
]
