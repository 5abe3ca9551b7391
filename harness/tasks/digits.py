"""Task `digits`: strings of one to six digits, judged by the share of tokens that are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.data.word_scenes import WordScenes
from harness.tasks.recognise import Recognise, rule_of
from harness.tasks.task import Fields


class Digits(Recognise):
    """An output is log_probs, (frames, symbols), the first frame_lengths of them: the best symbol of each, repeats and blanks
    (0) dropped, is what was heard. Token accuracy: 1 less the edit distance as a share of the string, at least 0."""

    name = "digits"
    given = ("noisy", "tokens", "token_lengths")
    predicted = ("log_probs", "frame_lengths")
    reference = "ctc"
    model = "crnn"
    rule = rule_of("digits")
    explained = "The control constant always hears the first digit, once."
    judged = ("token_accuracy",)
    watched = judged
    objectives = ("quality", *watched)

    def sizes(self, scenes: WordScenes) -> dict[str, int]:
        return {"symbols": len(scenes.classes) + 1}

    def constant(self, scenes: WordScenes) -> dict[str, np.ndarray]:
        """Always the first digit, once."""
        log_probs = np.log(np.eye(len(scenes.classes) + 1, dtype=np.float32)[[1]] + 1e-6)
        return {"log_probs": log_probs, "frame_lengths": np.array(1)}

    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        from torchmetrics.functional.text import edit_distance

        log_probs = output["log_probs"][: int(output["frame_lengths"])]
        if not np.isfinite(log_probs).all():
            return {"token_accuracy": np.nan}
        best = log_probs.argmax(-1)
        changes = best[np.diff(best, prepend=0) != 0]
        heard = "".join(chr(ord("a") + symbol) for symbol in changes[changes > 0])
        length = int(example["token_lengths"])
        said = "".join(chr(ord("a") + symbol) for symbol in example["tokens"][:length].tolist())
        return {"token_accuracy": max(0.0, 1 - float(edit_distance(heard, said)) / length)}
