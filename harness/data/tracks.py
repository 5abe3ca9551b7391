"""Tracks: noises made from speech or from random numbers, once, and kept beside the decoded recordings.

A training that cuts its windows from them does so for a tenth of what making them would cost at every update. Each split has
tracks of its own: babble made of that split's speech alone, random numbers from a seed of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from harness import paths
from harness.data.audio import SAMPLE_RATE
from harness.data.bank import Bank, opened, placed
from harness.data.corpora import Card
from harness.data.progress import Progress, unseen

TRACK_VERSION = 1  # raise it when what follows makes other samples
PEAK = 0.99
GAP = round(0.2 * SAMPLE_RATE)  # between two clips of one talker, in samples
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0, "modulated": 0.0}  # power falls as 1 / f ** exponent
MODULATION_HZ = 6.0
LOWEST_HZ = 40.0  # pink and brown are flat below: what lies there is unheard and would take all of the power


def open_tracks(
    card: Card,
    speech: Bank,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> Bank:
    """Open the tracks of a made noise, making them where that has not been done yet.

    speech: the corpus that babble and speech-shaped noise are made from. clips: one row a track.
    """
    source = "" if card.shape == "coloured" else speech.digest
    # Of what they are made from, not of the samples: processors round a transform differently, and no ear will tell.
    digest = hashlib.sha256(f"{card.digest()} {source} {TRACK_VERSION}".encode()).hexdigest()[:16]
    folder = paths.AUDIO / "bank" / f"{card.name}-{digest}"
    if not (folder / "bank.json").is_file():
        say(f"{card.name}: making {sum(card.minutes.values())} minutes")
        tracks, said = _babble(card, speech, progress) if card.maker == "babble" else _shaped(card, speech, progress)
        with placed(folder) as scratch:
            rows = [{"name": name, "split": split, "samples": len(track)} for (name, split), track in tracks.items()]
            clips = pd.DataFrame(rows).assign(voice=lambda c: c.name, clip=lambda c: c.split + "/" + c.name)
            clips["start"] = clips.samples.cumsum() - clips.samples
            np.save(scratch / "samples.npy", np.concatenate(list(tracks.values())))
            clips.to_csv(scratch / "clips.csv", index=False)
            said.to_csv(scratch / "said.csv", index=False)
            (scratch / "bank.json").write_text(json.dumps({"digest": digest}))
    return opened(card, folder)


def _babble(card: Card, speech: Bank, progress: Progress) -> tuple[dict[tuple[str, str], np.ndarray], pd.DataFrame]:
    """A track a split, and what each talker says in it, where in the bank: (clip, talker, start, samples).

    A talker says every clip of the split once, in an order of his own, each at the same active level, until all is said or
    the track is as long as the card asks.
    """
    tracks: dict[tuple[str, str], np.ndarray] = {}
    said, before, done = [], 0, 0
    for split, minutes in card.minutes.items():
        clips = speech.clips[speech.clips.split == split]
        rows = list(zip(clips["clip"], clips.start, clips.samples, 10 ** (-clips.level / 20), strict=True))
        length = min(minutes * 60 * SAMPLE_RATE, int((clips.samples + GAP).sum()))
        track, rng = np.zeros(length, np.float32), np.random.default_rng(_seed(card.name, split))
        for talker in range(card.talkers):
            place = 0
            for row in rng.permutation(len(rows)):
                clip, start, samples, gain = rows[row]
                samples = min(samples, length - place)
                if samples <= 0:
                    break
                track[place : place + samples] += speech.samples[start : start + samples] * np.float32(gain)
                said.append({"clip": clip, "talker": talker, "start": before + place, "samples": samples})
                place += samples + GAP
            done += 1
            progress(f"{card.name}: making", done, card.talkers * len(card.minutes))
        if length:
            tracks[card.name, split] = _quantised(track)
            before += length
    return tracks, pd.DataFrame(said)


def _shaped(card: Card, speech: Bank, progress: Progress) -> tuple[dict[tuple[str, str], np.ndarray], pd.DataFrame]:
    """A track a split and spectrum: that of the speech, or each colour's. Nobody says anything in them."""
    if card.shape == "speech":
        magnitudes = {card.name: np.sqrt(speech.spectrum())}
    else:
        hertz = np.maximum(np.linspace(0, SAMPLE_RATE / 2, 257), LOWEST_HZ)
        magnitudes = {name: (hertz / 1000) ** (-exponent / 2) for name, exponent in COLOURS.items()}
    tracks: dict[tuple[str, str], np.ndarray] = {}
    for name, magnitude in magnitudes.items():
        for split, minutes in card.minutes.items():
            track = _gaussian(magnitude, minutes * 60 * SAMPLE_RATE, _seed(card.name, name, split))
            if name == "modulated":
                track *= 1 + 0.9 * np.sin(2 * np.pi * MODULATION_HZ / SAMPLE_RATE * np.arange(len(track)))
            tracks[name, split] = _quantised(track)
            progress(f"{card.name}: making", len(tracks), len(magnitudes) * len(card.minutes))
    return tracks, pd.DataFrame(columns=["clip", "talker", "start", "samples"])


def _gaussian(magnitude: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Gaussian noise with the spectrum `magnitude` (257,) from 0 to 8 kHz: random spectra times it, transformed back."""
    bins = samples // 2 + 1
    shape = torch.tensor(magnitude, dtype=torch.float32)[None, None]
    stretched = torch.nn.functional.interpolate(shape, bins, mode="linear", align_corners=True)[0, 0]
    spectrum = torch.randn(bins, 2, generator=torch.Generator().manual_seed(seed)).mul_(stretched[:, None])
    return torch.fft.irfft(torch.view_as_complex(spectrum), n=samples).numpy()


def _quantised(track: np.ndarray) -> np.ndarray:
    """As int16, brought in place to the highest level that does not clip."""
    track *= PEAK * 32767 / max(track.max(), -track.min(), 1e-9)
    return np.rint(track, out=track).astype(np.int16)


def _seed(*names: str) -> int:
    return int(hashlib.sha1("/".join(names).encode()).hexdigest()[:8], 16)
