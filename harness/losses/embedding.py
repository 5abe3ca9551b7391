"""Losses on embeddings and class indices."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.losses.registry import Range, loss

NORM_FLOOR = 1e-12  # joins every squared norm: a zero embedding then has cosine 0 with all others, and a finite slope
SINE_FLOOR = 1e-7  # of the square


@loss(
    minimum=0.0,
    unit="squared distance / 2",
    reference="Wen et al. 2016, A discriminative feature learning approach for deep face recognition, ECCV",
    version=2,
)
class Center(nn.Module):
    """Half the squared distance of an embedding to the centre of its class.

    forward: embedding (batch, dim), label (batch,) class index; returns (batch,), measured to the centres as they are
    before this batch moves them. alpha: step of the centres, which are buffers that start at zero. While training each
    forward moves centre j by -alpha * sum over its items of (c_j - x_i) / (1 + n_j). That 1 + n_j is the paper's; a
    gradient step on a parameter does not reproduce it.
    """

    centers: Tensor

    def __init__(self, *, classes: int, dim: int, alpha: Annotated[float, Range(0.0, 1.0)] = 0.5) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("centers", torch.zeros(classes, dim))

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        # Only the label's own centre is gathered: the whole batch x class matrix costs memory and biases the value.
        away = embedding - self.centers[label].to(embedding.dtype)
        if self.training:
            self._move(away.detach(), label)
        return 0.5 * away.square().sum(-1)

    @torch.no_grad()
    def _move(self, away: Tensor, label: Tensor) -> None:
        # A product with the membership matrix, not index_add: the same bits on every run, also on a GPU.
        member = (torch.arange(len(self.centers), device=label.device)[:, None] == label).to(away.dtype)
        step = member @ away / (1 + member.sum(-1, keepdim=True))
        self.centers.add_(step.to(self.centers.dtype), alpha=self.alpha)


@loss(
    minimum=0.0,
    unit="nats",
    reference="Khosla et al. 2020, Supervised contrastive learning, arXiv 2004.11362",
    batchwise=True,
)
def supcon(
    embedding: Tensor, label: Tensor, *, temperature: Annotated[float, Range(0.01, 1.0, log=True)] = 0.1
) -> Tensor:
    """Supervised contrastive loss: each item is an anchor, the others of its class its positives.

    embedding: (batch, dim), normalised here; label: (batch,) class index. Returns (batch,) nats: minus the mean over
    positives p of ln softmax of z_i.z_p / temperature over all other items; at least ln(positives), and 0 for an
    anchor without a positive.
    """
    unit = normalised(embedding)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    # The lowest finite number, not -inf: alone in its batch an item has nothing else in its sum.
    similarity = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(unit.dtype).min)
    log_probs = similarity - similarity.logsumexp(-1, keepdim=True)
    positive = (label[:, None] == label) & ~itself
    return -log_probs.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)


@loss(minimum=0.0, unit="nats", reference="Deng et al. 2019, ArcFace, CVPR, arXiv 1801.07698")
class AamSoftmax(nn.Module):
    """Additive angular margin: cross entropy of scale * cosines to class vectors, the own class `margin` further away.

    forward: embedding (batch, dim), label (batch,) class index; returns (batch,) nats. weight: the class vectors, (classes,
    dim), learned with the model. margin: added to the angle, in radians; scale: one over the temperature. Embeddings and
    class vectors are normalised here.
    """

    def __init__(
        self,
        *,
        classes: int,
        dim: int,
        margin: Annotated[float, Range(0.0, 1.0)] = 0.2,
        scale: Annotated[float, Range(1.0, 100.0, log=True)] = 30.0,
    ) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_normal_(self.weight)

    def forward(self, embedding: Tensor, label: Tensor) -> Tensor:
        cosine = normalised(embedding) @ normalised(self.weight.to(embedding.dtype)).T
        # The slope of a sine is infinite at an angle of 0 and at pi.
        sine = ((1 - cosine.square()).clamp(min=0) + SINE_FLOOR).sqrt()
        further = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        # An angle that the margin would take beyond pi, where cosines rise again, pays a linear price.
        further = torch.where(cosine > -math.cos(self.margin), further, cosine - self.margin * math.sin(self.margin))
        own = torch.arange(cosine.shape[-1], device=label.device) == label[:, None]
        return functional.cross_entropy(self.scale * torch.where(own, further, cosine), label, reduction="none")


def normalised(vectors: Tensor) -> Tensor:
    """Vectors of length 1, (..., dim); a zero vector stays one."""
    return vectors / (vectors.square().sum(-1, keepdim=True) + NORM_FLOOR).sqrt()
