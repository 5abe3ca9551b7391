"""How corpora lie on disk: a function for each layout lists the recordings under a folder, by the name on the card."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data import folders
from harness.data.recordings import PIECE, Recording, files, pair, paired, splits, stem
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.corpora import Card

SILENCE, UNKNOWN = "_silence_", "_unknown_"  # the two classes of Speech Commands' benchmark that are no word
USED_SET, OTHER_SET = "trainset_28spk", "trainset_56spk"  # of VoiceBank-DEMAND
MEND = "put the file as it was published there"
BENCHMARK = "speech_commands_test_set_v0.02"  # its own test archive, where that was unpacked beside the words


def voice_folders(root: Path, card: Card) -> list[Recording]:
    """`<voice>/[folder/]<prompt>.g722`, in the folders that the card names."""
    return _of_g722(root, card, lambda folder, name: folder)


def tracks(root: Path, card: Card) -> list[Recording]:
    """`<folder>/<track>.g722`: every track is a voice of its own."""
    return _of_g722(root, card, lambda folder, name: name)


def _of_g722(root: Path, card: Card, voice: Callable[[str, str], str]) -> list[Recording]:
    assert card.split is not None
    made = []
    for folder in card.contents:
        for path in sorted((root / folder).rglob("*.g722")):
            name = stem(path, root / folder)
            who = voice(folder, name)
            made.append(Recording(f"{folder}/{name}", name, who, card.split.of(name, who), path))
    return made


def voicebank(root: Path, card: Card) -> list[Recording]:
    """`clean_trainset_28spk_wav/p226_001.wav`, the same name in `noisy_trainset_28spk_wav/`, and so for `testset`. Where the set of
    56 speakers lies beside that of 28 it is passed over: nobody publishes scores of both.

    Noise and SNR of a pair are told by lines `p232_001 bus 2.5` of `log_testset.txt`, wherever that lies; other lines are passed
    over.
    """
    assert card.split is not None
    heard: dict[str, tuple[str, float]] = {}
    for log in sorted(path for path in root.rglob("log_*set*.txt") if path.is_file()):
        for line in _text(log, "replace").splitlines():
            with suppress(ValueError):
                name, noise, snr = line.split()
                heard[name] = (noise, float(snr))
    made = []
    for clean in folders_of(root, "clean_*set*_wav"):
        part = clean.name.removeprefix("clean_").removesuffix("_wav")
        if part == OTHER_SET and passed_over(root, card):
            continue
        for name, clean_file, noisy_file in paired(clean, root / f"noisy_{part}_wav"):
            voice = name.partition("_")[0]
            split = card.split.of(name, voice)
            split = "test" if part == "testset" else "train" if split == "unused" else split
            made.append(
                pair(f"{part}/{name}", name, voice, split, clean_file, noisy_file, *heard.get(name, ("", math.nan)))
            )
    return made


def librispeech(root: Path, card: Card) -> list[Recording]:
    """`train-clean-100/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`, and so for `dev-...` and `test-...`.

    Without a `test-...` (Mini LibriSpeech has none) the speakers of `dev-...` are halved.
    """
    of = {"train": "train", "dev": "validation", "test": "test"}
    found = [(of[kind], f) for f in folders_of(root, "*-*") if (kind := f.name.partition("-")[0]) in of]
    late = sorted({path.name for split, folder in found if split == "validation" for path in folders_of(folder, "*")})
    halved = late[1::2] if not any(split == "test" for split, _ in found) else []
    made = []
    for split, folder in found:
        for path in sorted(folder.glob("*/*/*.flac")):
            speaker = path.parts[-3]
            part = "test" if speaker in halved and split == "validation" else split
            made.append(Recording(f"{folder.name}/{path.stem}", path.stem, speaker, part, path, piece=PIECE))
    return made


def demand(root: Path, card: Card) -> list[Recording]:
    """`<ENVIRONMENT>/ch01.wav`; the other 15 channels are the same sound. The card tells the environments of each split.

    Or `<ENVIRONMENT>_16k/<ENVIRONMENT>/ch01.wav`, as archives are unpacked that get a folder each. Of an environment at two rates
    the first by name is taken, 16 kHz before 48.
    """
    assert card.split is not None
    found: dict[str, Path] = {}
    for path in [*sorted(root.glob("*/ch01.wav")), *sorted(root.glob("*/*/ch01.wav"))]:
        found.setdefault(path.parent.name, path)
    return [Recording(f"{name}/ch01", name, name, card.split.of(name, ""), found[name]) for name in sorted(found)]


def speech_commands(root: Path, card: Card) -> list[Recording]:
    """`<word>/<speaker>_nohash_<n>.wav`, split by `validation_list.txt` and `testing_list.txt`, which keep speakers apart.

    Where the card names words, the others are one class, silence (a second at a time of `_background_noise_/`) is another, and
    the test is the benchmark's own if that lies there.
    """
    lists = {"validation_list.txt": "validation", "testing_list.txt": "test"}
    split_of = {line.strip(): split for name, split in lists.items() for line in _text(root / name).splitlines()}
    official = files(root / BENCHMARK) if card.words and (root / BENCHMARK).is_dir() else []
    made = []
    for path in files(root):
        word, speaker = path.parent.name, path.stem.partition("_nohash_")[0]
        if path.parent.parent != root or word.startswith("_"):
            continue
        split, label = split_of.get(f"{word}/{path.name}", "train"), word
        if card.words:
            label = word if word in card.words else UNKNOWN
        if not (official and split == "test"):
            made.append(Recording(stem(path, root), stem(path, root), speaker, split, path, label=label))
    for path in official:
        name = stem(path, root)
        made.append(Recording(name, name, path.stem.partition("_nohash_")[0], "test", path, label=path.parent.name))
    if card.words:
        sounds = sorted((root / "_background_noise_").glob("*.wav"))
        split_of = splits(path.stem for path in sounds)
        for path in sounds:
            split = split_of[path.stem]
            if not (official and split == "test"):
                name = f"_background_noise_/{path.stem}"
                made.append(Recording(name, name, path.stem, split, path, label=SILENCE, piece=1.0))
    return made


def esc50(root: Path, card: Card) -> list[Recording]:
    """`audio/<fold>-<clip>-<take>-<target>.wav`, told by `meta/esc50.csv`. A split is a fold, and takes turns."""
    rows = _rows(root / "meta" / "esc50.csv", ("filename", "fold", "category", "src_file"))
    return [
        Recording(
            Path(row["filename"]).stem,
            row["src_file"],
            row["src_file"],
            f"fold {row['fold']}",
            root / "audio" / row["filename"],
            label=row["category"],
        )
        for row in rows
    ]


def fsdd(root: Path, card: Card) -> list[Recording]:
    """`recordings/<digit>_<speaker>_<index>.wav`; the card tells the speakers of each split."""
    assert card.split is not None
    made = []
    for path in sorted((root / "recordings").glob("*_*_*.wav")):
        digit, speaker, _ = path.stem.split("_", 2)
        made.append(Recording(path.stem, path.stem, speaker, card.split.of(path.stem, speaker), path, label=digit))
    return made


def passed_over(root: Path, card: Card) -> str:
    """What lies there and is not taken, in one line; "" where nothing is."""
    both = card.layout == "voicebank" and all((root / f"clean_{part}_wav").is_dir() for part in (USED_SET, OTHER_SET))
    return f"{card.name}: {USED_SET} and {OTHER_SET} lie side by side: the first alone is taken" if both else ""


Reader = Callable[[Path, "Card"], list[Recording]]


def in_every_split(read: Reader) -> Reader:
    """A reader of a published corpus, which refuses one that lacks a whole split: it would be decoded for nothing."""

    @functools.wraps(read)
    def checked(root: Path, card: Card) -> list[Recording]:
        made = read(root, card)
        wanted = [f"fold {fold + 1}" for fold in range(card.folds)] or ["train", "validation", "test"]
        missing = [split for split in wanted if split not in {each.split for each in made if not each.fault}]
        if missing:
            raise UserError(
                f"corpus {card.name!r}: {root} has no recording for {', '.join(missing)}; place there {card.place}"
            )
        return made

    return checked


OWN = (folders.pairs, folders.speech, folders.noise, folders.labels)
READERS: dict[str, Reader] = {reader.__name__: reader for reader in (voice_folders, tracks, *OWN)}
PUBLISHED: dict[str, Reader] = {  # of a part of a corpus too
    reader.__name__: reader for reader in (voicebank, librispeech, demand, speech_commands, esc50, fsdd)
}
READERS |= {name: in_every_split(reader) for name, reader in PUBLISHED.items()}
# By what a folder is known to hold a layout, and not to be one above or below it. Never by an archive, whose name often begins as
# its folder's does.
MARKS: dict[str, tuple[str, ...]] = {
    "voicebank": ("clean_*set*_wav/", "noisy_*set*_wav/"),
    "librispeech": ("train-*/*/*/*.flac",),
    "demand": ("*/ch01.wav",),
    "speech_commands": ("testing_list.txt", "validation_list.txt"),
    "esc50": ("meta/esc50.csv", "audio/"),
    "fsdd": ("recordings/*_*_*.wav",),
}
FEWEST = {"demand": 2}  # matches of each mark, else one: a single environment is a folder of the corpus, not the corpus
DEEPER = {
    "demand": ("*/*/ch01.wav",)
}  # marks of the same layout with a folder for each archive, where no other is found


def _text(file: Path, errors: str = "strict") -> str:
    """What a file of a published corpus says. UserError where it cannot be read, or is no text."""
    try:
        return file.read_text("utf-8-sig", errors)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{file}: line {line} is no text in UTF-8: {MEND}") from error


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a table. UserError where it lacks a column, or a row something in one."""
    reader = csv.DictReader(io.StringIO(_text(table), newline=""))
    rows = []
    try:
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise UserError(f"{table}: has no column {', '.join(missing)} between commas: {MEND}")
        for row in reader:
            if lacking := [column for column in columns if not row[column]]:
                raise UserError(f"{table}: line {reader.line_num} has no {', '.join(lacking)}: {MEND}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{table}: line {reader.line_num}: {error}: {MEND}") from error
    return rows


def folders_of(root: Path, pattern: str) -> list[Path]:
    """Folders, and nothing else, whose names match."""
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def marked(layout: str, folder: Path) -> bool:
    """Whether a layout begins in a folder."""
    return _match(MARKS[layout], FEWEST.get(layout, 1), folder)


def marked_deeper(layout: str, folder: Path) -> bool:
    """Whether it begins there with a folder more for each archive."""
    return _match(DEEPER[layout], FEWEST.get(layout, 1), folder)


def _match(marks: tuple[str, ...], fewest: int, folder: Path) -> bool:
    # Only as far as it takes: a corpus may have a hundred thousand files.
    return all(len(list(itertools.islice(folder.glob(mark), fewest))) == fewest for mark in marks)
