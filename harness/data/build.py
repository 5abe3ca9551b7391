"""Decode a corpus into the files of its bank, one recording after the other: no more of it is in memory than a block."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.data.audio import FRAME, SAMPLE_RATE, decode, frame_powers, level_of
from harness.data.corpora import Card
from harness.data.division import anew
from harness.data.progress import Progress
from harness.data.recordings import Recording, Unusable, printable
from harness.data.speakers import remarks
from harness.errors import full_disk

GAP_SECONDS = (0.1, 0.3)
SPECTRUM_SECONDS = 36_000  # ten hours tell the long-term spectrum of any speech
CLIPPED = 0.001  # share of samples held at full scale from which on a recording is called clipped
CHUNK = 1 << 24


class Track:
    """An .npy file of int16 samples that grows, and shrinks by what turns out to be of no use."""

    def __init__(self, file: Path) -> None:
        self.file, self.samples = open(file, "w+b"), 0  # noqa: SIM115
        self._head()
        self._start = self.file.tell()

    def _head(self) -> None:
        # numpy leaves room in the header for a longer shape.
        about = {"descr": "<i2", "fortran_order": False, "shape": (self.samples,)}
        np.lib.format.write_array_header_1_0(self.file, about)

    def append(self, samples: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(samples, "<i2").data)
        self.samples += len(samples)

    def cut_back(self, samples: int) -> None:
        self.file.truncate(self._start + 2 * samples)
        self.file.seek(0, 2)
        self.samples = samples

    def close(self) -> None:
        self.file.seek(0)
        self._head()
        self.file.close()


@dataclass
class Heard:
    """What is known of a recording once it has been decoded into a track."""

    track: Track
    powers: list[np.ndarray] = field(default_factory=list)
    rest: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    hashed: hashlib._Hash = field(default_factory=lambda: hashlib.sha1(usedforsecurity=False))
    samples: int = 0

    def take(self, block: np.ndarray) -> None:
        self.track.append(block)
        self.samples += len(block)
        self.hashed.update(block.tobytes())
        block = np.concatenate([self.rest, block])
        whole = len(block) // FRAME * FRAME
        self.powers.append(frame_powers(block[:whole]))
        self.rest = block[whole:]

    def power(self) -> np.ndarray:
        """Mean power of every frame, (frames,)."""
        return np.concatenate([*self.powers, frame_powers(self.rest)])


def build(card: Card, recordings: list[Recording], root: Path, folder: Path, progress: Progress) -> None:
    """Write samples.npy (of pairs: noisy.npy too), clips.csv, left_out.csv, notes.csv and bank.json into a folder.

    Clips are ordered by split and voice, those of one voice by the SHA-1 of their id, with seeded gaps between them.
    """
    rows, left_out, notes = _decoded_all(card, recordings, folder, progress)
    # What to check: noise beside the speech of a folder of one's own has no name of its own.
    corpus = card.name if card.root is None else card.root.parent if card.kind == "noise" else card.root
    if card.root is not None and (again := anew(recordings, left_out, root, corpus)) is not None:
        recordings = again
        rows, left_out, notes = _decoded_all(card, recordings, folder, progress)
    listed = [(recordings[place].clip, left_out[place]) for place in sorted(left_out)]
    if not rows:
        raise Unusable(f"corpus {card.name!r}: no usable recording in {root}", listed, corpus)
    about: dict[str, Any] = {"left_out": len(left_out), "root": str(root)}
    if card.root is not None and card.kind != "noise":
        about |= {"remarks": remarks(root, recordings, left_out)}
    _describe(card, pd.DataFrame(rows), folder, about)
    for name, table in (("left_out.csv", listed), ("notes.csv", notes)):
        pd.DataFrame(table, columns=["clip", "reason"]).to_csv(folder / name, index=False)


def _decoded_all(
    card: Card, recordings: list[Recording], folder: Path, progress: Progress
) -> tuple[list[dict], dict[int, str], list[tuple[str, str]]]:
    """Write the tracks: rows of the table of clips, why a recording is left out, by its place, and notes of what is not."""
    order = sorted(range(len(recordings)), key=lambda place: _key(recordings[place]))
    rng, known = np.random.default_rng(0), Known(card)
    tracks = [
        Track(folder / name) for name in (("samples.npy", "noisy.npy") if card.kind == "pairs" else ("samples.npy",))
    ]
    rows: list[dict] = []
    left_out: dict[int, str] = {}
    notes: list[tuple[str, str]] = []
    for done, place in enumerate(order, 1):
        recording, start = recordings[place], tracks[0].samples
        try:
            heard, noted = _decoded(card, recording, tracks, known)
        except ValueError as error:
            for track in tracks:
                track.cut_back(start)
            left_out[place] = printable(" ".join(str(error).split()))
        else:
            rows += _clips(card, recording, heard, start)
            notes += [(recording.clip, note) for note in noted]
            # Short noises run on: a window may be longer than any of them.
            gap = 0 if card.layout == "noise" else int(rng.uniform(*GAP_SECONDS) * SAMPLE_RATE)
            for track in tracks:
                track.append(np.zeros(gap, np.int16))
        progress(f"{card.name}: decoding", done, len(order))
    for track in tracks:
        track.close()
    return rows, left_out, notes


def _key(recording: Recording) -> tuple[str, str, str]:
    return recording.split, recording.voice, hashlib.sha1(recording.clip.encode()).hexdigest()


@dataclass
class Known:
    """Contents met so far, so that what comes twice is found. Of a folder of one's own it is left out, of a published corpus
    only noted, for its lists say what belongs to it."""

    card: Card
    whole: dict[bytes, str] = field(default_factory=dict)
    clean: dict[bytes, tuple[str, str]] = field(default_factory=dict)

    def faults(self, recording: Recording, contents: list[bytes]) -> Iterator[str]:
        first = self.whole.setdefault(b"".join(contents), recording.clip)
        if first != recording.clip:
            yield f"duplicate of {first}"
        elif len(contents) > 1:
            other, split = self.clean.setdefault(contents[0], (recording.clip, recording.split))
            if split != recording.split:
                yield f"its clean speech is that of {other}, which is for {split}"


def _decoded(card: Card, recording: Recording, tracks: list[Track], known: Known) -> tuple[Heard, list[str]]:
    """Decode a recording into the tracks: what was heard, and what is to be noted. ValueError: why it is left out."""
    if recording.fault:
        raise ValueError(recording.fault)
    folders = recording.name.split("/")[:-1]
    if any(part in card.leave_out.folders for part in folders):
        raise ValueError(f"folder {'/'.join(folders)}")
    if recording.name in card.leave_out.names:
        raise ValueError("no speech (by name)")
    sides = [recording.path, recording.noisy] if len(tracks) > 1 else [recording.path]
    heard, noted = [], []
    for side, (path, track) in enumerate(zip(sides, tracks, strict=True)):
        of = f"{('clean', 'noisy')[side]}: " if len(tracks) > 1 else ""
        assert path is not None
        one = Heard(track)
        try:
            clipped = decode(path, one.take)
        except Exception as error:
            if isinstance(error, MemoryError) or full_disk(error):  # no fault of the file's
                raise
            # Decoders have been seen to raise nearly everything, and one odd file must not end a study.
            told = isinstance(error, ValueError | OSError) and not isinstance(error, UnicodeError)
            raise ValueError(f"{of}{error if told else f'unreadable: {type(error).__name__}: {error}'}") from error
        if clipped > CLIPPED:
            noted.append(f"{of}clipped ({100 * clipped:.1f} % of its samples)")
        heard.append(one)
    seconds = [one.samples / SAMPLE_RATE for one in heard]
    if min(seconds) < card.leave_out.shorter_than:
        raise ValueError(f"too short ({min(seconds):.2f} s)")
    if heard[0].samples != heard[-1].samples:
        raise ValueError(f"unequal length: clean {seconds[0]:.3f} s, noisy {seconds[1]:.3f} s")
    if (level := level_of(heard[0].power())) < card.leave_out.quieter_than:
        raise ValueError(f"silent ({level:.0f} dBFS)")
    if len(heard) > 1 and (level := level_of(heard[1].power())) < card.leave_out.quieter_than:
        raise ValueError(f"noisy: silent ({level:.0f} dBFS)")
    if not card.contents:  # a card that knows every recording knows what it wants
        noted += known.faults(recording, [one.hashed.digest() for one in heard])
    if card.root is not None and noted:
        raise ValueError("; ".join(noted))
    return heard[0], noted


def _clips(card: Card, recording: Recording, heard: Heard, start: int) -> Iterator[dict]:
    """Rows of the table of clips: one, or one for each piece of a recording that is too long to be an item. Pieces without
    speech are of no use by themselves."""
    power, frames = heard.power(), -(-heard.samples // FRAME)
    pieces = max(1, math.ceil(heard.samples / SAMPLE_RATE / recording.piece))
    edges = [round(frames * piece / pieces) for piece in range(pieces + 1)]
    for piece, (first, end) in enumerate(itertools.pairwise(edges)):
        level = level_of(power[first:end])
        if level < card.leave_out.quieter_than:
            continue
        row: dict = {"clip": recording.clip + (f"#{piece}" if pieces > 1 else "")}
        row |= {"name": recording.name, "voice": recording.voice, "split": recording.split, "level": round(level, 2)}
        row |= {"start": start + first * FRAME, "samples": min(end * FRAME, heard.samples) - first * FRAME}
        row |= {"label": recording.label} if card.kind == "labels" else {}
        yield row | ({"noise": recording.noise, "snr": recording.snr} if card.kind == "pairs" else {})


def _describe(card: Card, clips: pd.DataFrame, folder: Path, about: dict[str, Any]) -> None:
    """Write what is known of a bank's samples: the table of clips, the spectrum of its speech, and the hash of all."""
    clips.to_csv(folder / "clips.csv", index=False)
    samples = np.load(folder / "samples.npy", mmap_mode="r")
    hashed = hashlib.sha256()
    for name in ("samples.npy", "noisy.npy"):
        if (folder / name).is_file():
            track = np.load(folder / name, mmap_mode="r")
            for start in range(0, len(track), CHUNK):
                hashed.update(track[start : start + CHUNK].tobytes())
    hashed.update(clips.to_csv(index=False).encode())
    if card.kind == "speech":
        # Rounded, so that the order of a processor's sums leaves the noise, and its hash, the same.
        train = clips[clips.split == "train"]
        power = _long_term_spectrum(samples, train[train.samples.cumsum() <= SPECTRUM_SECONDS * SAMPLE_RATE])
        spectrum = np.array([float(f"{value:.4g}") for value in power], np.float32)
        np.save(folder / "spectrum.npy", spectrum)
        hashed.update(spectrum.tobytes())
    found = {"digest": hashed.hexdigest()[:16], "clips": len(clips)}
    (folder / "bank.json").write_text(json.dumps(found | about))


def _long_term_spectrum(samples: np.ndarray, clips: pd.DataFrame) -> np.ndarray:
    """Long-term average power spectrum (Welch, 512 samples, half overlapped) of some clips: (257,)."""
    window = torch.hann_window(512)
    total, frames = torch.zeros(257, dtype=torch.float64), 0
    for start, length in clips.loc[clips.samples >= 512, ["start", "samples"]].to_numpy():
        audio = torch.from_numpy(samples[start : start + length].astype(np.float32) / 32768)
        power = torch.fft.rfft(audio.unfold(0, 512, 256) * window).abs().square()
        total += power.sum(0)
        frames += len(power)
    return (total / max(frames, 1)).numpy()
