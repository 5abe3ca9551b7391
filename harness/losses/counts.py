"""Losses on counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from harness.losses.registry import loss

LOG_RATE_LIMIT = 10.0  # of r, where a wild start would overflow


@loss(
    minimum=lambda deviance, **_: 0.0 if deviance else None,
    unit="nats",
    reference="Nelder & Wedderburn 1972, Generalized linear models, JRSS A",
)
def poisson_nll(
    rate: Tensor, count: Tensor, *, log_input: bool = True, full: bool = False, deviance: bool = False
) -> Tensor:
    """Minus the log-likelihood of counts k at Poisson rates exp(r): exp(r) - k r, without the term ln k!.

    rate: (batch,) ln of the expected count, or the expected count itself if not log_input; count: (batch,), at least 0.
    Returns (batch,) nats. r is held to ±10, where a wild start would overflow. full: with Stirling's ln k! for k above 1.

    The best value, k - k ln k, depends on the count and has no bound over all of them, so a combination that needs terms
    above a known minimum wants `deviance=True`: the same less its best (half the deviance of statistics), at least 0. A
    constant of the target in either case, so that the gradient is one and the same; `full` adds nothing to a deviance.
    """
    count = count.to(rate.dtype)
    limits = (math.exp(-LOG_RATE_LIMIT), math.exp(LOG_RATE_LIMIT))
    rate = rate.clamp(-LOG_RATE_LIMIT, LOG_RATE_LIMIT) if log_input else rate.clamp(*limits)
    value = functional.poisson_nll_loss(
        rate, count, log_input=log_input, full=full and not deviance, eps=0.0, reduction="none"
    )
    return value - (count - torch.xlogy(count, count)) if deviance else value


@loss(minimum=0.0, unit="count²")
def count_mse(rate: Tensor, count: Tensor) -> Tensor:
    """Squared distance of the expected count exp(r) from the count: what `mse` is to waveforms, the control of `poisson_nll`.

    rate: (batch,) ln of the expected count, held to at most 10; count: (batch,). Returns (batch,). Every count has one
    spread here, where that of a Poisson variable grows with it.

    Below an expectation of 1 the tangent 1 + r stands for exp(r), whose slope dies away: a rate that an early update drove
    down would stay there for ever. What lies below nothing is no error where nothing is there.
    """
    expected = torch.where(rate > 0, rate.clamp(0, LOG_RATE_LIMIT).exp(), 1 + rate)
    error = expected - count
    return torch.where(count > 0, error, error.clamp(min=0)).square()
