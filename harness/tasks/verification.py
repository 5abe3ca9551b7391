"""Verification: are two items of one class? And detection: is an item of a known class at all? Error rates of whole sets."""

from __future__ import annotations

import numpy as np
import torch

from harness.data.scenes import seed_of

PAIRS = 2000  # of one class, at most, and as many of two


def pairs(label: np.ndarray, cluster: np.ndarray, most: int = PAIRS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of items that are verified: places of one and of the other, and whether both are of one class, (pairs,) each.

    label, cluster: (items,). As many pairs of one class as of two, drawn from all by a fixed seed, so that every training is
    asked the same. The items of a pair are of two clusters, for one voice, or one recording, is like itself whatever its class.
    """
    one, other = np.triu_indices(len(label), 1)
    apart = cluster[one] != cluster[other]
    one, other = one[apart], other[apart]
    same = label[one] == label[other]
    kinds = [np.flatnonzero(kind) for kind in (same, ~same)]
    count = min(most, *(len(kind) for kind in kinds))
    rng = np.random.default_rng(seed_of("verification"))
    chosen = np.concatenate([rng.permutation(kind)[:count] for kind in kinds])
    return one[chosen], other[chosen], same[chosen]


def equal_error_rate(score: np.ndarray, same: np.ndarray) -> float:
    """The rate of errors at the threshold where as many pairs of two classes are accepted as pairs of one are refused.

    score: (pairs,), higher for one class; same: (pairs,) bool, both kinds present. The curve of the two rates is interpolated
    between its points. Scores that are all alike have 0.5.
    """
    from torchmetrics.functional.classification import binary_roc

    accepted, kept, _ = binary_roc(torch.tensor(score), torch.tensor(same).long())
    gap = accepted + kept - 1  # from -1, where nothing is accepted, to 1
    place = int((gap >= 0).int().argmax())
    part = gap[place - 1] / (gap[place - 1] - gap[place])
    return float(accepted[place - 1].lerp(accepted[place], part))


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """How likely an item of a known class scores higher than one of an unknown class. known, unknown: (items,) scores."""
    from torchmetrics.functional.classification import binary_auroc

    target = torch.cat([torch.ones(len(known)), torch.zeros(len(unknown))]).long()
    return float(binary_auroc(torch.tensor(np.concatenate([known, unknown])), target))
