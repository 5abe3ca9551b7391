"""Scenes of running speech in noise, for telling talkers and languages apart.

By the default rule a second at 0 to 20 dB, in which four voices are told apart with errors enough to compare losses by.

A class is a folder of the corpus, one talker in one language; those without training speech are none, so that of `prompts`
the held-out Italian one is not: four classes are left, two of them the same talker in two languages. What is said in a
judged item (its prompt) was said in no training, who says it was: nothing here is about unheard talkers. The set `real_words`
holds single digits instead of windows of sentences: those two, 0 and 9, that the split by prompt leaves to the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from harness.data import corpora, noises, real_words
from harness.data.bank import Bank, buffer
from harness.data.progress import Progress, unseen
from harness.data.real_words import Window
from harness.data.scenes import (
    SPLITS,
    JudgedItems,
    NoisyRule,
    add_noise,
    noise_without,
    open_kinds,
    scenes_digest,
    seed_of,
    turns,
)
from harness.data.whole import open_whole
from harness.errors import UserError


class VoiceItems(JudgedItems):
    """How many mixtures each judged set holds. real_words: of single digits."""

    real_words: int | None = Field(None, ge=2)


class VoiceRule(NoisyRule):
    """What windows of running speech are made of."""

    items: VoiceItems = VoiceItems()


@dataclass(frozen=True)
class VoiceScenes:
    """Speech, noises and the rule that mixes them. classes: the folders that labels number."""

    rule: NoisyRule
    speech: Bank
    kinds: dict[str, noises.Noise]
    classes: tuple[str, ...]
    digest: str

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update: noisy, (items, samples), and label, (items,), on the device; every class as often."""
        rng = np.random.default_rng([seed, step])
        starts, lengths = self.speech.regions["train"]
        label = rng.integers(0, len(self.classes), items)
        place = (rng.random(items) * (lengths[label] - self.rule.samples + 1)).astype(np.int64)
        both = buffer(device, 2, items, self.rule.samples)
        self.speech.fill(starts[label] + place, both[0])
        noisy, _ = add_noise(self.rule, self.kinds, rng, both, device)
        return {"noisy": noisy, "label": torch.from_numpy(label).to(device, non_blocking=True)}

    def items(self, test_set: str, count: int) -> list[Window]:
        """The fixed list of a judged set; a shorter list is the beginning of a longer one. The mismatched set has unheard noise.

        Classes, the prompts of each, and noise kinds with SNRs take turns, each in shuffled blocks. `speaker` is the folder.
        """
        if test_set == real_words.TEST_SET:
            said = real_words.digits(self.speech, "|".join(self.classes), ("test",), self.rule.samples)
            return real_words.windows(self.speech, said, self.kinds, self.rule, count)
        speech_split, noise_split = ("test", "test") if test_set == "mismatched" else SPLITS[test_set]
        cells = self.rule.cells(test_set)
        rng, labels = np.random.default_rng(seed_of(test_set)), turns(f"{test_set}/labels", range(len(self.classes)))
        cell = turns(f"{test_set}/cells", range(len(cells)))
        clips = [self._clips(voice, speech_split) for voice in self.classes]
        clip_turns = [
            turns(f"{test_set}/{voice}", range(len(own))) for voice, own in zip(self.classes, clips, strict=True)
        ]
        chosen = []
        for number in range(count):
            label = next(labels)
            clip = clips[label].iloc[next(clip_turns[label])]
            kind, snr = cells[next(cell)]
            plan = noise_without(self.speech, clip["clip"], self.kinds[kind], noise_split, rng, self.rule.samples)
            level = round(float(rng.uniform(*self.rule.level)), 2)
            start = int(rng.integers(0, clip.samples - self.rule.samples + 1))
            name, numbers = f"{test_set}/{number:03d}", tuple(int(place) for place in plan)
            chosen.append(
                Window(name, test_set, clip["clip"], clip["name"], clip["voice"], kind, numbers, snr, level, start)
            )
        return chosen

    def example(self, item: Window) -> dict[str, torch.Tensor]:
        """Fields of one item, unbatched; always mixed on the CPU, so that every device judges the same samples."""
        noisy = real_words.mixed(self.speech, self.kinds, self.rule, item)
        return {"noisy": noisy, "label": torch.tensor(self.classes.index(item.speaker))}

    def _clips(self, voice: str, split: str) -> pd.DataFrame:
        clips = self.speech.clips
        own = clips[(clips.split == split) & (clips.voice == voice) & (clips.samples >= self.rule.samples)]
        if own.empty:
            raise UserError(
                f"corpus {self.speech.card.name!r} has no {split} clip of {voice} of {self.rule.seconds} s or more"
            )
        return own.sort_values("clip")


def open_voice_scenes(
    corpus: str,
    rule: NoisyRule | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> VoiceScenes:
    """Open every corpus that telling voices apart needs."""
    rule = rule or VoiceRule()
    speech = open_whole(corpora.speech(corpus, "voices"), data_dir, say, progress)
    kinds = open_kinds(rule, speech, say, progress)
    trained = speech.clips[speech.clips.split == "train"]
    classes = tuple(sorted(set(trained.voice)))  # in the order of the bank's regions
    return VoiceScenes(rule, speech, kinds, classes, scenes_digest(speech, kinds))
