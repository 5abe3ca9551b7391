"""Read recordings of any kind as 16 kHz mono, block by block, and measure their level."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000
FRAME = 512  # 32 ms: the frame of every level measurement
ACTIVE_RANGE_DB = 40.0  # frames within 40 dB of the loudest count as active
BOUNDARY_SECONDS = 0.05  # the unit in which a word's onset and offset are told and estimated
BLOCK = 1 << 20  # samples read at once: a recording may be longer than memory is large
FULL_SCALE = 0.99  # from here on a sample may have been clipped: 8 bits end at 0.992
RATES = (1_000, 768_000)  # Hz: beyond these a header is damaged
STEPS = 200_000  # the most samples until a rate is in step with 16 kHz: its filter has 20 taps for each, all in memory
HELD = 3  # so many samples at full scale in a row were


def decode(path: Path, take: Callable[[np.ndarray], None]) -> float:
    """Hand a recording to `take` in blocks of int16, 16 kHz, the mean of its channels; returns the share of clipped samples.

    Whatever libsndfile or FFmpeg reads, and raw G.722 (`.g722`). Other rates come to 16 kHz by scipy's `resample_poly` with a
    Kaiser window of beta 5. Raises ValueError with the reason in one line.
    """
    if path.suffix.lower() == ".g722":
        take(decode_g722(path))
        return 0.0
    if path.stat().st_size == 0:
        raise ValueError("empty (no byte)")
    rate, blocks = _opened(path)
    if not RATES[0] <= rate <= RATES[1] or max(ratio(rate)) > STEPS:
        raise ValueError(f"unreadable: its header tells a sampling rate of {rate:,} Hz")
    clipped = samples = 0

    def mono() -> Iterator[np.ndarray]:
        nonlocal clipped, samples
        for block in blocks:
            if not np.isfinite(block).all():
                raise ValueError("unreadable: holds samples that are no numbers")
            full = (np.abs(block) >= FULL_SCALE).any(1)
            held = full[2:] & full[1:-1] & full[:-2]
            clipped += int(held.sum()) + (HELD - 1) * int((held[1:] & ~held[:-1]).sum() + held[:1].sum())
            samples += len(block)
            yield block.mean(1) if block.shape[1] > 1 else block[:, 0]

    for block in resampled(mono(), rate):
        take(np.rint(np.clip(block * 32768, -32768, 32767)).astype(np.int16))
    return clipped / max(samples, 1)


def decode_g722(path: Path) -> np.ndarray:
    """Samples of a raw G.722 file at 64 kbit/s as int16, 16 kHz. Raises ValueError where the file cannot be decoded."""
    import av

    if path.stat().st_size == 0:
        return np.zeros(0, np.int16)
    decoder = av.CodecContext.create("g722", "r")
    decoder.sample_rate, decoder.layout = SAMPLE_RATE, "mono"
    try:
        frames = [frame.to_ndarray().reshape(-1) for frame in decoder.decode(av.Packet(path.read_bytes()))]
    except av.FFmpegError as error:
        raise ValueError(f"cannot decode: {error}") from error
    return np.concatenate(frames).astype(np.int16) if frames else np.zeros(0, np.int16)


def _opened(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """Sampling rate and blocks, (samples, channels) float32 in [-1, 1), by libsndfile or else by FFmpeg."""
    import soundfile

    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        # What ends in .raw is taken for samples without a header, whose rate has to be told.
        try:
            return _by_ffmpeg(path)
        except ValueError:
            said = getattr(error, "error_string", "has no header that tells its sampling rate")
            raise ValueError(f"unreadable: {said.strip().rstrip('.')}") from error
    return file.samplerate, _by_libsndfile(file)


def _by_libsndfile(file: Any) -> Iterator[np.ndarray]:
    import soundfile

    with file:
        try:
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                yield block
        except soundfile.LibsndfileError as error:
            raise ValueError(f"unreadable: {error.error_string.strip().rstrip('.')}") from error


def _by_ffmpeg(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    import av

    try:
        # A playlist may name other places: only this machine's files are opened.
        container = av.open(str(path), options={"protocol_whitelist": "file"})
        if not container.streams.audio:
            container.close()
            raise ValueError("unreadable: holds no sound")
        if not container.streams.audio[0].rate:  # what is damaged may still look like some format
            container.close()
            raise ValueError("unreadable: tells no sampling rate")
    except av.FFmpegError as error:
        raise ValueError(f"unreadable: {error.strerror}") from error
    stream = container.streams.audio[0]

    def blocks() -> Iterator[np.ndarray]:
        as_float = av.AudioResampler(format="fltp")
        try:
            with container:
                for frame in container.decode(stream):
                    for out in as_float.resample(frame):
                        yield out.to_ndarray().T
        except av.FFmpegError as error:
            raise ValueError(f"unreadable: {error.strerror}") from error

    return int(stream.rate or 0), blocks()


def ratio(rate: int) -> tuple[int, int]:
    """Samples at 16 kHz, and at another rate, that last as long: the fewest."""
    divisor = math.gcd(SAMPLE_RATE, rate)
    return SAMPLE_RATE // divisor, rate // divisor


def resampled(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Blocks of float32 at 16 kHz from blocks at another rate: the samples that `resample_poly` gives for all at once."""
    from scipy.signal import resample_poly

    up, down = ratio(rate)
    if up == down:
        yield from blocks
        return
    # A sample at 16 kHz is made of those within the filter's half length: a margin on either side, in whole steps of `down`.
    margin = -(-10 * max(up, down) // (up * down)) * down
    window, skip = low_pass(up, down), margin // down * up
    held, came, made = np.zeros(margin, np.float32), 0, 0

    def step(samples: int) -> np.ndarray:
        nonlocal held, made
        out = resample_poly(held[: samples + 2 * margin], up, down, window=window)[skip : skip + samples // down * up]
        held = held[samples:]
        made += len(out)
        return out

    for block in blocks:
        came += len(block)
        held = np.concatenate([held, block])
        if (ready := (len(held) - 2 * margin) // down * down) > 0:
            yield step(ready)
    if (left := -(-came * up // down) - made) > 0:
        last = -(-left // up) * down
        held = np.concatenate([held, np.zeros(max(last + 2 * margin - len(held), 0), np.float32)])
        yield step(last)[:left]


@functools.lru_cache(8)
def low_pass(up: int, down: int) -> np.ndarray:
    """What `resample_poly` would design anew for each block: its Kaiser window of beta 5."""
    from scipy.signal import firwin

    most = max(up, down)
    return firwin(20 * most + 1, 1 / most, window=("kaiser", 5.0)).astype(np.float32)


def frame_powers(samples: np.ndarray) -> np.ndarray:
    """Mean power of frames of 32 ms of int16 samples, the last one padded with zeros: (frames,), 1 at full scale."""
    padded = np.pad(samples.astype(np.float64) / 32768, (0, -len(samples) % FRAME))
    return (padded.reshape(-1, FRAME) ** 2).mean(1)


def level_of(power: np.ndarray) -> float:
    """Mean of the active frames' powers (within 40 dB of the loudest), in dBFS; -inf for silence."""
    if not power.any():
        return -np.inf
    return float(10 * np.log10(power[power >= power.max() * 10 ** (-ACTIVE_RANGE_DB / 10)].mean()))


def active_level(samples: np.ndarray) -> float:
    """Mean power of the active frames of int16 samples, in dBFS; -inf for silence."""
    return level_of(frame_powers(samples))
