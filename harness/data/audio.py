"""Decode recordings to 16 kHz mono and measure their level."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
FRAME = 512  # 32 ms: the frame of every level measurement
ACTIVE_RANGE_DB = 40.0  # frames within 40 dB of the loudest count as active
BOUNDARY_SECONDS = 0.05  # the unit in which a word's onset and offset are told and estimated


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


def active_level(samples: np.ndarray) -> float:
    """Mean power of the active frames (within 40 dB of the loudest), in dBFS of int16; -inf for silence."""
    if len(samples) == 0:
        return -np.inf
    padded = np.pad(samples.astype(np.float64) / 32768, (0, -len(samples) % FRAME))
    power = (padded.reshape(-1, FRAME) ** 2).mean(1)
    if power.max() == 0:
        return -np.inf
    return float(10 * np.log10(power[power >= power.max() * 10 ** (-ACTIVE_RANGE_DB / 10)].mean()))
