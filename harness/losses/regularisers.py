"""Penalties on weights. The caller passes the weights that are to be penalised: no biases, no norm layers.

The weight in a combination, `1e-5*l2_penalty`, is the paper's lambda.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import UserError
from harness.losses.registry import loss


@loss(minimum=0.0, unit="weight", reference="Tibshirani 1996, Regression shrinkage and selection via the lasso, JRSS B")
def l1_penalty(parameters: Sequence[Tensor]) -> Tensor:
    """Sum of the absolute values of all weights. parameters: tensors of any shapes. Returns a scalar.

    Its slope at a weight of 0 is 0, and steps of a gradient method pass over 0: weights become small, never exactly zero.
    """
    return torch.stack([weight.abs().sum() for weight in _given("l1_penalty", parameters)]).sum()


@loss(
    minimum=0.0,
    unit="squared weight / 2",
    reference="Krogh & Hertz 1991, A simple weight decay can improve generalization",
)
def l2_penalty(parameters: Sequence[Tensor]) -> Tensor:
    """Half the sum of all squared weights. parameters: tensors of any shapes. Returns a scalar.

    Under Adam this equals the optimiser's `weight_decay`; AdamW's is decoupled from the gradient and is not the same.
    """
    return 0.5 * torch.stack([weight.square().sum() for weight in _given("l2_penalty", parameters)]).sum()


def _given(name: str, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    if not len(parameters):
        raise UserError(f"{name}: no weights were given in the field 'parameters'")
    return parameters
