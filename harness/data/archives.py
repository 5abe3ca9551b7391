"""Get a public corpus: find it in a folder, or download its publisher's archives and unpack them."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from harness import paths
from harness.data import checksums
from harness.data.corpora import Archive, Card
from harness.data.download import download
from harness.data.fetch import CORRUPT, Say, downloads, emptied, set_aside
from harness.data.layouts import DEEPER, marked, marked_deeper, passed_over
from harness.data.progress import Progress, unseen
from harness.errors import UserError

DEEP = 3  # folders below the one that is named: an archive brings one or two of its own


def root(card: Card, data_dir: Path | None = None, say: Say = print, progress: Progress = unseen) -> Path:
    """The folder in which the card's layout begins, fetched where it is not there yet.

    data_dir: a folder of the user's. `say` is told before anything is downloaded. Downloads are kept until all is unpacked, so
    that a fetch that broke off goes on where it was; archives that lie where the corpus would are taken, and stay. Raises UserError
    that says which files to place where.
    """
    if data_dir is not None:
        if (found := beginning(card, data_dir)) is None:
            packed = [archive.name for archive in card.archives if paths.is_file(data_dir / archive.name)]
            mend = f"; unpack there {', '.join(packed)}" if packed else ""
            raise UserError(f"--data-dir {data_dir}: does not hold {card.name!r}, which is: {card.place}{mend}")
        return _told(card, found, say)
    home = paths.AUDIO / card.folder
    found = beginning(card, home)
    if found is None or _lacking(card, found):
        with downloads(card, say) as kept:
            found = beginning(card, home)  # another process, waited for, may have fetched it
            if wanted := card.archives if found is None else _lacking(card, found):
                _get(card, wanted, home, found, kept, say, progress)
                emptied(kept)
        found = beginning(card, home)
        assert found is not None
    return _told(card, found, say)


def _lacking(card: Card, root: Path) -> tuple[Archive, ...]:
    """Archives of which nothing lies beside the others', whose corpus may have been fetched without them."""
    return tuple(archive for archive in card.archives if archive.folder and not (root / archive.folder).is_dir())


def _get(
    card: Card,
    wanted: tuple[Archive, ...],
    home: Path,
    found: Path | None,
    kept: Path,
    say: Say,
    progress: Progress,
) -> None:
    """Fetch archives and put what they hold in place, whole or not at all. found: where those that are not wanted were unpacked."""
    here = {archive.name: home / archive.name for archive in wanted if paths.is_file(home / archive.name)}
    size = sum(archive.bytes for archive in wanted if archive.name not in here)
    if here:
        say(f"{card.name}: unpacking {', '.join(here)} from {home}")
    if size:
        say(f"{card.name}: fetching {size / 1e6:,.0f} MB from its publisher")
    sums = checksums.read(card)
    with tempfile.TemporaryDirectory(prefix=f".{card.folder}-", dir=paths.AUDIO) as scratch:
        staged = Path(scratch) / "staged"
        try:
            for archive in wanted:
                file = here.get(archive.name, kept / archive.name)
                if archive.name not in here:
                    download(archive.url, file, f"{card.name}: {archive.name}", progress)
                sums[archive.name] = _unpack(card, archive, file, sums, staged, archive.name not in here, say, progress)
        except OSError as error:
            more = "What came is kept: the same command goes on from there. " if any(kept.iterdir()) else ""
            raise UserError(f"cannot get {card.name!r}: {error}. {more}{_by_hand(card, home)}") from error
        if found is not None:
            for archive in wanted:
                os.replace(staged / archive.folder, found / archive.folder)
        elif beginning(card, staged) is None:
            raise UserError(f"cannot get {card.name!r}: its archives hold something else. {_by_hand(card, home)}")
        else:
            if os.path.lexists(home):
                set_aside(card, home, say)
            os.replace(staged, home)
        checksums.write(card, sums)


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
        for depth in range(DEEP + 1):
            if depth:
                level = [below for path in level for below in _below(path)]
            for path in level:
                if begins(layout, path):
                    return path
    return None


def _below(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; none where it cannot be read, as `lost+found` of a disk of its own."""
    try:
        with os.scandir(folder) as inside:  # tells folders from a hundred thousand files without a look at each
            return sorted(Path(entry.path) for entry in inside if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def _by_hand(card: Card, home: Path) -> str:
    urls = " ".join(archive.url for archive in card.archives)
    return f"By hand: put {card.place} under {home}, or name their folder with --data-dir; they come from {urls}"


def _check_inside(name: str) -> None:
    """What leads out of the folder zip would move into it, and tar what is absolute, where it takes another's place."""
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        raise tarfile.TarError(f"{name!r} would lie outside of its folder")


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    _check_inside(member.name)
    return tarfile.data_filter(member, folder)  # refuses links out of the folder, and devices


def _unpack(
    card: Card,
    archive: Archive,
    file: Path,
    sums: Mapping[str, str],
    staged: Path,
    ours: bool,
    say: Say,
    progress: Progress,
) -> str:
    """Check an archive and unpack it; returns its SHA-256. sums: of archives that were trusted before. ours: it was downloaded,
    so that it may be deleted where it is corrupt. Raises OSError in one line."""

    def corrupt(why: str) -> OSError:
        if ours:
            file.unlink()
        return OSError(
            f"{archive.name} is corrupt {'and was deleted' if ours else f'in {file.parent}: delete it'} ({why})"
        )

    progress(f"{card.name}: checking {archive.name}", 0, 0)
    with open(file, "rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if archive.sha256 not in (None, got):
        raise corrupt(f"SHA-256 {got}, the card says {archive.sha256}")
    say(f"{card.name}: {archive.name} {file.stat().st_size / 1e6:,.0f} MB")
    progress(f"{card.name}: unpacking {archive.name}", 0, 0)
    into = staged / archive.folder
    try:
        # A zip archive that was cut short is none, and is told as one all the same.
        if zipfile.is_zipfile(file) or (file.suffix == ".zip" and not tarfile.is_tarfile(file)):
            with zipfile.ZipFile(file) as packed:
                for name in packed.namelist():
                    _check_inside(name)
                packed.extractall(into)
        else:
            with tarfile.open(file) as tar:
                tar.extractall(into, filter=_inside)
    except (*CORRUPT, zipfile.BadZipFile) as error:
        raise corrupt(" ".join(str(error).split())) from error
    if archive.sha256 is None and sums.get(archive.name, got) != got:
        raise OSError(
            f"{archive.name} is another than the one that was fetched before (SHA-256 {got}, then {sums[archive.name]}): where "
            f"its publisher has changed it, delete {checksums.file(card)}, else {file}"
        )
    return got
