import numpy as np
import pytest

from harness import paths
from harness.data import corpora, espeak, words
from harness.data.audio import SAMPLE_RATE, active_level
from harness.data.corpora import Reading
from harness.errors import UserError
from tests.real import word_scenes


@pytest.fixture
def spoken() -> words.Words:
    return word_scenes("keywords").words


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A card of two words in three voices, made under a folder of its own."""
    monkeypatch.setattr(paths, "AUDIO", tmp_path)
    monkeypatch.setattr(espeak, "voices", lambda: ["m1", "f2", "croak"])
    reading = Reading(language="en", rate=150, pitch=50)
    return corpora.card("spoken_words").model_copy(
        update={"words": ("yes", "no"), "unknown": (), "readings": (reading,)}
    )


def opened(card) -> words.Words:
    return words.open_words(card, say=lambda text: None)


def test_every_word_is_said_in_every_voice_and_reading(spoken):
    card, clips = spoken.bank.card, spoken.bank.clips
    assert spoken.words == card.words + card.unknown
    assert spoken.grid.shape == (35, len(spoken.voice_names), len(card.readings))
    assert sorted(spoken.grid.ravel()) == list(range(len(clips)))
    row = clips.iloc[spoken.grid[3, 7, 1]]
    assert (row["name"], row.voice, row.reading) == (spoken.words[3], spoken.voice_names[7], 1)


def test_no_voice_lies_in_two_splits_and_all_have_some(spoken):
    assert spoken.bank.clips.groupby("voice").split.nunique().max() == 1
    assert {name: len(voices) for name, voices in spoken.voices.items()} == {"train": 59, "validation": 18, "test": 25}
    assert len(np.concatenate(list(spoken.voices.values()))) == len(spoken.voice_names)


def test_novelty_voices_can_be_left_out(spoken):
    for split in spoken.voices:
        people = {spoken.voice_names[voice] for voice in spoken.speakers(split, novelty=False)}
        everyone = {spoken.voice_names[voice] for voice in spoken.speakers(split, novelty=True)}
        assert everyone - people <= set(spoken.bank.card.novelty)
        assert not people & set(spoken.bank.card.novelty)
        assert len(people) >= 10


def test_novelty_names_voices_that_there_are(spoken):
    assert set(spoken.bank.card.novelty) <= set(spoken.voice_names)


def test_clips_are_trimmed_of_one_level_and_fit_a_second(spoken):
    rng = np.random.default_rng(0)
    for row in rng.choice(len(spoken.starts), 200, replace=False):
        clip = spoken.bank.samples[spoken.starts[row] :][: spoken.lengths[row]]
        assert 0.1 * SAMPLE_RATE < len(clip) <= words.LONGEST * SAMPLE_RATE
        assert np.abs(clip.astype(int)).max() <= espeak.PEAK * 32768
        assert (
            active_level(clip) == pytest.approx(espeak.LEVEL, abs=0.1)
            or np.abs(clip).max() > 0.99 * espeak.PEAK * 32768
        )
        ends = [(part.astype(float) ** 2).mean() for part in (clip[: espeak.STEP], clip[-espeak.STEP :])]
        loudest = max((part.astype(float) ** 2).mean() for part in clip.reshape(-1, espeak.STEP))
        assert 10 * np.log10(min(ends) / loudest) > -espeak.TRIM_DB - 1


def test_a_new_process_says_the_same_samples(few, tmp_path, monkeypatch):
    first = opened(few)
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "again")
    second = opened(few)
    assert first.bank.folder != second.bank.folder
    assert np.array_equal(first.bank.samples, second.bank.samples)
    assert first.bank.clips.equals(second.bank.clips)


def test_words_that_were_made_are_not_made_again(few, monkeypatch):
    first = opened(few)
    monkeypatch.setattr(words, "_synthesised", lambda *_: pytest.fail("made again"))
    assert np.array_equal(first.bank.samples, opened(few).bank.samples)


def test_the_digest_follows_what_is_said(few):
    other = few.model_copy(update={"words": ("yes", "go")})
    assert len({few.digest(), other.digest(), few.model_copy(update={"readings": few.readings * 2}).digest()}) == 3
    assert opened(few).bank.digest != opened(other).bank.digest


def test_another_version_of_the_synthesiser_is_refused(few):
    with pytest.raises(UserError, match=r"eSpeak NG 1\.52\.0 is installed, the card asks for 1\.2: pip install"):
        opened(few.model_copy(update={"version": "1.2"}))


def test_an_unknown_language_is_refused(few):
    unheard = Reading(language="en-gb", rate=150, pitch=50)
    with pytest.raises(UserError, match="no voice 'm1' in 'en-gb'"):
        opened(few.model_copy(update={"readings": (unheard,)}))


def test_a_voice_that_takes_too_long_is_named(few):
    slow = Reading(language="en", rate=80, pitch=50)
    with pytest.raises(UserError, match=r"voice '\w+' takes \d\.\d\d s for .*: name it under leave_out"):
        opened(few.model_copy(update={"words": ("incomprehensibility",), "readings": (slow,)}))


def test_making_tells_how_far_it_is(few):
    told = []
    words.open_words(few, lambda text: None, lambda what, done, of, unit="": told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]
