"""Get a public corpus: find it in a folder, or download its publisher's archives and unpack them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from harness import paths
from harness.data.corpora import Archive, Card
from harness.data.download import download
from harness.data.fetch import CORRUPT, Say, downloads, emptied
from harness.data.layouts import DEEPER, marked, marked_deeper, passed_over
from harness.data.progress import Progress, unseen
from harness.errors import UserError

DEEP = 3  # folders below the one that is named: an archive brings one or two of its own


def root(card: Card, data_dir: Path | None = None, say: Say = print, progress: Progress = unseen) -> Path:
    """The folder in which the card's layout begins, fetched where it is not there yet.

    data_dir: a folder of the user's. `say` is told before anything is downloaded. Downloads are kept until all is unpacked, so
    that a fetch that broke off goes on where it was. Raises UserError that says which files to place where.
    """
    if data_dir is not None:
        if (found := beginning(card, data_dir)) is None:
            raise UserError(f"--data-dir {data_dir}: does not hold {card.name!r}, which is: {card.place}")
        return _told(card, found, say)
    home = paths.AUDIO / card.name
    if (found := beginning(card, home)) is not None:
        return _told(card, found, say)
    with downloads(card, say) as kept:
        if (found := beginning(card, home)) is not None:  # another process, waited for, has fetched it
            return found
        say(f"{card.name}: fetching {sum(archive.bytes for archive in card.archives) / 1e6:,.0f} MB from its publisher")
        with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=paths.AUDIO) as scratch:
            staged = Path(scratch) / "staged"
            try:
                for archive in card.archives:
                    _fetch(card, archive, kept, staged, say, progress)
            except OSError as error:
                more = "What came is kept: the same command goes on from there. " if any(kept.iterdir()) else ""
                raise UserError(f"cannot get {card.name!r}: {error}. {more}{_by_hand(card, home)}") from error
            if beginning(card, staged) is None:
                raise UserError(f"cannot get {card.name!r}: its archives hold something else. {_by_hand(card, home)}")
            if home.exists():
                shutil.rmtree(home)
            os.replace(staged, home)
        emptied(kept)
    found = beginning(card, home)
    assert found is not None
    return found


def _told(card: Card, root: Path, say: Say) -> Path:
    """The folder, once what of it is not taken has been said."""
    if line := passed_over(root, card):
        say(line)
    return root


def beginning(card: Card, folder: Path) -> Path | None:
    """The folder at or below one, and no deeper than an archive may bring, that a card's layout begins in."""
    layout = card.layout or ""
    for begins in (marked, marked_deeper) if layout in DEEPER else (marked,):
        level = [path for path in (folder, folder / card.name) if paths.is_folder(path)]
        for _ in range(DEEP + 1):
            for path in level:
                if begins(layout, path):
                    return path
            level = [below for path in level for below in _below(path)]
    return None


def _below(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; none where it cannot be read, as `lost+found` of a disk of its own."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and paths.is_folder(path))
    except OSError:
        return []


def _by_hand(card: Card, home: Path) -> str:
    urls = " ".join(archive.url for archive in card.archives)
    return f"By hand: put {card.place} under {home}, or name their folder with --data-dir; they come from {urls}"


def _fetch(card: Card, archive: Archive, kept: Path, staged: Path, say: Say, progress: Progress) -> None:
    """Download an archive and unpack it. Raises OSError in one line."""
    file = kept / archive.name
    download(archive.url, file, f"{card.name}: {archive.name}", progress)
    if archive.sha256 is not None:
        progress(f"{card.name}: checking {archive.name}", 0, 0)
        with open(file, "rb") as stream:
            got = hashlib.file_digest(stream, "sha256").hexdigest()
        if got != archive.sha256:
            file.unlink()
            raise OSError(f"{archive.name} is corrupt and was deleted (SHA-256 {got}, the card says {archive.sha256})")
    say(f"{card.name}: {archive.name} {file.stat().st_size / 1e6:,.0f} MB")
    progress(f"{card.name}: unpacking {archive.name}", 0, 0)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                packed.extractall(staged)  # leaves out drives, leading slashes and `..`
        else:
            with tarfile.open(file) as tar:
                tar.extractall(staged, filter="data")  # refuses absolute names, links out of the folder, devices
    except (*CORRUPT, zipfile.BadZipFile) as error:
        file.unlink()
        raise OSError(f"{archive.name} is corrupt and was deleted ({error})") from error
