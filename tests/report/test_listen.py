"""The page of one recording through every loss."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.data.audio import active_level
from harness.recording import Recording
from harness.report import listen
from harness.tracking import Tracker
from tests.conftest import Smoke, here

RATE = 16_000


def test_every_confirmed_loss_is_heard_in_the_order_of_the_ranking(smoke: Smoke, tmp_path: Path) -> None:
    home = smoke.copied(tmp_path / "home")
    rng = np.random.default_rng(0)
    name = "<b>mine & yours.wav"
    soundfile.write(tmp_path / name, 0.05 * rng.standard_normal((44_100, 3)), 44_100)
    done = here("listen", str(tmp_path / name), "--tracking-uri", f"sqlite:///{smoke.home}/runs/mlflow.db", home=home)
    assert done.returncode == 0, done.stderr
    page = (home / "reports" / "listen.html").read_text()
    assert "<b>mine" not in page
    assert "the first two of 3 channels" in page
    labels = re.findall(r'<audio [^>]*aria-label="([^"]+)"', page)
    assert labels[0] == "&lt;b&gt;mine &amp; yours.wav"
    assert set(labels[1:]) == {"si_sdr", "snr", "mse"}
    sounds = [
        soundfile.read(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"data:audio/flac;base64,([^\"]+)", page)
    ]
    assert [(samples.shape, rate) for samples, rate in sounds] == [((RATE, 2), RATE)] * 4
    levels = [max(active_level(32768 * channel) for channel in samples.T) for samples, _ in sounds]
    assert levels == pytest.approx([levels[0]] * 4, abs=0.1)
    assert max(np.abs(samples).max() for samples, _ in sounds) == pytest.approx(0.999, abs=1e-3)
    told = re.findall(r'title="run ([0-9a-f]{32})">run [0-9a-f]{8}, [+−][0-9.]+ dB<', page)
    tracker = Tracker(f"sqlite:///{smoke.home}/runs/mlflow.db")
    seeds = {run.info.run_id: run.data.tags["seed"] for run in tracker.search("tags.phase = 'confirm'")}
    assert [seeds[run] for run in told] == ["1"] * 3


def test_a_long_recording_of_many_channels_is_heard_in_part() -> None:
    part = listen.excerpt(Recording(np.ones((4, 50 * 8000), np.float32), 8000))
    assert (part.samples.shape, part.rate) == ((2, 30 * RATE), RATE)


def test_sounds_are_brought_to_one_level_and_none_clips() -> None:
    rng = np.random.default_rng(1)
    sounds = [gain * rng.standard_normal((1, RATE)).astype(np.float32) for gain in (0.5, 0.01, 3.0)]
    sounds.append(np.zeros((1, RATE), np.float32))
    level = listen.common_level(sounds[:3])
    made = [listen.matched(sound, level)[0] for sound in sounds]
    assert [active_level(32768 * sound[0]) for sound in made[:3]] == pytest.approx([level] * 3, abs=0.01)
    assert max(np.abs(sound).max() for sound in made) == pytest.approx(0.999, rel=1e-3)
    assert not made[3].any()
