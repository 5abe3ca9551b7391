"""The objective of a training: a combination under a weighting, from named fields to one number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.losses.combination import Combination
from harness.losses.precision import no_autocast
from harness.losses.registry import build
from harness.losses.weightings import get_weighting

Example = tuple[
    Mapping[str, Any], Sequence[Tensor]
]  # fields, and those of them that a model outputs, as leaves of the graph


class Objective(nn.Module):
    """What is minimised: K terms under a weighting, given as its expression. sizes: what the task knows (`classes`, `dim`),
    for losses with state."""

    def __init__(
        self, combination: Combination, weighting: str = "fixed", sizes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.combination = combination
        self.losses = nn.ModuleList(build(term.name, term.settings, sizes) for term in combination.terms)
        chosen = get_weighting(weighting)
        self.begins, self.takes = chosen.info.begins, chosen.info.takes
        self.weighting = chosen.build(combination)
        self._shared: list[Tensor] = []
        self._weights: Tensor | None = None

    @property
    def prepares(self) -> bool:
        """Whether `prepare` has to be called before the first update."""
        return bool(self.begins) or "shared_gradients" in self.takes

    def prepare(self, examples: Iterable[Example], shared: Sequence[Tensor], updates: int) -> None:
        """Tell the weighting what it wants to know before the first update: the one place that waits for the device.

        examples: of the untrained model. shared: the parameters that all of its outputs depend on. updates: of the training.
        """
        self._shared = list(shared)
        told: dict[str, Any] = {"updates": updates}
        if {"terms", "output_gradients"} & set(self.begins):
            told |= self.initial(examples)
        with torch.no_grad():
            self.weighting.begin(**{name: told[name] for name in self.begins})

    def initial(self, examples: Iterable[Example]) -> dict[str, Tensor]:
        """`terms`, (K,) means of the raw terms, and `output_gradients`, (K,) means of the norms of their gradients by what the
        model outputs."""
        terms, gradients = [], []
        for fields, outputs in examples:
            each = self._terms(fields)
            terms.append(torch.stack(each).detach())
            gradients.append(norms(each, outputs))
        return {"terms": torch.stack(terms).mean(0), "output_gradients": torch.stack(gradients).mean(0)}

    def forward(self, fields: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The total, a scalar to call backward on, and the raw batch mean of each term, (K,) without a graph."""
        each = self._terms(fields)
        terms = torch.stack(each)
        if terms.requires_grad:
            # What arrives there in the backward pass is the weight that each term had, whatever the weighting.
            terms.register_hook(self._keep)
        more = {"shared_gradients": norms(each, self._shared)} if "shared_gradients" in self.takes else {}
        return self.weighting(terms, **more), terms.detach()

    def weights(self) -> Tensor:
        """What each raw term's gradient was multiplied by in the last backward pass, (K,)."""
        assert self._weights is not None, "no backward pass yet"
        return self._weights

    @property
    def followed(self) -> tuple[str, ...]:
        """What of each term is to be followed beside its value; nothing of a single loss."""
        return () if len(self.losses) == 1 else ("weight", *self.weighting.curves())

    def curves(self) -> list[Tensor]:
        """What is `followed`, as it was in the last backward pass, each (K,)."""
        return [self.weights(), *self.weighting.curves().values()] if self.followed else []

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups for what the losses learn beside the model, at this rate."""
        learned = [parameter for parameter in self.losses.parameters() if parameter.requires_grad]
        return [{"params": learned, "lr": lr}] if learned else []

    def weight_groups(self, lr: float) -> list[dict[str, Any]]:
        """The optimiser group of a weighting that learns, at its own rate; decay would pull a weight to an arbitrary value."""
        weights = list(self.weighting.parameters())
        return [{"params": weights, "lr": self.weighting.learning_rate(lr), "weight_decay": 0.0}] if weights else []

    def _terms(self, fields: Mapping[str, Any]) -> list[Tensor]:
        # Not one mean over everything: an item counts the same however long it is.
        return [loss(fields).mean() for loss in self.losses]

    def _keep(self, gradient: Tensor) -> None:
        self._weights = gradient


def norms(terms: Sequence[Tensor], at: Sequence[Tensor]) -> Tensor:
    """Norm of each term's gradient at these tensors, (K,); 0 where it does not depend on them."""
    each = []
    for term in terms:
        with no_autocast(term.device.type):  # as the backward pass of an update is
            found = torch.autograd.grad(term, at, retain_graph=True, allow_unused=True) if term.requires_grad else ()
        squares = [gradient.square().sum() for gradient in found if gradient is not None]
        each.append(torch.stack(squares).sum().sqrt() if squares else torch.zeros_like(term))
    return torch.stack(each).detach()
