"""One recording of a corpus, and how recordings that no list splits are split."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

# What lies beside recordings without being one. Everything else is tried, whatever its name ends in.
ABOUT = frozenset(
    f".{ending}"
    for ending in "txt csv tsv json jsonl md rst pdf html xml yaml yml py log png jpg jpeg zip gz tgz trn lab".split()  # noqa: SIM905
)

PIECE = 8.0  # seconds: the longest clip that speech to be mixed is cut into
LONGEST = 30.0  # seconds: the longest piece that a pair is judged in


@dataclass(frozen=True)
class Recording:
    """clip: its id; name: what else bears it, in whatever voice, belongs to the same split; voice: who speaks, or what sounds;
    speaker: who speaks, or where it sounds, in a folder of one's own where somebody says so: one split has all of his.

    noisy: the same speech in noise; label: its class; fault: why it cannot be used; piece: seconds beyond which it is cut into
    pieces of equal length; noise, snr: of a pair, where its corpus tells them.
    """

    clip: str
    name: str
    voice: str
    split: str
    path: Path
    noisy: Path | None = None
    label: str = ""
    fault: str = ""
    piece: float = math.inf
    noise: str = ""
    snr: float = math.nan
    speaker: str = ""


class Unusable(UserError):
    """Too few recordings can be used. left_out: why not, of every one that cannot, by its clip; corpus: what to check."""

    def __init__(self, what: str, left_out: list[tuple[str, str]], corpus: object) -> None:
        said = f"; the first of {len(left_out)}: {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        more = f"; all of them: harness data check {shlex.quote(str(corpus))}" if len(left_out) > 1 else ""
        super().__init__(f"{what}{said}{more}")
        self.left_out = left_out


def walk(folder: Path) -> dict[Path, str]:
    """All below a folder, and below the folders that are linked there, each with why it cannot be read ("" where it can)."""
    found: dict[Path, str] = {}
    tops, waiting = [os.path.realpath(folder)], [folder] if folder.is_dir() else []
    for here in waiting:  # grows meanwhile
        try:
            with os.scandir(here) as entries:
                # What is plainly a file is not asked about again, which a slow disk would feel.
                names = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            found[here] = f"cannot be opened: {error.strerror}"
            continue
        for path, plain in ((here / name, plain) for name, plain in names):
            found[path] = ""
            if plain:
                continue
            if os.path.isdir(path):
                target = os.path.realpath(path) if os.path.islink(path) else ""
                # What is read by its own path is not read again by a link, and no link leads around in a circle.
                if target and (any(_inside(target, top) for top in tops) or _inside(tops[0], target)):
                    found[path] = "a link to a folder that is read already"
                    continue
                tops += [target] if target else []
                waiting.append(path)
            elif not os.path.isfile(path):
                linked = "a link that leads nowhere" if os.path.islink(path) else "cannot be reached"
                found[path] = "neither a file nor a folder" if os.path.exists(path) else linked
    return found


def _inside(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def may_be(path: Path) -> bool:
    """Whether a name may be that of a recording."""
    return path.suffix.lower() not in ABOUT


def files(folder: Path) -> list[Path]:
    """All that may be a recording in a folder and below, sorted by its path."""
    return sorted(
        path
        for path, trouble in walk(folder).items()
        if not trouble and may_be(path) and not hidden(path, folder) and path.is_file()
    )


def within(path: Path, folder: Path) -> str:
    """The path of a file within a folder, as text that can be printed on one line and written as UTF-8, whatever its bytes: the
    same for names that differ only in how an accent is written, as those of a Mac and of others do."""
    return composed(printable(os.fsencode(path.relative_to(folder).as_posix()).decode(errors="replace")))


def composed(text: str) -> str:
    """The same with each accented letter as one (NFC)."""
    return unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """The same, with a mark for every letter that cannot be written or printed."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def stem(path: Path, folder: Path) -> str:
    """The same without its suffix."""
    return within(path.with_suffix(""), folder)


def splits(groups: Iterable[str]) -> dict[str, str]:
    """A tenth of the groups (at least one) for the test and as many for validation, in the order of their SHA-1; the rest is for
    training, and so is everything where there are fewer than three. A new group moves few others."""
    order = sorted(set(groups), key=lambda group: hashlib.sha1(group.encode()).hexdigest())
    share = max(1, round(len(order) / 10)) if len(order) >= 3 else 0
    names = ["test"] * share + ["validation"] * share
    return {group: names[place] if place < len(names) else "train" for place, group in enumerate(order)}


def pair(
    clip: str,
    name: str,
    voice: str,
    split: str,
    clean: Path | None,
    noisy: Path | None,
    noise: str = "",
    snr: float = math.nan,
) -> Recording:
    """A recording in noise and without; it has a fault where one of them is missing."""
    there = clean or noisy
    assert there is not None
    fault = "" if clean and noisy else f"unpaired: no {'noisy' if clean else 'clean'} one"
    return Recording(clip, name, voice, split, there, noisy, "", fault, LONGEST, noise, snr)


def paired(clean: Path, noisy: Path) -> list[tuple[str, Path | None, Path | None]]:
    """Name, clean and noisy file of all in two folders that bear the same name, whatever its suffix, or end in the same
    `fileid_<n>`; None for what is missing."""
    sides = []
    for folder in (clean, noisy):
        names: dict[str, Path] = {}
        for path in files(folder):
            numbered = re.search(r"fileid_\d+$", path.stem)
            names.setdefault(numbered[0] if numbered else stem(path, folder), path)
        sides.append(names)
    return [(name, sides[0].get(name), sides[1].get(name)) for name in sorted(sides[0].keys() | sides[1].keys())]


def alike(paths: Iterable[Path]) -> dict[Path, Path]:
    """For each file whose bytes another has too, the first that has them. What cannot be read is like no other.

    Files of one size are told apart by a piece from their middle, and only those that share it are read whole.
    """
    groups = [[*paths]]
    for look in (_size, _middle, _whole):
        groups = [group for some in groups for group in _grouped(some, look) if len(group) > 1]
    return {path: group[0] for group in groups for path in group}


def _grouped(paths: list[Path], look: Callable[[Path], object]) -> Iterable[list[Path]]:
    groups: dict[object, list[Path]] = {}
    for path in paths:
        with suppress(OSError):
            groups.setdefault(look(path), []).append(path)
    return groups.values()


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(4096)


def _whole(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").digest()
