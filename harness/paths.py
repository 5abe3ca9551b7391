"""Where things lie: cards, studies and published results of the checkout, and the folders that use makes (all ignored by git)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "datasets"
STUDIES = ROOT / "studies"
AUDIO = CARDS / "audio"
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"


def is_file(path: Path) -> bool:
    """Whether it is a file; a name that no file system takes is that of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def is_folder(path: Path) -> bool:
    """Whether it is a folder, likewise."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def home() -> Path:
    """The folder that holds `runs/` and `reports/`: the checkout, or `HARNESS_HOME` where that is set."""
    return Path(os.environ.get("HARNESS_HOME") or ROOT).resolve()


def runs() -> Path:
    return home() / "runs"


def reports() -> Path:
    return home() / "reports"
