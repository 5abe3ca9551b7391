"""Losses on sequences of symbols."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness.losses.registry import loss


def impossible(tokens: Tensor, frame_lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """Which strings need more frames than they have: one for each token, and one for the blank between two of a kind. (batch,)."""
    place = torch.arange(1, max(tokens.shape[1], 1), device=tokens.device)
    again = (tokens[:, 1:] == tokens[:, :-1]) & (place < token_lengths[:, None])
    return token_lengths + again.sum(1) > frame_lengths


@loss(
    minimum=0.0,
    unit="nats",
    reference="Graves et al. 2006, Connectionist temporal classification, ICML",
    void=impossible,
)
def ctc(
    log_probs: Tensor,
    tokens: Tensor,
    frame_lengths: Tensor,
    token_lengths: Tensor,
    *,
    blank: Literal[0, -1] = 0,
    per_token: bool = True,
) -> Tensor:
    """Minus the log-probability of a token string, summed over its alignments to the frames.

    log_probs: (batch, frames, symbols) from log_softmax, whose gradient is the only one that is right; tokens: (batch,
    tokens) padded with anything; frame_lengths, token_lengths: (batch,), frames after the model's subsampling. Returns
    (batch,) nats, per token if `per_token` (an empty string counts as one token). A string that needs more frames than
    it has (its tokens plus one for each repeat) is impossible: value and gradient 0. Training counts them.

    blank: index of the blank symbol, the first or the last.
    """
    value = nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        tokens,
        frame_lengths,
        token_lengths,
        blank=blank % log_probs.shape[-1],
        reduction="none",
        zero_infinity=True,
    )
    return value / token_lengths.clamp(min=1).to(value) if per_token else value
