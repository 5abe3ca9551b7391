"""Estimators on arrays: how large a paired difference is, how sure that is, and which of many differences are real.

Seeds and items are both random: another seed would train another net, and another prompt would be another sentence. An
interval that resamples only one of them is too narrow. So every interval here
is a two-way one: crossed random effects of seed and cluster, after Cochran (1951) and Satterthwaite (1946).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
ALPHA = 0.05
FULL_SEEDS = 5  # of a full study: with fewer, intervals are too wide for a ranking to be more than preliminary


class Estimate(NamedTuple):
    """A mean, its standard error and degrees of freedom, of one shape. Error not known: se and df are NaN."""

    mean: Array
    se: Array
    df: Array


def two_way(values: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Mean over seeds and items with the standard error of crossed random effects of seed and cluster.

    values: (..., seeds, items), in the metric's unit: paired differences, or the scores of one loss (marginal
    interval).
    clusters: (items,) names; items of one name are averaged, because the same words said twice are not two samples.
    Returns an Estimate of shape (...).

    The mean is the plain mean over items. Clusters of unequal size enter through linearised cluster values
    ``y = mean + (size / mean size) * (cluster mean - mean)``, whose plain mean is that same mean. With S seeds, C
    clusters and the mean squares of the two-way layout, ``se^2 = (MS_seed + MS_cluster - MS_interaction) / (S * C)``.

    Guard: a mean square below that of the interaction is raised to it, which is to set a negative variance component to
    zero; so se^2 is never negative and never below what either factor alone would give.
    Items with a NaN anywhere are dropped. With one seed or one cluster that factor's variance cannot be known: se and
    df are NaN. Something without a seed (a control) is given as two equal rows: this is then the one-way interval over
    clusters.
    """
    values = np.asarray(values, dtype=float)
    *batch, seeds, _ = values.shape
    keep = ~np.isnan(values).any(axis=tuple(range(values.ndim - 1)))
    values, (_, cluster, sizes) = (
        values[..., keep],
        np.unique(np.asarray(clusters)[keep], return_inverse=True, return_counts=True),
    )
    items, count = values.shape[-1], len(sizes)
    unknown = np.full(batch, np.nan)
    if items == 0 or seeds == 0:
        return Estimate(unknown, unknown, unknown)
    mean = values.mean(axis=(-2, -1))
    if seeds < 2 or count < 2:
        return Estimate(mean, unknown, unknown)

    member = np.zeros((items, count))
    member[np.arange(items), cluster] = 1 / sizes[cluster]
    deviation = (values @ member - mean[..., None, None]) * sizes / (items / count)  # (..., seeds, clusters)
    by_seed = deviation.mean(axis=-1, keepdims=True)
    by_cluster = deviation.mean(axis=-2, keepdims=True)
    df = np.array([seeds - 1, count - 1, (seeds - 1) * (count - 1)])
    ms_interaction = ((deviation - by_seed - by_cluster) ** 2).sum(axis=(-2, -1)) / df[2]
    ms_seed = np.maximum(count * (by_seed**2).sum(axis=(-2, -1)) / df[0], ms_interaction)
    ms_cluster = np.maximum(seeds * (by_cluster**2).sum(axis=(-2, -1)) / df[1], ms_interaction)

    total = ms_seed + ms_cluster - ms_interaction
    spread = ms_seed**2 / df[0] + ms_cluster**2 / df[1] + ms_interaction**2 / df[2]
    # No variance at all (a loss against itself): any df will do, because the interval is a point.
    satterthwaite = np.divide(total**2, spread, out=np.full_like(total, float(df[2])), where=spread > 0)
    return Estimate(mean, np.sqrt(total / (seeds * count)), np.maximum(satterthwaite, 1.0))


def interval(estimate: Estimate, alpha: ArrayLike = ALPHA) -> tuple[Array, Array]:
    """Two-sided t interval of level 1 - alpha. Returns low and high, in the estimate's unit and shape."""
    half = stats.t.ppf(1 - np.asarray(alpha) / 2, estimate.df) * estimate.se
    return estimate.mean - half, estimate.mean + half


def p_value(estimate: Estimate) -> Array:
    """Two-sided p-value of "the mean is 0". Without any variance it is 0, or 1 for a mean of exactly 0."""
    mean, se, df = (np.asarray(x, dtype=float) for x in estimate)
    t = np.divide(np.abs(mean), se, out=np.where(mean == 0, 0.0, np.inf), where=se != 0)
    return np.where(np.isnan(se), np.nan, 2 * stats.t.sf(t, df))


def holm(p: ArrayLike, alpha: float = ALPHA, weights: ArrayLike = 1.0) -> tuple[Array, Array]:
    """Holm's step-down correction (1979) for all pairs of a table: adjusted p-values and the level each was judged at.

    p: (tests,) p-values; NaN = not tested, not counted. weights: (tests,) or one for all: what share of alpha each test gets, as
    in Holm's weighted form. Returns two (tests,) arrays. `levels` are the alphas for which an interval excludes 0 exactly when
    ``adjusted < alpha``: of equal weights the j-th smallest of m is judged at alpha / (m - j + 1), and all from the first one that
    fails at the level at which that one failed.
    """
    p = np.asarray(p, dtype=float)
    adjusted, levels = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    share = np.broadcast_to(np.asarray(weights, dtype=float), p.shape)
    order = tested[np.argsort(p[tested] / share[tested], kind="stable")]
    if len(order):
        left = np.cumsum(share[order][::-1])[::-1]  # the weight of a test and of all that come after it
        adjusted[order] = np.minimum(np.maximum.accumulate(left * p[order] / share[order]), 1.0)
        rejected = int((adjusted[order] < alpha).sum())  # the first so many: adjusted p-values never fall
        levels[order] = alpha * share[order] / left[np.minimum(np.arange(len(order)), min(rejected, len(order) - 1))]
    return adjusted, levels


def win_probability(differences: ArrayLike) -> float:
    """P(A beats B): share of (seed, item) pairs on which A scores higher, ties counting half.

    differences: (seeds, items) of A - B, NaN = missing. The probability of improvement of Agarwal et al. (2021,
    rliable), except that seeds stay paired, as everywhere here: equal seeds saw the same batches from the same initial
    weights.
    """
    known = np.asarray(differences, dtype=float)
    known = known[~np.isnan(known)]
    won, even = np.count_nonzero(known > 0), known.size - np.count_nonzero(known)
    return (won + 0.5 * even) / known.size if known.size else float("nan")
