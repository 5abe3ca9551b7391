"""One recording through every confirmed denoiser, as a page to listen to: players of equal level, spectrograms beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness import enhance
from harness.data.audio import SAMPLE_RATE, active_level
from harness.errors import UserError
from harness.recording import PEAK, Recording, resampled
from harness.report.blocks import named
from harness.report.media import Clip, Media
from harness.report.page import html, write
from harness.report.ranking import Analysis
from harness.report.sound import LEVEL, flac, spectrogram
from harness.report.tables import ordered

if TYPE_CHECKING:
    from harness.report.runs import Results
    from harness.tracking import Tracker

EXCERPT, CHANNELS = 30, 2  # seconds and channels of a recording that a page of all losses can hold


@dataclass(frozen=True)
class Heard:
    """What is listened to. run: that made it, "" for the recording; samples: (channels, samples) at 16 kHz."""

    name: str
    run: str
    samples: np.ndarray


def excerpt(recording: Recording) -> Recording:
    """What the page plays: the beginning, at 16 kHz, which is all that a model makes, and no more than two channels."""
    begun = recording.samples[:CHANNELS, : EXCERPT * recording.rate]
    return Recording(resampled(begun, recording.rate, SAMPLE_RATE), SAMPLE_RATE)


def through_all(
    tracker: Tracker,
    results: Results,
    analysis: Analysis,
    heard: Recording,
    device: torch.device,
    show: Callable[[int, int], None] = lambda done, of: None,
) -> list[tuple[str, list[Heard]]]:
    """What the model of every confirmed loss makes of a recording: for each protocol its title and the sounds, in the order of
    the ranking. UserError where no denoiser is confirmed."""
    runs = named(results.runs)
    known = enhance.confirmed(runs)
    if known.empty:
        raise UserError("no loss is confirmed as a denoiser yet: make study LOSS=si_sdr makes one")
    sections: list[tuple[str, list[Heard]]] = []
    for protocol, own in known.groupby("protocol", sort=False):
        first = own.iloc[0]
        title = f"{first['task']} · {first['corpus']} · {first['model']} · {first['updates']:g} updates · {protocol}"
        ids, places = own.set_index("name")["run_id"], ordered(analysis, str(protocol), "matched")
        made: list[Heard] = []
        for name in [name for name in places if name in ids.index]:
            show(sum(len(each) for _, each in sections) + len(made), len(known))
            denoiser = enhance.load(tracker, str(ids[name]), device)
            made.append(Heard(name, str(ids[name]), enhance.enhance(denoiser, heard).samples))
        sections.append((title, made))
    return sections


def write_listen(
    name: str, recording: Recording, heard: Recording, sections: list[tuple[str, list[Heard]]], folder: Path
) -> Path:
    """Write listen.html into `folder` (made if needed). Returns its path.

    name: of the recording; heard: the `excerpt` of it; sections: of `through_all`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    played = Heard(name, "", heard.samples)
    everything = [played, *(each for _, own in sections for each in own)]
    level = common_level([each.samples for each in everything])

    media = Media()

    def card(each: Heard) -> dict[str, str | Clip]:
        sound, shift = matched(each.samples, level)
        picture = media.add(spectrogram(sound[0] * 10 ** ((LEVEL - level) / 20)), "image/png")
        told = f"{shift:+.1f} dB".replace("-", "−")
        clip = media.add(flac(sound.T, SAMPLE_RATE), "audio/flac")
        return {"name": each.name, "run": each.run, "shift": told, "sound": clip, "picture": picture}

    cards = [(title, [card(each) for each in own]) for title, own in sections]
    first = card(played)
    media.place(folder / "listen")
    page = html(
        "listen",
        home=(folder / "index.html").exists(),
        name=name,
        seconds=recording.samples.shape[1] / recording.rate,
        channels=len(recording.samples),
        shown=heard.samples.shape[1] / SAMPLE_RATE,
        level=f"{level:.0f}".replace("-", "−"),
        heard=first,
        sections=cards,
    )
    return write(folder / "listen.html", page)


def common_level(sounds: list[np.ndarray]) -> float:
    """The highest level, in dBFS of active speech, at which none of these sounds clips."""
    return min(_level(sound) - 20 * np.log10(max(float(np.abs(sound).max()), 1e-9) / PEAK) for sound in sounds)


def matched(sound: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    """A sound at that level of active speech, and by how many dB it was brought there; silence stays silence."""
    shift = level - _level(sound)
    return sound * np.float32(10 ** (shift / 20)), float(shift)


def _level(sound: np.ndarray) -> float:
    """Of the loudest channel."""
    return max(max(active_level(channel * 32768) for channel in sound), -120.0)
