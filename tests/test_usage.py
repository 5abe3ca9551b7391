"""What a trial uses of the machine is sampled beside it, and stays little."""

from __future__ import annotations

import threading
import time

import psutil
import torch

from harness import usage

CPU = torch.device("cpu")


def test_a_block_is_sampled_while_it_runs_and_once_at_its_end() -> None:
    before = set(threading.enumerate())
    with usage.watched(CPU) as used:
        used.interval = 0.01
        deadline = time.monotonic() + 60
        while len(used.rows) < 2 and time.monotonic() < deadline:
            sum(range(10_000))
    assert not set(threading.enumerate()) - before
    points = used.points()
    names = {name for name, *_ in points}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} < names
    assert [step for name, _, step, _ in points if name == "system/process_memory_megabytes"] == list(
        range(len(used.rows))
    )
    times = [at for at, _ in used.rows]
    assert times == sorted(times)
    total = psutil.virtual_memory().total / 1e6  # a process counts mapped files as its own, and what is used does not
    assert 50 < used.rows[-1][1]["system/process_memory_megabytes"] < total
    assert 50 < used.rows[-1][1]["system/system_memory_usage_megabytes"] < total


def test_a_long_trial_keeps_as_few_samples_as_a_short_one() -> None:
    used = usage.Usage(CPU)
    for _ in range(500):
        used.sample()
    assert usage.KEPT / 2 <= len(used.rows) <= usage.KEPT
    assert used.interval >= 16


def test_a_block_that_fails_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    try:
        with usage.watched(CPU):
            raise RuntimeError
    except RuntimeError:
        pass
    assert not set(threading.enumerate()) - before
