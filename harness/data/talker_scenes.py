"""Two talkers at once: running speech of two people that overlaps in part, often with one of them silent; in noise and in rooms
where a rule says so.

What is wanted are the two voices as they are in the mixture, in no order. Two folders of one person are never mixed. In the
mismatched set the first voice is one that training never heard.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator

from harness.data import corpora, noises
from harness.data.audio import SAMPLE_RATE
from harness.data.bank import Bank, buffer, sounding
from harness.data.progress import Progress, unseen
from harness.data.rooms import LEAD, NOISE, RUN_UP, TALKERS, Rooms, after_silence, going_on, open_rooms
from harness.data.scenes import (
    CLIP_SECONDS,
    DRAWS,
    PEAK,
    SPLITS,
    JudgedItems,
    NoisyRule,
    fill_noise,
    gains,
    open_kinds,
    rising,
    scenes_digest,
    seed_of,
    snr_and_level,
    turns,
)
from harness.data.whole import open_whole
from harness.errors import UserError

FADE = round(0.01 * SAMPLE_RATE)  # where a window of running speech is cut, so that nothing clicks


class TalkerItems(JudgedItems):
    """How many mixtures each judged set holds."""

    validation: int = Field(40, ge=2)
    matched: int = Field(120, ge=2)
    mismatched: int = Field(60, ge=0)


class TalkerRule(NoisyRule):
    """What mixtures of two talkers are made of. ratio: dB by which the second is louder, (low, high); overlap: share of a training
    window, or of the shorter of two judged clips, in which both talk, (low, high); silent: share of the items, in training and in
    every judged set, in which one of them says nothing. noise: none where it is empty, else at `snr` below both together. rooms:
    where they are heard; what is wanted is then their direct sound with the early reflections."""

    noise: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    snr: tuple[float, float] = (5.0, 20.0)
    test_snrs: tuple[float, ...] = Field((5.0, 10.0, 20.0), min_length=1)
    seconds: float = Field(2.0, gt=0.1, le=30)
    ratio: tuple[float, float] = (-5.0, 5.0)
    overlap: tuple[float, float] = (0.3, 1.0)
    silent: float = Field(0.2, ge=0, le=0.5)
    rooms: str | None = None
    items: TalkerItems = TalkerItems()

    _in_order = field_validator("ratio", "overlap")(rising)

    @field_validator("overlap")
    @classmethod
    def _a_share(cls, span: tuple[float, float]) -> tuple[float, float]:
        if span[0] < 0 or span[1] > 1:
            raise ValueError("must lie within 0 and 1")
        return span

    @model_validator(mode="after")
    def _heard(self) -> Self:
        return self  # the voice is unheard, whatever the noise

    @property
    def places(self) -> tuple[str, ...]:
        return (self.rooms,) if self.rooms else ()

    def cells(self, test_set: str) -> list[tuple[str, float]]:
        """Every kind of noise of a judged set at every SNR; one of no noise where the rule has none."""
        kinds = (self.unheard or self.noise) if test_set == "mismatched" else self.noise
        return [(kind, snr) for kind in kinds for snr in self.test_snrs] or [("none", math.nan)]


@dataclass(frozen=True)
class TwoTalkers:
    """One fixed mixture: two clips, how many samples later the second begins, by how many dB it is louder, and which of them is
    silent (0 or 1; -1: none). `cluster` is the first one's prompt, `room` -1 where there is none."""

    id: str
    test_set: str
    clip: str
    cluster: str
    speaker: str
    other: str
    other_speaker: str
    later: int
    ratio: float
    silent: int
    noise: str
    plan: tuple[int, ...]
    snr: float
    level: float
    room: int


