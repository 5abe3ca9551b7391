"""Weights learned as the inverse of each term's own uncertainty."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from harness.losses.combination import Combination
from harness.losses.weightings.registry import Weighting, usable, weighting
from harness.settings import Range

SPAN = 10.0  # of a log-variance around its start: a fixed bound would not be blind to the scale of a term
DELTA = 1e-3  # of the initial value, added to a term: at its minimum it would otherwise take all of the weight
MOST_DB = 300.0  # in the form `ratio`, within single precision


@weighting(
    minima=True,
    scale_free=True,
    unless={"s0": "zero"},  # a start that knows nothing of the terms: their scales count until s has made up for them
    reference="Kendall, Gal & Cipolla 2018, Multi-task learning using uncertainty to weigh losses, CVPR, arXiv 1705.07115",
)
class Uncertainty(Weighting):
    """sum of c_k exp(-s_k) L_k + s_k / 2 with learned s_k = ln sigma_k²; c is 1 for a loss on classes, else 1/2.

    L_k is the term above its minimum, plus 1e-3 of its initial value. For a constant L_k the optimum is s_k = ln(2 c_k L_k),
    where each first part is 1/2, so that in the end the sum of (ln L_k) / 2 is minimised, the geometric mean: the scale of a
    term has no meaning. Without the log a weight would fall to 0; without the minimum the total would have no lower bound.

    s0: s_k begins at ln of the initial L_k, or at zero; it is held within ±10 of there. rate: the learning rate of s over
    the model's, without weight decay. form: a term in dB is positive above its minimum (`shift`: then max_db is a hidden
    weight) or as the ratio 10^(L/10) of its batch mean (`ratio`: a factor on the dB themselves is then a power and no scale).
    """

    start: Tensor
    delta: Tensor
    share: Tensor
    decibels: Tensor

    def __init__(
        self,
        combination: Combination,
        *,
        s0: Literal["initial", "zero"] = "initial",
        rate: Annotated[float, Range(0.1, 1000.0, log=True)] = 10.0,
        form: Literal["shift", "ratio"] = "shift",
    ) -> None:
        super().__init__(combination)
        infos = [term.info for term in combination.terms]
        self.s0, self.rate = s0, rate
        self.register_buffer("share", torch.tensor([1.0 if i.classifies else 0.5 for i in infos]), persistent=False)
        ratio = torch.tensor([form == "ratio" and i.unit == "dB" for i in infos])
        self.register_buffer("decibels", ratio, persistent=False)
        self.register_buffer("start", torch.zeros(len(infos)))
        self.register_buffer("delta", torch.zeros(len(infos)))
        self.log_variance = nn.Parameter(torch.zeros(len(infos)))

    @torch.no_grad()
    def begin(self, terms: Tensor) -> None:
        self.delta.zero_()
        initial = usable(self.positive(terms))
        self.delta.copy_(DELTA * initial)
        self.start.copy_(initial.log() if self.s0 == "initial" else torch.zeros_like(initial))
        self.log_variance.copy_(self.start)

    def positive(self, terms: Tensor) -> Tensor:
        """The terms in the form that is weighed, (K,), above 0."""
        ratio = self.written * 10 ** (terms.clamp(max=MOST_DB) / 10)
        return torch.where(self.decibels, ratio, self.above_minimum(terms)) + self.delta

    def forward(self, terms: Tensor) -> Tensor:
        with torch.no_grad():
            self.log_variance.clamp_(self.start - SPAN, self.start + SPAN)
        s = self.log_variance
        return (self.share * (-s).exp() * self.positive(terms) + 0.5 * s).sum()

    def learning_rate(self, lr: float) -> float:
        return self.rate * lr

    def curves(self) -> dict[str, Tensor]:
        return {"log_variance": self.log_variance.detach()}
