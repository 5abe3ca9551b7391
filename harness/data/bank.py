"""The bank: a corpus decoded once to 16 kHz int16 in one flat file that every process maps into memory.

Clips of one voice and split lie side by side with short gaps, so that any window cut from such a *region* is running speech
(many prompts are shorter than a training clip), and no window can reach into another split.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness import paths
from harness.data import archives, seal
from harness.data.audio import SAMPLE_RATE
from harness.data.build import build
from harness.data.corpora import Card
from harness.data.fetch import recordings
from harness.data.layouts import READERS
from harness.data.progress import Progress, unseen
from harness.data.recordings import walk
from harness.data.strays import weighs
from harness.errors import UserError

BANK_VERSION = 1  # raise it when decoding, order or gaps change
NAME_BYTES = 100  # of a corpus's name in that of its bank, which may have 255 in all; the key alone tells banks apart


@dataclass(frozen=True)
class Bank:
    """A decoded corpus, or the tracks of a made noise.

    samples: (total samples,) int16, memory-mapped. clips: one row a clip (clip, name, voice, split, start, samples, level).
    regions: for each split the starts and lengths of its voices' spans, (2, voices), in which windows may be cut.
    digest: hash of samples and clips. noisy: of a corpus of pairs, the same speech in noise, sample by sample.
    """

    card: Card
    samples: np.ndarray
    clips: pd.DataFrame
    regions: dict[str, np.ndarray]
    digest: str
    folder: Path
    noisy: np.ndarray | None = None
    # For each split and window length, where its regions begin and how many windows fit before each: drawn from at every step.
    _room: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def clip(self, name: str, *, noisy: bool = False) -> np.ndarray:
        """Samples of one clip as float32 in [-1, 1). noisy: of its noisy side, in a corpus of pairs."""
        start, length = self.clips.loc[self.clips["clip"] == name, ["start", "samples"]].to_numpy(int)[0]
        return self._side(noisy)[start : start + length].astype(np.float32) / 32768

    def spectrum(self) -> np.ndarray:
        """Long-term average power spectrum of the training speech, (257,): the shape of speech-shaped noise."""
        return np.load(self.folder / "spectrum.npy")

    def fill(self, starts: np.ndarray, out: torch.Tensor, *, noisy: bool = False) -> None:
        """Copy windows as long as `out`'s rows into it. starts: (windows,); out: (windows, samples) of any type, on the CPU."""
        rows, samples = out.numpy(), self._side(noisy)
        for row, start in zip(rows, starts.tolist(), strict=True):
            row[:] = samples[start : start + rows.shape[1]]

    def _side(self, noisy: bool) -> np.ndarray:
        if not noisy:
            return self.samples
        assert self.noisy is not None
        return self.noisy

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

    def notes(self) -> pd.DataFrame:
        """Recordings that entered it although something is wrong with them."""
        return pd.read_csv(self.folder / "notes.csv", dtype=str, keep_default_na=False)

    def remarks(self) -> list[str]:
        """What is to be known, of a folder of one's own, before its results are believed."""
        return json.loads((self.folder / "bank.json").read_text()).get("remarks", [])


def buffer(device: torch.device, *shape: int) -> torch.Tensor:
    """Room on the CPU for int16 samples bound for a device: each is written, and sent, no more often than need be."""
    return torch.empty(*shape, dtype=torch.float32 if device.type == "cpu" else torch.int16)


