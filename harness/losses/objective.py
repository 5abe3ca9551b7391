"""The objective of a training: a combination under a weighting, from named fields to one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.losses.combination import Combination
from harness.losses.registry import build
from harness.losses.weighting import get_weighting


class Objective(nn.Module):
    """What is minimised. sizes: what the task knows (`classes`, `dim`), for losses with state."""

    def __init__(
        self, combination: Combination, weighting: str = "fixed", sizes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.combination = combination
        self.losses = nn.ModuleList(build(term.name, term.settings, sizes) for term in combination.terms)
        self.weighting = get_weighting(weighting)(combination)

    def forward(self, fields: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The total, a scalar to call backward on, and the raw batch mean of each term, (K,) without a graph."""
        # Not one mean over everything: an item counts the same however long it is.
        terms = torch.stack([loss(fields).mean() for loss in self.losses])
        return self.weighting(terms), terms.detach()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups for what is learned beside the model, at this rate: empty for losses without parameters."""
        learned = [parameter for parameter in self.losses.parameters() if parameter.requires_grad]
        weights = list(self.weighting.parameters())
        groups: list[dict[str, Any]] = [{"params": learned, "lr": lr}] if learned else []
        # Decay would pull a learned weight towards an arbitrary value.
        return groups + ([{"params": weights, "lr": lr, "weight_decay": 0.0}] if weights else [])
