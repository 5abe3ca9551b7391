"""Spoken words: each word in each voice and reading, synthesised once and kept as a bank.

A word's first and last sample are its onset and offset, and all are equally loud.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd

from harness import paths
from harness.data import espeak
from harness.data.audio import SAMPLE_RATE
from harness.data.bank import Bank, opened, placed
from harness.data.corpora import Card
from harness.data.progress import Progress, unseen
from harness.errors import UserError

WORDS_VERSION = 1  # raise it when the same card comes to be other samples
LONGEST = 1.0  # seconds: what a scene may count on


@dataclass(frozen=True)
class Words:
    """words: those to train on, then the unknown ones. voices: of each split, places on the grid's second axis.
    grid: (words, voices, readings), rows of the bank's clips. starts, lengths: (clips,) samples."""

    bank: Bank
    words: tuple[str, ...]
    voice_names: tuple[str, ...]
    voices: dict[str, np.ndarray]
    grid: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def speakers(self, split: str, novelty: bool) -> np.ndarray:
        """Voices of a split, with those that are no imitation of people or without."""
        strange = [self.voice_names[voice] in self.bank.card.novelty for voice in self.voices[split]]
        return self.voices[split][~np.array(strange, bool) | novelty]

    def add(self, row: int, onset: int, out: np.ndarray) -> None:
        """Add a word to a buffer of int16 values, (samples,), from a sample on."""
        start, length = self.starts[row], self.lengths[row]
        out[onset : onset + length] += self.bank.samples[start : start + length]


def open_words(card: Card, say: Callable[[str], None] = print, progress: Progress = unseen) -> Words:
    """Open the words of a card, synthesising them where that has not been done yet."""
    # Of what they are made from, not of the samples: processors round a filter differently, and no ear will tell.
    digest = hashlib.sha256(f"{card.digest()} {WORDS_VERSION}".encode()).hexdigest()[:16]
    folder = paths.AUDIO / "bank" / f"{card.name}-{digest}"
    if not (folder / "bank.json").is_file():
        voices = [voice for voice in espeak.voices() if voice not in card.leave_out.names]
        say(f"{card.name}: synthesising {len(card.words + card.unknown)} words in {len(voices)} voices")
        samples, clips = _lay_out(card, list(_synthesised(card, voices, progress)))
        with placed(folder) as scratch:
            np.save(scratch / "samples.npy", samples)
            clips.to_csv(scratch / "clips.csv", index=False)
            (scratch / "bank.json").write_text(json.dumps({"digest": digest, "clips": len(clips)}))
    return _indexed(opened(card, folder))


def _synthesised(card: Card, voices: list[str], progress: Progress) -> Iterator[dict]:
    """The rows of the table of clips, with samples (`audio`)."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        for done, (voice, said) in enumerate(
            zip(voices, process.map(functools.partial(espeak.spoken, card), voices), strict=True), 1
        ):
            split = card.split.of("", voice) if card.split else ""
            for (word, reading), audio in said.items():
                if not 0 < len(audio) <= LONGEST * SAMPLE_RATE:
                    raise UserError(
                        f"corpus {card.name!r}: voice {voice!r} takes {len(audio) / SAMPLE_RATE:.2f} s for {word!r}: "
                        f"name it under leave_out on the card"
                    )
                clip = {"clip": f"{voice}/{word}/{reading}", "name": word, "voice": voice, "split": split}
                how = card.readings[reading].model_dump() | {"novelty": voice in card.novelty}
                yield clip | {"reading": reading, **how, "audio": audio}
            progress(f"{card.name}: synthesising", done, len(voices))


def _lay_out(card: Card, rows: list[dict]) -> tuple[np.ndarray, pd.DataFrame]:
    """Voices of a split side by side, as in any bank."""
    rows.sort(key=lambda row: (row["split"], row["voice"]))
    audio = [row.pop("audio") for row in rows]
    clips = pd.DataFrame(rows).assign(samples=[len(samples) for samples in audio])
    return np.concatenate(audio), clips.assign(start=clips.samples.cumsum() - clips.samples)


def _indexed(bank: Bank) -> Words:
    words, clips = bank.card.words + bank.card.unknown, bank.clips
    voices = tuple(sorted(set(clips.voice)))
    cells = clips.assign(row=range(len(clips))).set_index(["name", "voice", "reading"]).row
    order = pd.MultiIndex.from_product([words, voices, range(len(bank.card.readings))])
    split = clips.groupby("voice").split.first()[list(voices)].to_numpy()
    return Words(
        bank=bank,
        words=words,
        voice_names=voices,
        voices={name: np.flatnonzero(split == name) for name in ("train", "validation", "test")},
        grid=cells[order].to_numpy().reshape(len(words), len(voices), -1),
        starts=clips.start.to_numpy(),
        lengths=clips.samples.to_numpy(),
    )
