"""A recording of one's own through the models of a real study."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import nn

from harness import enhance
from harness.enhance import Denoiser
from harness.errors import UserError
from harness.recording import Recording
from harness.report import runs
from harness.tracking import Tracker
from tests.conftest import Smoke, blank, here

RATE = 16_000


class Halved(nn.Module):
    """Half the recording, as a denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"estimate": self.gain * noisy}


def sound(seconds: float, channels: int = 1, rate: int = RATE) -> Recording:
    """Tones that every rate holds, others in each channel."""
    time = np.arange(round(seconds * rate)) / rate
    tones = [0.05 * np.sin(2 * np.pi * f * time) * np.sin(2 * np.pi * time) for f in (300, 700, 1500)[:channels]]
    return Recording(np.stack(tones).astype(np.float32), rate)


@pytest.fixture(scope="module")
def tracker(smoke: Smoke) -> Tracker:
    return Tracker(f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def noisy(smoke: Smoke, tracker: Tracker) -> Path:
    """A kept noisy test item."""
    folder = tracker.artifact(tracker.search("tags.phase = 'confirm'")[0].info.run_id, "audio")
    assert folder is not None
    return sorted(folder.glob("*.noisy.wav"))[0]


def test_a_judged_recording_comes_out_as_it_was_judged(
    smoke: Smoke, tracker: Tracker, noisy: Path, tmp_path: Path
) -> None:
    done = here("enhance", "--loss", "snr", str(noisy), str(tmp_path / "out.wav"), home=smoke.home)
    assert done.returncode == 0, done.stderr
    first = tracker.search("tags.phase = 'confirm' and tags.loss = 'snr' and tags.seed = '1'")[0].info.run_id
    assert first in done.stdout
    judged = tracker.artifact(first, f"audio/{noisy.name.replace('.noisy.', '.estimate.')}")
    ours, _ = soundfile.read(tmp_path / "out.wav")
    theirs, _ = soundfile.read(judged)
    assert ours == pytest.approx(theirs, abs=1e-3)  # 16 bits, rounded at other places


def test_any_rate_length_and_number_of_channels_come_out_as_they_went_in() -> None:
    halved = Denoiser(Halved(), "", (-35, -20), False)
    for recording in (sound(0.5, 2, 44_100), sound(1.3, 1, 8_000), sound(3, 3, 48_000)):
        made = enhance.enhance(halved, recording)
        assert made.samples.shape == recording.samples.shape
        middle = slice(2000, -2000)
        error = made.samples[:, middle] - 0.5 * recording.samples[:, middle]
        assert np.abs(error).mean() < 0.01 * np.abs(recording.samples).mean()


def test_a_long_recording_is_taken_in_parts_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enhance, "WINDOW", 2)
    halved = Denoiser(Halved(), "", (-35, -20), False)
    for seconds in (1.9, 2.0, 2.01, 3.0, 3.01, 7.3):
        recording = sound(seconds)
        assert enhance.enhance(halved, recording).samples == pytest.approx(0.5 * recording.samples, abs=1e-6)


def test_the_model_hears_the_levels_of_its_training_and_the_result_has_that_of_the_recording() -> None:
    heard = []

    class Watched(Halved):
        def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
            heard.append(float(noisy.abs().max()))
            return super().forward(noisy)

    denoiser, whole = Denoiser(Watched(), "", (-35, -20), False), sound(1)
    loud = enhance.enhance(denoiser, Recording(10 * whole.samples, RATE))
    faint = enhance.enhance(denoiser, Recording(whole.samples / 1000, RATE))
    assert heard[0] / heard[1] == pytest.approx(10 ** (15 / 20), rel=0.02)
    assert loud.samples == pytest.approx(5 * whole.samples, rel=1e-4)
    assert faint.samples == pytest.approx(whole.samples / 2000, rel=1e-4)


def test_a_level_that_the_loss_left_open_is_that_of_the_recording() -> None:
    recording = sound(1)
    made = enhance.enhance(Denoiser(Halved(), "", (-35, -20), True), recording)
    assert made.samples == pytest.approx(recording.samples, abs=1e-6)


def test_a_loss_confirmed_under_two_protocols_has_to_be_named_by_its_run(smoke: Smoke, tracker: Tracker) -> None:
    known = runs.read(tracker).runs
    twice = known.assign(protocol="another").set_index("run_id").rename(index=lambda run: f"{run}x").reset_index()
    with pytest.raises(UserError, match=r"confirmed 2 times.*--run .* protocol another"):
        enhance.pick(pd.concat([known, twice]), "snr")


