"""Recordings with labels: words that people said, sounds of things, whatever folders tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from harness.data import corpora, noises
from harness.data.bank import Bank, buffer, open_bank, sounding
from harness.data.progress import Progress, unseen
from harness.data.scenes import JudgedItems, NoisyRule, add_noise, mix, open_kinds, scenes_digest, seed_of, turns
from harness.data.whole import open_whole
from harness.errors import UserError

NOISE_SPEECH = "prompts"  # babble and speech-shaped noise come from people, whatever the recordings hold
SPLITS = {"validation": "validation", "matched": "test", "mismatched": "test", "training": "train"}


class LabelItems(JudgedItems):
    """As for words; without an unheard noise nothing is mismatched."""

    mismatched: int = Field(0, ge=0)


class LabelRule(NoisyRule):
    """What items with a label are made of: as they were recorded, but for their level, where no noise is named. fold: which of a
    corpus's folds is the test (the last where none is named); the one before is for validation."""

    noise: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    fold: int | None = Field(None, ge=1)
    items: LabelItems = LabelItems()


@dataclass(frozen=True)
class LabelItem:
    """One fixed item: the clip, where in it the item begins (or, below 0, how long after the item's beginning it does), the
    noise's plan, SNR and level in dB. `speaker` is the voice, and `cluster` too."""

    id: str
    test_set: str
    clip: str
    cluster: str
    speaker: str
    label: str
    start: int
    noise: str
    plan: tuple[int, ...]
    snr: float
    level: float


@dataclass(frozen=True)
class LabelScenes:
    """Recordings, noises and the rule that mixes them. classes: the labels, as they are numbered; clips: the table of each
    split's clips, with the class's number; rows: for each class the places of its training clips in that table."""

    rule: LabelRule
    bank: Bank
    kinds: dict[str, noises.Noise]
    classes: tuple[str, ...]
    clips: dict[str, pd.DataFrame]
    rows: list[np.ndarray]
    digest: str

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update: noisy, (items, samples), and label, (items,), on the device; every class as often."""
        rng = np.random.default_rng([seed, step])
        label = rng.integers(0, len(self.classes), items)
        train, where = self.clips["train"], rng.random((2, items))
        clip = np.array([self.rows[c][int(w * len(self.rows[c]))] for c, w in zip(label, where[0], strict=True)])
        start, length = train.start.to_numpy()[clip], train.samples.to_numpy()[clip]
        both = buffer(device, 2, items, self.rule.samples)
        self._write(start, length, _place(where[1], length, self.rule.samples), both[0])
        both[1].zero_()
        noisy = self._noisy(rng, both, device)
        return {"noisy": noisy, "label": torch.from_numpy(label).to(device, non_blocking=True)}

    def items(self, test_set: str, count: int) -> list[LabelItem]:
        """The fixed list of a judged set; a shorter list is the beginning of a longer one. The mismatched set has unheard noise.

        Labels take turns, and the clips of each; so do noise kinds with SNRs, in shuffled blocks. Without noise a clip is
        judged once, so that there may be fewer items than asked for.
        """
        split, cells = SPLITS[test_set], self.rule.cells(test_set)
        if not cells and test_set == "mismatched":
            return []
        order = self.clips[split].assign(key=[seed_of(clip) for clip in self.clips[split]["clip"]]).sort_values("key")
        order = order.assign(turn=order.groupby("label").cumcount()).sort_values(["turn", "key"], kind="stable")
        rng, cell = np.random.default_rng(seed_of(test_set)), turns(f"{test_set}/cells", range(len(cells)))
        chosen = []
        for number in range(count if cells else min(count, len(order))):
            clip = order.iloc[number % len(order)]
            kind, snr = cells[next(cell)] if cells else ("", float("nan"))
            plan = self.kinds[kind].draw(split, rng, 1, self.rule.samples)[0].tolist() if cells else []
            begin = int(_place(rng.random(1), np.array([clip.samples]), self.rule.samples)[0])
            level = round(float(rng.uniform(*self.rule.level)), 2)
            name, voice = f"{test_set}/{number:03d}", clip["voice"]
            chosen.append(
                LabelItem(
                    name, test_set, clip["clip"], voice, voice, clip["label"], begin, kind, tuple(plan), snr, level
                )
            )
        return chosen

    def example(self, item: LabelItem) -> dict[str, torch.Tensor]:
        """Fields of one item, unbatched; always made on the CPU, so that every device judges the same samples."""
        clips = self.bank.clips
        start, length = clips.loc[clips["clip"] == item.clip, ["start", "samples"]].to_numpy(int).T
        speech, noise = buffer(torch.device("cpu"), 2, 1, self.rule.samples)
        self._write(start, length, np.array([item.start]), speech)
        noise.zero_()
        if item.noise:
            self.kinds[item.noise].fill(np.array([item.plan]), noise)
        snr = torch.tensor([item.snr if item.noise else 0.0])
        speech, noise = sounding(speech, speech.device), sounding(noise, noise.device)
        noisy, _, _ = mix(speech, noise, snr, torch.tensor([item.level]))
        return {"noisy": noisy[0], "label": torch.tensor(self.classes.index(item.label))}

    def _write(self, starts: np.ndarray, lengths: np.ndarray, begins: np.ndarray, out: torch.Tensor) -> None:
        """Clips into a buffer, (items, samples), each from where its item begins in it."""
        rows, samples = out.zero_().numpy(), self.bank.samples
        for row, start, length, begin in zip(rows, starts.tolist(), lengths.tolist(), begins.tolist(), strict=True):
            first, end = max(begin, 0), min(begin + len(row), length)
            row[first - begin : end - begin] = samples[start + first : start + end]

    def _noisy(self, rng: np.random.Generator, both: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Training items from clips that lie in the first half of a buffer, (2, items, samples), on the device."""
        if self.rule.noise:
            return add_noise(self.rule, self.kinds, rng, both, device)[0]
        level = torch.tensor(rng.uniform(*self.rule.level, both.shape[1]), dtype=torch.float32, device=device)
        speech, silence = sounding(both, device)
        return mix(speech, silence, torch.zeros_like(level), level)[0]


