"""Get a corpus's recordings: a local folder, the upstream archives, or the Debian packages, each checked by content."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import paths
from harness.data.corpora import Card
from harness.data.download import CONNECT_TIMEOUT, download
from harness.data.progress import Progress, unseen
from harness.errors import UserError
from harness.locks import held

CORRUPT = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)
Say = Callable[[str], None]


def tree_digest(folder: Path) -> tuple[int, int, str]:
    """Number, total bytes and SHA-256 (over sorted `<path> <sha256>` lines) of a folder's G.722 files."""
    files = list(folder.rglob("*.g722"))
    lines = sorted(
        f"{file.relative_to(folder).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files
    )
    digest = hashlib.sha256("".join(lines).encode())
    return len(files), sum(file.stat().st_size for file in files), digest.hexdigest()


def faults(card: Card, root: Path) -> list[str]:
    """What is wrong with the recordings under `root`, one line a fault; empty when the contents equal the card's."""
    return [line for name in card.contents if (line := _fault(card, name, root))]


def _fault(card: Card, name: str, root: Path) -> str:
    """What is wrong with one folder."""
    want = card.contents[name]
    if not (root / name).is_dir():
        return f"{name}: no such folder in {root}"
    files, size, digest = tree_digest(root / name)
    if (files, size) != (want.files, want.bytes):
        return f"{name}: {files} files of {size:,} bytes, the card says {want.files} of {want.bytes:,}"
    if digest != want.sha256:
        return f"{name}: as many files and bytes as the card says, but other contents (SHA-256)"
    return ""


def recordings(card: Card, data_dir: Path | None = None, say: Say = print, progress: Progress = unseen) -> Path:
    """The folder that holds the card's folders, fetched where it is not there yet.

    data_dir: a folder of the user's, tried first. `say` is told before anything is downloaded, and which way was taken.
    Downloads are kept beside it until the recordings are whole, so that a fetch that broke off goes on where it was.
    Raises UserError with the three ways where none works.
    """
    if data_dir is not None:
        root = _local(card, data_dir)
        if root is None:
            raise UserError(
                f"--data-dir {data_dir}: holds none of the folders {', '.join(card.contents)} of {card.name!r}"
            )
        for fault in faults(card, root):
            say(f"warning: {card.name}: {fault}")
        return root
    root = paths.AUDIO / card.name
    if root.is_dir():
        wrong = faults(card, root)
        if not wrong:
            return root
        say(f"{card.name}: {root} is not what the card says ({wrong[0]}); fetching it again")
    with downloads(card, say) as kept:
        if root.is_dir() and not faults(card, root):  # another process, waited for, has fetched it
            return root
        tried = []
        for way, get in (("upstream archives", _upstream), ("Debian packages", _packages)):
            with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=paths.AUDIO) as scratch:
                staged = Path(scratch) / "staged"
                staged.mkdir()
                say(f"{card.name}: fetching {(card.bytes or 0) / 1e6:.0f} MB from the {way}")
                try:
                    get(card, kept, Path(scratch), staged, say, progress)
                    wrong = faults(card, staged)
                    if wrong:
                        emptied(kept)
                        say(f"{card.name}: the {way} do not hold what the card says and were deleted")
                except (OSError, subprocess.SubprocessError) as error:
                    wrong = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                if wrong:
                    tried.append(f"{way} ({wrong[0]})")
                    continue
                _place(card, staged, root, say)
            emptied(kept)
            count = sum(part.files for part in card.contents.values())
            say(f"{card.name}: {count} recordings from the {way}, checksums hold")
            return root
        more = any(kept.iterdir())
    raise UserError(
        f"cannot get {card.name!r}: tried {'; '.join(tried)}. "
        f"{'What came is kept: the same command goes on from there. ' if more else ''}"
        f"Three ways: (1) put the folders {', '.join(card.contents)} under {root} "
        f"or name their folder with --data-dir; (2) download {' '.join(card.upstream.values())} and unpack them there; "
        f"(3) on Debian or Ubuntu: apt-get update && apt-get download {' '.join(card.packages)}, then dpkg-deb -x each"
    )


@contextmanager
def downloads(card: Card, say: Say) -> Iterator[Path]:
    """The folder of what has been downloaded so far, for one process at a time: two would spoil each other's. Gone if empty."""
    kept = paths.AUDIO / f".{card.folder}-downloads"
    with held(kept, lambda: say(f"{card.name}: another process is fetching it; waiting")):
        kept.mkdir(exist_ok=True)  # whoever was waited for has removed it
        try:
            yield kept
        finally:
            if kept.is_dir() and not any(kept.iterdir()):
                kept.rmdir()


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _place(card: Card, staged: Path, root: Path, say: Say) -> None:
    """Complete and checked, or not there at all."""
    if root.exists():
        if not faults(card, root):  # put there meanwhile, and may be read already
            return
        set_aside(card, root, say)
    os.replace(staged, root)


