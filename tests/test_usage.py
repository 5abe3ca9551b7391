"""What a trial uses of the machine is sampled beside it, and stays little."""

from __future__ import annotations

import threading
import time

import torch

from harness import usage

CPU = torch.device("cpu")


def test_a_block_is_sampled_while_it_runs_and_once_at_its_end() -> None:
    before = threading.active_count()
    with usage.watched(CPU) as used:
        used.interval = 0.01
        deadline = time.monotonic() + 60
        while len(used.rows) < 2 and time.monotonic() < deadline:
            sum(range(10_000))
    assert threading.active_count() == before
    points = used.points()
    names = {name for name, *_ in points}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} < names
    assert [step for name, _, step, _ in points if name == "system/process_memory_megabytes"] == list(
        range(len(used.rows))
    )
    times = [at for at, _ in used.rows]
    assert times == sorted(times)
    memory = used.rows[-1][1]["system/process_memory_megabytes"]
    assert 50 < memory < used.rows[-1][1]["system/system_memory_usage_megabytes"]


def test_a_long_trial_keeps_as_few_samples_as_a_short_one() -> None:
    used = usage.Usage(CPU)
    for _ in range(500):
        used.sample()
    assert usage.KEPT / 2 <= len(used.rows) <= usage.KEPT
    assert used.interval >= 16


def test_a_block_that_fails_leaves_no_thread() -> None:
    before = threading.active_count()
    try:
        with usage.watched(CPU):
            raise RuntimeError
    except RuntimeError:
        pass
    assert threading.active_count() == before
