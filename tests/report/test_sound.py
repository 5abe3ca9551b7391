import io

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from harness.report import sound


@pytest.fixture(scope="module")
def speech():
    return 0.05 * np.random.default_rng(0).standard_normal(16_000)


def level(clip):
    return 10 * np.log10((clip**2).mean())


def test_the_clean_clip_and_a_louder_copy_come_to_one_level(speech):
    assert level(sound.matched(speech, speech)) == pytest.approx(sound.LEVEL)
    assert sound.matched(4 * speech, speech) == pytest.approx(sound.matched(speech, speech))


def test_it_is_the_speech_that_is_matched_and_not_the_noise_on_it(speech):
    noise = np.random.default_rng(1).standard_normal(16_000)
    noise -= (noise @ speech) / (speech @ speech) * speech
    played = sound.matched(0.5 * (speech + 0.05 * noise), speech)
    assert (played @ speech) / (speech @ speech) == pytest.approx(10 ** ((sound.LEVEL - level(speech)) / 20))
    assert level(played) > sound.LEVEL + 2


def test_a_clip_without_the_speech_gets_the_level_as_a_whole_and_silence_stays_silent(speech):
    other = np.random.default_rng(2).standard_normal(16_000)
    other -= (other @ speech) / (speech @ speech) * speech
    assert level(sound.matched(0.02 * other, speech)) == pytest.approx(sound.LEVEL)
    assert level(sound.matched(-speech, speech)) == pytest.approx(sound.LEVEL)  # upside down
    assert not sound.matched(np.zeros(16_000), speech).any()
    assert np.isfinite(sound.matched(speech[:900], speech)).all()


def test_no_clip_is_turned_up_by_more_than_20_dB_or_beyond_full_scale(speech):
    assert level(sound.matched(1e-3 * speech, speech)) == pytest.approx(sound.LEVEL - 40)
    click = np.zeros(16_000)
    click[100] = 1.0
    assert np.abs(sound.matched(click, click)).max() <= 1


def test_a_packed_clip_is_the_clip(speech):
    read, rate = soundfile.read(io.BytesIO(sound.flac(speech, 16_000)))
    assert rate == 16_000
    assert read == pytest.approx(speech, abs=2**-15)


@pytest.mark.parametrize("samples", [0, 1, 700, 64_000])
def test_a_spectrogram_is_a_picture_of_one_size_for_any_length(samples):
    image = imread(io.BytesIO(sound.spectrogram(np.ones(samples))), format="png")
    assert image.shape[1] == sound.WIDTH


def test_a_spectrogram_shows_low_frequencies_at_the_bottom_and_time_from_left_to_right():
    tone = 0.1 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000) * (np.arange(16_000) > 8_000)
    image = imread(io.BytesIO(sound.spectrogram(tone)), format="png")[..., :3].sum(-1)
    assert image[-20:, 170:].max() > image[:20].max() + 0.5
    assert image[-20:, 200:].mean() > image[-20:, :150].mean() + 0.1
