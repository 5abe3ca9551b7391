import numpy as np
import pytest
import scipy.signal
import torch

from harness.data.audio import SAMPLE_RATE
from harness.data.noises import COLOURS, Babble, Recorded, Shaped
from tests.real import CPU, music, scenes

SECOND = SAMPLE_RATE
KINDS = ("ssn", "babble", "music", "coloured")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spectrum(noise: torch.Tensor, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    hertz, density = scipy.signal.welch(noise.double().numpy(), SAMPLE_RATE, nperseg=size, detrend=False)
    return hertz, density.mean(0)


def coloured(name: str, items: int = 24) -> torch.Tensor:
    plan = np.stack([np.arange(items), np.full(items, list(COLOURS).index(name))], 1)
    return scenes().kinds["coloured"].render(plan, 4 * SECOND, CPU)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("samples", [1, 700, 33333])
def test_a_plan_is_integers_and_renders_the_same_finite_noise_twice(kind, split, samples):
    noise = scenes().kinds[kind]
    plan = noise.draw(split, rng(3), 5, samples)
    assert plan.dtype.kind == "i"
    assert len(plan) == 5
    first = noise.render(plan, samples, CPU)
    assert first.shape == (5, samples)
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    assert torch.equal(first, noise.render(plan, samples, CPU))
    np.testing.assert_array_equal(plan, noise.draw(split, rng(3), 5, samples))


@pytest.mark.parametrize("kind", KINDS)
def test_other_draws_are_other_noise_and_items_of_a_batch_differ(kind):
    noise = scenes().kinds[kind]
    first, second = (noise.render(noise.draw("train", rng(seed), 4, SECOND), SECOND, CPU) for seed in (0, 1))
    both = torch.cat([first, second])
    both = both / both.norm(dim=1, keepdim=True)
    like = (both @ both.T - torch.eye(8)).abs()
    assert like.max() < 0.9


def test_speech_shaped_noise_has_the_long_term_spectrum_of_the_training_speech():
    noise = scenes().kinds["ssn"]
    hertz, density = spectrum(noise.render(noise.draw("train", rng(), 64, 4 * SECOND), 4 * SECOND, CPU))
    want = scenes().speech.spectrum()
    audible = (hertz >= 150) & (hertz <= 7000)
    gap = 10 * np.log10(density[audible] / want[audible])
    assert np.abs(gap - gap.mean()).max() < 1.0
    # Speech falls by far more than that from its strongest band to 6 kHz, so the shape is not just flat.
    level = 10 * np.log10(want)
    assert level[(hertz > 200) & (hertz < 600)].max() - level[np.argmin(abs(hertz - 6000))] > 15


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02), ("modulated", 0.0)])
def test_colours_fall_by_their_decibels_an_octave(colour, slope):
    hertz, density = spectrum(coloured(colour), 2048)
    band = (hertz > 100) & (hertz < 6000)
    fitted = np.polyfit(np.log2(hertz[band]), 10 * np.log10(density[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("colour", ["pink", "brown"])
def test_pink_and_brown_are_flat_below_hearing(colour):
    hertz, density = spectrum(coloured(colour), 16384)
    low = 10 * np.log10(density[(hertz > 3) & (hertz < 25)])
    assert np.ptp([low[:5].mean(), low[-5:].mean()]) < 1.5
    assert low.mean() > 10 * np.log10(density[(hertz > 60)].max())


def test_modulated_noise_has_a_6_hz_envelope_and_white_has_none():
    peaks = {}
    for colour in ("modulated", "white"):
        power = coloured(colour).double().numpy() ** 2
        envelope = np.abs(np.fft.rfft(power - power.mean(1, keepdims=True), axis=1)).mean(0)[:120]  # 0 to 30 Hz
        peaks[colour] = envelope[24] / np.median(envelope[1:])  # 24 periods in 4 s
        if colour == "modulated":
            assert envelope[1:].argmax() + 1 == 24
    assert peaks["modulated"] > 10
    assert peaks["white"] < 3


def test_all_colours_come_up_equally():
    plan = scenes().kinds["coloured"].draw("test", rng(), 4000, SECOND)
    share = np.bincount(plan[:, 1], minlength=4) / 4000
    np.testing.assert_allclose(share, 0.25, atol=0.035)  # five standard deviations


def test_gaussian_noise_is_gaussian():
    noise = coloured("white").numpy()
    scaled = noise / noise.std()
    assert (scaled**4).mean() == pytest.approx(3, abs=0.05)
    assert abs(scaled.mean()) < 0.01


def test_babble_is_six_talkers_at_equal_level():
    babble = scenes().kinds["babble"]
    assert isinstance(babble, Babble)
    assert babble.talkers == 6
    samples = 2 * SECOND
    plan = babble.draw("train", rng(), 16, samples)
    assert plan.shape == (16, 6)
    voices = np.stack([[babble.speech.samples[s : s + samples] / 32768 for s in row] for row in plan])
    level = np.sqrt((voices**2).mean(-1, keepdims=True))
    assert level.max() / level.min() > 2  # they were recorded at different levels
    together = (voices / level).sum(1)
    got = babble.render(plan, samples, CPU).numpy()
    np.testing.assert_allclose(got, together, atol=0.02 * together.std())


def test_a_silent_talker_does_no_harm():
    babble = scenes().kinds["babble"]
    assert isinstance(babble, Babble)
    speech = babble.speech
    gap = int((speech.clips.start + speech.clips.samples).iloc[0])
    assert not speech.samples[gap : gap + 1000].any()
    plan = np.array([[gap] * 6, [gap] * 5 + [int(speech.clips.start.iloc[3])]])
    noise = babble.render(plan, 1000, CPU)
    assert noise.isfinite().all()
    assert not noise[0].any()


@pytest.mark.parametrize(("kind", "split"), [("babble", "train"), ("babble", "test"), ("music", "validation")])
def test_babble_and_music_are_cut_from_recordings_of_their_split_only(kind, split):
    noise = scenes().kinds[kind]
    bank = noise.speech if isinstance(noise, Babble) else music()
    starts = noise.draw(split, rng(5), 500, 2 * SECOND).ravel()
    clips = bank.clips.sort_values("start")
    # The last clip that begins before a window's end, and the first that ends after its start.
    last = clips.iloc[np.searchsorted(clips.start, starts + 2 * SECOND, side="left") - 1]
    first = clips.iloc[np.searchsorted(clips.start + clips.samples, starts, side="right")]
    assert set(last.split) == set(first.split) == {split}
    assert (last.voice.to_numpy() == first.voice.to_numpy()).all()
    assert "it_IT_m_Carlo" not in set(first.voice)


def test_music_of_training_is_three_tracks_and_of_the_test_another():
    noise = scenes().kinds["music"]
    assert isinstance(noise, Recorded)
    clips = music().clips.sort_values("start")
    tracks = {}
    for split in ("train", "validation", "test"):
        starts = noise.draw(split, rng(), 2000, SECOND).ravel()
        tracks[split] = set(clips.name.iloc[np.searchsorted(clips.start, starts, side="right") - 1])
    assert [len(names) for names in tracks.values()] == [3, 1, 1]
    assert len(set.union(*tracks.values())) == 5


def test_one_length_is_kept_in_memory_however_many_are_asked_for():
    noise = scenes().kinds["ssn"]
    assert isinstance(noise, Shaped)
    for samples in (1000, 2000, 3001):
        noise.render(noise.draw("test", rng(), 1, samples), samples, CPU)
    assert [key[0] for key in noise._stretched] == [3001]