def set_aside(card: Card, folder: Path, say: Say) -> None:
    """Make room for what was fetched. What lies there may have been put there by hand: it is moved, not deleted."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
        return
    numbered = (folder.with_name(f"{folder.name}.old-{number}") for number in itertools.count(1))
    aside = next(path for path in numbered if not os.path.lexists(path))
    os.rename(folder, aside)
    say(f"{card.name}: what lay in {folder} is now in {aside}; delete it if you need it no more")


def _local(card: Card, data_dir: Path) -> Path | None:
    """The folder at or below `data_dir` that holds the card's folders."""
    for root in (data_dir, data_dir / card.name, data_dir / card.package_folder):
        if all((root / name).is_dir() for name in card.contents):
            return root
    return None


def _upstream(card: Card, kept: Path, scratch: Path, staged: Path, say: Say, progress: Progress) -> None:
    """Download the archives and unpack them; one whose contents are not the card's is deleted."""
    if not card.upstream:
        raise OSError("the card names none")
    for folder, url in card.upstream.items():
        archive = kept / f"{folder}.tar.gz"
        part = kept / f"{archive.name}.part"
        if part.is_file():
            say(f"{card.name}: {archive.name}: going on at {part.stat().st_size / 1e6:.1f} MB")
        download(url, archive, f"{card.name}: {archive.name}", progress)
        say(f"{card.name}: {folder} {archive.stat().st_size / 1e6:.1f} MB")
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(
                    staged / folder, filter="data"
                )  # refuses absolute names, links out of the folder, devices
            wrong = _fault(card, folder, staged)
        except CORRUPT as error:
            wrong = f"{folder}: {' '.join(str(error).split()) or type(error).__name__}"
        if wrong:
            archive.unlink()
            say(f"{card.name}: {archive.name} is corrupt and was deleted ({wrong})")
            raise OSError(wrong)


def _packages(card: Card, kept: Path, scratch: Path, staged: Path, say: Say, progress: Progress) -> None:
    """`apt-get download` with lists of our own, so that no root is needed and the system stays as it is."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError("no apt-get here")
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (scratch / folder).mkdir(parents=True)
    options = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oAPT::Sandbox::User=root"]
    options += [f"-oAcquire::http::Timeout={CONNECT_TIMEOUT}", f"-oAcquire::https::Timeout={CONNECT_TIMEOUT}"]
    apt = ["apt-get", "-qq", *options]
    progress(f"{card.name}: reading package lists", 0, 0)
    _run([*apt, "update"], scratch)
    for uri, name, checksum in _addresses(_apt([*apt, "--print-uris"], card.packages, kept)):
        deb = kept / name
        try:
            download(uri, deb, f"{card.name}: {name}", progress)  # apt would begin a partial file again
        except OSError:
            _apt(apt, [name.partition("_")[0]], kept)  # it may know of a proxy, or of a kind of address that we do not
        got = hashlib.sha256(deb.read_bytes()).hexdigest()
        if checksum not in ("", got):
            deb.unlink()
            say(f"{card.name}: {name} is corrupt and was deleted (SHA-256 {got}, the package list says {checksum})")
            raise OSError(f"{name}: other SHA-256 than in the package list")
        say(f"{card.name}: {name} {deb.stat().st_size / 1e6:.1f} MB")
    for package, sha256 in card.packages.items():
        (deb,) = kept.glob(f"{package}_*.deb")
        got = hashlib.sha256(deb.read_bytes()).hexdigest()
        if got != sha256:
            say(
                f"warning: {deb.name} has SHA-256 {got}, the card says {sha256}: rebuilt by another distribution? "
                "Its contents are checked next"
            )
        subprocess.run(
            ["dpkg-deb", "-x", str(deb), str(scratch / "unpacked")], check=True, capture_output=True, timeout=120
        )
    for folder in card.contents:
        os.replace(scratch / "unpacked" / card.package_folder / folder, staged / folder)


def _apt(apt: list[str], packages: Iterable[str], folder: Path) -> str:
    """`apt-get download` into a folder; returns what it prints."""
    return _run([*apt, "download", *packages], folder)


def _addresses(listed: str) -> list[tuple[str, str, str]]:
    """Address, file name and SHA-256 ("" where there is another) from the lines of `apt-get --print-uris`."""
    return re.findall(r"^'([^']*)' (\S+) \d+ *(?:SHA256:([0-9a-f]{64}))?", listed, re.MULTILINE)


def _run(command: list[str], folder: Path) -> str:
    """What an apt-get command prints. Raises OSError with the last line of its errors where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        verb = "update" if command[-1] == "update" else "download"
        raise OSError(f"apt-get {verb}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
