"""Derived fields: tensors that a loss may ask for and that follow from what a task gives. Made only when asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

_DERIVED: dict[str, Callable[..., torch.Tensor]] = {}


def derived(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Register a field under the function's name; its parameters are the fields that it is made from."""
    _DERIVED[function.__name__] = function
    return function


@derived
def estimates(estimate: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Estimated speech and what is left of the mixture, (batch, 2, samples)."""
    return torch.stack([estimate, noisy - estimate], 1)


@derived
def sources(clean: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Speech and noise, (batch, 2, samples)."""
    return torch.stack([clean, noisy - clean], 1)


def available(given: Collection[str]) -> set[str]:
    """All fields that can be had from the given ones."""
    names = set(given)
    while more := {
        name for name, f in _DERIVED.items() if name not in names and names >= set(inspect.signature(f).parameters)
    }:
        names |= more
    return names


def complete(fields: Mapping[str, Any], needed: Collection[str]) -> dict[str, Any]:
    """The fields with those of `needed` that have to be derived."""
    result = dict(fields)
    for name in needed:
        if name not in result and name in _DERIVED:
            parts = list(inspect.signature(_DERIVED[name]).parameters)
            result = complete(result, parts)
            result[name] = _DERIVED[name](*(result[part] for part in parts))
    return result
