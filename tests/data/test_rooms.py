import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from harness import paths
from harness.data import corpora, rooms
from harness.data.rooms import APART, DISTANCES, EARLY, LEAD, NOISE, RUN_UP, TAPS, after_silence, filtered, going_on
from harness.errors import UserError
from tests.data.test_seal import cut, flip
from tests.real import shoebox


def test_there_are_as_many_rooms_of_each_split_as_the_card_says_and_all_are_others():
    card, table = shoebox().card, shoebox().table
    assert table.split.value_counts().to_dict() == card.rooms
    assert shoebox().responses.shape == (sum(card.rooms.values()), len(DISTANCES), 2, TAPS)
    assert not table.duplicated(["width", "depth", "height"]).any()
    assert sorted(np.concatenate([shoebox().of(split) for split in card.rooms])) == list(range(len(table)))


def test_a_room_computed_again_is_the_same_one():
    row, response = rooms._room(shoebox().card, 1)
    np.testing.assert_allclose(response, shoebox().responses[1], atol=1e-6)
    assert row == pytest.approx(shoebox().table.loc[1, list(row)].to_dict(), abs=2e-3)


def test_rooms_reverberate_as_long_as_their_walls_let_them():
    table = shoebox().table
    volume = table.width * table.depth * table.height
    walls = 2 * (table.width * table.depth + table.width * table.height + table.depth * table.height)
    eyring = 0.161 * volume / (-walls * np.log(1 - table.absorption))
    assert table.t60.between(0.15, 1.1).all()
    assert np.corrcoef(table.t60, eyring)[0, 1] > 0.7
    assert (table.t60 / eyring).median() == pytest.approx(
        1.0, abs=0.3
    )  # the height is low: sound along the floor lasts


def test_the_direct_sound_comes_first_without_a_delay_and_as_loud_as_it_was():
    responses = np.asarray(shoebox().responses)
    reference = responses[:, :, 0]
    np.testing.assert_allclose(reference[:, :, LEAD], 1, atol=0.05)
    # A source near a wall has its reflection close behind: what lies before the direct sound is only the high-pass filter's.
    assert np.abs(reference[:, :, :LEAD]).max() < 0.05
    second = responses[:, :, 1]
    assert np.abs(second[:, :, : LEAD - 10]).max() < 0.35  # 8 cm are 3.7 samples; sinc pulses ring before they peak


def test_speech_is_mostly_direct_and_early_and_the_room_is_heard_behind_it():
    talkers = np.asarray(shoebox().responses)[:, :NOISE, 0].astype(float) ** 2
    clarity = 10 * np.log10(talkers[..., : LEAD + EARLY + 1].sum(-1) / talkers[..., LEAD + EARLY + 1 :].sum(-1))  # C50
    assert clarity.min() > 0
    assert clarity.max() < 25
    assert 5 < np.median(clarity) < 15


def test_sources_are_apart_and_inside():
    rng = np.random.default_rng(5)
    for _ in range(50):
        size = rng.uniform(rooms.SMALLEST, rooms.LARGEST)
        microphones, sources, distances = rooms._positions(rng, size)
        everything = np.concatenate([microphones, sources])
        assert (everything > 0.3).all()
        assert (everything < size - 0.3).all()
        offset = sources - microphones[0]
        np.testing.assert_allclose(np.linalg.norm(offset, axis=1), distances, rtol=1e-9)
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        apart = np.abs((angle[:, None] - angle + np.pi) % (2 * np.pi) - np.pi)[np.triu_indices(3, 1)]
        assert apart.min() >= APART - 1e-9


@pytest.mark.parametrize("samples", [1, 7001, 32_000])
def test_filtering_is_the_whole_convolution_run_up_and_all(samples):
    generator = torch.Generator().manual_seed(0)
    dry = torch.randn(2, RUN_UP + samples + LEAD, generator=generator)
    responses = torch.randn(2, 3, TAPS, generator=generator)
    heard = filtered(dry, responses)
    assert heard.shape == (2, 3, samples)
    for item in range(2):
        for place in range(3):
            expected = fftconvolve(dry[item].double(), responses[item, place].double())[TAPS : TAPS + samples]
            np.testing.assert_allclose(heard[item, place], expected, atol=2e-3)


def test_a_pulse_at_the_direct_sounds_tap_gives_the_source_back():
    dry = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    pulse = torch.zeros(3, 1, TAPS)
    pulse[..., LEAD] = 1
    for extended in (after_silence, going_on):
        torch.testing.assert_close(filtered(extended(dry), pulse)[:, 0], dry, atol=1e-5, rtol=0)


def test_a_source_that_begins_is_silent_before_and_one_that_goes_on_is_not():
    dry = torch.arange(1.0, 10_001)[None]
    begins, goes_on = after_silence(dry)[0], going_on(dry)[0]
    assert len(begins) == len(goes_on) == RUN_UP + 10_000 + LEAD
    assert torch.equal(begins[RUN_UP:-LEAD], dry[0])
    assert not begins[:RUN_UP].any()
    assert not begins[-LEAD:].any()
    assert torch.equal(goes_on[RUN_UP:-LEAD], dry[0])
    assert goes_on[RUN_UP - 1] == 10_000
    assert goes_on[-LEAD] == 1
    assert going_on(dry[:, :100])[0, :3].tolist() == [(-RUN_UP % 100) + k for k in (1, 2, 3)]  # shorter than the run-up


def test_early_sound_ends_after_50_ms():
    where, talker = np.array([4]), 0
    click = torch.zeros(1, RUN_UP + 3000 + LEAD)
    click[0, RUN_UP + 100] = 1
    heard, early = shoebox().hear_talker(click, where, talker, 2)
    assert heard.shape == (1, 2, 3000)
    torch.testing.assert_close(early[0, : 100 + EARLY + 1], heard[0, 0, : 100 + EARLY + 1], atol=1e-5, rtol=0)
    assert early[0, 100] == pytest.approx(1, abs=0.05)
    assert early[0, 100 + EARLY + 1 :].abs().max() < 1e-5
    assert heard[0, 0, 100 + EARLY + 1 :].abs().max() > 1e-3
    torch.testing.assert_close(shoebox().hear(click, where, talker, 1), heard[:, :1], atol=1e-5, rtol=0)


def test_what_is_no_room_is_refused():
    with pytest.raises(UserError, match="rooms 'ssn': is noise; rooms are: shoebox"):
        rooms.open_rooms("ssn")
    assert corpora.card("shoebox").digest() != corpora.card("ssn").digest()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """How to open rooms, one of each split, in a folder of the test's own."""
    card = corpora.card("shoebox").model_copy(update={"rooms": {"train": 1, "validation": 1, "test": 1}})
    monkeypatch.setattr(paths, "AUDIO", tmp_path)
    monkeypatch.setattr(corpora, "card", lambda name: card)
    return lambda: rooms.open_rooms("shoebox", say=lambda line: None)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("responses.npy", flip), ("responses.npy", cut), ("rooms.csv", flip), ("rooms.csv", Path.unlink)],
)
def test_damaged_rooms_are_one_line_and_without_the_folder_they_are_made_again(small, tmp_path, name, damage):
    before = np.array(small().responses)
    (folder,) = (tmp_path / "bank").iterdir()
    damage(folder / name)
    with pytest.raises(
        UserError, match=f"^{folder / name}: .*; delete the folder {folder}, and the same command"
    ) as error:
        small()
    assert "\n" not in str(error.value)
    shutil.rmtree(folder)
    np.testing.assert_allclose(small().responses, before, atol=1e-6)
