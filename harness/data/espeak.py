"""Words from the synthesiser eSpeak NG: a shared library, driven by ctypes in a process of its own.

The library is not safe among threads, changes the process's locale, and what it says depends on all that it said before
(its flutter runs on). A fresh process that is asked in a fixed order says the same samples every time; this module loads no
torch, so that one starts in a second.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.audio import SAMPLE_RATE, active_level, low_pass
from harness.data.corpora import Card, Reading
from harness.errors import UserError

SAID_RATE = 22_050
RATE, PITCH = 1, 3  # espeak_PARAMETER
SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback has had all samples when espeak_Synth returns
UTF8 = 1

RESAMPLED = (320, 441)  # 22.05 kHz to 16 kHz
STEP = SAMPLE_RATE // 200  # 5 ms: the grid of onsets and offsets
TRIM_DB = 40.0  # below the loudest step, what comes before and after a word is silence
LEVEL = -26.0  # dBFS of the active part
PEAK = 0.3  # three at once do not clip

Say = Callable[[str, str, Reading], np.ndarray]
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@functools.cache
def loaded(version: str) -> Say:
    """The synthesiser, to be called with a word, a voice's name and a reading: samples at 22.05 kHz, int16.

    UserError where the library is of another version than the card's.
    """
    import espeakng_loader

    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    found = library.espeak_Info(None).decode()
    if found != version:
        raise UserError(
            f"eSpeak NG {found} is installed, the card asks for {version}: pip install espeakng-loader==0.2.4"
        )
    if library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0) != SAID_RATE:
        raise UserError("eSpeak NG does not start: pip install --force-reinstall espeakng-loader")
    pieces: list[np.ndarray] = []

    @_Callback
    def take(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(take)
    library.espeak_ng_SetRandSeed(0)  # it seeds itself by the clock

    def say(word: str, voice: str, reading: Reading) -> np.ndarray:
        pieces.clear()
        if library.espeak_SetVoiceByName(f"{reading.language}+{voice}".encode()):
            raise UserError(f"eSpeak NG has no voice {voice!r} in {reading.language!r}")
        library.espeak_SetParameter(RATE, reading.rate, 0)
        library.espeak_SetParameter(PITCH, reading.pitch, 0)
        text = word.encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *pieces])

    say.library = library, take  # type: ignore[attr-defined]  # the library calls `take` for as long as it lives
    return say


def voices() -> list[str]:
    """The variants that come with the synthesiser."""
    import espeakng_loader

    return sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir())


def spoken(card: Card, voice: str) -> dict[tuple[str, int], np.ndarray]:
    """All that a voice says: by word and number of the reading, samples at 16 kHz as they are kept."""
    say = loaded(card.version)
    return {
        (word, number): _trimmed(say(word, voice, reading))
        for number, reading in enumerate(card.readings)
        for word in card.words + card.unknown
    }


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Samples at 22.05 kHz, int16, as they are kept: 16 kHz (scipy's `resample_poly`), trimmed, at one level."""
    from scipy.signal import resample_poly

    audio = resample_poly(samples.astype(np.float32) / 32768, *RESAMPLED, window=low_pass(*RESAMPLED))
    steps = audio[: len(audio) // STEP * STEP].reshape(-1, STEP)
    power = (steps**2).mean(1)
    if not power.any():
        return np.zeros(0, np.int16)
    heard = np.flatnonzero(power >= power.max() * 10 ** (-TRIM_DB / 10))
    word = steps[heard[0] : heard[-1] + 1].ravel()
    gain = 10 ** ((LEVEL - active_level(word * 32768)) / 20)
    return np.rint(word * (32767 * min(gain, PEAK / np.abs(word).max()))).astype(np.int16)
