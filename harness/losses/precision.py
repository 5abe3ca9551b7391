"""Losses in single precision, whatever the network around them runs in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.amp.autocast_mode import is_autocast_available


def in_float32(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`function` with half-precision tensors widened to float32 and autocast off; float32 and float64 pass as they are.

    An energy over a second of audio overflows float16, and bfloat16 has three digits where 30 dB need five.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> torch.Tensor:
        device = next((tensor.device.type for tensor in _tensors((*args, *kwargs.values()))), "cpu")
        with no_autocast(device):
            return function(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})

    return wrapped


def no_autocast(device: str) -> AbstractContextManager[object]:
    """Autocast off on a type of device. The meta device, which tells shapes without computing, knows none."""
    return torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()


def _widen(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, list | tuple):
        return [_widen(item) for item in value]
    return value


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
