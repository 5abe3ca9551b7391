"""Tiny corpora in the layouts of the public ones and in those of folders of one's own, made of real prompts and spoken words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from harness import paths
from harness.data.bank import Bank
from tests.real import music, scenes, word_scenes


def write(file: Path, audio: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16", channels: int = 1) -> Path:
    """Audio at 16 kHz, (samples,), as a file of another rate, depth, number of channels and container."""
    file.parent.mkdir(parents=True, exist_ok=True)
    at_rate = resample_poly(audio, rate, 16_000) if rate != 16_000 else audio
    soundfile.write(file, np.stack([at_rate] * channels, 1), rate, subtype=subtype)
    return file


def speech(seconds: float = 1.6) -> Iterator[np.ndarray]:
    """Real prompts, the first seconds of each."""
    clips = scenes().speech.clips
    longer = clips[clips.samples >= seconds * 16_000].sort_values("clip")
    return (scenes().speech.clip(name)[: round(seconds * 16_000)] for name in longer["clip"])


def words(label: str) -> Iterator[np.ndarray]:
    """A word as synthetic voices say it."""
    bank: Bank = word_scenes("keywords").words.bank
    return (bank.clip(name) for name in bank.clips["clip"][bank.clips.name == label])


def noisy(clean: np.ndarray, number: int) -> np.ndarray:
    """The same with hold music under it."""
    start = 16_000 * number
    return clean + 0.3 * music().samples[start : start + len(clean)].astype(np.float32) / 32768


def voicebank_demand(root: Path) -> None:
    voices = {"trainset_28spk": ["p226", "p287", "p228", "p230"], "testset": ["p232", "p257"]}
    clips, log = speech(), []
    for part, speakers in voices.items():
        for number, (speaker, take) in enumerate((s, t) for s in speakers for t in (1, 2)):
            clean, name = next(clips), f"{speaker}_{take:03d}"
            write(root / f"clean_{part}_wav" / f"{name}.wav", clean, 48_000)
            write(root / f"noisy_{part}_wav" / f"{name}.wav", noisy(clean, number), 48_000)
            log += [f"{name} bus {2.5 + 5 * (number % 4)}"] if part == "testset" else []
    (root / "log_testset.txt").write_text("\n".join(log) + "\n")


def librispeech(root: Path) -> None:
    clips = speech(2.0)
    for subset, speakers in {"train-clean-100": (19, 26), "dev-clean": (84,), "test-clean": (61,)}.items():
        for speaker in speakers:
            folder = root / "LibriSpeech" / subset / str(speaker) / "198"
            for utterance in range(3):
                write(folder / f"{speaker}-198-{utterance:04d}.flac", next(clips))
            (folder / f"{speaker}-198.trans.txt").write_text(f"{speaker}-198-0000 TEXT\n")


def demand(root: Path) -> None:
    for number, environment in enumerate(("NFIELD", "PCAFETER", "DLIVING", "OOFFICE", "TBUS")):
        audio = music().samples[160_000 * number :][:160_000] / np.float32(32768)
        for channel in (1, 2):
            write(root / environment / f"ch{channel:02d}.wav", audio)


def speech_commands(root: Path) -> None:
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for word in ("yes", "no", "bird"):
        for number, audio in zip(range(6), words(word), strict=False):
            name = f"{word}/{number:08x}_nohash_0.wav"
            write(root / name, audio)
            if number >= 4:
                lists["validation" if number == 4 else "testing"].append(name)
    for part, names in lists.items():
        (root / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    for number, sound in enumerate(("doing_the_dishes", "pink_noise", "running_tap")):
        write(
            root / "_background_noise_" / f"{sound}.wav",
            music().samples[50_000 * number :][:40_000] / np.float32(32768),
        )


def esc50(root: Path) -> None:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rain")):
            name = f"{fold}-{1000 + fold}-A-{target}.wav"
            audio = music().samples[90_000 * fold + 20_000 * target :][:80_000] / np.float32(32768)
            write(root / "ESC-50-master" / "audio" / name, audio, 44_100)
            rows.append(f"{name},{fold},{target},{category},True,{1000 + 10 * fold + target},A")
    (root / "ESC-50-master" / "meta").mkdir()
    (root / "ESC-50-master" / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")


def fsdd(root: Path) -> None:
    for digit, word in ((0, "zero"), (1, "one")):
        takes = words(word)
        for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
            write(root / "recordings" / f"{digit}_{speaker}_0.wav", next(takes), 8_000)


def pairs(root: Path) -> None:
    for number, clean in zip(range(12), speech(), strict=False):
        name = f"s{number // 3}/{number}.wav"
        write(root / "clean" / name, clean, 44_100, "PCM_24")
        write(root / "noisy" / name, noisy(clean, number), 44_100, "FLOAT", channels=2)


def speech_and_noise(root: Path) -> None:
    for number, clean in zip(range(9), speech(2.0), strict=False):
        write(root / "speech" / f"{number}.flac", clean, 22_050)
    for number in range(4):
        write(
            root / "noise" / "deep" / f"{number}.ogg",
            music().samples[160_000 * number :][:80_000] / np.float32(32768),
            subtype="VORBIS",
        )


def labelled(root: Path) -> None:
    for word in ("left", "right"):
        for number, audio in zip(range(6), words(word), strict=False):
            write(root / word / f"{number}.wav", audio, 8_000, "PCM_U8" if number else "PCM_16")


PUBLIC: dict[str, Callable[[Path], None]] = {
    make.__name__: make for make in (voicebank_demand, librispeech, demand, speech_commands, esc50, fsdd)
}
OWN: dict[str, Callable[[Path], None]] = {make.__name__: make for make in (pairs, speech_and_noise, labelled)}


@contextmanager
def kept_apart(audio: Path) -> Iterator[None]:
    """Banks that are made meanwhile lie in a folder of their own, beside those of the real recordings."""
    scenes(), music(), word_scenes("keywords")  # made where they belong, if they are not there yet
    (audio / "bank").mkdir()
    for path in [*paths.AUDIO.iterdir(), *(paths.AUDIO / "bank").iterdir()]:
        if path.name != "bank":
            (audio / path.relative_to(paths.AUDIO)).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "AUDIO", audio)
        yield
