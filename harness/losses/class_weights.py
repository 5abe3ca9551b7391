"""Weights of classes, the setting that several losses share.

A weight multiplies, and nothing is divided by the sum of weights as PyTorch's batch mean does: each item has a value of its
own. Who sets weights normalises them, so that their mean over the items of the training set is 1: batch means then agree
in expectation with PyTorch's, and a learning rate keeps its meaning.
"""

from __future__ import annotations

import functools
from typing import Annotated

import torch
from torch import Tensor

from harness.errors import UserError
from harness.settings import Each, Range

ClassWeights = Annotated[tuple[float, ...] | None, Each("class", Range(0.0, 1000.0))]


def weight_tensor(setting: str, weights: tuple[float, ...] | None, logits: Tensor) -> Tensor | None:
    """(classes,) like logits (batch, classes), or None. setting: its full name, for the error if the number is wrong."""
    if weights is None:
        return None
    if len(weights) != logits.shape[-1]:
        raise UserError(f"{setting} needs one number for each of {logits.shape[-1]} classes, not {len(weights)}")
    return _constant(tuple(weights), logits.device, logits.dtype)


@functools.lru_cache(maxsize=32)  # a GPU waits for what is copied to it from Python
def _constant(numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in a backward pass later
        return torch.tensor(numbers, device=device, dtype=dtype)
