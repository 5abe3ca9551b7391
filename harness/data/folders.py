"""Folders of one's own: what they hold, who speaks in them, and how they are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.division import A_PART, FEWEST, divided, few_of
from harness.data.recordings import PIECE, Recording, alike, composed, files, pair, paired, printable, within
from harness.data.speakers import speakers
from harness.data.strays import strays
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.corpora import Card

WAYS = (
    "clean/ and noisy/ with files of the same names; speech/ and, for noise of your own, noise/; or a folder for each label, "
    "with its recordings"
)
SPOKEN = {"clean", "noisy", "speech"}


def described(folder: Path) -> dict[str, Any]:
    """What a card says of a folder: kind, layout, and what is known without a word of its owner. UserError names the ways to
    lay one out."""
    inside, kind, name = within_it(folder), sides(folder), composed(printable(folder.resolve().name))
    no_labels = sorted(within(folder / part, folder) for part in inside if part.startswith("_")) if not kind else []
    if not kind:
        holding = (part for part in inside if not part.startswith("_") and files(folder / part))
        named = sorted({within(folder / part, folder) for part in holding})
        if wrong := [part for part in named if A_PART.fullmatch(part)]:
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
        "name": name,
        "title": f"Recordings of one's own: {name}",
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
    """`clean/[speaker/]<name>` and the same under `noisy/`, or both with a trailing `fileid_<n>`. Pairs of the same clean file, in
    several noises, share a name: a split has all of them."""
    found = paired(root / "clean", root / "noisy")
    sides = [tuple(filter(None, both)) for _, *both in found]
    named = {clean: name for name, clean, _ in found if clean}
    same = {named[path]: named[first] for path, first in alike(named).items()}
    made = [
        replace(pair(name, same.get(name, name), speaker or "unknown", "", clean, noisy), speaker=speaker)
        for (name, clean, noisy), speaker in zip(found, speakers(root, sides), strict=True)
    ]
    return divided(made) + strays(root, (path for both in sides for path in both), ("clean", "noisy"))


def speech(root: Path, card: Card) -> list[Recording]:
    """`speech/[speaker/]<name>`, or `clean/` where there is no `speech/`."""
    folder = root / "speech" if (root / "speech").is_dir() else root / "clean"
    found = _named(files(folder), folder)
    made = [
        Recording(name, name, speaker or "unknown", "", path, piece=PIECE, speaker=speaker)
        for (name, path), speaker in zip(found.items(), _speakers(root, found), strict=True)
    ]
    return divided(made) + strays(root, found.values(), (folder.name,), "noise" if card.own_noise else "")


def noise(root: Path, card: Card) -> list[Recording]:
    """`noise/[place/]<name>`. Recordings of a split run on from one to the next: one alone may be shorter than a clip.

    Where all lie in three folders or more, a folder is in one split: what lies in it may be one noise, heard by many microphones.
    """
    found = _named(files(root), root)
    places = {name: name.partition("/")[0] if "/" in name else "" for name in found}
    apart = "" not in places.values() and len({*places.values()}) >= FEWEST
    made = [
        Recording(name, name, "noise", "", path, speaker=places[name] if apart else "") for name, path in found.items()
    ]
    return divided(made) + strays(root, found.values(), ())


def labels(root: Path, card: Card) -> list[Recording]:
    """`<label>/[speaker/]<name>`. Where nobody says who speaks, every label is split by itself. What a folder holds whose name
    begins with an underscore has no label."""
    below = _named((path for path in files(root) if path.parent != root), root)
    found = {name: path for name, path in below.items() if name.partition("/")[0] not in card.leave_out.folders}
    made = [
        Recording(name, name, speaker or name, "", path, label=name.partition("/")[0], speaker=speaker)
        for (name, path), speaker in zip(found.items(), _speakers(root, found), strict=True)
    ]
    each = Counter(recording.label for recording in made)
    few = {label: few_of(label) for label, count in each.items() if count < FEWEST}
    others = [_unlabelled(path, name) for name, path in below.items() if name not in found]
    return (
        [replace(one, fault=few.get(one.label, "")) for one in divided(made)]
        + others
        + strays(root, below.values(), ())
    )


def _named(paths: Iterable[Path], folder: Path) -> dict[str, Path]:
    """By their names within a folder, which those that are no text may share: the first of them then bears it."""
    named: dict[str, Path] = {}
    for path in paths:
        named.setdefault(within(path, folder), path)
    return named


def _speakers(root: Path, found: Mapping[str, Path]) -> list[str]:
    return speakers(root, [(path,) for path in found.values()])


def _unlabelled(path: Path, name: str) -> Recording:
    fault = f"folder {name.partition('/')[0]}: a name that begins with _ is no label"
    return Recording(name, name, name, "train", path, fault=fault)
