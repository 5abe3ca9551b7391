"""Scenes: noisy mixtures of speech and noise, reproducible from a seed. Batches are made on the training device."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.data import corpora, noises
from harness.data.audio import ACTIVE_RANGE_DB, FRAME, SAMPLE_RATE
from harness.data.bank import Bank, buffer, sounding
from harness.data.progress import Progress, unseen
from harness.data.whole import open_whole
from harness.errors import UserError

QUIETEST = 1e-8  # mean square (-80 dBFS) below which speech is not brought to level: silence stays silence
PEAK = 0.99
OWN = "own"  # the noise that lies beside speech of one's own
DRAWS = 1000  # of noise without the clip that it is mixed with: of the shipped corpus one in 30 has it
CLIP_SECONDS = (1.5, 8.0)  # length of the clips that validation and test items are made of
SPLITS = {
    "validation": ("validation", "validation"),
    "matched": ("test", "test"),
    "mismatched": ("mismatched", "test"),
    "training": ("train", "train"),
}


class JudgedItems(BaseModel):
    """How many mixtures each judged set holds. training: mixtures of what training hears, which no loss is ranked by: they show
    how much of it a net has learned by heart."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    validation: int = Field(240, ge=2)
    matched: int = Field(480, ge=2)
    mismatched: int = Field(240, ge=0)
    training: int | None = Field(None, ge=2)

    def of(self, test_set: str) -> int:
        return int(getattr(self, test_set, None) or 0)


class Items(JudgedItems):
    """The same for denoisers, and every how many of them DNSMOS judges too."""

    validation: int = Field(40, ge=2)
    matched: int = Field(120, ge=2)
    mismatched: int = Field(60, ge=0)
    dnsmos_every: int = Field(1, ge=1)  # DNSMOS takes longer than all other metrics together: every n-th item may do


class SceneRule(BaseModel):
    """What any scene says. seconds: length of a training item."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    seconds: float = Field(1.0, gt=0.1, le=30)
    items: JudgedItems = JudgedItems()

    @property
    def samples(self) -> int:
        """Length of a training item."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def noises(self) -> tuple[str, ...]:
        """Every noise that is mixed in."""
        return ()

    @property
    def places(self) -> tuple[str, ...]:
        """What else is named: where all of it is heard."""
        return ()

    @property
    def adds(self) -> tuple[str, ...]:
        """Fields that its scenes give beside those of every scene of the task."""
        return ()


class PartRule(SceneRule):
    """noise_only, speech_only: share of the items, in training and in every judged set, that hold no speech, or no noise."""

    noise_only: float | None = Field(None, gt=0, le=0.5)
    speech_only: float | None = Field(None, gt=0, le=0.5)


def rising(span: tuple[float, float]) -> tuple[float, float]:
    """A validator of rules."""
    if span[0] > span[1]:
        raise ValueError("must be low, high")
    return span


class NoisyRule(SceneRule):
    """What any scene says of its noise. snr: dB over active speech, (low, high) in training; level: dBFS of the active speech;
    noise: kinds heard in training, validation and the matched test; unheard: kinds of the mismatched test. "own" is the noise
    that lies beside speech of one's own."""

    noise: tuple[str, ...] = Field(("ssn", "babble", "music"), min_length=1)
    unheard: tuple[str, ...] = ("coloured",)
    snr: tuple[float, float] = (0.0, 20.0)
    test_snrs: tuple[float, ...] = Field((0.0, 5.0, 10.0, 20.0), min_length=1)
    level: tuple[float, float] = (-35.0, -20.0)

    _rising = field_validator("snr", "level")(rising)

    @model_validator(mode="after")
    def _heard(self) -> Self:
        if self.items.mismatched and not self.unheard:
            raise ValueError("unheard must name a noise, or items.mismatched be 0")
        return self

    @property
    def noises(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.noise, *self.unheard)))

    def cells(self, test_set: str) -> list[tuple[str, float]]:
        """Every kind of noise of a judged set at every SNR."""
        return [
            (kind, snr) for kind in (self.unheard if test_set == "mismatched" else self.noise) for snr in self.test_snrs
        ]


