"""What losses are timed on: made-up fields of the size of a usual batch, one load a kind of task.

A load holds what a task gives and a model predicts; what a loss derives from it is part of the loss's time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from harness.tasks import fields

Load = dict[str, torch.Tensor]

ITEMS, SECONDS, RATE = 8, 3.0, 16_000  # waveforms: 8 items of 3 s at 16 kHz
EMBEDDINGS, DIM, CLASSES, BOUNDARIES = 256, 128, 35, 2
STRINGS, FRAMES, SYMBOLS, TOKENS = 8, 300, 32, 40
SIZES = {"classes": CLASSES, "dim": DIM}


def waveforms(generator: torch.Generator) -> Load:
    """Noise in noise."""
    clean = 0.1 * torch.randn(ITEMS, round(SECONDS * RATE), generator=generator)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    return {"noisy": noisy, "clean": clean, "estimate": 0.8 * noisy}


def items(generator: torch.Generator) -> Load:
    """One class, one count and two boundaries an item."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(EMBEDDINGS, *shape, generator=generator)

    return {
        "embedding": normal(DIM),
        "logits": normal(CLASSES),
        "label": torch.randint(CLASSES, (EMBEDDINGS,), generator=generator),
        "rate": normal(),
        "count": torch.randint(7, (EMBEDDINGS,), generator=generator).float(),
        "boundary": normal(BOUNDARIES),
        "log_variance": normal(BOUNDARIES),
        "target_boundary": normal(BOUNDARIES),
    }


def strings(generator: torch.Generator) -> Load:
    """Tokens to be spelt in frames."""
    return {
        "log_probs": torch.randn(STRINGS, FRAMES, SYMBOLS, generator=generator).log_softmax(-1),
        "frame_lengths": torch.full((STRINGS,), FRAMES),
        "tokens": torch.randint(1, SYMBOLS, (STRINGS, TOKENS), generator=generator),
        "token_lengths": torch.full((STRINGS,), TOKENS),
    }


LOADS: tuple[Callable[[torch.Generator], Load], ...] = (waveforms, items, strings)
PREDICTED = ("estimate", "embedding", "logits", "rate", "boundary", "log_variance", "log_probs")


def load(needed: Collection[str], device: torch.device) -> Load:
    """The first load from which all of these fields can be had, or else the waveforms; what a model predicts has a gradient."""
    for make in LOADS:
        made = make(torch.Generator().manual_seed(0))
        if fields.available({*made, "parameters"}) >= set(needed):
            break
    else:
        made = waveforms(torch.Generator().manual_seed(0))
    moved = {name: tensor.to(device) for name, tensor in made.items()}
    return {name: tensor.requires_grad_(name in PREDICTED) for name, tensor in moved.items()}
