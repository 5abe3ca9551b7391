"""Folders of one's own: what they hold, who speaks in them, and how they are split."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.recordings import PIECE, Recording, files, pair, paired, splits, within
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.corpora import Card

SPEAKERS = "speakers.csv"
FEWEST = 3  # groups to split: one for training, one for validation, one for the test
WAYS = (
    "clean/ and noisy/ with files of the same names; speech/ and, for noise of your own, noise/; or a folder for each label, "
    "with its recordings"
)
# Folders of these names hold a split or a side of pairs: learned as labels they would give a study of nothing.
NO_LABEL = re.compile(
    r"(train(ing)?|dev(el)?|val(id)?(ation)?|test(ing)?|eval)([-_ ]?(set|data|clean|other|noisy|\d).*)?|(clean|noisy)(?![a-z]).*",
    re.IGNORECASE,
)


def described(folder: Path) -> dict[str, Any]:
    """What a card says of a folder: kind, layout, and what is known without a word of its owner. UserError names the ways to
    lay one out."""
    inside, kind = within_it(folder), sides(folder)
    no_labels = sorted(within(folder / part, folder) for part in inside if part.startswith("_")) if not kind else []
    if not kind:
        holding = (part for part in inside if not part.startswith("_") and files(folder / part))
        named = sorted(within(folder / part, folder) for part in holding)
        if wrong := [part for part in named if NO_LABEL.fullmatch(part)]:
            raise UserError(
                f"corpus {str(folder)!r}: its folders {', '.join(wrong[:8])} are named as splits or sides of pairs are, not as "
                f"labels; splits are made by the harness. A folder may hold: {WAYS}"
            )
        if len(named) < 2:
            raise UserError(
                f"corpus {str(folder)!r}: holds no recordings laid out in a way that can be read. Ways: {WAYS}"
            )
        kind = "labels"
    return {
        "name": folder.resolve().name,
        "title": f"Recordings of one's own: {folder.resolve().name}",
        "kind": kind,
        "version": "",
        "synthetic": False,
        "licence": "not told",
        "layout": kind,
        "leave_out": {"shorter_than": 0.1, "quieter_than": -70, "folders": no_labels},
        "root": folder.resolve(),
        "own_noise": kind == "speech" and "noise" in inside,
    }


def within_it(folder: Path) -> set[str]:
    """Names of the folders in a folder, without hidden ones."""
    try:
        return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    except OSError as error:
        raise UserError(f"corpus {str(folder)!r}: cannot be opened: {error.strerror}") from error


def sides(folder: Path) -> str:
    """ "pairs" or "speech", where the names in a folder say that it holds those, or ""."""
    inside = within_it(folder)
    return "pairs" if {"clean", "noisy"} <= inside else "speech" if inside & {"speech", "clean"} else ""


def pairs(root: Path, card: Card) -> list[Recording]:
    """`clean/[speaker/]<name>` and the same under `noisy/`, or both with a trailing `fileid_<n>`."""
    found, told = paired(root / "clean", root / "noisy"), _told(root)
    voices = [_speaker(clean or noisy or root, root, told) for _, clean, noisy in found]
    split_of = _split(root, voices, [name for name, *_ in found])
    return [
        pair(name, name, voice or "unknown", split, clean, noisy)
        for (name, clean, noisy), voice, split in zip(found, voices, split_of, strict=True)
    ]


def speech(root: Path, card: Card) -> list[Recording]:
    """`speech/[speaker/]<name>`, or `clean/` where there is no `speech/`."""
    folder = root / "speech" if (root / "speech").is_dir() else root / "clean"
    found, told = files(folder), _told(root)
    voices, names = [_speaker(path, root, told) for path in found], [within(path, folder) for path in found]
    split_of = _split(root, voices, names)
    return [
        Recording(name, name, voice or "unknown", split, path, piece=PIECE)
        for path, name, voice, split in zip(found, names, voices, split_of, strict=True)
    ]


def noise(root: Path, card: Card) -> list[Recording]:
    """Whatever lies in a folder. Recordings of a split run on from one to the next: one alone may be shorter than a clip."""
    found = files(root)
    names = [within(path, root) for path in found]
    split_of = _split(root, [""] * len(names), names)
    return [
        Recording(name, name, "noise", split, path) for path, name, split in zip(found, names, split_of, strict=True)
    ]


def labels(root: Path, card: Card) -> list[Recording]:
    """`<label>/[speaker/]<name>`. Where nobody says who speaks, every label is split by itself. What a folder holds whose name
    begins with an underscore has no label."""
    below = [path for path in files(root) if path.parent != root]
    found = [path for path in below if within(path, root).partition("/")[0] not in card.leave_out.folders]
    told = _told(root)
    voices, names = [_speaker(path, root, told) for path in found], [within(path, root) for path in found]
    by_speaker = len(set(voices) - {""}) >= FEWEST
    split_of = dict(zip(names, _split(root, voices, names), strict=True))
    made = []
    for label in sorted({name.partition("/")[0] for name in names}):
        own = [
            (path, name, voice)
            for path, name, voice in zip(found, names, voices, strict=True)
            if name.startswith(f"{label}/")
        ]
        if not by_speaker:
            split_of |= splits(name for _, name, _ in own)
        fault = f"its label {label!r} has fewer than {FEWEST} recordings" if len(own) < FEWEST else ""
        made += [
            Recording(name, name, voice or name, split_of[name], path, label=label, fault=fault)
            for path, name, voice in own
        ]
    return made + [_unlabelled(path, root) for path in sorted({*below} - {*found})]


def _unlabelled(path: Path, root: Path) -> Recording:
    name = within(path, root)
    fault = f"folder {name.partition('/')[0]}: a name that begins with _ is no label"
    return Recording(name, name, name, "train", path, fault=fault)


def _split(root: Path, voices: list[str], names: list[str]) -> list[str]:
    """The split of each recording: by who speaks where that is known of enough, else by its name."""
    groups = [voice or name for voice, name in zip(voices, names, strict=True)]
    if len(set(voices) - {""}) < FEWEST:
        groups = names
    if len(set(groups)) < FEWEST:
        raise UserError(
            f"corpus {str(root)!r}: {len(names)} recordings are too few: training, validation and test need one each at least"
        )
    split_of = splits(groups)
    return [split_of[group] for group in groups]


def _told(root: Path) -> dict[str, str]:
    """Speakers by file, from `speakers.csv`, where there is one."""
    if not (root / SPEAKERS).is_file():
        return {}
    with open(root / SPEAKERS, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"file", "speaker"} <= set(reader.fieldnames or ()):
            raise UserError(f"{root / SPEAKERS}: its first line must be: file,speaker")
        return {Path(row["file"] or "").as_posix(): row["speaker"] or "" for row in reader}


def _speaker(path: Path, root: Path, told: dict[str, str]) -> str:
    """Who speaks: by the table (which may name a file by its path, the path without the first folder, or its name), or by the
    folder below the first; "" where nobody says so."""
    name = within(path, root)
    rest = name.partition("/")[2]
    told_of = (told[key] for key in (name, rest, path.name) if told.get(key))
    return next(told_of, rest.partition("/")[0] if "/" in rest else "")