class MixtureRule(NoisyRule, PartRule):
    """What the mixtures of a denoiser are made of. train_seconds: how much of the speech, and of each noise, training hears:
    the beginning of what each voice and each recording has. rooms: where speech and noise are heard; the clean speech is then
    its direct sound with the early reflections. channels: of the recording, by as many microphones."""

    snr: tuple[float, float] = (0.0, 15.0)
    test_snrs: tuple[float, ...] = Field((0.0, 5.0, 10.0, 15.0), min_length=1)
    seconds: float = Field(2.0, gt=0.1, le=30)
    train_seconds: float | None = Field(None, gt=0)
    rooms: str | None = None
    channels: int | None = Field(None, ge=2, le=2)
    items: Items = Items()

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.channels and not self.rooms:
            raise ValueError(
                "channels needs rooms, as in rooms: shoebox: of a mixture without a room there is one channel"
            )
        return self

    @property
    def places(self) -> tuple[str, ...]:
        return (self.rooms,) if self.rooms else ()

    @property
    def adds(self) -> tuple[str, ...]:
        return ("channels",) if self.channels else ()


@dataclass(frozen=True)
class Item:
    """One fixed mixture: the clip, the noise's plan, SNR and level in dB. `cluster` is the prompt's name."""

    id: str
    test_set: str
    clip: str
    cluster: str
    speaker: str
    noise: str
    plan: tuple[int, ...]
    snr: float
    level: float


@dataclass(frozen=True)
class OneSided(Item):
    """An item of one part alone: "noise", whose own level is `level`, or "speech". There is no SNR: NaN."""

    holds: str


