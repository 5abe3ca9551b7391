"""How far a download, a decoding or a making has come: told to whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """what: the thing that is under way; of: 0 where its size is not known; unit: "B" for bytes."""

    def __call__(self, what: str, done: int, of: int, unit: str = "") -> None: ...


def unseen(what: str, done: int, of: int, unit: str = "") -> None:
    """Shows nothing."""
