"""What the machine does beside a trial, sampled by a thread of its own: MLflow's UI draws it as system metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import torch

INTERVAL = 1.0  # seconds between the first samples
KEPT = 30  # samples at most: from there on every other one is dropped, and the interval doubled
Stamped = tuple[str, float, int, int]  # name, value, step, time in ms


@dataclass
class Usage:
    """Samples so far: (ms since 1970, values by name). Names that MLflow has too are called and measured as it does."""

    device: torch.device
    interval: float = INTERVAL
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    process: psutil.Process = field(default_factory=psutil.Process)

    def sample(self) -> None:
        """Processor (the machine's in percent of all its cores, this process's in percent of one) since the last sample, and
        memory in MB."""
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": psutil.virtual_memory().used / 1e6,
            "system/process_cpu_percentage": self.process.cpu_percent(),
            "system/process_memory_megabytes": self.process.memory_info().rss / 1e6,
        }
        if self.device.type == "cuda":
            values["system/gpu_memory_usage_megabytes"] = torch.cuda.memory_reserved(self.device) / 1e6
            with suppress(ModuleNotFoundError):  # torch asks NVIDIA's own package, nvidia-ml-py, which may not be there
                values["system/gpu_utilization_percentage"] = torch.cuda.utilization(self.device)
        self.rows.append((int(time.time() * 1000), values))
        if len(self.rows) > KEPT:
            del self.rows[::2]
            self.interval *= 2

    def points(self) -> list[Stamped]:
        """All samples for the store, numbered as they came."""
        return [(name, value, step, at) for step, (at, row) in enumerate(self.rows) for name, value in row.items()]


@contextmanager
def watched(device: torch.device) -> Iterator[Usage]:
    """Samples from here to the end of the block, and once more there."""
    usage, over = Usage(device), threading.Event()
    psutil.cpu_percent(), usage.process.cpu_percent()  # from where the first sample counts

    def keep() -> None:
        while not over.wait(usage.interval):
            usage.sample()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()
        usage.sample()