def mix(
    speech: torch.Tensor, noise: torch.Tensor, snr: torch.Tensor, level: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix at an SNR measured over the active part of the speech (frames of 32 ms within 40 dB of the loudest).

    speech, noise: (batch, samples); snr: (batch,) dB; level: (batch,) dBFS of the active speech after mixing.
    Returns noisy and clean (batch, samples), scaled together so that neither clips, and the gain applied to the speech (batch,).
    """
    noise_gain, gain = gains(speech, noise, snr, level)
    noisy = torch.addcmul(speech, noise, noise_gain[:, None])
    extremes = [part for x in (noisy, speech) for part in (x.amax(-1), -x.amin(-1))]  # no copy of absolute values
    gain = torch.minimum(gain, PEAK / torch.stack(extremes).amax(0).clamp(min=1e-9))
    return noisy.mul_(gain[:, None]), speech * gain[:, None], gain


def gains(
    speech: torch.Tensor, noise: torch.Tensor, snr: torch.Tensor, level: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What noise, and then both, are multiplied by for an SNR and a level, both over the active part of the speech: (batch,) each.

    speech, noise: (batch, samples); snr: (batch,) dB; level: (batch,) dBFS.
    """
    frames = [_frame_power(x) for x in (speech, noise)]
    active = frames[0] >= frames[0].amax(-1, keepdim=True) * 10 ** (-ACTIVE_RANGE_DB / 10)
    speech_power, noise_power = ((f * active).sum(-1) / active.sum(-1) for f in frames)
    speech_power = speech_power.clamp(min=QUIETEST)
    noise_gain = (speech_power / noise_power.clamp(min=QUIETEST) * 10 ** (-snr / 10)).sqrt()
    return noise_gain, (10 ** (level / 10) / speech_power).sqrt()


def _frame_power(x: torch.Tensor) -> torch.Tensor:
    """Mean power of whole frames (at least one): (batch, samples) -> (batch, frames)."""
    if x.shape[-1] < FRAME:
        x = torch.nn.functional.pad(x, (0, FRAME - x.shape[-1]))
    frames = x[..., : x.shape[-1] // FRAME * FRAME].unflatten(-1, (-1, FRAME))
    return torch.linalg.vector_norm(frames, dim=-1).square() / FRAME  # squares are never written to memory


def add_noise(
    rule: NoisyRule, kinds: dict[str, noises.Noise], rng: np.random.Generator, both: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training mixtures of speech that lies in the first half of a buffer, (2, items, samples): noisy and clean on the device."""
    fill_noise(rule, kinds, rng, both[1])
    snr, level = snr_and_level(rule, rng, both.shape[1], device)
    speech, noise = sounding(both, device)
    noisy, clean, _ = mix(speech, noise, snr, level)
    return noisy, clean


def fill_noise(rule: NoisyRule, kinds: dict[str, noises.Noise], rng: np.random.Generator, out: torch.Tensor) -> None:
    """Write training noise of random kinds into a buffer, (items, samples)."""
    items, samples = out.shape
    counts = np.bincount(rng.integers(0, len(rule.noise), items), minlength=len(rule.noise))
    for name, count, end in zip(rule.noise, counts, counts.cumsum(), strict=True):
        if count:
            kinds[name].fill(kinds[name].draw("train", rng, count, samples), out[end - count : end])


def snr_and_level(
    rule: NoisyRule, rng: np.random.Generator, items: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """SNRs in dB and levels in dBFS of training items, (items,) each, on the device."""
    snr, level = (torch.tensor(rng.uniform(*span, items), dtype=torch.float32) for span in (rule.snr, rule.level))
    return snr.to(device, non_blocking=True), level.to(device, non_blocking=True)


def without_a_part(
    rule: PartRule, rng: np.random.Generator, noisy: torch.Tensor, speech: torch.Tensor, clean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Training mixtures, of which some lose their speech and some their noise. noisy, and the speech in it: (items, ..., samples);
    clean: (items, samples)."""
    place = torch.from_numpy(rng.random(len(noisy))).to(noisy.device, non_blocking=True)
    silent, quiet = place < (rule.noise_only or 0), place >= 1 - (rule.speech_only or 0)
    noise = within_scale(noisy - speech)
    return _where(silent, noise, _where(quiet, speech, noisy)), clean.masked_fill(silent[:, None], 0.0)


def _where(chosen: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Items, (items, ..., samples), of one where they are chosen, (items,), and of the other elsewhere."""
    return torch.where(chosen.reshape(-1, *[1] * (one.dim() - 1)), one, other)


def within_scale(signal: torch.Tensor) -> torch.Tensor:
    """Signals, (items, ..., samples), each turned down where it would clip."""
    return signal * (PEAK / signal.abs().amax(tuple(range(1, signal.dim())), keepdim=True).clamp(min=PEAK))


def parts(rule: PartRule) -> Iterator[str]:
    """What the items of a judged set hold, in their order: "noise", "speech" or "both", in even steps."""
    shares = {"noise": rule.noise_only or 0.0, "speech": rule.speech_only or 0.0}
    given = dict.fromkeys(shares, 0)
    for number in itertools.count(1):
        # Half a step apart, so that both are rarely due at once; the second then comes with the next item.
        due = [
            part
            for part, share, ahead in zip(shares, shares.values(), (1e-9, 0.5), strict=True)
            if given[part] < math.floor(number * share + ahead)
        ]
        given |= {part: given[part] + 1 for part in due[:1]}
        yield due[0] if due else "both"


@dataclass(frozen=True)
class Scenes:
    """Speech, noises and the rule that mixes them."""

    rule: MixtureRule
    speech: Bank
    kinds: dict[str, noises.Noise]
    digest: str

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update: noisy and clean, (items, samples) on the device. Same seed and step, same batch."""
        rng = np.random.default_rng([seed, step])
        both = buffer(device, 2, items, self.rule.samples)
        self.speech.fill(self.speech.draw("train", rng, items, self.rule.samples), both[0])
        noisy, clean = add_noise(self.rule, self.kinds, rng, both, device)
        if self.rule.noise_only or self.rule.speech_only:
            noisy, clean = without_a_part(self.rule, rng, noisy, clean, clean)
        return {"noisy": noisy, "clean": clean}

    def items(self, test_set: str, count: int) -> list[Item]:
        """The fixed list of a judged set; a shorter list is the beginning of a longer one.

        Prompt names take turns, so that none is over-represented; noise kinds and SNRs are balanced in shuffled blocks;
        babble never holds the target clip itself.
        """
        speech_split, noise_split = SPLITS[test_set]
        if test_set == "mismatched" and not (self.speech.clips.split == speech_split).any():
            speech_split = "test"  # no voice is held out: the noise alone is unheard
        shortest, longest = (seconds * SAMPLE_RATE for seconds in CLIP_SECONDS)
        clips = self.speech.clips
        clips = clips[(clips.split == speech_split) & clips.samples.between(shortest, longest)]
        if clips.empty and count:
            raise UserError(
                f"corpus {self.speech.card.name!r} has no {speech_split} clip of {CLIP_SECONDS[0]}-{CLIP_SECONDS[1]} s"
            )
        order = clips.assign(key=[hashlib.sha1(clip.encode()).hexdigest() for clip in clips["clip"]]).sort_values("key")
        turns = order.assign(turn=order.groupby("name").cumcount()).sort_values(["turn", "key"], kind="stable")
        cells = self.rule.cells(test_set)
        rng = np.random.default_rng(seed_of(test_set))
        chosen: list[Item] = []
        while len(chosen) < count:
            for cell in rng.permutation(len(cells)):
                clip = turns.iloc[len(chosen) % len(turns)]
                kind, snr = cells[cell]
                noise = self.kinds[kind]
                plan = noise_without(self.speech, clip["clip"], noise, noise_split, rng, int(clip.samples))
                level = round(float(rng.uniform(*self.rule.level)), 2)
                numbers = tuple(int(number) for number in plan)
                name = f"{test_set}/{len(chosen):03d}"
                chosen.append(
                    Item(name, test_set, clip["clip"], clip["name"], clip["voice"], kind, numbers, float(snr), level)
                )
        return [_one_sided(item, part) for item, part in zip(chosen[:count], parts(self.rule), strict=False)]

    def example(self, item: Item) -> dict[str, torch.Tensor]:
        """Noisy and clean of one item by the names of their fields."""
        return dict(zip(("noisy", "clean"), self.mixture(item), strict=True))

    def mixture(self, item: Item) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy and clean of one item, (samples,) each; always mixed on the CPU, so that every device judges the same samples."""
        speech = torch.from_numpy(self.speech.clip(item.clip))[None]
        part = item.holds if isinstance(item, OneSided) else "both"
        if part == "speech":
            clean = mix(speech, torch.zeros_like(speech), torch.zeros(1), torch.tensor([item.level]))[1][0]
            return clean, clean
        noise = self.kinds[item.noise].render(np.array([item.plan]), speech.shape[-1], torch.device("cpu"))
        if part == "noise":
            power = noise[0].square().mean().clamp(min=QUIETEST)
            return within_scale(noise * (10 ** (item.level / 10) / power).sqrt())[0], torch.zeros_like(noise[0])
        noisy, clean, _ = mix(speech, noise, torch.tensor([item.snr]), torch.tensor([item.level]))
        return noisy[0], clean[0]


def _one_sided(item: Item, part: str) -> Item:
    """An item that holds a part alone; itself where it holds both. Noise is as loud as it would be beside the speech."""
    about = asdict(item) | {"snr": math.nan}
    if part == "noise":
        return OneSided(**about | {"level": round(item.level - item.snr, 2), "speaker": ""}, holds=part)
    if part == "speech":
        return OneSided(**about | {"noise": "none", "plan": ()}, holds=part)
    return item


def noise_without(
    speech: Bank, clip: str, noise: noises.Noise, split: str, rng: np.random.Generator, samples: int
) -> np.ndarray:
    """The plan of a noise of so many samples that does not hold a clip of the speech itself."""
    for _ in range(DRAWS):
        plan = noise.draw(split, rng, 1, samples)[0]
        if not noise.holds(clip, int(plan[0]), samples):
            return plan
    raise UserError(
        f"corpus {speech.card.name!r}: every window of {noise.bank.card.name} holds the clip {clip!r} itself: "
        f"too little {split} speech"
    )


def turns(key: str, values: Sequence[int] | np.ndarray) -> Iterator[int]:
    """Values for ever, in shuffled blocks that hold each once."""
    rng = np.random.default_rng(seed_of(key))
    while True:
        yield from rng.permutation(values).tolist()


def seed_of(key: str) -> int:
    """A seed from a text."""
    return int(hashlib.sha1(key.encode()).hexdigest()[:8], 16)


def list_digest(items: Sequence[Any]) -> str:
    """Hash of a list of items: two runs with the same one were judged on the same mixtures."""
    return hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()[:12]


def open_scenes(
    corpus: str,
    rule: MixtureRule,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> Scenes:
    """Open every corpus that the rule needs."""
    speech = open_whole(corpora.speech(corpus, "a task"), data_dir, say, progress)
    kinds = open_kinds(rule, speech, say, progress, data_dir)
    digest = scenes_digest(speech, kinds)
    if rule.train_seconds is not None:
        speech = speech.shortened(rule.train_seconds)
        kinds = {n: replace(kind, bank=kind.bank.shortened(rule.train_seconds)) for n, kind in kinds.items()}
    return Scenes(rule, speech, kinds, digest)


def open_kinds(
    rule: NoisyRule,
    speech: Bank,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
    data_dir: Path | None = None,
) -> dict[str, noises.Noise]:
    """The noises of a rule, by name. speech: the corpus that babble and speech-shaped noise are made from; data_dir: a folder of
    the user's that may hold public noises."""
    return {
        name: noises.open_noise(noise_card(name, speech.card), speech, say, progress, data_dir) for name in rule.noises
    }


def noise_card(name: str, speech: corpora.Card) -> corpora.Card:
    """The card of a noise. UserError where it is none."""
    if name == OWN:
        if not speech.own_noise:
            raise UserError(f"noise {OWN!r}: no folder noise/ lies beside the speech of {speech.name!r}")
        return speech.noise_beside
    if (card := corpora.card(name)).kind != "noise":
        raise UserError(f"corpus {name!r} is not noise; noises are: {', '.join(corpora.names('noise'))}")
    return card


def scenes_digest(speech: Bank, kinds: dict[str, noises.Noise]) -> str:
    """Hash of the recordings that training and tests are made from."""
    digests = [speech.digest, *(kind.bank.digest for kind in kinds.values())]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
