"""The device that trainings run on: picked by name, and named in every figure."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from harness.errors import UserError


def device_name(device: torch.device) -> str:
    """The device as it stands in every figure: the processor's or the card's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.is_file()
        else []
    )
    return f"CPU {names[0] if names else platform.machine()}"


def pick_device(name: str) -> torch.device:
    """The device of that name ("auto": a GPU where there is one)."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: must be auto, cpu, cuda or cuda:<number>") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; try --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: must be auto, cpu, cuda or cuda:<number>")
    return device
