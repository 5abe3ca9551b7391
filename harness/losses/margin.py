"""Losses that ask for a margin between logits and are 0 beyond it. All take logits (batch, classes) and return (batch,)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from harness.losses.class_weights import ClassWeights, weight_tensor
from harness.losses.multi_label import signs
from harness.losses.registry import Range, loss


@loss(
    minimum=0.0, unit="logit", reference="Cortes & Vapnik 1995, Support-vector networks, Machine Learning 20", version=2
)
def hinge(
    logits: Tensor, targets: Tensor, *, pos_weight: Annotated[float, Range(0.01, 100.0, log=True)] = 1.0
) -> Tensor:
    """Mean over the classes of max(0, 1 - t l), t = 1 for a class that is there and -1 for another.

    logits, targets: (batch, classes), targets 0 or 1. Returns (batch,). pos_weight: of the classes that are there; absent /
    present keeps nets from calling all of many classes absent, which costs 2 / classes without it and is hard to leave.
    """
    apart = (1 - signs(targets) * logits).clamp(min=0)
    return (apart * (1 + (pos_weight - 1) * targets.to(logits.dtype))).mean(-1)


@loss(
    minimum=0.0,
    unit="logit^p",
    reference="Crammer & Singer 2001, On the algorithmic implementation of multiclass kernel-based vector machines, JMLR 2",
)
def multi_margin(
    logits: Tensor,
    label: Tensor,
    *,
    p: Literal[1, 2] = 1,
    margin: Annotated[float, Range(0.01, 10.0, log=True)] = 1.0,
    weight: ClassWeights = None,
) -> Tensor:
    """Sum over the wrong classes c of max(0, margin - l_y + l_c)^p, over the number of classes.

    logits: (batch, classes); label: (batch,). Returns (batch,). weight: of each class, multiplies the items of that class.
    """
    # PyTorch's multi_margin_loss has no kernel for the meta device, on which losses are checked for looks at values.
    violation = (margin - logits.gather(1, label[:, None]) + logits).clamp(min=0) ** p
    value = violation.scatter(1, label[:, None], 0.0).mean(-1)
    weights = weight_tensor("multi_margin.weight", weight, logits)
    return value if weights is None else weights[label] * value


@loss(minimum=0.0, unit="logit", reference="PyTorch, multilabel_margin_loss")
def multi_label_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over present classes i and absent classes j of max(0, 1 - (l_i - l_j)), over the number of classes.

    logits, targets: (batch, classes), targets 0 or 1. Returns (batch,): 0 where no class is there, or every one.
    """
    # PyTorch's takes lists of class indices, which a table of zeros and ones has to be sorted into.
    violation = (1 - logits[:, :, None] + logits[:, None, :]).clamp(min=0)
    return (violation * (targets[:, :, None] * (1 - targets)[:, None, :])).sum((1, 2)) / logits.shape[-1]
