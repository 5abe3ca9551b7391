"""Losses on any number of classes per item, each decided by itself.

logits: (batch, classes) before any sigmoid; targets: (batch, classes), 1 for the classes that are there and 0 for the others;
all return (batch,). `bce_with_logits`, `soft_margin` and `multi_label_soft_margin` are three names of one function as long
as their settings are at their defaults: where they are ranked together, they must tie.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional

from harness.losses.class_weights import ClassWeights, weight_tensor
from harness.losses.classification import Gamma, focused
from harness.losses.registry import Range, loss


@loss(minimum=0.0, unit="nats", reference="PyTorch, binary_cross_entropy")
def bce(prob: Tensor, targets: Tensor, *, eps: Annotated[float, Range(1e-10, 1e-3, log=True)] = 1e-7) -> Tensor:
    """Mean over the classes of minus the log-probability that each is there, or is not.

    prob, targets: (batch, classes), prob from 0 to 1. Returns (batch,) nats, at most -ln eps. From a saturated sigmoid no
    gradient comes back: `bce_with_logits` is the same without this fault.
    """
    # Both sides have a floor of their own: 1 - 1e-7, the other side's ceiling, is no number of single precision.
    there, absent = prob.clamp(min=eps).log(), (1 - prob).clamp(min=eps).log()
    return -(targets * there + (1 - targets) * absent).mean(-1)


@loss(minimum=0.0, unit="nats", reference="PyTorch, binary_cross_entropy_with_logits")
def bce_with_logits(
    logits: Tensor, targets: Tensor, *, pos_weight: Annotated[float, Range(0.01, 100.0, log=True)] = 1.0
) -> Tensor:
    """`bce` of the sigmoid of logits, exact at any logit.

    logits, targets: (batch, classes). Returns (batch,) nats. pos_weight: of the classes that are there; absent / present
    items of the training set balances the two.
    """
    targets = targets.to(logits.dtype)
    weight = logits.new_full((), pos_weight)
    return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none").mean(-1)


@loss(minimum=0.0, unit="nats", reference="PyTorch, soft_margin_loss")
def soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the classes of ln(1 + exp(-t l)), t = 1 for a class that is there and -1 for another.

    logits, targets: (batch, classes). Returns (batch,) nats; `bce_with_logits` by another name.
    """
    # Not PyTorch's soft_margin_loss, whose exponential is infinite beyond 88.
    return -functional.logsigmoid(signs(targets) * logits).mean(-1)


@loss(minimum=0.0, unit="nats", reference="PyTorch, multilabel_soft_margin_loss")
def multi_label_soft_margin(logits: Tensor, targets: Tensor, *, class_weights: ClassWeights = None) -> Tensor:
    """`bce_with_logits` with a weight for each class.

    logits, targets: (batch, classes). Returns (batch,) nats.
    """
    weight = weight_tensor("multi_label_soft_margin.class_weights", class_weights, logits)
    return functional.multilabel_soft_margin_loss(logits, targets, weight, reduction="none")


@loss(minimum=0.0, unit="nats", reference="Lin et al. 2017, Focal loss for dense object detection, arXiv 1708.02002")
def binary_focal(
    logits: Tensor, targets: Tensor, *, gamma: Gamma = 2.0, alpha: Annotated[float, Range(0.01, 0.99)] = 0.25
) -> Tensor:
    """Sum over the classes of alpha_t (1 - p_t)^gamma (-ln p_t), p_t the probability of what is true of the class.

    logits, targets: (batch, classes). Returns (batch,) nats. alpha: alpha_t of a class that is there, 1 - alpha of another. It
    must be tuned with gamma: the more gamma takes from the many absent classes, the less weight the present ones need. A
    head whose bias starts at -ln((1 - pi) / pi), pi the share of the present classes, does not spend its first updates on it.
    """
    nats = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return (balance * focused(nats, gamma)).sum(-1)


def signs(targets: Tensor) -> Tensor:
    """1 where a class is there, -1 where it is not."""
    return 2 * targets - 1
