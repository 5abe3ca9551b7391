"""Whether a written report still shows what the store holds, so that a study that made nothing new leaves it be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.tracking import commit

if TYPE_CHECKING:
    from harness.report.runs import Results

FILE = ".stamp"


def current(results: Results, folder: Path) -> bool:
    """Whether the report in `folder` was written from these results by this code."""
    stamp = folder / FILE
    return (folder / "index.html").is_file() and stamp.is_file() and stamp.read_text() == _digest(results)


def leave(results: Results, folder: Path) -> None:
    """Say that the report in `folder` is written from these results."""
    (folder / FILE).write_text(_digest(results))


def _digest(results: Results) -> str:
    tables = (results.runs, results.tuning, results.throughput)
    parts = [commit(), repr(results.identities), *(table.to_csv() for table in tables)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
