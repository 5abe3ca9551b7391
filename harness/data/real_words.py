"""Single digits said by people: a test for nets that were trained on synthetic words, or on running speech.

The recordings are few, one of each digit a voice. Each is mixed with every noise at every SNR, but the sample is the recordings,
not the mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch

from harness.data.bank import Bank
from harness.data.noises import Noise
from harness.data.scenes import Item, NoisyRule, mix, noise_without, seed_of, turns
from harness.errors import UserError

TEST_SET = "real_words"
DIGIT = r"digits/\d"  # names of the recordings; digits/14 is "fourteen"


@dataclass(frozen=True)
class Window(Item):
    """One fixed mixture: an Item with the place of its window in the clip, in samples; below 0 where the clip begins inside."""

    start: int


def digits(speech: Bank, voices: str, splits: tuple[str, ...], samples: int) -> pd.DataFrame:
    """The recordings of single digits, in the order of their names. voices: pattern of the folders' names; samples: the most
    that one may have."""
    clips = speech.clips[speech.clips["name"].str.fullmatch(DIGIT) & speech.clips["voice"].str.fullmatch(voices)]
    found = clips[clips["split"].isin(splits)].sort_values("clip")
    if found.empty or found["samples"].max() > samples:
        raise UserError(
            f"items.{TEST_SET}: corpus {speech.card.name!r} must hold single digits (digits/0 to digits/9), none longer than a "
            f"clip of the scene ({samples} samples); leave {TEST_SET} out"
        )
    return found


def windows(speech: Bank, clips: pd.DataFrame, kinds: dict[str, Noise], rule: NoisyRule, count: int) -> list[Window]:
    """The fixed list of mixtures: every recording in every noise of the matched test at every SNR once, in shuffled order, then
    all again. No noise holds its recording; it lies anywhere in the window."""
    cells = list(product(clips.to_dict("records"), rule.cells(TEST_SET)))
    order, rng = turns(TEST_SET, range(len(cells))), np.random.default_rng(seed_of(TEST_SET))
    chosen = []
    for number in range(count):
        clip, (kind, snr) = cells[next(order)]
        plan = noise_without(speech, clip["clip"], kinds[kind], "test", rng, rule.samples)
        level = round(float(rng.uniform(*rule.level)), 2)
        start = -int(rng.integers(0, rule.samples - clip["samples"] + 1))
        name, numbers = f"{TEST_SET}/{number:03d}", tuple(int(place) for place in plan)
        chosen.append(
            Window(name, TEST_SET, clip["clip"], clip["name"], clip["voice"], kind, numbers, snr, level, start)
        )
    return chosen


def mixed(speech: Bank, kinds: dict[str, Noise], rule: NoisyRule, item: Window) -> torch.Tensor:
    """Noisy samples of a window, (samples,)."""
    clean = torch.zeros(1, rule.samples)
    heard = torch.from_numpy(speech.clip(item.clip)[max(item.start, 0) :])
    onset = max(-item.start, 0)
    clean[0, onset : onset + len(heard)] = heard[: rule.samples - onset]
    noise = kinds[item.noise].render(np.array([item.plan]), rule.samples, clean.device)
    noisy, _, _ = mix(clean, noise, torch.tensor([item.snr]), torch.tensor([item.level]))
    return noisy[0]
