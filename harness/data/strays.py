"""What lies in a folder of one's own and is taken for no recording, each with the reason: nothing is left out without a word."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harness.data.recordings import Recording, hidden, may_be, walk, within
from harness.data.speakers import TABLE

# What a hidden file, or one without a folder of its kind, is listed by: other such files are no recordings, and many.
SOUNDS = frozenset(
    f".{ending}"
    for ending in "wav flac ogg oga opus mp3 mp4 m4a aac wma aif aiff aifc au caf w64 rf64 sph g722 raw webm".split()  # noqa: SIM905
)
NO_SOUNDS = frozenset("license licence copying notice readme authors changelog makefile sha256sums md5sums".split())  # noqa: SIM905


def strays(root: Path, taken: Iterable[Path], sides: tuple[str, ...], elsewhere: str = "") -> list[Recording]:
    """All that could be a recording and is none of those `taken`, or cannot be gone into; a folder whose recordings a reader takes
    has a name of `sides`, any name where there are none. elsewhere: a folder that is read by itself."""
    paths, found = {*taken}, walk(root)
    # A linked folder is read by the link's name, or by that of the folder in here to which it leads.
    linked = any(found.values())
    real = {os.path.realpath(path) for path in paths} if linked else set()
    above = (
        {folder for parent in {path.parent for path in paths} for folder in (parent, *parent.parents)}
        if linked
        else set()
    )
    listed: list[tuple[str, str]] = []
    unread = Counter[str]()
    for path, trouble in found.items():
        if path in paths or path in above:
            continue
        top = path.relative_to(root).parts[0]
        reason = "" if top == elsewhere else trouble or _reason(path, root, sides)
        if not reason or (real and os.path.join(os.path.realpath(path.parent), path.name) in real):
            continue
        if reason == _beside(sides) and path.parent != root:
            unread[within(root / top, root)] += 1  # a whole folder beside may hold very many
        else:
            listed.append((within(path, root), reason))
    listed += [(f"{top}/", f"{count} of its files: {_beside(sides)}") for top, count in unread.items()]
    return [Recording(name, name, name, "train", root, fault=reason) for name, reason in sorted(listed)]


def weighs(path: Path, root: Path, own: bool) -> bool:
    """Whether something may change what is read of a corpus. What is hidden and no sound does not, nor does a text beside the
    recordings of a folder of one's own, but for its table of speakers: those come and go while one looks at a folder."""
    if hidden(path, root) and path.suffix.lower() not in SOUNDS:
        return False
    return not own or may_be(path) or path == root / TABLE


def _reason(path: Path, root: Path, sides: tuple[str, ...]) -> str:
    """Why a file that can be read is taken for no recording; "" for a folder, and for what is none."""
    parts, sound = path.relative_to(root).parts, path.suffix.lower() in SOUNDS
    if hidden(path, root):
        own = sound and not path.name.startswith("._")  # ._x.wav is what a Mac says of x.wav
        return "hidden: its path has a name that begins with a dot" if own and os.path.isfile(path) else ""
    if not may_be(path) or path.stem.lower() in NO_SOUNDS or not os.path.isfile(path):
        return ""
    if len(parts) == 1 or (sides and parts[0] not in sides):
        return _beside(sides)
    return "has the name, or the fileid, of another recording"


def _beside(sides: tuple[str, ...]) -> str:
    return f"in none of the folders that are read: {', '.join(f'{side}/' for side in sides) or 'one for each label'}"
