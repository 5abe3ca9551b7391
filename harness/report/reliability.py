"""Would the study have come out the same with other seeds? Agreement of rankings from disjoint halves of the seeds."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import pandas as pd

ENOUGH = 0.7
ENOUGH_SEEDS = 4
SPLITS = 200
SCORE = "score"  # of validation, by which rates are chosen


def spread(curves: pd.DataFrame, runs: pd.DataFrame) -> float:
    """Standard deviation over seeds of the last selection score, pooled over losses; NaN where not known. curves: as in `Results`;
    runs: run_id and name of confirmed ones."""
    if curves.empty:
        return float("nan")
    known = curves[curves["metric"] == SCORE].merge(runs[["run_id", "name"]], on="run_id").dropna(subset=["value"])
    last: pd.DataFrame = known.sort_values("step").drop_duplicates("run_id", keep="last")
    variances = last.groupby("name")["value"].var(ddof=1).dropna()
    return float(np.sqrt(variances.mean())) if len(variances) else float("nan")


def split_half(losses: dict[str, pd.DataFrame], beats: np.ndarray, order: list[str]) -> tuple[float, int]:
    """Mean Kendall tau-b between rankings from two disjoint halves of the seeds, and over how many pairs; below ENOUGH a ranking is
    preliminary.

    losses: name -> (seeds x items) scores. beats: (losses, losses), rows and columns in `order`, True where the whole
    study separates the pair: only those pairs are counted, because the order of tied losses is a coin toss by
    definition.
    Each pair is judged over the seeds that both have, because a race leaves some losses with fewer: of pairs with the same ones the
    mean is over all splits in halves (of 5: 2 against 3), or SPLITS of them, drawn from a fixed seed; then over the pairs. Those
    with fewer than ENOUGH_SEEDS in common are left out (a half needs two). NaN where none is left.
    """
    means = pd.DataFrame({name: losses[name].mean(axis=1) for name in order})  # seeds x losses
    values, known = means.to_numpy(), means.notna().to_numpy()
    alike: dict[bytes, list[tuple[int, int]]] = {}
    for i, j in zip(*np.nonzero(np.triu(beats | beats.T)), strict=True):
        both = known[:, i] & known[:, j]
        if both.sum() >= ENOUGH_SEEDS:
            alike.setdefault(both.tobytes(), []).append((i, j))
    agreed = [_agreement(values[np.frombuffer(both, bool)], np.array(pairs)) for both, pairs in alike.items()]
    counts = [len(pairs) for pairs in alike.values()]
    return float(np.average(agreed, weights=counts)) if counts else float("nan"), sum(counts)


def _agreement(values: np.ndarray, pairs: np.ndarray) -> float:
    """Mean over the splits. values: (seeds, losses); pairs: (pairs, 2), of losses that have all of these seeds."""
    one, other = pairs.T
    splits = _halves(len(values))
    return float(np.mean([tau_b(values[half].mean(0), values[rest].mean(0), one, other) for half, rest in splits]))


def _halves(seeds: int) -> list[tuple[list[int], list[int]]]:
    everyone = range(seeds)
    if seeds <= 10:
        # Of an even number each split comes twice, its halves exchanged; tau is the same, so keep those with seed 0.
        firsts = combinations(everyone, seeds // 2)
        chosen = [half for half in firsts if seeds % 2 or 0 in half]
    else:
        rng = np.random.default_rng(0)
        chosen = [tuple(rng.permutation(seeds)[: seeds // 2].tolist()) for _ in range(SPLITS)]
    return [(list(half), [s for s in everyone if s not in half]) for half in islice(chosen, SPLITS)]


def tau_b(a: np.ndarray, b: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b of two rankings over the given pairs; halves that see no order at all agree on nothing: 0."""
    first, second = np.sign(a[one] - a[other]), np.sign(b[one] - b[other])
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else 0.0
