"""Task `tags`: which one to three words are said over each other, judged by average precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
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
    explained = "The control constant finds every word as likely as any other."
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

        # In double precision, in which two sure words do not both round to a probability of 1.
        logits, targets = torch.tensor(output["logits"], dtype=torch.double), example["targets"].long()
        if not logits.isfinite().all():
            return {"average_precision": np.nan}
        precision = multilabel_ranking_average_precision(logits.sigmoid()[None], targets[None], len(targets))
        about = {f"logit_{word}": value for word, value in enumerate(logits.tolist())}
        about |= {f"target_{word}": value for word, value in enumerate(targets.tolist())}
        return {"average_precision": float(precision), **about}

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Mean over the words of the average precision with which the items are ranked by each."""
        from torchmetrics.functional.classification import multilabel_average_precision

        logits, targets = (
            torch.tensor(table.filter(regex=rf"^{name}_\d+$").to_numpy()) for name in ("logit", "target")
        )
        if not logits.numel() or logits.isnan().any():
            return {}
        precision = multilabel_average_precision(logits.sigmoid(), targets.long(), targets.shape[1], average="macro")
        return {"mean_average_precision": float(precision)}
