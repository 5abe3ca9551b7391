"""From "which pairs differ for certain" to letters and ranks.

Being tied is not transitive: A may tie with B and B with C while A beats C. So groups overlap, and the standard way to
print them is the compact letter display (Piepho 2004): two losses are tied exactly when they share a letter.
"""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import ArrayLike, NDArray


def letters(means: ArrayLike, beats: NDArray[np.bool_]) -> list[str]:
    """Compact letter display: one string per loss, e.g. ["a", "ab", "b"]; tied exactly when two share a letter.

    means: (losses,), higher is better. beats: (losses, losses), True where row is better than column for certain.
    Each letter is a set of losses all tied with one another. All such sets would do but can be exponentially many, so
    they are chosen greedily from the best mean down until every tie is covered (the edge clique cover of Gramm et al.
    2007).
    """
    order = np.argsort(-np.asarray(means, dtype=float), kind="stable")
    tied = ~(beats | beats.T)[np.ix_(order, order)]
    count = len(order)
    covered = np.zeros_like(tied)
    shown = [""] * count
    group = 0
    for first in range(count):
        for partner in range(first, count):
            if covered[first, partner] or not tied[first, partner]:
                continue
            members = [first, partner]
            # Ties not covered yet come first, so that each letter says as much as it can.
            rest = sorted(range(count), key=lambda k: (covered[first, k], k))
            for k in rest:
                if all(tied[k, member] for member in members) and k not in members:
                    members.append(k)
            covered[np.ix_(members, members)] = True
            for k in set(members):
                shown[order[k]] += _name(group)
            group += 1
    return shown


def _name(group: int) -> str:
    return string.ascii_letters[group % 52] + "'" * (group // 52)


def ranks(beats: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank = 1 + the number of losses that are better for certain: the best place the evidence still allows.

    beats: (losses, losses), True where row is better than column for certain. A loss that ties with everyone above it
    has rank 1, as they do; all losses of rank 1 are tied with one another. Two losses further down may share a rank
    without being tied (each beaten by as many others): the letters tell.
    """
    return 1 + beats.sum(axis=0).astype(np.int64)


def mid_ranks(beats: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rank with ties counting half: 1 + losses better for certain + half of those tied. For averages over metrics.

    `ranks` would be wrong there: it would reward a loss for scores so unsteady that nothing can be said against it.
    """
    count = len(beats)
    return (1 + count + beats.sum(axis=0) - beats.sum(axis=1)) / 2