def _place(where: np.ndarray, lengths: np.ndarray, samples: int) -> np.ndarray:
    """Where in each clip an item of so many samples begins, for `where` from 0 to 1: somewhere within a longer clip, and so that
    a shorter one lies within the item."""
    spare = lengths - samples
    return np.minimum(spare, 0) + (where * (np.abs(spare) + 1)).astype(np.int64)


def open_label_scenes(
    corpus: str,
    rule: LabelRule,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> LabelScenes:
    """Open the recordings of a corpus with labels, and the noises of the rule. data_dir: of the corpus."""
    card = corpora.card(corpus)
    bank = open_whole(card, data_dir, say, progress)
    if card.folds:
        bank = replace(bank, clips=bank.clips.assign(split=_turned(card, bank.clips.split, rule.fold or card.folds)))
    elif rule.fold is not None:
        raise UserError(f"scenes.fold: corpus {card.name!r} has no folds")
    classes = tuple(sorted(set(bank.clips.label[bank.clips.split == "train"])))
    if len(classes) < 2:
        raise UserError(
            f"corpus {card.name!r}: training has {len(classes)} label; at least two are needed to be told apart"
        )
    clips = {
        split: own[own.label.isin(classes)].reset_index(drop=True)
        for split in ("train", "validation", "test")
        for own in [bank.clips[bank.clips.split == split]]
    }
    for split, own in clips.items():
        if own.empty:
            raise UserError(f"corpus {card.name!r} has no {split} recording")
        if missing := set(classes) - set(own.label):
            say(f"{card.name}: no {split} recording of {', '.join(sorted(missing))}: nothing is said of them")
    rows = [np.flatnonzero(clips["train"].label == label) for label in classes]
    kinds = {}
    if rule.noises:
        kinds = open_kinds(rule, open_bank(corpora.card(NOISE_SPEECH), None, say, progress), say, progress, data_dir)
    return LabelScenes(rule, bank, kinds, classes, clips, rows, scenes_digest(bank, kinds))


def _turned(card: corpora.Card, split: pd.Series, fold: int) -> pd.Series:
    """Splits from folds: one is the test, the one before it validation, the others training."""
    if fold > card.folds:
        raise UserError(f"scenes.fold: corpus {card.name!r} has {card.folds} folds, not {fold}")
    names = {f"fold {(fold - 2) % card.folds + 1}": "validation", f"fold {fold}": "test"}
    return split.map(lambda name: names.get(name, "train"))
