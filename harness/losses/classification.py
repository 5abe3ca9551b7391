"""Losses on one class per item.

logits: (batch, classes) before any softmax; label: (batch,) class index; all return (batch,). Class weights: see
`class_weights`, which says how to normalise them.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from harness.losses.class_weights import ClassWeights, weight_tensor
from harness.losses.registry import Range, loss

Gamma = Annotated[float, Range(0.0, 5.0)]
MISS_FLOOR = 1e-8  # least probability of a miss: its power has an infinite slope at 0 for exponents below 1


# With smoothing the true minimum is the entropy of the smoothed target, which depends on the number of classes (0.291 for
# label_smoothing=0.1 and three of them). That no setting tells, so 0 stays the bound.
@loss(
    minimum=0.0,
    unit="nats",
    reference="Szegedy et al. 2016, Rethinking the Inception architecture, CVPR (label smoothing)",
)
def cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    class_weights: ClassWeights = None,
    label_smoothing: Annotated[float, Range(0.0, 0.5)] = 0.0,
) -> Tensor:
    """Softmax loss: minus the log-probability of the class, times the weight of the class.

    logits: (batch, classes); label: (batch,). Returns (batch,) nats. label_smoothing: the share of the target that is spread
    evenly over all classes, each with the weight of its own.
    """
    weight = weight_tensor("cross_entropy.class_weights", class_weights, logits)
    return functional.cross_entropy(logits, label, weight, reduction="none", label_smoothing=label_smoothing)


@loss(minimum=0.0, unit="nats", reference="PyTorch, nll_loss")
def nll(log_probs: Tensor, label: Tensor, *, class_weights: ClassWeights = None) -> Tensor:
    """Negative log-likelihood: `cross_entropy` for a model that gives log-probabilities.

    log_probs: (batch, classes) from log_softmax, without which the value has no lower bound; label: (batch,). Returns
    (batch,) nats.
    """
    weight = weight_tensor("nll.class_weights", class_weights, log_probs)
    return functional.nll_loss(log_probs, label, weight, reduction="none")


@loss(minimum=0.0, unit="nats", reference="Kullback & Leibler 1951, On information and sufficiency, Ann. Math. Stat.")
def kl_div(logits: Tensor, target_prob: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the model's probabilities p from the target's q, sum of q (ln q - ln p).

    logits, target_prob: (batch, classes), rows of target_prob sum to 1. Returns (batch,) nats. For a target that is sure
    of its class it equals `cross_entropy`; for any other it is that without the target's entropy, a constant.
    """
    return functional.kl_div(logits.log_softmax(-1), target_prob, reduction="none").sum(-1)


@loss(
    minimum=0.0, unit="nats", reference="Lin J. 1991, Divergence measures based on the Shannon entropy, IEEE Trans. IT"
)
def js_div(logits: Tensor, target_prob: Tensor) -> Tensor:
    """Jensen-Shannon divergence: the mean divergence of target and model from the mean of the two, at most ln 2.

    logits, target_prob: (batch, classes), rows of target_prob sum to 1. Returns (batch,) nats. Bounded, so that a model that
    is surely wrong has almost no gradient.
    """
    ours = logits.log_softmax(-1)
    # In the domain of logarithms the mean of two probabilities that round to 0 still has one.
    theirs = target_prob.clamp(min=torch.finfo(target_prob.dtype).tiny).log()
    mean = torch.logaddexp(ours, theirs) - math.log(2)
    from_mean = [functional.kl_div(mean, side, reduction="none", log_target=True).sum(-1) for side in (ours, theirs)]
    return 0.5 * (from_mean[0] + from_mean[1])


@loss(minimum=0.0, unit="nats", reference="Lin et al. 2017, Focal loss for dense object detection, arXiv 1708.02002")
def focal(
    logits: Tensor, label: Tensor, *, gamma: Gamma = 2.0, alpha: Annotated[float, Range(0.01, 1.0, log=True)] = 1.0
) -> Tensor:
    """Cross entropy times alpha (1 - p)^gamma, p the probability of the class: what is known already counts less.

    logits: (batch, classes); label: (batch,). Returns (batch,) nats. gamma=0 and alpha=1 is `cross_entropy`, bit for bit.
    alpha: the paper's balance where it is the same for all classes, so that it scales the gradient and nothing else.
    """
    return alpha * focused(functional.cross_entropy(logits, label, reduction="none"), gamma)


def focused(nats: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma ln p from nats = -ln p, any shape."""
    return (-torch.expm1(-nats)).clamp(min=MISS_FLOOR).pow(gamma) * nats
