"""The sounds and pictures of a page: in the page itself while they are few, so that one file can be sent and played anywhere;
beside it, in a folder of its own, once they would make it slow to open."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

MOST = 12 * 2**20  # bytes of sounds and pictures that a page holds itself
SUFFIXES = {"audio/flac": ".flac", "image/png": ".png"}


@dataclass(eq=False)
class Clip:
    """A sound or a picture. kind: its MIME type; source: what a page writes into `src`, known once it is placed."""

    data: bytes
    kind: str
    source: str = ""


class Media:
    """What one page plays and shows."""

    def __init__(self) -> None:
        self._clips: list[Clip] = []

    def add(self, data: bytes, kind: str) -> Clip:
        self._clips.append(Clip(data, kind))
        return self._clips[-1]

    def place(self, beside: Path | None = None, most: int = MOST) -> None:
        """Give every clip its source: a data URI, or a file in the folder `beside` (relative to the folder's own) where there
        is one and the clips are more than `most` bytes. Files are named by their content, and those of earlier pages removed.
        """
        inside = beside is None or sum(len(clip.data) for clip in self._clips) <= most
        kept = set()
        for clip in self._clips:
            if inside or beside is None:
                clip.source = f"data:{clip.kind};base64,{base64.b64encode(clip.data).decode()}"
                continue
            name = hashlib.sha256(clip.data).hexdigest()[:20] + SUFFIXES[clip.kind]
            kept.add(name)
            clip.source = f"{beside.name}/{name}"
            beside.mkdir(exist_ok=True)
            if not (beside / name).is_file():
                (beside / name).write_bytes(clip.data)
        if beside is not None and beside.is_dir():
            for old in [
                path for path in beside.iterdir() if path.suffix in SUFFIXES.values() and path.name not in kept
            ]:
                old.unlink()
            if not kept and not any(beside.iterdir()):
                beside.rmdir()
