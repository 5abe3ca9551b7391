"""Recordings of one's own: any format, rate and number of channels; what is none is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.errors import UserError
from harness.recording import PEAK, Recording, read, resampled, write

TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "close"), [("wav", 1e-4), ("flac", 1e-4), ("aif", 1e-4), ("ogg", 0.05), ("mp3", 0.05)]
)
def test_what_is_written_is_read_again(suffix: str, close: float, tmp_path: Path) -> None:
    both = np.stack([TONE, 0.5 * TONE])
    assert write(tmp_path / f"a.{suffix}", Recording(both, 48_000)) == 0
    again = read(tmp_path / f"a.{suffix}")
    assert (again.rate, len(again.samples)) == (48_000, 2)
    assert again.samples[:, 4000:20_000] == pytest.approx(both[:, 4000:20_000], abs=close)


def test_the_sample_format_is_kept_where_the_new_format_has_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, 48_000, subtype="PCM_24")
    write(tmp_path / "b.flac", read(tmp_path / "a.wav"))
    write(tmp_path / "c.ogg", read(tmp_path / "a.wav"))
    assert soundfile.info(tmp_path / "b.flac").subtype == "PCM_24"
    assert soundfile.info(tmp_path / "c.ogg").subtype == "VORBIS"


def test_what_would_clip_is_turned_down_and_it_is_said_by_how_much(tmp_path: Path) -> None:
    down = write(tmp_path / "a.wav", Recording(10 * TONE[None], 48_000))
    assert down == pytest.approx(20 * np.log10(3 / PEAK), abs=1e-3)
    assert np.abs(read(tmp_path / "a.wav").samples).max() == pytest.approx(PEAK, abs=1e-4)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("none", "no such file"),
        ("text", "not audio"),
        ("empty", "0 s"),
        ("short", "0.1 s"),
        ("nan", "finite"),
        ("silent", "silent"),
    ],
)
def test_what_holds_no_sound_is_refused(what: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / f"{what}.wav"
    sounds = {"empty": TONE[:0], "short": TONE[:1000], "nan": TONE * np.nan, "silent": 0 * TONE}
    if what == "text":
        path.write_text("hello")
    elif what in sounds:
        soundfile.write(path, sounds[what], 48_000, subtype="FLOAT")
    with pytest.raises(UserError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"), [("a.xyz", "suffix"), ("a", "suffix"), ("nowhere/a.wav", "cannot be written")]
)
def test_where_it_cannot_be_written_that_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        write(tmp_path / name, Recording(TONE[None], 48_000))


@pytest.mark.parametrize("rate", [8_000, 44_100, 44_101])
def test_a_tone_stays_the_same_tone_at_another_rate(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)[None]
    made = resampled(tone, rate, 16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(made.shape[1]) / 16_000)
    assert made.shape[1] == 16_000
    assert made[0, 500:-500] == pytest.approx(expected[500:-500], abs=5e-3)
