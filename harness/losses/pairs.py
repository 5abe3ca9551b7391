"""Losses that compare an item with one or two others. All return (batch,), one value a pair, triplet or anchor.

Which items are compared is not the loss's business: they come as fields, and `harness.tasks.fields` picks them from a batch.
same: (batch,), 1 for a pair of one class and -1 for a pair of two.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.losses.embedding import NORM_FLOOR
from harness.losses.registry import Range, loss

Margin = Annotated[float, Range(0.01, 10.0, log=True)]


@loss(minimum=0.0, unit="cosine", reference="PyTorch, cosine_embedding_loss", version=2)
def cosine_embedding(
    embedding: Tensor, other: Tensor, same: Tensor, *, margin: Annotated[float, Range(-1.0, 1.0)] = 0.0
) -> Tensor:
    """1 - cosine for a pair of one class, max(0, cosine - margin) for a pair of two.

    embedding, other: (batch, dim); same: (batch,) 1 or -1. Returns (batch,). The cosine with a zero embedding is 0.
    """
    return functional.cosine_embedding_loss(embedding, other, same, margin=margin, reduction="none")


@loss(
    minimum=0.0,
    unit="squared distance / 2",
    reference="Hadsell, Chopra & LeCun 2006, Dimensionality reduction by learning an invariant mapping, CVPR",
    version=2,
)
def contrastive(embedding: Tensor, other: Tensor, same: Tensor, *, margin: Margin = 1.0) -> Tensor:
    """Half the squared distance D of a pair of one class, half max(0, margin - D)² for a pair of two.

    embedding, other: (batch, dim); same: (batch,) 1 or -1 (the paper's Y is 0 for a similar pair). Returns (batch,).
    """
    squared = (embedding - other).square().sum(-1)
    apart = (margin - (squared + NORM_FLOOR).sqrt()).clamp(min=0).square()
    return 0.5 * torch.where(same > 0, squared, apart)


@loss(minimum=0.0, unit="distance", reference="PyTorch, hinge_embedding_loss", version=2)
def hinge_embedding(distance: Tensor, same: Tensor, *, margin: Margin = 1.0) -> Tensor:
    """The distance of a pair of one class, max(0, margin - distance) for a pair of two.

    distance: (batch,), at least 0; same: (batch,) 1 or -1. Returns (batch,).
    """
    return functional.hinge_embedding_loss(distance, same, margin=margin, reduction="none")


@loss(minimum=0.0, unit="score", reference="PyTorch, margin_ranking_loss", version=2)
def margin_ranking(
    score: Tensor, other_score: Tensor, order: Tensor, *, margin: Annotated[float, Range(0.0, 10.0)] = 1.0
) -> Tensor:
    """max(0, margin - order (score - other_score)): which of two comes first, and by how much at least.

    score, other_score: (batch,); order: (batch,), 1 if score shall be the higher and -1 if the lower. Returns (batch,).
    PyTorch's margin is 0, with which equal scores, whatever is heard, are the minimum.
    """
    return functional.margin_ranking_loss(score, other_score, order, margin=margin, reduction="none")


@loss(minimum=0.0, unit="distance", reference="Schroff et al. 2015, FaceNet, CVPR, arXiv 1503.03832", version=2)
def triplet_margin(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: Margin = 1.0,
    p: Literal[1, 2] = 2,
    swap: bool = False,
) -> Tensor:
    """max(0, D(anchor, positive) - D(anchor, negative) + margin), D the distance in the p-norm.

    anchor, positive, negative: (batch, dim). Returns (batch,). swap: take D(positive, negative) where it is the smaller
    (Balntas et al. 2016). The paper squares its distances and normalises its embeddings; this is PyTorch's form.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        # PyTorch's own adds its eps to each difference, which gives two equal embeddings a slope apart.
        return (a - b).abs().sum(-1) if p == 1 else ((a - b).square().sum(-1) + NORM_FLOOR).sqrt()

    return functional.triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction="none"
    )
