"""Pairs of clean and noisy speech, as a corpus gives them: nothing is mixed, no level is changed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from harness.data import corpora
from harness.data.bank import Bank, buffer, sounding
from harness.data.progress import Progress, unseen
from harness.data.scenes import Items, PartRule, parts, within_scale, without_a_part
from harness.data.whole import open_whole
from harness.errors import UserError

SPLITS = {"validation": "validation", "matched": "test", "mismatched": "mismatched", "training": "train"}


class PairItems(Items):
    """As for mixtures; no voice and no noise is held out but by the corpus itself."""

    mismatched: int = Field(0, ge=0, le=0)


class PairRule(PartRule):
    """What a denoiser trained on pairs is given. train_seconds: how much of them training hears: the beginning of what each
    voice has."""

    seconds: float = Field(2.0, gt=0.1, le=30)
    train_seconds: float | None = Field(None, gt=0)
    items: PairItems = PairItems()


@dataclass(frozen=True)
class PairItem:
    """One pair. noise, snr: what its corpus tells of it, "" and NaN where it does not; `cluster` is the recording's name."""

    id: str
    test_set: str
    clip: str
    cluster: str
    speaker: str
    noise: str
    snr: float


@dataclass(frozen=True)
class OneSidedPair(PairItem):
    """A pair of which a part alone is heard: "noise", what the noisy side has beside the clean one, or "speech"."""

    holds: str


@dataclass(frozen=True)
class PairScenes:
    """Pairs, and how long those of training are."""

    rule: PairRule
    speech: Bank
    digest: str

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update: noisy and clean, (items, samples) on the device. Same seed and step, same batch."""
        rng = np.random.default_rng([seed, step])
        both = buffer(device, 2, items, self.rule.samples)
        starts = self.speech.draw("train", rng, items, self.rule.samples)
        self.speech.fill(starts, both[0])
        self.speech.fill(starts, both[1], noisy=True)
        clean, noisy = sounding(both, device)
        if self.rule.noise_only or self.rule.speech_only:
            noisy, clean = without_a_part(self.rule, rng, noisy, clean, clean)
        return {"noisy": noisy, "clean": clean}

    def items(self, test_set: str, count: int) -> list[PairItem]:
        """The fixed list of a judged set: each pair at most once, speakers in turn; a shorter list is the beginning of a longer
        one."""
        clips = self.speech.clips
        clips = clips[clips.split == SPLITS[test_set]]
        if clips.empty and count and test_set != "mismatched":
            raise UserError(f"corpus {self.speech.card.name!r} has no pair for {SPLITS[test_set]}")
        order = clips.assign(key=[hashlib.sha1(clip.encode()).hexdigest() for clip in clips["clip"]]).sort_values("key")
        order = order.assign(turn=order.groupby("voice").cumcount()).sort_values(["turn", "key"], kind="stable")
        pairs = [
            PairItem(
                f"{test_set}/{row['clip']}", test_set, row["clip"], row["name"], row["voice"], row["noise"], row["snr"]
            )
            for row in order.head(count).to_dict("records")
        ]
        return [_one_sided(pair, part) for pair, part in zip(pairs, parts(self.rule), strict=False)]

    def example(self, item: PairItem) -> dict[str, torch.Tensor]:
        """Noisy and clean of one item, (samples,) each."""
        noisy, clean = (torch.from_numpy(self.speech.clip(item.clip, noisy=side)) for side in (True, False))
        part = item.holds if isinstance(item, OneSidedPair) else "both"
        if part == "noise":
            return {"noisy": within_scale((noisy - clean)[None])[0], "clean": torch.zeros_like(clean)}
        return {"noisy": clean if part == "speech" else noisy, "clean": clean}


def _one_sided(item: PairItem, part: str) -> PairItem:
    """A pair of which a part alone is heard; itself where both are."""
    if part == "both":
        return item
    alone = {"speaker": ""} if part == "noise" else {"noise": "none"}
    return OneSidedPair(**asdict(item) | {"snr": math.nan} | alone, holds=part)


def open_pair_scenes(
    corpus: str,
    rule: PairRule,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> PairScenes:
    """Open a corpus of pairs."""
    speech = open_whole(corpora.card(corpus), data_dir, say, progress)
    digest = speech.digest
    if rule.train_seconds is not None:
        speech = speech.shortened(rule.train_seconds)
    return PairScenes(rule, speech, digest)
