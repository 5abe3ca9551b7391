"""Task `tags`: which one to three words are said over each other, judged by average precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from harness.data.word_scenes import WordScenes
from harness.tasks.recognise import Recognise, rule_of
from harness.tasks.task import Fields


class Tags(Recognise):
    """An output is an item's logits, (classes,). Its average precision is that of its own ranking of the words."""

    name = "tags"
    given = ("noisy", "targets")
    predicted = ("logits", "embedding")
    reference = "bce_with_logits"
    rule = rule_of("tags")
    judged = ("average_precision",)
    watched = judged
    objectives = ("quality", *watched)

    def sizes(self, scenes: WordScenes) -> dict[str, int]:
        return {"classes": len(scenes.classes)}

    def constant(self, scenes: WordScenes) -> dict[str, np.ndarray]:
        """Every word is as likely as any other."""
        return {"logits": np.zeros(len(scenes.classes), np.float32)}

    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        from torchmetrics.functional.classification import multilabel_ranking_average_precision

        logits, targets = torch.tensor(output["logits"])[None], example["targets"][None].long()
        if not logits.isfinite().all():
            return {"average_precision": np.nan}
        precision = multilabel_ranking_average_precision(logits.sigmoid(), targets, targets.shape[1])
        return {"average_precision": float(precision)}
