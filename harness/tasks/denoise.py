"""Task `denoise`: noisy speech in, clean speech out, judged by PESQ, STOI, ESTOI, SI-SDR, SNR and DNSMOS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from harness import metrics
from harness.data.audio import SAMPLE_RATE
from harness.data.pair_scenes import PairRule, open_pair_scenes
from harness.data.progress import Progress
from harness.data.room_scenes import open_room_scenes
from harness.data.scenes import MixtureRule, SceneRule, open_scenes
from harness.models import inputs
from harness.tasks import masks
from harness.tasks.task import SHOWN_SEED, Fields, Judged, Scores, Task
from harness.tasks.task import Scenes as TaskScenes

Clip = np.ndarray


class Denoise(Task):
    """An output is the estimate of a clip, (samples,)."""

    name = "denoise"
    given = ("noisy", "clean")
    predicted = ("estimate",)
    reference = "mse"
    kind = "speech"
    corpus = "prompts"
    model = "gru_mask"
    rule: ClassVar[type[SceneRule]] = MixtureRule
    controls = ("unprocessed", "oracle_mask", "oracle_psm")
    explained = (
        "The oracle rows show the ceiling of a mask: the ideal magnitude mask with the noisy phase, and the "
        "phase-sensitive mask."
    )
    judged: ClassVar[tuple[str, ...]] = metrics.OF_CLIPS
    watched: ClassVar[tuple[str, ...]] = ("pesq_wb", "stoi", "estoi", "si_sdr")
    listening: ClassVar = {"matched": 2, "mismatched": 1}  # items of each judged set whose sound is kept
    worst: ClassVar = {"matched": 1, "mismatched": 1}  # and those on which a training of the shown seed does worst
    # Selection: each metric as the share of the way from the unprocessed mixture to this oracle (its ceiling for a mask).
    quality: ClassVar[tuple[tuple[str, str], ...]] = (
        ("pesq_wb", "oracle_mask"),
        ("estoi", "oracle_mask"),
        ("si_sdr", "oracle_psm"),
    )
    objectives: ClassVar[tuple[str, ...]] = ("quality", *watched)

    @property
    def rules(self) -> Mapping[str, type[SceneRule]]:
        return {"speech": MixtureRule, "pairs": PairRule}

    def open(
        self,
        corpus: str,
        rule: Any,
        data_dir: Path | None,
        say: Callable[[str], None],
        progress: Progress,
    ) -> TaskScenes:
        if isinstance(rule, PairRule):
            return open_pair_scenes(corpus, rule, data_dir, say, progress)
        if rule.rooms:
            return open_room_scenes(corpus, rule, data_dir, say, progress)
        return open_scenes(corpus, rule, data_dir, say, progress)

    def outputs(
        self, model: nn.Module, examples: Sequence[Fields], device: torch.device, batches: Callable[[int], Fields]
    ) -> list[Clip]:
        """Estimates of clips of any length, one at a time, so that padding plays no part."""
        model.eval()
        with torch.inference_mode():
            taken = [[example[name][None].to(device) for name in inputs(model)] for example in examples]
            clips = [model(*fields)[self.predicted[0]][0].float().cpu().numpy() for fields in taken]
        model.train()
        return clips

    def control(self, name: str, examples: Sequence[Fields], scenes: Any, model: type[nn.Module]) -> list[Clip]:
        mask_max = getattr(model, "mask_max", 1.0)
        return [self.ideal(name, example["noisy"], example["clean"], mask_max) for example in examples]

    def ideal(self, name: str, noisy: torch.Tensor, clean: torch.Tensor, mask_max: float) -> Clip:
        """What a control makes of a clip: itself, or an ideal mask."""
        return noisy.numpy() if name == "unprocessed" else masks.ideal(name, noisy, clean, mask_max).numpy()

    def score(
        self,
        outputs: Sequence[Clip],
        examples: Sequence[Fields],
        names: Sequence[tuple[str, ...]],
        scorer: metrics.Scorer,
    ) -> list[Scores]:
        quiet = [torch.equal(example["noisy"], example["clean"]) for example in examples]
        names = [
            tuple(name for name in asked if not (alone and name in metrics.RATIOS))
            for asked, alone in zip(names, quiet, strict=True)
        ]
        scores = scorer(outputs, [example["clean"].numpy() for example in examples], names)
        for (values, floored), output, example in zip(scores, outputs, examples, strict=True):
            if not example["clean"].any() and example["noisy"].any():
                values[metrics.ATTENUATION] = metrics.attenuation(output, example["noisy"].numpy())
                if values[metrics.ATTENUATION] <= metrics.METRICS[metrics.ATTENUATION].floor:
                    floored.append(metrics.ATTENUATION)
        return scores

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Mean attenuation of the items without speech, where there are any."""
        if metrics.ATTENUATION not in table:
            return {}
        return {metrics.ATTENUATION: float(table[metrics.ATTENUATION].mean())}

    def keep(self, folder: Path, judged: Judged, picture: Callable[..., bytes]) -> None:
        """Noisy, clean and estimate of the first few items as WAV and as spectrograms, in `audio`; of the shown seed also those
        of the items whose SI-SDR gained least over the mixture, in `audio/worst`."""
        first = range(min(self.listening.get(judged.test_set, 0), len(judged.ids)))
        keep_clips(folder / "audio", judged, first, picture)
        worst = self.worst.get(judged.test_set, 0)
        if worst and judged.seed == SHOWN_SEED:
            noisy, clean = ([example[field].numpy() for example in judged.examples] for field in ("noisy", "clean"))
            before = [metrics.score(*pair, ("si_sdr",))[0]["si_sdr"] for pair in zip(noisy, clean, strict=True)]
            gain = judged.scores["si_sdr"].to_numpy(dtype=float) - before
            known = np.flatnonzero(np.isfinite(gain))
            keep_clips(
                folder / "audio" / "worst", judged, known[np.argsort(gain[known], kind="stable")][:worst], picture
            )

    def selection(
        self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]
    ) -> float:
        """The score that tuning maximises, from validation means. controls: the validation means of each control."""
        if objective != "quality":
            return float(means[objective])
        return float(np.mean([self.share(name, means, controls) for name, _ in self.quality]))

    def metrics_of(self, objective: str) -> tuple[str, ...]:
        return tuple(name for name, _ in self.quality) if objective == "quality" else super().metrics_of(objective)

    def share(self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]) -> float:
        """The share of the way from the unprocessed mixture to the ceiling of a mask, in [-1, 1]."""
        if objective == "quality":
            return self.selection(objective, means, controls)
        low, high = (
            controls["unprocessed"][objective],
            controls[dict(self.quality).get(objective, "oracle_mask")][objective],
        )
        return float(np.clip((means[objective] - low) / (high - low), -1, 1)) if high > low else 0.0


def keep_clips(folder: Path, judged: Judged, places: Iterable[int], picture: Callable[..., bytes]) -> None:
    """Keep noisy, clean and estimate of the items at these places, as WAV and as a spectrogram."""
    import soundfile

    for place in places:
        example = judged.examples[place]
        stem = folder / judged.ids[place].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        noisy, clean = (example[field].numpy() for field in ("noisy", "clean"))
        clips = {"noisy": noisy, "clean": clean, "estimate": np.clip(judged.outputs[place], -1, 1)}
        for kind, samples in clips.items():
            soundfile.write(f"{stem}.{kind}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
        Path(f"{stem}.png").write_bytes(picture(**clips, sample_rate=SAMPLE_RATE))
