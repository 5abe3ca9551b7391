"""Recordings of one's own: read whatever libsndfile reads, write what the name's suffix asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import UserError

SHORTEST = 0.1  # seconds: what training hears is not shorter either
SILENCE = 1e-6  # of full scale, -120 dBFS
PEAK = 0.999  # of full scale: a louder result is turned down
SUFFIXES = {"AIF": "AIFF", "OPUS": "OGG", "OGA": "OGG"}  # those that are not called like their format


@dataclass(frozen=True)
class Recording:
    """samples: (channels, samples) float32, full scale at 1; rate: Hz; subtype: libsndfile's name of the sample format."""

    samples: np.ndarray
    rate: int
    subtype: str = ""


def read(path: Path) -> Recording:
    """A recording. UserError for what is no sound, has none in it, or holds less than 0.1 s."""
    import soundfile

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            samples, rate, subtype = file.read(dtype="float32", always_2d=True).T, file.samplerate, file.subtype
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: raw samples, of which nothing says the rate
        raise UserError(f"{path}: not audio that can be read ({error}); WAV, FLAC, OGG and MP3 can") from None
    seconds = samples.shape[1] / rate
    if seconds < SHORTEST:
        raise UserError(f"{path}: holds {seconds:.3g} s of sound; {SHORTEST} s is the least")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: has samples that are not finite numbers (NaN or infinity); write it again without")
    if np.abs(samples).max() < SILENCE:
        raise UserError(f"{path}: is silent: nothing in it is louder than -120 dBFS")
    return Recording(samples, rate, subtype)


def write(path: Path, recording: Recording) -> float:
    """Write a recording in the format that the suffix names, its samples in their own format where that one has it.
    Returns by how many dB it was turned down, so that it does not clip. UserError where it cannot be written."""
    import soundfile

    kind = format_of(path)
    peak = float(np.abs(recording.samples).max())
    gain = min(1.0, PEAK / max(peak, 1e-9))
    wanted = "OPUS" if path.suffix.upper() == ".OPUS" else recording.subtype
    subtype = wanted if wanted and soundfile.check_format(kind, wanted) else soundfile.default_subtype(kind)
    try:
        soundfile.write(path, (gain * recording.samples).T, recording.rate, subtype, format=kind)
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None
    return -20 * math.log10(gain)


def format_of(path: Path) -> str:
    """libsndfile's name of the format that a suffix asks for; UserError for one that it does not write."""
    import soundfile

    suffix = path.suffix.removeprefix(".").upper()
    kind = SUFFIXES.get(suffix, suffix)
    if kind == "RAW" or kind not in soundfile.available_formats():
        raise UserError(
            f"{path}: the suffix names the format, as in .wav, .flac, .ogg or .mp3; {path.suffix!r} names none"
        )
    return kind


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(channels, samples) at another rate; polyphase, so that a rate without a large common divisor costs no memory."""
    from scipy.signal import resample_poly

    if rate == wanted:
        return samples
    divisor = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // divisor, rate // divisor, axis=-1).astype(np.float32)