@dataclass(frozen=True)
class TalkerScenes:
    """Speech, noises, rooms, and the rule that mixes them."""

    rule: TalkerRule
    speech: Bank
    kinds: dict[str, noises.Noise]
    rooms: Rooms | None
    digest: str

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update on the device: noisy, (items, samples), and sources, (items, 2, samples). Same seed and
        step, same batch."""
        rng = np.random.default_rng([seed, step])
        before, behind = (RUN_UP, LEAD) if self.rooms else (0, 0)
        samples = before + self.rule.samples + behind
        dry = buffer(device, 3, items, samples)
        for talker, starts in enumerate(self._windows(rng, items, samples)):
            self.speech.fill(starts, dry[talker])
        dry[2].zero_()
        if self.rule.noise:
            fill_noise(self.rule, self.kinds, rng, dry[2])
        snr, level = snr_and_level(self.rule, rng, items, device)
        ratio, overlap = (torch.tensor(rng.uniform(*s, items)).float() for s in (self.rule.ratio, self.rule.overlap))
        silent = np.where(rng.random(items) < self.rule.silent, rng.integers(0, 2, items), -1)
        talks = torch.stack([_until(overlap, before, samples, behind), _from(overlap, before, samples, behind)])
        talks *= torch.from_numpy(silent != np.arange(2)[:, None])[..., None]
        one, two, noise = sounding(dry, device)
        rooms = rng.choice(self.rooms.of("train"), items) if self.rooms else np.zeros(items, int)
        voices = torch.stack([one, two]) * talks.to(device, non_blocking=True)
        return self._mixed(
            voices, noise, rooms, snr, torch.stack([level, level + ratio.to(device, non_blocking=True)], 1)
        )

    def items(self, test_set: str, count: int) -> list[TwoTalkers]:
        """The fixed list of a judged set; a shorter list is the beginning of a longer one.

        Prompt names of the first voice take turns, noise kinds with SNRs and rooms in shuffled blocks; silent talkers come in even
        steps, the first and the second in turn.
        """
        if not count:
            return []
        first_split, other_split = SPLITS[test_set]
        if test_set == "mismatched" and not (self.speech.clips.split == first_split).any():
            first_split = "test"  # no voice is held out
        firsts, others = self._clips(first_split), self._clips(other_split)
        rng, cells = np.random.default_rng(seed_of(f"{test_set}/talkers")), self.rule.cells(test_set)
        cell, other = turns(f"{test_set}/cells", range(len(cells))), turns(f"{test_set}/others", range(len(others)))
        room = turns(f"{test_set}/rooms", self.rooms.of(other_split)) if self.rooms else itertools.repeat(-1)
        chosen = []
        for number in range(count):
            one = firsts.iloc[number % len(firsts)]
            two = others.iloc[self._partner(one, others, other)]
            share = float(rng.uniform(*self.rule.overlap))
            later = max(0, int(one.samples) - round(share * min(one.samples, two.samples)))
            kind, snr = cells[next(cell)]
            plan = self._plan(kind, (one["clip"], two["clip"]), other_split, rng, max(one.samples, later + two.samples))
            silent = (
                number % 2
                if math.floor((number + 1) * self.rule.silent) > math.floor(number * self.rule.silent)
                else -1
            )
            ratio, level = (round(float(rng.uniform(*span)), 2) for span in (self.rule.ratio, self.rule.level))
            name, about = (
                f"{test_set}/{number:03d}",
                (one["clip"], one["name"], one["voice"], two["clip"], two["voice"]),
            )
            chosen.append(TwoTalkers(name, test_set, *about, later, ratio, silent, kind, plan, snr, level, next(room)))
        return chosen

    def example(self, item: TwoTalkers) -> dict[str, torch.Tensor]:
        """Fields of one item, unbatched; always mixed on the CPU, so that every device judges the same samples."""
        clips = [torch.from_numpy(self.speech.clip(clip)) for clip in (item.clip, item.other)]
        starts = (0, item.later)
        samples = max(start + len(clip) for start, clip in zip(starts, clips, strict=True))
        voices = torch.zeros(2, 1, samples)
        for talker, (start, clip) in enumerate(zip(starts, clips, strict=True)):
            if talker != item.silent:
                voices[talker, 0, start : start + len(clip)] = clip
        noise = torch.zeros(1, samples)
        if item.plan:
            noise = self.kinds[item.noise].render(np.array([item.plan]), samples, torch.device("cpu"))
        if self.rooms:
            voices, noise = torch.stack([after_silence(voice) for voice in voices]), going_on(noise)
        snr = torch.tensor([item.snr if item.plan else 0.0])
        levels = torch.tensor([[item.level, item.level + item.ratio]])
        fields = self._mixed(voices, noise, np.array([item.room]), snr, levels)
        return {name: field[0] for name, field in fields.items()}

    def _mixed(
        self, voices: torch.Tensor, noise: torch.Tensor, rooms: np.ndarray, snr: torch.Tensor, levels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """voices: (2, batch, samples), and noise, (batch, samples), as `Rooms.hear` takes them where there are rooms; snr: (batch,)
        dB; levels: (batch, 2) dBFS of each voice. Scaled together so that nothing clips."""
        if self.rooms:
            pairs = [
                self.rooms.hear_talker(voice, rooms, place, 1) for voice, place in zip(voices, TALKERS, strict=True)
            ]
            heard, sources = torch.cat([whole for whole, _ in pairs], 1), torch.stack([early for _, early in pairs], 1)
            noise = self.rooms.hear(noise, rooms, NOISE, 1)[:, 0]
        else:
            heard = sources = voices.transpose(0, 1)
        level = gains(
            heard.flatten(0, 1), torch.zeros_like(heard).flatten(0, 1), torch.zeros(1).to(snr), levels.flatten()
        )[1]
        gain = level.unflatten(0, levels.shape)[..., None]
        sources, speech = sources * gain, (heard * gain).sum(1)
        noisy = speech + gains(speech, noise, snr, torch.zeros_like(snr))[0][:, None] * noise
        peaks = torch.maximum(noisy.abs().amax(1), sources.abs().amax((1, 2)))
        down = (PEAK / peaks.clamp(min=PEAK))[:, None]
        return {"noisy": noisy * down, "sources": sources * down[:, None]}

    def _windows(self, rng: np.random.Generator, items: int, samples: int) -> Iterator[np.ndarray]:
        """Where windows of training speech begin, (items,), for the first and for the second of two people; every pair of voices
        as often as they have windows."""
        starts, lengths = self.speech.regions.get("train", np.zeros((2, 0), np.int64))
        clips = self.speech.clips
        who = np.array([self.speech.card.talker(voice) for voice in sorted(set(clips.voice[clips.split == "train"]))])
        fitting = np.maximum(lengths - samples + 1, 0)
        odds = np.outer(fitting, fitting) * (who[:, None] != who)
        if not odds.any():
            raise UserError(
                f"corpus {self.speech.card.name!r}: separating talkers needs two people with {samples / SAMPLE_RATE:.2f} s of "
                "training speech"
            )
        couple = rng.choice(odds.size, items, p=(odds / odds.sum()).flatten())
        for voice in np.divmod(couple, len(who)):
            yield starts[voice] + (rng.random(items) * fitting[voice]).astype(np.int64)

    def _clips(self, split: str) -> pd.DataFrame:
        """The clips of a split that items are made of; names take turns, so that none is over-represented."""
        shortest, longest = (seconds * SAMPLE_RATE for seconds in CLIP_SECONDS)
        clips = self.speech.clips
        clips = clips[(clips.split == split) & clips.samples.between(shortest, longest)]
        if clips.empty:
            raise UserError(
                f"corpus {self.speech.card.name!r} has no {split} clip of {CLIP_SECONDS[0]}-{CLIP_SECONDS[1]} s"
            )
        order = clips.assign(key=[hashlib.sha1(clip.encode()).hexdigest() for clip in clips["clip"]]).sort_values("key")
        return order.assign(turn=order.groupby("name").cumcount()).sort_values(["turn", "key"], kind="stable")

    def _partner(self, one: pd.Series, others: pd.DataFrame, order: Iterator[int]) -> int:
        """The next clip of somebody else who says something else."""
        talker = self.speech.card.talker
        for place in itertools.islice(order, 2 * len(others)):
            two = others.iloc[place]
            if talker(two["voice"]) != talker(one["voice"]) and two["name"] != one["name"]:
                return place
        raise UserError(
            f"corpus {self.speech.card.name!r}: nobody else speaks in the split of {one['clip']!r}: separating needs two "
            "people in each"
        )

    def _plan(
        self, kind: str, clips: tuple[str, str], split: str, rng: np.random.Generator, samples: int
    ) -> tuple[int, ...]:
        """The plan of a noise that holds neither clip; of no noise an empty one."""
        if kind == "none":
            return ()
        noise = self.kinds[kind]
        for _ in range(DRAWS):
            plan = noise.draw(split, rng, 1, samples)[0]
            if not any(noise.holds(clip, int(plan[0]), samples) for clip in clips):
                return tuple(int(number) for number in plan)
        raise UserError(
            f"corpus {self.speech.card.name!r}: every window of {kind} holds {' or '.join(map(repr, clips))} itself"
        )


def _until(overlap: torch.Tensor, before: int, samples: int, behind: int) -> torch.Tensor:
    """What the first voice is multiplied by, (items, samples): 1 until it ends. overlap: (items,), of what lies between
    `before` and `behind` samples."""
    end = before + (samples - before - behind) * (1 + overlap) / 2
    place = torch.arange(samples)
    return torch.where(overlap[:, None] < 1, ((end[:, None] - place) / FADE).clamp(0, 1), 1.0)


def _from(overlap: torch.Tensor, before: int, samples: int, behind: int) -> torch.Tensor:
    """The same for the second: 1 from where it begins."""
    start = before + (samples - before - behind) * (1 - overlap) / 2
    place = torch.arange(samples)
    return torch.where(overlap[:, None] < 1, ((place - start[:, None]) / FADE).clamp(0, 1), 1.0)


def open_talker_scenes(
    corpus: str,
    rule: TalkerRule | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> TalkerScenes:
    """Open every corpus that mixtures of talkers need."""
    rule = rule or TalkerRule()
    speech = open_whole(corpora.speech(corpus, "separate"), data_dir, say, progress)
    kinds = open_kinds(rule, speech, say, progress, data_dir)
    rooms = open_rooms(rule.rooms, say, progress) if rule.rooms else None
    digest = scenes_digest(speech, kinds) + (rooms.digest[:8] if rooms else "")
    return TalkerScenes(rule, speech, kinds, rooms, digest)
