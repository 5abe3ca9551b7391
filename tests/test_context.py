"""What the trials of a study share in one process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import spec, trial, workers
from harness.workers import Options
from tests.conftest import blank
from tests.data import layouts


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


def test_what_is_said_of_a_corpus_is_read_once_and_not_for_every_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_HOME", str(shutil.copytree(blank(), tmp_path / "home")))
    corpus: Path = tmp_path / "mine"
    layouts.labelled(corpus)
    loaded = spec.load("labels", {"corpus": str(corpus), "scenes": {"seconds": 0.5}})
    context = workers.open_study(loaded, Options(device="cpu"), 1, lambda line: None)
    before = context.tags("cross_entropy"), trial._notes(context)
    assert before[0]["corpus"] == "mine"
    assert "nobody is named who speaks" in before[1][0].lower()
    shutil.rmtree(corpus)  # whatever is looked at again is missed
    assert (context.tags("cross_entropy"), trial._notes(context)) == before
