"""The bank: a corpus decoded once to 16 kHz int16 in one flat file that every process maps into memory.

Clips of one voice and split lie side by side with short gaps, so that any window cut from such a *region* is running speech
(many prompts are shorter than a training clip), and no window can reach into another split.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness import paths
from harness.data.audio import SAMPLE_RATE, active_level, decode_g722
from harness.data.corpora import Card
from harness.data.fetch import recordings
from harness.data.progress import Progress, unseen
from harness.errors import UserError

BANK_VERSION = 1  # raise it when decoding, order or gaps change
GAP_SECONDS = (0.1, 0.3)


@dataclass(frozen=True)
class Bank:
    """A decoded corpus, or the tracks of a made noise.

    samples: (total samples,) int16, memory-mapped. clips: one row a clip (clip, name, voice, split, start, samples, level).
    regions: for each split the starts and lengths of its voices' spans, (2, voices), in which windows may be cut.
    digest: hash of samples and clips.
    """

    card: Card
    samples: np.ndarray
    clips: pd.DataFrame
    regions: dict[str, np.ndarray]
    digest: str
    folder: Path
    # For each split and window length, where its regions begin and how many windows fit before each: drawn from at every step.
    _room: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def clip(self, name: str) -> np.ndarray:
        """Samples of one clip as float32 in [-1, 1)."""
        start, length = self.clips.loc[self.clips["clip"] == name, ["start", "samples"]].to_numpy(int)[0]
        return self.samples[start : start + length].astype(np.float32) / 32768

    def spectrum(self) -> np.ndarray:
        """Long-term average power spectrum of the training speech, (257,): the shape of speech-shaped noise."""
        return np.load(self.folder / "spectrum.npy")

    def fill(self, starts: np.ndarray, out: torch.Tensor) -> None:
        """Copy windows as long as `out`'s rows into it. starts: (windows,); out: (windows, samples) of any type, on the CPU."""
        rows = out.numpy()
        for row, start in zip(rows, starts.tolist(), strict=True):
            row[:] = self.samples[start : start + rows.shape[1]]

    def cut(self, starts: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        """Windows cut from the bank. starts: (windows,); samples: length of each. Returns float32 of (windows, samples)."""
        windows = buffer(device, len(starts), samples)
        self.fill(starts, windows)
        return sounding(windows, device)

    def draw(self, split: str, rng: np.random.Generator, shape: int | tuple[int, ...], samples: int) -> np.ndarray:
        """Random window starts within the regions of a split, each region as likely as it is long."""
        if (split, samples) not in self._room:
            starts, lengths = self.regions.get(split, np.zeros((2, 0), np.int64))
            self._room[split, samples] = starts, np.concatenate([[0], np.cumsum(np.maximum(lengths - samples + 1, 0))])
        starts, before = self._room[split, samples]
        if before[-1] == 0:
            raise UserError(
                f"corpus {self.card.name!r} has no {split} recording of {samples / SAMPLE_RATE:.2f} s or more"
            )
        place = rng.integers(0, before[-1], shape)
        pick = before.searchsorted(place, side="right") - 1
        return starts[pick] + place - before[pick]

    def shortened(self, seconds: float) -> Bank:
        """A bank whose training split is `seconds` long: the beginning of each of its voices' spans, of equal length where
        all have as much. Clips behind are of no split."""
        starts, lengths = self.regions["train"]
        left, limit = int(seconds * SAMPLE_RATE), lengths.copy()
        # A span that is shorter than its share leaves the rest of it to the longer ones.
        for place, span in enumerate(np.argsort(lengths, kind="stable")):
            limit[span] = min(lengths[span], left // (len(lengths) - place))
            left -= limit[span]
        clips = self.clips.copy()
        ends = clips.start + clips.samples
        heard = np.any([(clips.start >= s) & (ends <= s + n) for s, n in zip(starts, limit, strict=True)], axis=0)
        clips.loc[(clips.split == "train") & ~heard, "split"] = "unused"
        return replace(self, clips=clips, regions=self.regions | {"train": np.stack([starts, limit])}, _room={})

    def left_out(self) -> pd.DataFrame:
        """Recordings that did not enter the bank, each with its reason."""
        return pd.read_csv(self.folder / "left_out.csv", dtype=str, keep_default_na=False)


def buffer(device: torch.device, *shape: int) -> torch.Tensor:
    """Room on the CPU for int16 samples bound for a device: each is written, and sent, no more often than need be."""
    return torch.empty(*shape, dtype=torch.float32 if device.type == "cpu" else torch.int16)


def sounding(samples: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A filled `buffer` as float32 in [-1, 1) on the device."""
    return samples.to(device).to(torch.float32).mul_(1 / 32768)


def _walk(card: Card, root: Path) -> Iterator[tuple[str, str, str, Path]]:
    """(clip id, name, voice, path) of every recording, by the card's layout."""
    for folder in card.contents:
        for path in sorted((root / folder).rglob("*.g722")):
            name = path.relative_to(root / folder).with_suffix("").as_posix()
            yield f"{folder}/{name}", name, folder if card.layout == "voice_folders" else name, path


def _decode(card: Card, root: Path, progress: Progress) -> tuple[list[dict], list[dict]]:
    """Decode every recording: those kept (with samples) and those left out (with the reason)."""
    kept, left_out = [], []
    recordings_ = list(_walk(card, root))
    for done, (clip, name, voice, path) in enumerate(recordings_, 1):
        samples, reason = np.zeros(0, np.int16), ""
        if any(part in card.leave_out.folders for part in name.split("/")[:-1]):
            reason = f"folder {'/'.join(name.split('/')[:-1])}"
        elif name in card.leave_out.names:
            reason = "no speech (by name)"
        else:
            try:
                samples = decode_g722(path)
            except ValueError as error:
                reason = str(error)
            if not reason and len(samples) < card.leave_out.shorter_than * SAMPLE_RATE:
                reason = f"too short ({len(samples) / SAMPLE_RATE:.2f} s)"
        level = active_level(samples) if not reason else -np.inf
        if not reason and level < card.leave_out.quieter_than:
            reason = f"silent ({level:.0f} dBFS)"
        if reason:
            left_out.append({"clip": clip, "reason": reason})
        else:
            assert card.split is not None
            split = card.split.of(name, voice)
            kept.append(
                {"clip": clip, "name": name, "voice": voice, "split": split, "level": round(level, 2), "audio": samples}
            )
        progress(f"{card.name}: decoding", done, len(recordings_))
    return kept, left_out


def _lay_out(kept: list[dict]) -> tuple[np.ndarray, pd.DataFrame]:
    """Order clips by split and voice, names shuffled by their hash, with seeded gaps between them."""
    kept.sort(key=lambda c: (c["split"], c["voice"], hashlib.sha1(c["clip"].encode()).hexdigest()))
    gaps = np.random.default_rng(0).uniform(*GAP_SECONDS, len(kept))
    rows, pieces, start = [], [], 0
    for clip, gap in zip(kept, gaps, strict=True):
        audio = clip.pop("audio")
        silence = np.zeros(int(gap * SAMPLE_RATE), np.int16)
        rows.append(clip | {"start": start, "samples": len(audio)})
        pieces += [audio, silence]
        start += len(audio) + len(silence)
    return np.concatenate(pieces), pd.DataFrame(rows)


def _long_term_spectrum(samples: np.ndarray, clips: pd.DataFrame) -> np.ndarray:
    """Long-term average power spectrum (Welch, 512 samples, half overlapped) of some clips: (257,)."""
    window = torch.hann_window(512)
    total, frames = torch.zeros(257, dtype=torch.float64), 0
    for start, length in clips.loc[clips.samples >= 512, ["start", "samples"]].to_numpy():
        audio = torch.from_numpy(samples[start : start + length].astype(np.float32) / 32768)
        power = torch.fft.rfft(audio.unfold(0, 512, 256) * window).abs().square()
        total += power.sum(0)
        frames += len(power)
    return (total / frames).numpy()


def _build(card: Card, root: Path, folder: Path, progress: Progress) -> None:
    """Decode a corpus into the folder of its bank."""
    kept, left_out = _decode(card, root, progress)
    if not kept:
        raise UserError(f"corpus {card.name!r}: no usable recording (.g722) in {root}")
    samples, clips = _lay_out(kept)
    with placed(folder) as scratch:
        np.save(scratch / "samples.npy", samples)
        hashed = hashlib.sha256(samples.tobytes() + clips.to_csv(index=False).encode())
        if card.kind == "speech":
            # Rounded, so that the order of a processor's sums leaves the noise, and its hash, the same.
            train = _long_term_spectrum(samples, clips[clips.split == "train"])
            spectrum = np.array([float(f"{value:.4g}") for value in train], np.float32)
            np.save(scratch / "spectrum.npy", spectrum)
            hashed.update(spectrum.tobytes())
        clips.to_csv(scratch / "clips.csv", index=False)
        pd.DataFrame(left_out, columns=["clip", "reason"]).to_csv(scratch / "left_out.csv", index=False)
        (scratch / "bank.json").write_text(
            json.dumps({"digest": hashed.hexdigest()[:16], "clips": len(clips), "left_out": len(left_out)})
        )


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A scratch folder that is moved into place whole; a bank that another process made first stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".bank-", dir=folder.parent))
    scratch.chmod(0o755)  # mkdtemp's 0700 would keep a shared disk to one user
    try:
        yield scratch
        try:
            os.rename(scratch, folder)
        except OSError:
            if not (folder / "bank.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_bank(
    card: Card,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> Bank:
    """Open a recorded corpus's bank, fetching and decoding the recordings where that has not been done yet."""
    key = card.digest() + (f"-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}" if data_dir else "")
    folder = paths.AUDIO / "bank" / f"{card.name}-{key}-v{BANK_VERSION}"
    if not (folder / "bank.json").is_file():
        root = recordings(card, data_dir, say, progress)
        say(f"{card.name}: decoding to 16 kHz")
        _build(card, root, folder, progress)
    return opened(card, folder)


def opened(card: Card, folder: Path) -> Bank:
    """The bank that lies in a folder."""
    text = {"clip": str, "name": str, "voice": str, "split": str}
    clips = pd.read_csv(folder / "clips.csv", dtype=text, keep_default_na=False)  # "null" and "nan" are names
    spans = (
        clips.assign(end=clips.start + clips.samples)
        .groupby(["split", "voice"])
        .agg(start=("start", "min"), end=("end", "max"))
    )
    samples = np.load(folder / "samples.npy", mmap_mode="r")
    return Bank(
        card=card,
        samples=samples.view(np.ndarray),  # a slice of numpy's memmap takes as long as a third of a window's copy
        clips=clips,
        regions={str(split): np.stack([span.start, span.end - span.start]) for split, span in spans.groupby("split")},
        digest=json.loads((folder / "bank.json").read_text())["digest"],
        folder=folder,
    )
