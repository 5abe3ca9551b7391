"""Tasks whose outputs are numbers about a clip and not a waveform: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from harness.data.progress import Progress
from harness.data.word_scenes import TASKS, WordScenes, open_word_scenes
from harness.metrics import Scorer
from harness.tasks.task import Fields, Scores, Task

AT_ONCE = 64  # items of one forward pass


class Recognise(Task):
    """On `spoken_words`. An output is a dict of what the model gives for the item, as arrays; a control's is the same.

    A subclass says what a control would give, and how one output is measured.
    """

    reference = "cross_entropy"
    kind = "words"
    corpus = "spoken_words"
    model = "ds_cnn"
    controls: ClassVar[tuple[str, ...]] = ("constant",)

    def open(
        self, corpus: str, rule: Any, data_dir: Path | None, say: Callable[[str], None], progress: Progress
    ) -> Any:
        return open_word_scenes(self.name, corpus, rule, data_dir, say, progress)

    def classes(self, scenes: Any) -> tuple[str, ...]:
        return tuple(scenes.classes)

    def outputs(
        self, model: nn.Module, examples: Sequence[Fields], device: torch.device, batches: Callable[[int], Fields]
    ) -> list[Any]:
        model.eval()
        made = list(predictions(model, examples, device))
        model.train()
        return made

    def control(self, name: str, examples: Sequence[Fields], scenes: Any, model: type[nn.Module]) -> list[Any]:
        return [self.constant(scenes)] * len(examples)

    def constant(self, scenes: WordScenes) -> dict[str, np.ndarray]:
        """What a predictor gives that does not listen."""
        raise NotImplementedError  # only where `control` has others

    @abstractmethod
    def measure(self, output: Mapping[str, np.ndarray], example: Fields) -> dict[str, Any]:
        """Metrics of one item, and what else is to be known of it. NaN: the output makes the metric fail."""

    def score(
        self, outputs: Sequence[Any], examples: Sequence[Fields], names: Sequence[tuple[str, ...]], scorer: Scorer
    ) -> list[Scores]:
        scores = []
        for output, example, asked in zip(outputs, examples, names, strict=True):
            values = self.measure(output, example)
            floored = [name for name in asked if not np.isfinite(values.get(name, np.nan))]
            scores.append((values | dict.fromkeys(floored, 0.0), floored))
        return scores

    def selection(
        self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]
    ) -> float:
        """`quality`: the best of the watched metrics, because a loss may train one of two ways to answer."""
        return max(means[name] for name in self.watched) if objective == "quality" else means[objective]


def predictions(model: nn.Module, examples: Sequence[Fields], device: torch.device) -> Iterator[dict[str, np.ndarray]]:
    """What a model gives for clips of one length, a dict an item."""
    with torch.inference_mode():
        for start in range(0, len(examples), AT_ONCE):
            noisy = torch.stack([example["noisy"] for example in examples[start : start + AT_ONCE]]).to(device)
            given = {name: value.float().cpu().numpy() for name, value in model(noisy).items()}
            yield from ({name: value[place] for name, value in given.items()} for place in range(len(noisy)))


def rule_of(task: str) -> Any:
    """The rule that the scenes of a task on words are made by."""
    return TASKS[task].rule
