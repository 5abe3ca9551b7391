import numpy as np
import pandas as pd
import pytest
import scipy.signal

from harness import paths
from harness.data import corpora
from harness.data.audio import SAMPLE_RATE, active_level
from harness.data.bank import open_bank
from harness.data.tracks import COLOURS, open_tracks
from tests.data.conftest import NAMES, Tiny
from tests.real import scenes

SPLITS = ("train", "validation", "test")
BABBLE = {"talkers": 3, "minutes": {"train": 60, "test": 60}}  # more than there is


def track(kind: str, split: str = "train", name: str = "") -> np.ndarray:
    """Samples of one track of the shipped noises, int16."""
    bank = scenes().kinds[kind].bank
    (row,) = bank.clips[(bank.clips.split == split) & (bank.clips.name == (name or kind))].itertuples()
    return bank.samples[row.start : row.start + row.samples]


def spectrum(samples: np.ndarray, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    return scipy.signal.welch(samples.astype(np.float64), SAMPLE_RATE, nperseg=size, detrend=False)


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.mark.parametrize("split", SPLITS)
def test_speech_shaped_noise_has_the_long_term_spectrum_of_the_training_speech(split):
    hertz, density = spectrum(track("ssn", split))
    want = scenes().speech.spectrum()
    audible = (hertz >= 150) & (hertz <= 7000)
    gap = 10 * np.log10(density[audible] / want[audible])
    assert np.abs(gap - gap.mean()).max() < 1.0
    # Speech falls by far more than that from its strongest band to 6 kHz, so the shape is not just flat.
    level = 10 * np.log10(want)
    assert level[(hertz > 200) & (hertz < 600)].max() - level[np.argmin(abs(hertz - 6000))] > 15


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02), ("modulated", 0.0)])
def test_colours_fall_by_their_decibels_an_octave(colour, slope):
    hertz, density = spectrum(track("coloured", name=colour), 2048)
    band = (hertz > 100) & (hertz < 6000)
    fitted = np.polyfit(np.log2(hertz[band]), 10 * np.log10(density[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("colour", ["pink", "brown"])
def test_pink_and_brown_are_flat_below_hearing(colour):
    hertz, density = spectrum(track("coloured", name=colour), 16384)
    low = 10 * np.log10(density[(hertz > 3) & (hertz < 25)])
    assert np.ptp([low[:5].mean(), low[-5:].mean()]) < 1.5
    assert low.mean() > 10 * np.log10(density[(hertz > 60)].max())


def test_modulated_noise_has_a_6_hz_envelope_and_white_has_none():
    peaks = {}
    for colour in ("modulated", "white"):
        power = track("coloured", name=colour)[: 24 * 4 * SAMPLE_RATE].reshape(24, -1).astype(np.float64) ** 2
        envelope = np.abs(np.fft.rfft(power - power.mean(1, keepdims=True), axis=1)).mean(0)[:120]  # 0 to 30 Hz
        peaks[colour] = envelope[24] / np.median(envelope[1:])  # 24 periods in 4 s
        if colour == "modulated":
            assert envelope[1:].argmax() + 1 == 24
    assert peaks["modulated"] > 10
    assert peaks["white"] < 3


@pytest.mark.parametrize(
    ("kind", "name"), [("ssn", ""), *(("coloured", name) for name in COLOURS if name != "modulated")]
)
def test_shaped_noise_is_gaussian_and_quantised_finely(kind, name):
    samples = track(kind, "test", name).astype(np.float64)
    scaled = samples / samples.std()
    assert (scaled**4).mean() == pytest.approx(3, abs=0.3 if name in ("pink", "brown") else 0.03)  # few periods
    assert abs(scaled.mean()) < 0.05
    assert abs(samples).max() < 32767  # none clips
    assert samples.std() > 3000  # a step is 80 dB below


@pytest.mark.parametrize("kind", ["ssn", "coloured"])
def test_shaped_noise_never_comes_again_within_a_track_or_in_another(kind):
    # Two seconds of each track, looked for in half a minute of every one.
    bank, middle, excerpt = scenes().kinds[kind].bank, 15 * SAMPLE_RATE, 2 * SAMPLE_RATE
    tracks = [bank.samples[row.start : row.start + 2 * middle].astype(np.float32) for row in bank.clips.itertuples()]
    tracks = [samples / samples.std() for samples in tracks]
    for place, samples in enumerate(tracks):
        wanted = samples[middle : middle + excerpt]
        for other, against in enumerate(tracks):
            like = scipy.signal.correlate(against, wanted, method="fft", mode="valid") / excerpt
            if other == place:
                assert like[middle] == pytest.approx(1, abs=0.2)
                like[middle - excerpt : middle + excerpt] = 0
            assert np.abs(like).max() < 0.6


def test_babble_is_six_talkers_of_the_split_at_equal_level():
    real = scenes()
    babble, clips = real.kinds["babble"], real.speech.clips.set_index("clip")
    rows = babble.bank.clips.set_index("split")
    for split in SPLITS:
        begin, length = rows.loc[split, "start"], rows.loc[split, "samples"]
        said = babble.said[(babble.said.start >= begin) & (babble.said.start < begin + length)]
        assert set(clips.loc[said["clip"], "split"]) == {split}
        assert "it_IT_m_Carlo" not in set(clips.loc[said["clip"], "voice"])
        assert not said.duplicated(["clip", "talker"]).any()
        at = begin + length // 3
        samples = 5 * SAMPLE_RATE
        together = np.zeros(samples)
        heard = said[(said.start < at + samples) & (said.start + said.samples > at)]
        assert set(heard.talker) == set(range(6))
        for row in heard.itertuples():
            clip = real.speech.clip(row.clip)[: row.samples]
            levelled = clip * 10 ** (-active_level(clip * 32768) / 20)
            first, last = max(row.start, at), min(row.start + row.samples, at + samples)
            together[first - at : last - at] += levelled[first - row.start : last - row.start]
        got = babble.bank.samples[at : at + samples] / together.std()
        scale = (got @ together) / (together @ together)
        np.testing.assert_allclose(got / scale, together, atol=0.01 * together.std())


def test_no_two_talkers_say_the_same_in_the_same_order():
    said = scenes().kinds["babble"].said
    orders = [tuple(rows["clip"]) for _, rows in said.groupby("talker")]
    assert len(orders) == len({order[:20] for order in orders}) == 6


def test_babble_of_a_small_corpus_says_every_clip_of_a_split_once_a_talker(tiny: Tiny):
    tiny.place()
    speech = open_bank(tiny.card, say=quiet)
    seen: list[tuple[int, int]] = []
    card = corpora.card("babble").model_copy(update=BABBLE)
    bank = open_tracks(card, speech, quiet, lambda what, done, of: seen.append((done, of)))
    assert seen == [(done, 6) for done in range(1, 7)]
    said = pd.read_csv(bank.folder / "said.csv")
    assert set(bank.regions) == {"train", "test"}
    for split in ("train", "test"):
        begin, length = bank.regions[split][:, 0]
        there = said[said.start.between(begin, begin + length - 1)]
        want = sorted(f"en_US_f_Allison/{name}" for name in NAMES[split])
        assert [sorted(rows["clip"]) for _, rows in there.groupby("talker")] == [want] * 3
        assert (there.start + there.samples).max() <= begin + length
    assert abs(bank.samples.astype(int)).max() == pytest.approx(0.99 * 32767, abs=1)


def test_a_track_is_as_long_as_the_card_asks_where_there_is_speech_enough():
    lengths = scenes().kinds["babble"].bank.clips.set_index("split").samples / SAMPLE_RATE / 60
    assert lengths["train"] == 60
    assert 8 < lengths["test"] < 15  # all that is said in the test split
    for kind in ("ssn", "coloured"):
        bank = scenes().kinds[kind].bank
        want = bank.clips.split.map(bank.card.minutes) * 60 * SAMPLE_RATE
        assert (bank.clips.samples == want).all()


def test_tracks_are_made_once_and_made_again_they_are_the_same(tiny: Tiny, monkeypatch):
    tiny.place()
    speech = open_bank(tiny.card, say=quiet)
    babble = corpora.card("babble").model_copy(update=BABBLE)
    shaped = corpora.card("ssn").model_copy(update={"minutes": {"train": 1}})
    for card in (babble, shaped):
        said: list[str] = []
        first = open_tracks(card, speech, said.append)
        again = open_tracks(card, speech, said.append)
        assert len(said) == 1
        assert again.folder == first.folder
        monkeypatch.setattr(paths, "AUDIO", tiny.audio.parent / f"elsewhere-{card.name}")
        anew = open_tracks(card, speech, quiet)
        assert anew.folder != first.folder
        assert anew.digest == first.digest
        np.testing.assert_array_equal(anew.samples, first.samples)
        monkeypatch.setattr(paths, "AUDIO", tiny.audio)


def test_the_digest_of_tracks_follows_the_card_and_the_speech_they_are_made_from(tiny: Tiny):
    tiny.place()
    minutes = {"minutes": {"train": 1}}
    speech, other = open_bank(tiny.card, say=quiet), open_bank(tiny.but(version="2").card, say=quiet)
    other = type(other)(**{**vars(other), "digest": "another"})
    cards = {name: corpora.card(name).model_copy(update=minutes) for name in ("ssn", "coloured", "babble")}
    digests = {name: open_tracks(card, speech, quiet).digest for name, card in cards.items()}
    assert len(set(digests.values())) == 3
    assert open_tracks(cards["coloured"], other, quiet).digest == digests["coloured"]  # no speech in it
    for name in ("ssn", "babble"):
        assert open_tracks(cards[name], other, quiet).digest != digests[name]
    fewer = cards["babble"].model_copy(update={"talkers": 2})
    assert open_tracks(fewer, speech, quiet).digest != digests["babble"]


def test_an_interrupted_making_leaves_nothing_and_the_next_one_works(tiny: Tiny):
    tiny.place()
    speech = open_bank(tiny.card, say=quiet)
    card = corpora.card("babble").model_copy(update=BABBLE)

    def interrupt(what: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_tracks(card, speech, quiet, interrupt)
    assert [path.name for path in (tiny.audio / "bank").iterdir()] == [speech.folder.name]
    assert open_tracks(card, speech, quiet).samples.any()
