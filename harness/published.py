"""Published results: exports in a folder, and the pages and the section of the README that follow from them alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness import exchange
from harness.errors import UserError
from harness.readme import with_section
from harness.report import publish, runs
from harness.report.page import write
from harness.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = "runs"  # below the folder: an export a study
ATLAS = "atlas.csv"  # beside them: a copy of what `harness atlas` has written


def make(folder: Path, readme: Path, show: Callable[[int, int], None]) -> list[Path]:
    """Write the pages of the exports in `folder`/runs beside them, and their section into the README; returns the pages. Pages that
    follow from no export any more are removed. The same exports give the same bytes.

    UserError where there is no export, one is damaged, or the README has no place for the section.
    """
    pages, section = texts(folder, readme, show)
    text = with_section(readme.read_text(encoding="utf-8"), "results", "make results", section)
    shutil.rmtree(folder / publish.PICTURES, ignore_errors=True)
    for old in folder.glob("*.md"):
        if old.name not in pages and old.read_text(encoding="utf-8").startswith(publish.MARK):
            old.unlink()
    for name, content in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, content)
    write(readme, text)
    return [folder / name for name in pages]


def texts(folder: Path, readme: Path, show: Callable[[int, int], None]) -> tuple[dict[str, str], str]:
    """What `make` writes: pages and pictures by their path in the folder, and the section of the README."""
    exported = folder / RUNS
    if not (exported.is_dir() and any(exported.rglob(exchange.FILES[0]))):
        raise UserError(f"{exported}: holds no export to write pages of; make one: harness export {exported / 'all'}")
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        tracker = Tracker(f"sqlite:///{Path(scratch) / 'mlflow.db'}")
        exchange.read(tracker, exported, show)
        atlas = pd.read_csv(exported / ATLAS) if (exported / ATLAS).exists() else None
        return publish.files(runs.read(tracker), folder.relative_to(readme.parent).as_posix(), sources(folder), atlas)


def sources(folder: Path) -> list[tuple[str, int, str]]:
    """The exports in `folder`/runs: where each lies below it, how many runs it holds, and a hash of its bytes."""
    found = []
    for export in exchange.exports(folder / RUNS):
        contents = [(export / name).read_bytes() for name in exchange.FILES]
        count = len(json.loads(contents[0])["runs"])
        found.append(
            (export.relative_to(folder).as_posix(), count, hashlib.sha256(b"".join(contents)).hexdigest()[:12])
        )
    return found
