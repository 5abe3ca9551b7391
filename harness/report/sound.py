"""Sounds as a page plays them: levels matched, packed, and seen as spectrograms."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import soundfile
from numpy.typing import NDArray

Clip = NDArray[np.float64]
LEVEL = -26.0  # dB of full scale, power of the clean clip: that of listening tests, with room above for peaks
MOST_GAIN = 20.0  # dB by which a clip is turned up or down at most, beside the clean one
RANGE = 70.0  # dB from white to black
WINDOW, WIDTH = 512, 320  # samples; pixels of a spectrogram, of which a column is a window
TOP = 34.0  # dB of the brightest point: the loudest bins of speech at LEVEL


def matched(clip: Clip, clean: Clip) -> Clip:
    """A clip at the level of the others of its item: scaled so that the clean speech in it (its projection on the clean clip) has
    the power of LEVEL, with 20 dB more or less than the clean clip needs at most. A clip without any of the clean speech, or of
    another length, gets that power as a whole. One that would exceed full scale is turned down to it; silence stays silent.
    """
    wanted, power = (float((x * x).mean()) if x.size else 0.0 for x in (clean, clip))
    if power == 0 or wanted == 0:
        return clip
    share = float((clip * clean).mean()) / wanted if clip.shape == clean.shape else 0.0
    gain = 1 / share if share > 0.01 * np.sqrt(power / wanted) else np.sqrt(wanted / power)
    gain = float(np.clip(gain, 10 ** (-MOST_GAIN / 20), 10 ** (MOST_GAIN / 20))) * 10 ** (LEVEL / 20) / np.sqrt(wanted)
    return clip * min(gain, 0.999 / float(np.abs(clip).max()))


def flac(clip: Clip, rate: int) -> bytes:
    """16 bits, lossless, half the size of WAV, and played by every browser."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def spectrogram(clip: Clip) -> bytes:
    """Log-magnitude spectrogram of a clip at LEVEL as a small PNG without axes: time from left to right, 0 Hz at the bottom, from
    TOP, about the loudest bins of speech, RANGE dB down."""
    from PIL import Image

    padded = np.pad(clip, (0, max(0, WINDOW - len(clip)))).astype(np.float32)
    starts = np.linspace(0, len(padded) - WINDOW, WIDTH).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[starts] * np.hanning(WINDOW).astype(np.float32)
    power = 20 * np.log10(np.abs(np.fft.rfft(frames)).T[: WINDOW // 2] + 1e-6)
    power = power.reshape(-1, 2, WIDTH).max(axis=1)[::-1]
    shade = np.clip((power - TOP + RANGE) / RANGE, 0, 1)
    image = Image.fromarray(np.round(255 * shade).astype(np.uint8))
    image.putpalette(_palette())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


@cache
def _palette() -> list[int]:
    from matplotlib import colormaps

    return [round(255 * float(part)) for colour in colormaps["magma"](np.arange(256)) for part in colour[:3]]
