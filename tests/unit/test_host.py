"""What a process sets for itself, seen from outside: in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

needs_glibc = pytest.mark.skipif(
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


@needs_glibc
def test_freed_memory_is_used_again() -> None:
    assert fetched_pages("ours") < PAGES / 2


ARITHMETIC = """
import sys, torch
from temper.host import use_gpu

use_gpu(uses_tf32=sys.argv[1] == "tf32")
print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
print(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
"""


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "False False"), ("tf32", "True True")])
def test_on_a_gpu_fp32_is_fp32_and_sums_have_one_order(precision: str, expected: str) -> None:
    command = [sys.executable, "-W", "error", "-c", ARITHMETIC, precision]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == [expected, "True False"]


@needs_glibc
def test_whoever_has_set_the_allocator_keeps_it_so() -> None:
    """Here by a limit beyond which each tensor is asked of the system."""
    theirs = {"MALLOC_MMAP_THRESHOLD_": "131072"}
    assert fetched_pages("torch", **theirs) >= STEPS * PAGES / 2
    assert fetched_pages("ours", **theirs) >= STEPS * PAGES / 2
