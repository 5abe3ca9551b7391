"""Noises: windows of recordings, or of the tracks of a made noise. A noise draws a plan (integers) and renders it.

A plan row is all that is needed to cut one noise again, so a test list can hold it and be hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness.data import archives
from harness.data.bank import Bank, buffer, sounding
from harness.data.corpora import Card
from harness.data.folders import FEWEST
from harness.data.progress import Progress, unseen
from harness.data.tracks import open_tracks
from harness.data.whole import open_whole
from harness.errors import UserError

OWN = "noise"  # layout of a folder of one's own


@dataclass(frozen=True)
class Noise:
    """One kind of noise. said: where in the bank a clip of the speech corpus is heard, for babble (clip, start, samples).

    Noise of one's own may be shorter in a split than what is mixed with it: it is then heard from a random place on, and again.
    """

    bank: Bank
    said: pd.DataFrame

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        """A plan: (items, 1), the starts of windows that lie in recordings of the split, or begin there where all are too short."""
        if self.bank.card.layout == OWN:
            longest = max(self.bank.regions.get(split, np.zeros((2, 0), np.int64))[1], default=0)
            if not longest:
                raise UserError(
                    f"noise of your own: {self.bank.card.root} has no {split} recording; put at least {FEWEST} there, of which "
                    "each of training, validation and test gets one"
                )
            if longest < samples:
                return self.bank.draw(split, rng, (items, 1), 1)
        return self.bank.draw(split, rng, (items, 1), samples)

    def fill(self, plan: np.ndarray, out: torch.Tensor) -> None:
        """Write a plan's noises into a buffer: (items, samples)."""
        if self.bank.card.layout != OWN:
            self.bank.fill(plan[:, 0], out)
            return
        starts, ends = self._spans
        place = starts.searchsorted(plan[:, 0], side="right") - 1
        for row, start, first, end in zip(out.numpy(), plan[:, 0], starts[place], ends[place], strict=True):
            if start + len(row) <= end:
                row[:] = self.bank.samples[start : start + len(row)]
            else:
                row[:] = self.bank.samples[first + (start - first + np.arange(len(row))) % (end - first)]

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the regions of all splits begin and end, (regions,) each, in their order."""
        starts, lengths = np.concatenate(list(self.bank.regions.values()), 1)
        order = np.argsort(starts)
        return starts[order], (starts + lengths)[order]

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        """The noises of a plan: (items, samples) float32 at any level."""
        windows = buffer(device, len(plan), samples)
        self.fill(plan, windows)
        return sounding(windows, device)

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
