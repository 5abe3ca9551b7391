"""What the answers of a classifier add up to beyond accuracy: numbers only, tables and arrays in, tables and arrays out.

An answer is a row of the scores: label (the true class), said (the class of the highest logit) and confidence (the softmax of
that logit, whatever the loss trained). Where the net gave no finite logits, said is NaN: that is wrong, and no class.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness.tasks.classify import BINS

RAREST = 0.25  # of the classes, which the minority recall is a mean over


def confusion(answers: pd.DataFrame, classes: int) -> np.ndarray:
    """(classes, classes) per cent: of the items of each class (row), how many were said to be each class (column).

    A row sums to less than 100 where some items got no finite answer, and is NaN where a class has no item.
    """
    label, said = (answers[name].to_numpy(float) for name in ("label", "said"))
    given = np.isfinite(said)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (label[given].astype(int), said[given].astype(int)), 1)
    items = np.bincount(label.astype(int), minlength=classes)
    return 100 * np.divide(counts, items[:, None], out=np.full_like(counts, np.nan), where=items[:, None] > 0)


def recall(answers: pd.DataFrame, classes: int, imbalance: float = 1.0) -> float:
    """Mean over the classes of the share of a class's items that are right; with an imbalance above 1 over the rarest quarter
    of them, which are the last (a class is the rarer in training the later it comes). Classes without items are left out."""
    own = np.diag(confusion(answers, classes)) / 100
    rare = own[-max(1, round(RAREST * classes)) :] if imbalance > 1 else own
    return float(np.nanmean(rare)) if np.isfinite(rare).any() else np.nan


def calibration(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """How often the confident are right: one row for each bin of equal width that holds items, with their number (items), mean
    confidence and accuracy. The calibration error (Guo et al. 2017, arXiv 1706.04599) is the mean over the items of
    |accuracy - confidence| of their bin. confidence: (items,) in [0, 1]; right: (items,) bool."""
    sure, true = np.asarray(confidence, float), np.asarray(right, float)
    place = np.clip(np.digitize(sure, np.linspace(0, 1, bins + 1)) - 1, 0, bins - 1)
    table = pd.DataFrame({"bin": place, "confidence": sure, "accuracy": true, "items": 1})
    return table.groupby("bin").agg({"items": "sum", "confidence": "mean", "accuracy": "mean"}).reset_index(drop=True)


def principal(vectors: ArrayLike, components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Principal component analysis: (items, components) coordinates and (components,) shares of the variance.

    vectors: (items, dim). Each axis points to where its largest coordinate is, so that equal vectors give equal pictures.
    Components that the vectors do not have are 0.
    """
    given = np.asarray(vectors, float)
    centred = given - given.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), components))
    share = np.zeros(components)
    known = min(components, len(s))
    found[:, :known] = (u * s)[:, :known]
    share[:known] = s[:known] ** 2 / max(float((s**2).sum()), np.finfo(float).tiny)
    largest = found[np.abs(found).argmax(axis=0), np.arange(components)]
    return found * np.where(largest < 0, -1, 1), share


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (NaN for one seed) and number of the seeds' values. values: loss, metric, value, a row a seed."""
    return values.groupby(["loss", "metric"], sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
