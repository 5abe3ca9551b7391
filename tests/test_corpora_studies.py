"""A study of seconds on a tiny corpus in every layout, by the command that people use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.data import corpora
from harness.data.recordings import splits
from harness.models import registry
from tests.conftest import here, settled
from tests.data import layouts

FOLDERS = tuple(layouts.OWN)
SLOW = ("librispeech + demand", "speech_commands", "speech_commands_12", "esc50", "fsdd", "pairs", "speech_and_noise")
CORPORA = ["voicebank_demand", "labelled", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
MINE = """
import torch
from torch import nn
from harness.models import model

@model(gives=("estimate",))
class Mine(nn.Module):
    "A short filter."
    def __init__(self):
        super().__init__()
        self.filter = nn.Conv1d(1, 1, 33, padding=16, bias=False)
    def forward(self, noisy):
        return {"estimate": self.filter(noisy[:, None])[:, 0]}
    def shared_parameters(self):
        return [self.filter.weight]
"""


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a model, which is gone from the register afterwards."""
    file = tmp_path_factory.mktemp("plugin") / "mine.py"
    file.write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_MODELS", dict(registry._MODELS))
        yield file


def study(task: str, home: Path) -> str:
    labels = task == "labels"
    file = home / "few.yaml"
    raw = {
        "task": task,
        "losses": ["cross_entropy" if labels else "si_sdr"],
        "reference": {"loss": "cross_entropy" if labels else "mse", "lr": 1e-3},
        "scenes": {
            "seconds": 0.5,
            "items": {"validation": 2, "matched": 2} | ({} if labels else {"mismatched": 2, "dnsmos_every": 2}),
        },
        "batch": 32 if labels else 2,  # of which few are needed for 640 training items of the centroids
        "updates": {"tune": 1, "confirm": 2},
        "rates": [1e-3],
        "seeds": 1,
    }
    file.write_text(yaml.safe_dump(raw))
    return str(file)


@pytest.mark.slow
def test_a_study_runs_on_the_rest_of_a_small_folder_whose_only_test_recording_is_bad(
    mine: Path, tmp_path: Path
) -> None:
    for number, clean in zip(range(4), layouts.speech(), strict=False):
        layouts.write(tmp_path / "my few" / "clean" / f"{number}.wav", clean)
        layouts.write(tmp_path / "my few" / "noisy" / f"{number}.wav", layouts.noisy(clean, number))
    (tested,) = (name for name, split in splits(map(str, range(4))).items() if split == "test")
    (tmp_path / "my few" / "noisy" / f"{tested}.wav").write_bytes(b"no sound")
    checked = here("data", "check", str(tmp_path / "my few"), home=tmp_path / "home")
    assert checked.returncode == 1
    assert f"  left out: {tested}: noisy: unreadable: " in checked.stdout
    options = ["--corpus", str(tmp_path / "my few"), "--workers", "1", "--model", "mine", "--plugin", str(mine)]
    done = here("worker", study("denoise", tmp_path), *options, home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {tags["state"] for tags in settled(tmp_path / "home")} == {"finished"}


@pytest.mark.parametrize("name", CORPORA)
def test_a_study_runs_on_a_corpus_that_is_named(name: str, mine: Path, tmp_path: Path) -> None:
    for part in corpora.parts(name):
        (layouts.PUBLIC | layouts.OWN)[part.removesuffix("_12")](tmp_path / part.removesuffix("_12"))
    corpus = str(tmp_path / name) if name in FOLDERS else name
    kind = corpora.card(corpora.parts(corpus)[0]).kind
    file = study("labels" if kind == "labels" else "denoise", tmp_path)
    own = [] if kind == "labels" else ["--model", "mine", "--plugin", str(mine)]
    options = ["--corpus", corpus, "--data-dir", str(tmp_path), "--workers", "1", *own]
    done = here("worker", file, *options, home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = settled(tmp_path / "home")
    assert {tags["phase"] for tags in runs} == {"control", "tune", "confirm"}
    assert {tags["state"] for tags in runs} == {"finished"}
    assert {tags["corpus"] for tags in runs} == {Path(corpora.parts(corpus)[0]).name}
    if name == "voicebank_demand":
        assert done.stdout.startswith(("voicebank_demand:", "Gate zero fails"))
        assert all("PESQ-WB" in tags["gate"] and "FAILS" in tags["gate"] for tags in runs)
        shown = here("study", file, *options, home=tmp_path / "home")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        # Before any ranking, and how few of the pairs that is made of.
        assert 0 <= shown.stdout.index("Gate zero fails") < shown.stdout.index("matched test: mean, gain")
        assert "The ranking judges 2 of these 4 pairs" in shown.stdout
        assert "caution: voicebank_demand: trainset_28spk has 8 of 11,572 pairs; test has 4 of 824 pairs" in " ".join(
            shown.stdout.split()
        )
        pages = "".join(page.read_text() for page in (tmp_path / "home" / "reports").rglob("*.html"))
        assert "Gate zero fails, so that no score here can be compared with published ones" in pages
        assert "The ranking judges 2 of these 4 pairs: hold its scores against each other" in pages
        for page in (tmp_path / "home" / "reports").rglob("*.html"):
            text = page.read_text()
            assert "Gate zero" not in text or text.index("Gate zero") < text.index("<table")
        assert here("data", "gate", "--data-dir", str(tmp_path), home=tmp_path / "home").returncode == 1
    elif name == "labelled":
        (tmp_path / "labelled" / "left" / "bad.wav").write_bytes(b"no sound")
        checked = here("data", "check", corpus, home=tmp_path / "home")
        assert checked.returncode == 1
        assert "  left out: left/bad.wav: unreadable: " in checked.stdout
        unnamed = "nobody is named who speaks: the test may share speakers with training"
        for told in (done, checked):
            assert "labelled: labels: left, right\n" in told.stdout
            assert f"labelled: {unnamed}\n" in told.stdout
        assert here("report", home=tmp_path / "home").returncode == 0
        pages = "".join(page.read_text() for page in (tmp_path / "home" / "reports").rglob("*.html"))
        assert unnamed[1:] in pages


def test_speech_and_noise_that_are_named_together_are_fetched_and_checked_together(tmp_path: Path) -> None:
    for name in ("librispeech", "demand"):
        layouts.PUBLIC[name](tmp_path / "both" / name)
    both = ["librispeech + demand", "--data-dir", str(tmp_path / "both")]
    fetched = here("data", "fetch", *both, home=tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    assert "librispeech: 12 clips" in fetched.stdout
    assert "demand: 5 clips" in fetched.stdout
    checked = here("data", "check", *both, home=tmp_path)
    assert checked.returncode == 0, checked.stderr
    said = " ".join(checked.stdout.split())
    assert "caution: librispeech: train-clean-100 has 6 of 28,539 recordings; dev-clean has 3 of 2,703" in said
    assert "caution: demand: has 5 of 18 recordings" in said
    assert "demand: test 2 clips" in said
    wrong = here("data", "check", "librispeech + demnad", home=tmp_path)
    assert wrong.returncode == 2
    assert "unknown corpus 'demnad': did you mean 'demand'?" in wrong.stderr
