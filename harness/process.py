"""How a process of ours uses the machine: the threads of its libraries, and the memory that it keeps. Changes no result."""

from __future__ import annotations

import ctypes
import os

import threadpoolctl

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # as in malloc.h


def limit_threads(threads: int) -> None:
    """Let the libraries of this process use so many threads: those that are loaded, and those that will be.

    NumPy's OpenBLAS is loaded before anything of ours runs and would take a thread a core, which waits for the next product of
    matrices by turning in circles: on cores that are all in use it takes the time of another worker.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    threadpoolctl.threadpool_limits(threads)


def keep_memory() -> None:
    """Let glibc keep what is freed. Every update frees and takes the same buffers of a megabyte, which else go back to the
    system and come again as pages to be cleared, thousands an update: up to a quarter of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
