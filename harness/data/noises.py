"""Noises: windows of recordings, or of the tracks of a made noise. A noise draws a plan (integers) and renders it.

A plan row is all that is needed to cut one noise again, so a test list can hold it and be hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness.data import archives
from harness.data.bank import Bank
from harness.data.corpora import Card
from harness.data.progress import Progress, unseen
from harness.data.tracks import open_tracks
from harness.data.whole import open_whole


@dataclass(frozen=True)
class Noise:
    """One kind of noise. said: where in the bank a clip of the speech corpus is heard, for babble (clip, start, samples)."""

    bank: Bank
    said: pd.DataFrame

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        """A plan: (items, 1), the starts of windows that lie in recordings of the split."""
        return self.bank.draw(split, rng, (items, 1), samples)

    def fill(self, plan: np.ndarray, out: torch.Tensor) -> None:
        """Write a plan's noises into a buffer: (items, samples)."""
        self.bank.fill(plan[:, 0], out)

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        """The noises of a plan: (items, samples) float32 at any level."""
        return self.bank.cut(plan[:, 0], samples, device)

    def holds(self, clip: str, start: int, samples: int) -> bool:
        """Whether a clip of the speech is heard in a window."""
        heard = self.said[self.said["clip"] == clip]
        return bool(((heard.start < start + samples) & (heard.start + heard.samples > start)).any())


def open_noise(
    card: Card,
    speech: Bank,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
    data_dir: Path | None = None,
) -> Noise:
    """The noise of a card. speech: the corpus that babble and speech-shaped noise are made from; data_dir: a folder of the
    user's, taken where it holds a public noise."""
    if card.recorded:
        here = data_dir if data_dir is not None and card.public and archives.beginning(card, data_dir) else None
        return Noise(open_whole(card, here, say, progress), pd.DataFrame(columns=["clip", "start", "samples"]))
    bank = open_tracks(card, speech, say, progress)
    return Noise(bank, pd.read_csv(bank.folder / "said.csv", dtype={"clip": str}, keep_default_na=False))