def sounding(samples: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A filled `buffer` as float32 in [-1, 1) on the device; sent, like all of a batch, without waiting for what a GPU does."""
    return samples.to(device, non_blocking=True).to(torch.float32).mul_(1 / 32768)


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A scratch folder that is moved into place whole; a bank that another process made first stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".bank-", dir=folder.parent))
    scratch.chmod(0o755)  # mkdtemp's 0700 would keep a shared disk to one user
    try:
        yield scratch
        seal.close(scratch)
        try:
            os.rename(scratch, folder)
        except OSError:
            if not (folder / "bank.json").is_file():  # what is left of a bank
                shutil.rmtree(folder)
                os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_bank(
    card: Card,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> Bank:
    """Open a recorded corpus's bank, fetching and decoding the recordings where that has not been done yet."""
    key, root = card.digest(), card.root
    if card.public:
        root = archives.root(card, data_dir, say, progress)
    if root is not None:
        key += f"-{_listing(card, root)}"  # no card knows what may have been added to it
    elif data_dir is not None:
        key += f"-{hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]}"
    name = card.name.encode()[:NAME_BYTES].decode(errors="ignore")
    folder = paths.AUDIO / "bank" / f"{name}-{key}-v{BANK_VERSION}"
    if not (folder / "bank.json").is_file():
        root = root or recordings(card, data_dir, say, progress)
        say(f"{card.name}: {card.notice + '; ' if card.notice else ''}decoding to 16 kHz")
        with placed(folder) as scratch:
            build(card, READERS[card.layout or ""](root, card), root, scratch, progress)
        if older := _older(folder, name, root):
            say(f"{card.name}: decoded before it changed, and may be deleted: {', '.join(older)} in {folder.parent}")
    bank = opened(card, folder)
    if card.root is not None and card.kind == "labels":
        say(f"{card.name}: labels: {', '.join(sorted(set(bank.clips.label)))}")
    for remark in bank.remarks():
        say(f"{card.name}: {remark}")
    return bank


def _listing(card: Card, root: Path) -> str:
    """Hash of a folder's path and of what may change its bank: the names, sizes and times of files below it, and behind links in
    it, and why others cannot be read."""
    hashed = hashlib.sha256(os.fsencode(root))
    for path, trouble in sorted(walk(root).items()):
        if about := trouble or (_about(path) if weighs(path, root, own=card.root is not None) else ""):
            hashed.update(os.fsencode(f"{path.relative_to(root)} {about}\n"))
    return hashed.hexdigest()[:12]


def _about(path: Path) -> str:
    """Size and time of a file; "" for a folder, whose time changes with all that lies in it."""
    with suppress(OSError):
        about = path.stat()
        return f"{about.st_size} {about.st_mtime_ns}" if stat.S_ISREG(about.st_mode) else ""
    return "cannot be reached"  # any more


def _older(folder: Path, name: str, root: Path) -> list[str]:
    """Names of the banks that were made of the same recordings as they were before. name: what those of a corpus begin with."""
    older = []
    for other in sorted(folder.parent.glob(f"{glob.escape(name)}-*/bank.json")):
        with suppress(OSError, ValueError, AttributeError):
            if other.parent != folder and json.loads(other.read_text()).get("root") == str(root):
                older.append(other.parent.name)
    return older


def opened(card: Card, folder: Path) -> Bank:
    """The bank that lies in a folder. UserError where a file of it is damaged."""
    seal.check(folder)
    text = {"clip": str, "name": str, "voice": str, "split": str, "label": str, "noise": str}
    clips = pd.read_csv(folder / "clips.csv", dtype=text, keep_default_na=False, na_values={"snr": [""]})
    spans = (
        clips.assign(end=clips.start + clips.samples)
        .groupby(["split", "voice"])
        .agg(start=("start", "min"), end=("end", "max"))
    )
    return Bank(
        card=card,
        samples=_mapped(folder / "samples.npy"),
        clips=clips,
        regions={str(split): np.stack([span.start, span.end - span.start]) for split, span in spans.groupby("split")},
        digest=json.loads((folder / "bank.json").read_text())["digest"],
        folder=folder,
        noisy=_mapped(folder / "noisy.npy") if card.kind == "pairs" else None,
    )


def _mapped(file: Path) -> np.ndarray:
    # A slice of numpy's memmap takes as long as a third of a window's copy.
    return np.load(file, mmap_mode="r").view(np.ndarray)
