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


def home() -> Path:
    """The folder that holds `runs/` and `reports/`: the checkout, or `HARNESS_HOME` where that is set."""
    return Path(os.environ.get("HARNESS_HOME") or ROOT).resolve()


def runs() -> Path:
    return home() / "runs"


def reports() -> Path:
    return home() / "reports"
