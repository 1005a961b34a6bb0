"""What a process sets for itself: threads and memory of a CPU, and the arithmetic of a GPU."""

import ctypes
import os
import sys
from typing import Any

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
"""Parameters of glibc's ``mallopt``."""
KEPT = {MMAP_THRESHOLD: 256 * 2**20, TRIM_THRESHOLD: 2**30, TOP_PAD: 64 * 2**20}
"""Bytes: what is asked of the system at once, what a process keeps of its freed memory, and in what steps."""
OWN_WORDS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of the variables by which somebody has chosen an allocator, or how it works."""


def use_cpu(num_threads: int) -> None:
    """Compute with ``num_threads`` threads, and keep up to 1 GiB of freed memory for what comes next.

    glibc gives large activations back to the system and fetches them anew at every step, which takes 6 to
    12 % of a clean training step of a resnet20 at 32 px. Whoever has set its allocator keeps it so.
    """
    torch.set_num_threads(num_threads)
    if sys.platform != "linux" or any(name.startswith(OWN_WORDS) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        for parameter, value in KEPT.items():
            mallopt(parameter, value)


def use_gpu(*, uses_tf32: bool = False) -> None:
    """Compute on a GPU so that the same seed gives the same result, and in fp32 where fp32 is said.

    cuDNN takes its algorithms by rule and not by timing, and only such as add in one order. Without this,
    PyTorch multiplies in the convolutions of an fp32 network with 10 of the 23 bits (TF32).
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = uses_tf32
    torch.backends.cuda.matmul.allow_tf32 = uses_tf32


def choose_device(wanted: Any) -> torch.device:
    """The GPU where one is there and not refused; from now on this process computes on it in full fp32."""
    if not (wanted and torch.cuda.is_available()):
        return torch.device("cpu")
    use_gpu()
    return torch.device("cuda")
