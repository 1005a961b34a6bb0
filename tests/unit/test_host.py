"""What a process that computes on a CPU sets for itself, seen from outside: in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told how to keep memory"
)

SIZE, COUNT, STEPS = 4 * 2**20, 8, 5
"""Floats of a tensor, tensors that a step keeps until its end, and steps."""
PAGES = COUNT * SIZE * 4 // os.sysconf("SC_PAGE_SIZE")
"""Of one step."""

SCRIPT = f"""
import resource, sys, torch
from temper.host import use_cpu

use_cpu(1) if sys.argv[1] == "ours" else torch.set_num_threads(1)


def step():
    return [torch.zeros({SIZE}) for _ in range({COUNT})]


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


for _ in range(3):
    step()
before = faults()
for _ in range({STEPS}):
    step()
print(faults() - before, torch.get_num_threads())
"""


def fetched_pages(side: str, **variables: str) -> int:
    """Pages that a few steps got from the system, after some others had given as many back."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, side]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=unset | variables)
    pages, threads = map(int, done.stdout.split())
    assert threads == 1
    return pages


def test_freed_memory_is_used_again() -> None:
    assert fetched_pages("ours") < PAGES / 2


def test_whoever_has_set_the_allocator_keeps_it_so() -> None:
    """Here by a limit beyond which each tensor is asked of the system."""
    theirs = {"MALLOC_MMAP_THRESHOLD_": "131072"}
    assert fetched_pages("torch", **theirs) >= STEPS * PAGES / 2
    assert fetched_pages("ours", **theirs) >= STEPS * PAGES / 2
