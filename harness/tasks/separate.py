"""Task `separate`: two people talk at once, and each is wanted by himself; judged by SI-SDR improvement, PESQ and ESTOI.

Which output is whom is for the model to choose: losses and metrics take the order that suits best. A talker who is silent is
judged by how silent his output is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness import metrics
from harness.data.progress import Progress
from harness.data.scenes import SceneRule
from harness.data.talker_scenes import TalkerRule, TalkerScenes, open_talker_scenes
from harness.tasks import masks
from harness.tasks.denoise import Denoise, keep_clips
from harness.tasks.task import Fields, Judged, Scores

Clips = np.ndarray
TALKERS = 2


class Separate(Denoise):
    """An output holds the estimate of each talker, (2, samples)."""

    name = "separate"
    given = ("noisy", "sources")
    predicted = ("estimates",)
    model = "gru_mask_pair"
    rule = TalkerRule
    picked = False
    judged = (metrics.IMPROVEMENT, "pesq_wb", "estoi")
    watched = judged
    quality = ((metrics.IMPROVEMENT, "oracle_psm"), ("pesq_wb", "oracle_mask"), ("estoi", "oracle_mask"))
    objectives = ("quality", *watched)
    explained = (
        "The control unprocessed gives the mixture for each talker. The oracle rows show the ceiling of a mask: of each talker the "
        "ideal magnitude mask with the phase of the mixture, and the phase-sensitive mask."
    )

    @property
    def offered(self) -> set[str]:
        """A loss of one estimate is asked about each talker by himself."""
        return {*super().offered, "estimate", "clean"}

    @property
    def rules(self) -> dict[str, type[SceneRule]]:
        return {"speech": TalkerRule}

    def open(
        self, corpus: str, rule: Any, data_dir: Path | None, say: Callable[[str], None], progress: Progress
    ) -> TalkerScenes:
        return open_talker_scenes(corpus, rule, data_dir, say, progress)

    def sizes(self, scenes: Any) -> dict[str, int]:
        return {"talkers": TALKERS}

    def control(self, name: str, examples: Sequence[Fields], scenes: Any, model: type[nn.Module]) -> list[Clips]:
        mask_max = getattr(model, "mask_max", 1.0)

        def of(noisy: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
            return noisy if name == "unprocessed" else masks.ideal(name, noisy, source, mask_max)

        return [
            torch.stack([of(example["noisy"], source) for source in example["sources"]]).numpy() for example in examples
        ]

    def score(
        self,
        outputs: Sequence[Clips],
        examples: Sequence[Fields],
        names: Sequence[tuple[str, ...]],
        scorer: metrics.Scorer,
    ) -> list[Scores]:
        """Of each item the means over those who talk."""
        orders = [best_order(output, example) for output, example in zip(outputs, examples, strict=True)]
        ordered = [output[list(order)] for output, order in zip(outputs, orders, strict=True)]
        jobs = []
        for output, example, asked in zip(ordered, examples, names, strict=True):
            clips = tuple(dict.fromkeys("si_sdr" if name == metrics.IMPROVEMENT else name for name in asked))
            jobs.append([(output[talker], example["sources"][talker].numpy(), clips) for talker in talking(example)])
        flat = [job for own in jobs for job in own]
        scored = iter(scorer(*map(list, zip(*flat, strict=True))) if flat else ())
        return [
            self._together(output, example, asked, [next(scored) for _ in own])
            for output, example, asked, own in zip(ordered, examples, names, jobs, strict=True)
        ]

    def _together(
        self, output: Clips, example: Fields, asked: tuple[str, ...], each: Sequence[tuple[dict[str, float], list[str]]]
    ) -> Scores:
        noisy, sources = example["noisy"].numpy(), example["sources"].numpy()
        fell = {name for _, floored in each for name in floored}
        values = {
            name: float(np.mean([scores[name] for scores, _ in each])) for name in asked if name != metrics.IMPROVEMENT
        }
        if metrics.IMPROVEMENT in asked and len(each) == TALKERS:
            before = [metrics.score(noisy, source, ("si_sdr",))[0]["si_sdr"] for source in sources]
            gain = np.mean([scores["si_sdr"] for scores, _ in each]) - np.mean(before)
            floor = metrics.METRICS[metrics.IMPROVEMENT].floor
            values[metrics.IMPROVEMENT] = floor if "si_sdr" in fell else max(float(gain), floor)
        floored = [
            name for name in asked if name in fell or (name == metrics.IMPROVEMENT in values and "si_sdr" in fell)
        ]
        for talker in set(range(TALKERS)) - set(talking(example)):
            values[metrics.ATTENUATION] = metrics.attenuation(output[talker], noisy)
            if values[metrics.ATTENUATION] <= metrics.METRICS[metrics.ATTENUATION].floor:
                floored.append(metrics.ATTENUATION)
        return values, floored

    def keep(self, folder: Path, judged: Judged, picture: Callable[..., bytes]) -> None:
        """As for denoisers, each talker by himself."""
        places = range(min(self.listening.get(judged.test_set, 0), len(judged.ids)))
        kept: list[tuple[str, Fields, Clips]] = []
        for name, example, output in ((judged.ids[p], judged.examples[p], judged.outputs[p]) for p in places):
            for talker, place in enumerate(best_order(output, example)):
                alone = {"noisy": example["noisy"], "clean": example["sources"][talker]}
                kept.append((f"{name}/{talker + 1}", alone, output[place]))
        if kept:
            ids, examples, outputs = zip(*kept, strict=True)
            apart = judged._replace(ids=ids, examples=examples, outputs=outputs)
            keep_clips(folder / "audio", apart, range(len(kept)), picture)


def talking(example: Fields) -> list[int]:
    """Which of the talkers of an item are not silent."""
    return [talker for talker, source in enumerate(example["sources"]) if source.any()]


def best_order(output: Clips, example: Fields) -> tuple[int, ...]:
    """Which output is which talker: those of the highest mean SI-SDR; where somebody is silent the quietest is his.

    An output that is a faint copy of the one voice has as good an SI-SDR as a loud one.
    """
    sources, active = example["sources"].numpy(), talking(example)
    if len(active) < TALKERS:
        loudest = iter(np.argsort(-np.square(output, dtype=np.float64).sum(-1), kind="stable").tolist())
        of = {talker: next(loudest) for talker in sorted(range(TALKERS), key=lambda talker: talker not in active)}
        return tuple(of[talker] for talker in range(TALKERS))
    table = {
        (place, talker): metrics.score(output[place], sources[talker], ("si_sdr",))[0]["si_sdr"]
        for place, talker in itertools.product(range(TALKERS), active)
    }
    orders = itertools.permutations(range(TALKERS))
    return max(orders, key=lambda order: sum(table[order[talker], talker] for talker in active))
