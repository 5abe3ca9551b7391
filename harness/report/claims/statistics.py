"""Statistics of claims that are no paired difference: the trend over an order, the chance of a mean rank. Pure, on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 2000


def trend(scores: ArrayLike) -> np.ndarray:
    """Least-squares slope per step of an order, seed by seed and item by item, after Page (1963): its sign is that of the
    correlation of scores with ranks.

    scores: (steps, seeds, items), in the order of the steps. Returns (seeds, items), in the metric's unit a step.
    """
    values = np.asarray(scores, dtype=float)
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return np.tensordot(steps, values, axes=1) / (steps**2).sum()


def mean_ranks(means: ArrayLike) -> np.ndarray:
    """Ranks by falling means, 1 the best and ties counting half, averaged over metrics. means: (..., metrics, losses). Returns
    (..., losses)."""
    m = np.asarray(means, dtype=float)
    higher = (m[..., None, :] > m[..., :, None]).sum(-1)
    equal = (m[..., None, :] == m[..., :, None]).sum(-1) - 1
    return (1 + higher + equal / 2).mean(axis=-2)


def resampled_means(scores: Sequence[np.ndarray], clusters: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Means of losses in DRAWS bootstrap samples of seeds and clusters, the same samples for all metrics.

    scores: of each metric (losses, seeds, items), of equal losses and seeds; clusters: of each metric (items,) names. Returns
    (draws, metrics, losses).
    """
    rng = np.random.default_rng(seed)
    names = np.unique(np.concatenate(list(clusters)))
    seeds = scores[0].shape[1]
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)
    of_clusters = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    found = []
    for values, own in zip(scores, clusters, strict=True):
        place = np.searchsorted(names, own)
        weights = of_clusters[:, place]  # (draws, items)
        total = np.einsum("ds,di,lsi->dl", of_seeds, weights, values, optimize=True)
        found.append(total / (seeds * np.maximum(weights.sum(1), 1))[:, None])
    return np.stack(found, axis=1)
