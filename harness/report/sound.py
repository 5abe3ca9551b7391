"""Sounds as a page plays them: levels matched, packed, and seen as spectrograms."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache

import numpy as np
import soundfile
from numpy.typing import NDArray

from harness.report.drawing import spectrum

Clip = NDArray[np.float64]
LOUDEST = 0.9  # peak of the loudest clip of an item
MOST_GAIN = 20.0  # dB by which a clip is turned up or down at most
RANGE = 70.0  # dB from white to black
HEIGHT, WIDEST = 96, 320  # pixels of a spectrogram


def matched(clips: Mapping[str, Clip], clean: str = "clean") -> dict[str, Clip]:
    """The clips of one item at one level: each is scaled so that the clean speech in it (its projection on the clean clip) is as
    loud as there, by 20 dB at most; then all by one factor, so that the loudest peaks at 0.9. A clip without any of the clean
    speech, or of another length, gets the clean clip's power instead. Silence stays silent."""
    reference = np.asarray(clips[clean], dtype=float)
    scaled = {
        name: np.asarray(clip, dtype=float) * _gain(np.asarray(clip, dtype=float), reference)
        for name, clip in clips.items()
    }
    peak = max(float(np.abs(clip).max(initial=0.0)) for clip in scaled.values())
    return {name: clip * (LOUDEST / peak if peak > 0 else 1.0) for name, clip in scaled.items()}


def _gain(clip: Clip, clean: Clip) -> float:
    power, wanted = float(np.mean(clip**2)) if clip.size else 0.0, float(np.mean(clean**2)) if clean.size else 0.0
    if power == 0 or wanted == 0:
        return 1.0
    share = float(clip @ clean) / float(clean @ clean) if clip.shape == clean.shape else 0.0
    gain = 1 / share if share > 0.01 * np.sqrt(power / wanted) else np.sqrt(wanted / power)
    return float(np.clip(gain, 10 ** (-MOST_GAIN / 20), 10 ** (MOST_GAIN / 20)))


def flac(clip: Clip, rate: int) -> bytes:
    """16 bits, lossless, half the size of WAV, and played by every browser."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def spectrogram(clip: Clip, rate: int, top: float) -> bytes:
    """Log-magnitude spectrogram as a small PNG without axes, 0 Hz at the bottom, 70 dB from `top` (the loudest point of the item's
    clean clip, dB) down; a page names it and says so."""
    from PIL import Image

    power = spectrum(clip, rate)
    shade = np.clip((power - top + RANGE) / RANGE, 0, 1)[::-1]
    image = Image.fromarray(np.round(255 * shade).astype(np.uint8))
    image = image.resize((max(24, min(WIDEST, round(80 * clip.size / rate))), HEIGHT), Image.Resampling.BOX)
    image.putpalette(_palette())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@cache
def _palette() -> list[int]:
    from matplotlib import colormaps

    return [round(255 * float(part)) for colour in colormaps["magma"](np.arange(256)) for part in colour[:3]]
