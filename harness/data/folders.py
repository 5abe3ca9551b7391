"""Folders of one's own: what they hold, who speaks in them, and how they are split."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.division import FEWEST, divided, few_of
from harness.data.recordings import PIECE, Recording, files, pair, paired, within
from harness.data.strays import strays
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.corpora import Card

SPEAKERS = "speakers.csv"
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
    told, made = _told(root), []
    for name, clean, noisy in paired(root / "clean", root / "noisy"):
        speaker = _speaker(clean or noisy or root, root, told)
        made.append(replace(pair(name, name, speaker or "unknown", "", clean, noisy), speaker=speaker))
    taken = [path for one in made for path in (one.path, one.noisy) if path is not None]
    return divided(made) + strays(root, taken, ("clean", "noisy"))


def speech(root: Path, card: Card) -> list[Recording]:
    """`speech/[speaker/]<name>`, or `clean/` where there is no `speech/`."""
    folder = root / "speech" if (root / "speech").is_dir() else root / "clean"
    told = _told(root)
    made: dict[str, Recording] = {}
    for path in files(folder):
        name, speaker = within(path, folder), _speaker(path, root, told)
        made.setdefault(name, Recording(name, name, speaker or "unknown", "", path, piece=PIECE, speaker=speaker))
    found = divided(list(made.values()))
    return found + strays(root, (one.path for one in found), (folder.name,), "noise" if card.own_noise else "")


def noise(root: Path, card: Card) -> list[Recording]:
    """Whatever lies in a folder. Recordings of a split run on from one to the next: one alone may be shorter than a clip."""
    made: dict[str, Recording] = {}
    for path in files(root):
        made.setdefault(name := within(path, root), Recording(name, name, "noise", "", path))
    return divided(list(made.values())) + strays(root, (one.path for one in made.values()), ())


def labels(root: Path, card: Card) -> list[Recording]:
    """`<label>/[speaker/]<name>`. Where nobody says who speaks, every label is split by itself. What a folder holds whose name
    begins with an underscore has no label."""
    told = _told(root)
    made: dict[str, Recording] = {}
    others: dict[str, Recording] = {}
    for path in (path for path in files(root) if path.parent != root):
        name, speaker = within(path, root), _speaker(path, root, told)
        label = name.partition("/")[0]
        if label in card.leave_out.folders:
            others.setdefault(name, _unlabelled(path, name, label))
        else:
            made.setdefault(name, Recording(name, name, speaker or name, "", path, label=label, speaker=speaker))
    each = Counter(recording.label for recording in made.values())
    few = {label: few_of(label) for label, count in each.items() if count < FEWEST}
    found = [replace(one, fault=few.get(one.label, "")) for one in divided(list(made.values()))]
    found += others.values()
    return found + strays(root, (one.path for one in found), ())


def _unlabelled(path: Path, name: str, label: str) -> Recording:
    return Recording(name, name, name, "train", path, fault=f"folder {label}: a name that begins with _ is no label")


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
