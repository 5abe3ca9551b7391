"""What the archives of a corpus were when they were first fetched: of many nobody publishes a checksum, and another content
under the same name would be another corpus."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from harness import paths
from harness.data.corpora import Card


def file(card: Card) -> Path:
    """Where they are written down, as `sha256sum` does: beside the corpus's folder, not in it, whose change would be one of the
    corpus."""
    return paths.AUDIO / f"{card.folder}.sha256"


def read(card: Card) -> dict[str, str]:
    """SHA-256 of every archive that was fetched before, by name."""
    with suppress(OSError, UnicodeDecodeError):
        pairs = [line.split(maxsplit=1) for line in file(card).read_text().splitlines()]
        return {pair[1].strip(): pair[0] for pair in pairs if len(pair) == 2}
    return {}


def write(card: Card, sums: dict[str, str]) -> None:
    draft = file(card).with_name(f".{file(card).name}-{os.getpid()}")
    draft.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    draft.replace(file(card))
