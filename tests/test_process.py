"""What a process of ours takes of the machine, seen in processes of their own."""

from __future__ import annotations

import subprocess
import sys


def told(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_libraries_that_are_loaded_and_those_that_will_be_have_as_many_threads_as_they_may() -> None:
    code = """
import numpy, threadpoolctl
from harness.process import limit_threads
limit_threads(1)
import scipy.linalg
print({(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()})
"""
    pools = eval(told(code))
    assert len(pools) >= 2  # NumPy's and SciPy's
    assert {threads for _, threads in pools} == {1}


UPDATES = """
import resource, numpy
faults = []
for update in range(12):
    buffers = [numpy.ones(500_000 * size) for size in (1, 5, 9)]  # of up to 36 MB
    del buffers
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[-1] - faults[1]) / 10)
"""


def test_memory_that_is_freed_is_kept_for_the_next_update() -> None:
    kept = float(told(f"from harness.process import keep_memory\nkeep_memory()\n{UPDATES}"))
    assert kept < 0.1 * float(told(UPDATES))
