"""A corpus of two voices and a dozen real prompts, small enough to be fetched, damaged and decoded in every test."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import paths
from harness.data.corpora import Card, Contents
from tests.real import prompts_folder

VOICES = ("en_US_f_Allison", "it_IT_m_Carlo")  # the second is held out
NAMES = {
    "train": ("letters/w", "with", "enabled", "transfer"),
    "validation": ("conf-full", "letters/x"),
    "test": ("is-in-use", "digits/14", "conf-invalidpin"),
    "left out": ("beep", "silence/1"),
}


def contents(folder: Path) -> Contents:
    """What a card says of a folder, computed as its documentation tells: sorted lines of path and SHA-256."""
    files = list(folder.rglob("*.g722"))
    lines = sorted(
        f"{file.relative_to(folder).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files
    )
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Contents(files=len(files), bytes=sum(file.stat().st_size for file in files), sha256=digest)


def describe(root: Path, folders: Iterable[str] = VOICES, **changes: Any) -> Card:
    """The card of the folders under `root`; nowhere to fetch them from unless `changes` say so."""
    card: dict[str, Any] = {
        "name": "tiny",
        "title": "A dozen prompts",
        "kind": "speech",
        "version": "1",
        "synthetic": False,
        "licence": "CC-BY-SA-3.0",
        "layout": "voice_folders",
        "package_folder": "usr/share/tiny",
        "contents": {name: contents(root / name) for name in folders},
        "leave_out": {"folders": ("silence",), "names": ("beep",), "shorter_than": 0.1, "quieter_than": -60},
        "split": {"by": "name", "held_out": ("it_IT_m_Carlo",)},
    }
    return Card(**(card | changes))


@dataclass(frozen=True)
class Tiny:
    """source: where the folders of the voices lie; audio: where the harness keeps what it fetched (empty at first)."""

    source: Path
    audio: Path
    card: Card

    def but(self, **changes: Any) -> Tiny:
        """The same with other entries on the card."""
        return replace(self, card=describe(self.source, **changes))

    def place(self) -> Path:
        """Put the recordings where fetched ones lie."""
        return shutil.copytree(self.source, self.audio / "tiny")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    source = tmp_path / "source"
    for voice in VOICES:
        for name in (name for names in NAMES.values() for name in names):
            target = source / voice / f"{name}.g722"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(prompts_folder() / voice / f"{name}.g722", target)
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "audio")
    return Tiny(source, tmp_path / "audio", describe(source))