def test_whatever_is_wrong_is_one_line_with_the_mend(
    smoke: Smoke, tracker: Tracker, noisy: Path, tmp_path: Path
) -> None:
    run = {
        phase: tracker.search(f"tags.phase = '{phase}'")[0].info.run_id for phase in ("tune", "control", "throughput")
    }
    out = str(tmp_path / "out.wav")
    cases = {
        ("--loss", "l1", str(noisy), out): "'l1'",
        ("--loss", "sn", str(noisy), out): "did you mean 'snr'",
        ("--run", "abc", str(noisy), out): "not in sqlite",
        ("--run", "a'b", str(noisy), out): "not in sqlite",
        ("--run", run["tune"], str(noisy), out): "no weights (phase tune",
        ("--run", run["control"], str(noisy), out): "no weights (phase control",
        ("--run", run["throughput"], str(noisy), out): "estimates no sound",
        (str(noisy), out): "either --run ID or --loss NAME",
        ("--loss", "snr", str(noisy), str(noisy)): "is the recording itself",
        ("--loss", "snr", str(tmp_path / "none.wav"), out): "no such file",
    }
    for arguments, words in cases.items():
        done = here("enhance", *arguments, home=smoke.home)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert words in done.stderr
    assert not Path(out).exists()


def test_a_run_of_a_classifier_and_an_empty_store_are_refused(noisy: Path, tmp_path: Path) -> None:
    store = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = store.start("keywords", "cross_entropy", None, {"task": "keywords", "phase": "confirm", "identity": "k"}, {})
    place = ("--tracking-uri", store.uri)
    done = here("enhance", "--run", run, str(noisy), str(tmp_path / "o.wav"), *place, home=tmp_path)
    assert (done.returncode, "of task keywords, which estimates no sound" in done.stderr) == (2, True), done.stderr
    for command in (("enhance", "--loss", "snr", str(noisy), str(tmp_path / "o.wav")), ("listen", str(noisy))):
        done = here(*command, *place, home=tmp_path)
        assert (done.returncode, "make study" in done.stderr) == (2, True), done.stderr


class SecondHalved(nn.Module):
    """Half of the second channel, as a denoiser of two."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, channels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"estimate": self.gain * channels[:, 1]}


@pytest.mark.parametrize("seconds", [1, 62])  # in one part, and in several
def test_a_model_of_two_channels_hears_both_at_once_and_makes_one(seconds: int) -> None:
    denoiser, whole = Denoiser(SecondHalved(), "", (-100, 0), False), sound(seconds, 2)
    made = enhance.enhance(denoiser, whole)
    assert made.samples.shape == (1, seconds * RATE)
    np.testing.assert_allclose(made.samples[0], 0.5 * whole.samples[1], atol=1e-5)
    with pytest.raises(UserError, match="hears two channels at once; the recording has 1"):
        enhance.enhance(denoiser, sound(1))


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def hostile(mark: Path) -> dict[str, Callable[[Path], object]]:
    evil = {"gru.weight": Evil(f"touch {mark}")}
    return {
        "a file of torch": lambda file: torch.save(evil, file),
        "an older one": lambda file: torch.save(evil, file, _use_new_zipfile_serialization=False),
        "a pickle": lambda file: file.write_bytes(pickle.dumps(evil)),
        "nothing": lambda file: file.write_bytes(b""),
        "other bytes": lambda file: file.write_bytes(b"\x80\x02}q\x00." * 9),
        "half a file": lambda file: (torch.save({"a": torch.ones(9)}, file), os.truncate(file, 300)),
        "a list": lambda file: torch.save([torch.ones(2)], file),
        "numbers for names": lambda file: torch.save({3: torch.ones(2)}, file),
        "text for weights": lambda file: torch.save({"gru.weight": "heavy"}, file),
    }


@pytest.mark.parametrize("kind", hostile(Path()))
def test_weights_that_are_none_are_refused_in_one_line_and_nothing_in_them_is_run(kind: str, tmp_path: Path) -> None:
    shutil.copytree(blank() / "runs", tmp_path / "runs")
    store, folder, mark = Tracker(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"), tmp_path / "made", tmp_path / "mark"
    folder.mkdir()
    hostile(mark)[kind](folder / "model.pt")
    (folder / "spec.json").write_text("{}")
    tags = {"task": "denoise", "phase": "confirm", "model": "gru_mask", "loss": "snr", "seed": "1"}
    run = store.start("denoise", "snr", None, tags, {})
    store.finish(run, "finished", folder)
    with pytest.raises(UserError, match=f"^run {run}: its (weights|model.pt) .*") as error:
        enhance.load(store, run, torch.device("cpu"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert not mark.exists()
