"""Task `count`: how many words are said in a clip, judged by how often the nearest whole number is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.data.word_scenes import WordScenes
from harness.tasks.recognise import Recognise, rule_of
from harness.tasks.task import Fields


class Count(Recognise):
    """An output is the rate, the logarithm of the expected count."""

    name = "count"
    given = ("noisy", "count")
    predicted = ("rate",)
    reference = "poisson_nll"
    model = "ds_cnn_count"
    rule = rule_of("count")
    explained = "The control constant always counts the middle of what can be."
    judged = ("count_accuracy",)
    watched = judged
    objectives = ("quality", *watched)

    def constant(self, scenes: WordScenes) -> dict[str, np.ndarray]:
        """The middle of what can be."""
        return {"rate": np.log(np.mean(scenes.rule.words))}

    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        expected, count = float(np.exp(output["rate"].astype(float))), float(example["count"])
        if not np.isfinite(expected):
            return {"count_accuracy": np.nan, "count_error": np.nan}
        return {"count_accuracy": float(round(expected) == count), "count_error": abs(expected - count)}

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Mean absolute error of the expected count, in words."""
        if table["count_error"].isna().any():
            return {}  # the mean of what is left would reward an output that is not finite
        return {"count_error": float(table["count_error"].mean())}
