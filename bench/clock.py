"""The clock of rows that compute in this process: processor time of one thread."""

import time
from collections.abc import Callable

import torch


def cpu_seconds(work: Callable[[], object]) -> float:
    """What ``work`` takes of one processor; with more threads, waiting would count as well."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        work()
        return time.process_time() - started
    finally:
        torch.set_num_threads(count)
