"""The store's own speed, and that measuring it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from harness import study


def test_operations_are_counted_on_a_study_that_is_gone_afterwards(tmp_path: Path) -> None:
    store = study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    assert 1 < study.operations(store, trials=3) < 1e5
    assert optuna.get_all_study_names(store) == []


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_signs_of_life(tmp_path: Path) -> None:
    study.operations(study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), trials=1)
