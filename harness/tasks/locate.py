"""Task `locate`: when a word begins and ends, and which one it is, judged by the overlap of the stretches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.data.audio import BOUNDARY_SECONDS
from harness.data.word_scenes import WordScenes
from harness.tasks.recognise import Recognise, rule_of
from harness.tasks.task import Fields


class Locate(Recognise):
    """An output is the boundary, (2,), onset and offset in units of 50 ms, and the logits, (classes,).

    IoU: the length that the predicted stretch shares with the word, over that of both together.
    """

    name = "locate"
    given = ("noisy", "target_boundary", "label")
    predicted = ("boundary", "log_variance", "logits", "embedding")
    reference = "kl_box"
    model = "ds_cnn_locate"
    rule = rule_of("locate")
    explained = "The control constant always finds the first word, in the middle half of the clip."
    judged = ("iou", "accuracy")
    watched = ("iou", "accuracy")
    objectives = ("quality", "iou", "accuracy", "both")

    def sizes(self, scenes: WordScenes) -> dict[str, int]:
        return {"classes": len(scenes.classes)}

    def constant(self, scenes: WordScenes) -> dict[str, np.ndarray]:
        """The middle half of the clip, and the first word."""
        middle = np.array([0.25, 0.75]) * scenes.rule.seconds / BOUNDARY_SECONDS
        return {"boundary": middle, "logits": np.eye(len(scenes.classes))[0]}

    def selection(
        self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]
    ) -> float:
        """`quality`: the overlap, which every loss on boundaries trains. `both`: the mean of overlap and accuracy, for losses
        that train a word and its place together."""
        if objective == "both":
            return (means["iou"] + means["accuracy"]) / 2
        return means["iou" if objective == "quality" else objective]

    def metrics_of(self, objective: str) -> tuple[str, ...]:
        return ("iou",) if objective == "quality" else super().metrics_of(objective)

    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        (onset, offset), (first, last) = output["boundary"].astype(float), example["target_boundary"].tolist()
        shared = max(0.0, min(offset, last) - max(onset, first))
        iou = shared / (max(offset, last) - min(onset, first)) if offset > onset else 0.0
        finite = np.isfinite(output["boundary"]).all()
        logits = output["logits"]
        right = float(logits.argmax() == int(example["label"])) if np.isfinite(logits).all() else np.nan
        return {"iou": iou if finite else np.nan, "accuracy": right}
