"""Scenes of spoken words in noise, for tasks that recognise, tag, transcribe, count or locate them.

An item is one or more words of one voice, over each other or in a row, whose places are known to the sample. A voice of
the test was heard in no training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from harness.data import corpora, noises, real_words
from harness.data.audio import BOUNDARY_SECONDS, SAMPLE_RATE
from harness.data.bank import Bank, buffer, open_bank, sounding
from harness.data.progress import Progress, unseen
from harness.data.real_words import Window
from harness.data.scenes import JudgedItems, NoisyRule, add_noise, mix, open_kinds, scenes_digest, seed_of, turns
from harness.data.words import LONGEST, Words, open_words
from harness.errors import UserError, unknown

PEOPLE = "prompts"  # whose speech babble, speech-shaped noise and real words are made from, whatever says the words
ENGLISH = r"en_.*"  # folders of people who speak the language of the words
GAP = round(0.05 * SAMPLE_RATE)  # least between words in a row
DIGITS = 10  # the first words of a card are the digits, in their order
SPLITS = {"validation": "validation", "matched": "test", "mismatched": "test", "open_set": "test", "training": "train"}


class WordRule(NoisyRule):
    """What items of words are made of. words: fewest and most in an item; novelty: whether robots and whisperers speak too;
    imbalance: how many times rarer the last word is than the first in training, the others in even steps between."""

    seconds: float = Field(1.0, ge=LONGEST, le=30)
    words: tuple[int, int] = (1, 1)
    novelty: bool = False
    imbalance: float = Field(1.0, ge=1)

    @model_validator(mode="after")
    def _some(self) -> WordRule:
        if not 1 <= self.words[0] <= self.words[1] <= 20:
            raise ValueError("words must be fewest, most, from 1 to 20")
        return self


class KeywordItems(JudgedItems):
    """How many mixtures each judged set holds. open_set: of words that are no class; real_words: of digits said by a person."""

    open_set: int | None = Field(None, ge=2)
    real_words: int | None = Field(None, ge=2)


class KeywordRule(WordRule):
    """One word."""

    items: KeywordItems = KeywordItems()


class TagRule(WordRule):
    """One to three words over each other."""

    words: tuple[int, int] = (1, 3)


class DigitRule(WordRule):
    """Strings of one to six digits."""

    seconds: float = Field(3.5, ge=LONGEST, le=30)
    words: tuple[int, int] = (1, 6)


class CountRule(WordRule):
    """One to five words in three seconds."""

    seconds: float = Field(3.0, ge=LONGEST, le=30)
    words: tuple[int, int] = (1, 5)


class PlaceRule(WordRule):
    """One word somewhere in a second and a half."""

    seconds: float = Field(1.5, ge=LONGEST, le=30)


@dataclass(frozen=True)
class Spoken:
    """What is said where: word (places on the list of words; -1 for none), row of the bank's clips, onset and offset in
    samples, all (items, most words)."""

    word: np.ndarray
    row: np.ndarray
    onset: np.ndarray
    offset: np.ndarray

    @property
    def there(self) -> np.ndarray:
        return self.word >= 0


def _label(spoken: Spoken, classes: int) -> dict[str, np.ndarray]:
    return {"label": np.where(spoken.word[:, 0] < classes, spoken.word[:, 0], -1)}


def _targets(spoken: Spoken, classes: int) -> dict[str, np.ndarray]:
    said = np.zeros((len(spoken.word), classes), np.float32)
    item, slot = np.nonzero(spoken.there)
    said[item, spoken.word[item, slot]] = 1.0
    return {"targets": said}


def _tokens(spoken: Spoken, classes: int) -> dict[str, np.ndarray]:
    return {"tokens": spoken.word + 1, "token_lengths": spoken.there.sum(1)}


def _count(spoken: Spoken, classes: int) -> dict[str, np.ndarray]:
    return {"count": spoken.there.sum(1).astype(np.float32)}


def _boundary(spoken: Spoken, classes: int) -> dict[str, np.ndarray]:
    ends = np.stack([spoken.onset[:, 0], spoken.offset[:, 0]], 1) / (BOUNDARY_SECONDS * SAMPLE_RATE)
    return {"target_boundary": ends.astype(np.float32), **_label(spoken, classes)}


@dataclass(frozen=True)
class Arrangement:
    """How words make an item. fields: from what is said and the number of classes, the tensors that a task gives; digits:
    no other words; order: one over the other and each at most once, or in a row."""

    rule: type[WordRule]
    fields: Callable[[Spoken, int], dict[str, np.ndarray]]
    order: Literal["over", "row"] = "over"
    digits: bool = False


TASKS = {
    "keywords": Arrangement(KeywordRule, _label),
    "tags": Arrangement(TagRule, _targets),
    "digits": Arrangement(DigitRule, _tokens, "row", digits=True),
    "count": Arrangement(CountRule, _count, "row"),
    "locate": Arrangement(PlaceRule, _boundary),
}


@dataclass(frozen=True)
class WordItem:
    """One fixed mixture: the words' places on the list, their clips and onsets in samples, the noise's plan, SNR and level
    in dB. `cluster` and `speaker` are the voice."""

    id: str
    test_set: str
    cluster: str
    speaker: str
    words: tuple[int, ...]
    rows: tuple[int, ...]
    onsets: tuple[int, ...]
    noise: str
    plan: tuple[int, ...]
    snr: float
    level: float


@dataclass(frozen=True)
class WordScenes:
    """Words, people's speech, noises, the rule that mixes them and how words make an item."""

    rule: WordRule
    words: Words
    people: Bank
    kinds: dict[str, noises.Noise]
    arrangement: Arrangement
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The words that labels and targets number; the digit d is the token d + 1."""
        return self.words.bank.card.words[: DIGITS if self.arrangement.digits else None]

    def batch(self, seed: int, step: int, items: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Training fields of one update: noisy, (items, samples), and the task's, on the device. Same seed and step, same batch."""
        rng = np.random.default_rng([seed, step])
        voices = self.words.speakers("train", self.rule.novelty)
        weights = self.rule.imbalance ** -np.linspace(0, 1, len(self.classes))
        fewest, most = self.rule.words
        spoken = self._say(
            rng, voices[rng.integers(0, len(voices), items)], rng.integers(fewest, most + 1, items), weights
        )
        both = buffer(device, 2, items, self.rule.samples)
        self._write(spoken, both[0])
        noisy, _ = add_noise(self.rule, self.kinds, rng, both, device)
        return {"noisy": noisy} | {
            name: field.to(device, non_blocking=True) for name, field in self._fields(spoken).items()
        }

    def items(self, test_set: str, count: int) -> Sequence[WordItem | Window]:
        """The fixed list of a judged set; a shorter list is the beginning of a longer one. Of `keywords` also "open_set": words
        never trained on, whose label is -1; and "real_words": the digits as one person says them, who was heard in babble alone.

        Words, voices, numbers of words, and noise kinds with SNRs take turns, each in shuffled blocks.
        """
        if test_set == real_words.TEST_SET:
            said = real_words.digits(self.people, ENGLISH, ("train", "validation", "test"), self.rule.samples)
            return real_words.windows(self.people, said, self.kinds, self.rule, count)
        split = SPLITS[test_set]
        cells, card = self.rule.cells(test_set), self.words.bank.card
        if test_set == "open_set":
            first, weights = np.arange(len(card.words), len(self.words.words)), np.zeros(len(self.words.words))
        else:
            first, weights = np.arange(len(self.classes)), np.ones(len(self.classes))
        voices = self.words.speakers(split, self.rule.novelty)
        fewest, most = self.rule.words
        draws = [
            turns(f"{test_set}/{what}", values)
            for what, values in (
                ("words", first),
                ("voices", voices),
                ("counts", range(fewest, most + 1)),
                ("cells", range(len(cells))),
            )
        ]
        rng = np.random.default_rng(seed_of(test_set))
        chosen = []
        for number in range(count):
            word, voice, size, cell = (next(draw) for draw in draws)
            spoken = self._say(rng, np.array([voice]), np.array([size]), weights, np.array([word]))
            kind, snr = cells[cell]
            plan = self.kinds[kind].draw(split, rng, 1, self.rule.samples)[0]
            name, there = self.words.voice_names[voice], spoken.there[0]
            words, rows, onsets = (tuple(part[0, there].tolist()) for part in (spoken.word, spoken.row, spoken.onset))
            level = round(float(rng.uniform(*self.rule.level)), 2)
            chosen.append(
                WordItem(
                    f"{test_set}/{number:03d}", test_set, name, name, words, rows, onsets, kind, tuple(plan.tolist()), snr, level
                )
            )  # fmt: skip
        return chosen

    def example(self, item: WordItem | Window) -> dict[str, torch.Tensor]:
        """Fields of one item, unbatched; always mixed on the CPU, so that every device judges the same samples."""
        if isinstance(item, Window):
            digit = int(item.cluster.rpartition("/")[2])
            return {"noisy": real_words.mixed(self.people, self.kinds, self.rule, item), "label": torch.tensor(digit)}
        spoken, noisy = self.spoken(item), self._clean(item)
        noise = self.kinds[item.noise].render(np.array([item.plan]), self.rule.samples, noisy.device)
        noisy, _, _ = mix(noisy, noise, torch.tensor([item.snr]), torch.tensor([item.level]))
        return {"noisy": noisy[0]} | {name: field[0] for name, field in self._fields(spoken).items()}

    def spoken(self, item: WordItem) -> Spoken:
        """What is said where in one item, (1, most words)."""
        missing = self.rule.words[1] - len(item.words)
        word, row, onset = (
            np.array([[*values, *[fill] * missing]])
            for values, fill in ((item.words, -1), (item.rows, 0), (item.onsets, 0))
        )
        return Spoken(word, row, onset, onset + np.where(word < 0, 0, self.words.lengths[row]))

    def _clean(self, item: WordItem) -> torch.Tensor:
        speech = buffer(torch.device("cpu"), 1, self.rule.samples)
        self._write(self.spoken(item), speech)
        return sounding(speech, speech.device)

    def _fields(self, spoken: Spoken) -> dict[str, torch.Tensor]:
        return {k: torch.from_numpy(v) for k, v in self.arrangement.fields(spoken, len(self.classes)).items()}

    def _write(self, spoken: Spoken, out: torch.Tensor) -> None:
        """Words into a buffer, (items, samples)."""
        rows = out.zero_().numpy()
        item, slot = np.nonzero(spoken.there)
        for place, row, onset in zip(item.tolist(), spoken.row[item, slot], spoken.onset[item, slot], strict=True):
            self.words.add(row, onset, rows[place])

    def _say(
        self,
        rng: np.random.Generator,
        voice: np.ndarray,
        count: np.ndarray,
        weights: np.ndarray,
        first: np.ndarray | None = None,
    ) -> Spoken:
        """Draw words and their places. voice, count: (items,); weights: (words,), how often each is drawn; first: (items,), the
        first word of each where that is given. Words in a row that do not fit are not said."""
        items, slots, samples = len(voice), self.rule.words[1], self.rule.samples
        over = self.arrangement.order == "over"
        # The shortest of exponential waiting times is a draw by weight, the shortest few a draw without repetition.
        with np.errstate(divide="ignore"):
            waiting = rng.exponential(size=(items, 1 if over else slots, len(weights))) / weights
        if first is not None:
            waiting[np.arange(items), 0, first] = -1.0
        word = waiting[:, 0].argsort(-1)[:, :slots] if over else waiting.argmin(-1)
        readings = rng.integers(0, self.words.grid.shape[2], items)
        row = self.words.grid[word, voice[:, None], readings[:, None]]
        length = self.words.lengths[row]
        there = np.arange(slots) < count[:, None]
        where = rng.random((items, slots))
        if over:
            onset = (where * (samples - length + 1)).astype(np.int64)
        else:
            ends = (length + GAP).cumsum(1)  # of the words side by side, each with its gap
            there &= ends - GAP <= samples
            free = samples + GAP - (ends * there).max(1, keepdims=True)
            where[~there] = 1.0
            onset = ends - length - GAP + (np.sort(where, 1) * (free + 1) * there).astype(np.int64)
        return Spoken(np.where(there, word, -1), row, onset, onset + length)


def open_word_scenes(
    task: str,
    corpus: str,
    rule: WordRule | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> WordScenes:
    """Open every corpus that a task on words needs. rule: the task's own where none is given; data_dir: of the speech that
    the noises are made from."""
    if task not in TASKS:
        raise unknown("task on words", task, TASKS, "harness losses")
    arrangement = TASKS[task]
    rule = rule or arrangement.rule()
    card = corpora.card(corpus)
    if card.kind != "words":
        raise UserError(
            f"corpus {corpus!r} is {card.kind}; {task} needs words, one of: {', '.join(corpora.names('words'))}"
        )
    if arrangement.order == "over" and rule.words[1] > len(card.words):
        raise UserError(f"words: {rule.words[1]} different ones are asked for, corpus {corpus!r} has {len(card.words)}")
    words = open_words(card, say, progress)
    people = open_bank(corpora.card(PEOPLE), data_dir, say, progress)
    kinds = open_kinds(rule, people, say, progress)
    return WordScenes(rule, words, people, kinds, arrangement, scenes_digest(words.bank, kinds))
