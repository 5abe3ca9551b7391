"""Get a corpus's recordings: a local folder, the upstream archives, or the Debian packages, each checked by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from harness import paths
from harness.data.corpora import Card
from harness.errors import UserError

CONNECT_TIMEOUT = 5  # seconds: blocked sites are common, and there is another way
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
    found = []
    for name, want in card.contents.items():
        if not (root / name).is_dir():
            found.append(f"{name}: no such folder in {root}")
            continue
        files, size, digest = tree_digest(root / name)
        if (files, size) != (want.files, want.bytes):
            found.append(f"{name}: {files} files of {size:,} bytes, the card says {want.files} of {want.bytes:,}")
        elif digest != want.sha256:
            found.append(f"{name}: as many files and bytes as the card says, but other contents (SHA-256)")
    return found


def recordings(card: Card, data_dir: Path | None = None, say: Say = print) -> Path:
    """The folder that holds the card's folders, fetched where it is not there yet.

    data_dir: a folder of the user's, tried first. `say` is told before anything is downloaded, and which way was taken.
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
    paths.AUDIO.mkdir(parents=True, exist_ok=True)
    tried = []
    for way, get in (("upstream archives", _upstream), ("Debian packages", _packages)):
        with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=paths.AUDIO) as scratch:
            staged = Path(scratch) / "staged"
            staged.mkdir()
            say(f"{card.name}: fetching {(card.bytes or 0) / 1e6:.0f} MB from the {way}")
            try:
                get(card, Path(scratch), staged, say)
            except (OSError, EOFError, zlib.error, subprocess.SubprocessError, tarfile.TarError) as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                tried.append(f"{way} ({reason[-1][:120]})")
                continue
            wrong = faults(card, staged)
            if wrong:
                tried.append(f"{way} ({wrong[0]})")
                continue
            if root.exists():
                if not faults(card, root):  # another process was quicker, and may be reading it already
                    return root
                shutil.rmtree(root)
            os.replace(staged, root)  # complete and checked, or not there at all
            say(
                f"{card.name}: {sum(c.files for c in card.contents.values())} recordings from the {way}, checksums hold"
            )
            return root
    raise UserError(
        f"cannot get {card.name!r}: tried {'; '.join(tried)}. "
        f"Three ways: (1) put the folders {', '.join(card.contents)} under {root} "
        f"or name their folder with --data-dir; (2) download {' '.join(card.upstream.values())} and unpack them there; "
        f"(3) on Debian or Ubuntu: apt-get update && apt-get download {' '.join(card.packages)}, then dpkg-deb -x each"
    )


def _local(card: Card, data_dir: Path) -> Path | None:
    """The folder at or below `data_dir` that holds the card's folders."""
    for root in (data_dir, data_dir / card.name, data_dir / card.package_folder):
        if all((root / name).is_dir() for name in card.contents):
            return root
    return None


def _upstream(card: Card, scratch: Path, staged: Path, say: Say) -> None:
    """Download the archives (checksums are those of the contents: the site publishes none that we could record)."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    for folder, url in card.upstream.items():
        downloader = pooch.HTTPDownloader(timeout=(CONNECT_TIMEOUT, 60), progressbar=False)
        archive = pooch.retrieve(url, known_hash=None, path=scratch, fname=f"{folder}.tar.gz", downloader=downloader)
        say(f"{card.name}: {folder} {Path(archive).stat().st_size / 1e6:.1f} MB")
        with tarfile.open(archive) as tar:
            tar.extractall(staged / folder, filter="data")  # refuses absolute names, links out of the folder, devices


def _packages(card: Card, scratch: Path, staged: Path, say: Say) -> None:
    """`apt-get download` with lists of our own, so that no root is needed and the system stays as it is."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError("no apt-get here")
    for folder in ("lists/partial", "cache/archives/partial", "unpacked"):
        (scratch / folder).mkdir(parents=True)
    options = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oAPT::Sandbox::User=root"]
    options += [f"-oAcquire::http::Timeout={CONNECT_TIMEOUT}", f"-oAcquire::https::Timeout={CONNECT_TIMEOUT}"]
    for command in (["update"], ["download", *card.packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *options, *command], cwd=scratch, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise OSError(f"apt-get {command[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    for package, sha256 in card.packages.items():
        (deb,) = scratch.glob(f"{package}_*.deb")
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
