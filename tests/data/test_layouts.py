from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from harness import paths
from harness.data import corpora
from harness.data.bank import Bank, open_bank
from tests.data import layouts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every public corpus, and every kind of folder, side by side."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, make in (layouts.PUBLIC | layouts.OWN).items():
        make(folder / name)
    return folder


@pytest.fixture(autouse=True, scope="module")
def elsewhere(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Banks of tiny corpora are kept apart; those of the real ones are where they were."""
    audio = tmp_path_factory.mktemp("audio")
    (audio / "bank").mkdir()
    for name in ("prompts", "music"):
        (audio / name).symlink_to(paths.AUDIO / name)
    for bank in (paths.AUDIO / "bank").iterdir():
        (audio / "bank" / bank.name).symlink_to(bank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "AUDIO", audio)
        yield


def bank(name: str, made: Path) -> Bank:
    card = corpora.card(name if name in corpora.names() else str(made / name))
    return open_bank(card, None if card.root else made, say=lambda text: None)


def test_x(made):
    for n in list(layouts.PUBLIC) + list(layouts.OWN) + ["speech_commands_12"]:
        b = bank(n, made)
        print(n)
        print(b.clips.to_string())
        print(b.left_out())
        print(b.notes())
