"""Losses on boundaries in time, such as onset and offset of a word: those that learn how sure each is, and their controls, which
do not.

boundary, target_boundary: (batch, boundaries), in a unit of the task's such as 50 ms; log_variance: (batch, boundaries), ln of
the predicted variance in that unit, squared. All return (batch,), the mean over the boundaries. log_variance is held to
±clamp, without which a boundary that is met exactly has no lower bound. A head for it starts at 0 (standard deviation of
the weights 1e-4, bias 0), where both are plain regression.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional

from harness.losses.registry import Range, loss

Clamp = Annotated[float, Range(1.0, 10.0)]


@loss(
    minimum=lambda clamp, **_: -clamp / 2,
    unit="nats",
    reference="He et al. 2019, Bounding box regression with uncertainty, arXiv 1809.08545",
)
def kl_box(
    boundary: Tensor,
    log_variance: Tensor,
    target_boundary: Tensor,
    *,
    clamp: Clamp = 7.0,
    scale: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0,
) -> Tensor:
    """exp(-A) smooth_l1(e) + A / 2, e the error of a boundary and A its log-variance.

    boundary, log_variance, target_boundary: (batch, boundaries). Returns (batch,) nats. scale: the error, in units of the
    boundaries, from which on it counts linearly. At A = 0 it is the smooth L1 loss. Least at A = ln e² for e up to 1, and at
    ln(2 e - 1) above. The formula of the paper; its code stops gradients between the two branches instead.
    """
    spread = log_variance.clamp(-clamp, clamp)
    error = functional.smooth_l1_loss(boundary / scale, target_boundary / scale, reduction="none")
    return ((-spread).exp() * error + spread / 2).mean(-1)


@loss(
    minimum=lambda clamp, **_: -clamp / 2,
    unit="nats",
    reference="Nix & Weigend 1994, Estimating the mean and variance of the target probability distribution, ICNN",
)
def gaussian_nll(boundary: Tensor, log_variance: Tensor, target_boundary: Tensor, *, clamp: Clamp = 7.0) -> Tensor:
    """Minus the log-likelihood of a boundary under a Gaussian, without its constant: (exp(-A) e² + A) / 2.

    boundary, log_variance, target_boundary: (batch, boundaries); A is log_variance, e the error. Returns (batch,) nats.
    """
    # Not PyTorch's gaussian_nll_loss, which looks at the variances and so makes a GPU wait.
    spread = log_variance.clamp(-clamp, clamp)
    return 0.5 * ((-spread).exp() * (target_boundary - boundary).square() + spread).mean(-1)


@loss(minimum=0.0, unit="unit²")
def boundary_mse(boundary: Tensor, target_boundary: Tensor) -> Tensor:
    """Mean squared error of the boundaries: `gaussian_nll` at one and the same variance.

    boundary, target_boundary: (batch, boundaries). Returns (batch,).
    """
    return (boundary - target_boundary).square().mean(-1)


@loss(minimum=0.0, unit="unit", reference="Girshick 2015, Fast R-CNN, ICCV")
def boundary_smooth_l1(
    boundary: Tensor, target_boundary: Tensor, *, beta: Annotated[float, Range(0.1, 10.0, log=True)] = 1.0
) -> Tensor:
    """Mean of e²/(2 beta) for errors e below beta, and of abs(e) - beta/2 above: `kl_box` at one and the same variance.

    boundary, target_boundary: (batch, boundaries). Returns (batch,). beta: in units of the boundaries.
    """
    return functional.smooth_l1_loss(boundary, target_boundary, beta=beta, reduction="none").mean(-1)
