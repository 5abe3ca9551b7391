from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import paths
from harness.data import corpora
from harness.data.audio import SAMPLE_RATE
from harness.data.noises import open_noise
from harness.errors import UserError
from tests.data.layouts import write
from tests.real import CPU, music, scenes

SECOND = SAMPLE_RATE
KINDS = ("ssn", "babble", "music", "coloured")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_fills_a_buffer_with_what_it_renders(kind):
    noise = scenes().kinds[kind]
    plan = noise.draw("train", rng(), 3, 1000)
    filled = torch.empty(3, 1000, dtype=torch.int16)
    noise.fill(plan, filled)
    assert torch.equal(filled / 32768, noise.render(plan, 1000, CPU))


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_a_split_lie_in_its_tracks_only(kind):
    noise = scenes().kinds[kind]
    tracks = noise.bank.clips.sort_values("start")
    for split in ("train", "validation", "test"):
        starts = noise.draw(split, rng(5), 500, 2 * SECOND).ravel()
        hit = tracks.iloc[np.searchsorted(tracks.start, starts, side="right") - 1]
        assert set(hit.split) == {split}
        assert (starts + 2 * SECOND <= (hit.start + hit.samples).to_numpy()).all()


def test_music_of_training_is_three_tracks_and_of_the_test_another():
    noise = scenes().kinds["music"]
    clips = music().clips.sort_values("start")
    tracks = {}
    for split in ("train", "validation", "test"):
        starts = noise.draw(split, rng(), 2000, SECOND).ravel()
        tracks[split] = set(clips.name.iloc[np.searchsorted(clips.start, starts, side="right") - 1])
    assert [len(names) for names in tracks.values()] == [3, 1, 1]
    assert len(set.union(*tracks.values())) == 5


def test_all_colours_come_up_equally():
    bank = scenes().kinds["coloured"].bank
    starts = scenes().kinds["coloured"].draw("test", rng(), 4000, SECOND).ravel()
    tracks = bank.clips.sort_values("start")
    names = tracks.name.iloc[np.searchsorted(tracks.start, starts, side="right") - 1]
    shares = names.value_counts() / 4000
    assert set(shares.index) == {"white", "pink", "brown", "modulated"}
    np.testing.assert_allclose(shares, 0.25, atol=0.035)  # five standard deviations


def test_babble_holds_the_clips_that_are_heard_in_a_window_and_no_other():
    babble = scenes().kinds["babble"]
    row = babble.said.iloc[1000]
    others = babble.said[(babble.said["clip"] == row["clip"]) & (babble.said.index != row.name)]
    assert babble.holds(row["clip"], row.start + row.samples - 1, 100)
    assert babble.holds(row["clip"], row.start - 99, 100)
    for start in (row.start + row.samples, row.start - 100):
        apart = (others.start >= start + 100) | (others.start + others.samples <= start)
        assert babble.holds(row["clip"], start, 100) != apart.all()
    assert not babble.holds("no such clip", row.start, 100)
    assert not scenes().kinds["music"].holds(row["clip"], row.start, 100)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Noise of one's own, five recordings of two seconds: the test has one of them."""
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "audio")
    for number in range(5):
        write(tmp_path / "mine" / "speech" / f"{number}.wav", np.full(32_000, 0.1 * number, np.float32))
        ramp = np.arange(32_000, dtype=np.float32) / 32_000 / (number + 2)
        write(tmp_path / "mine" / "noise" / f"{number}.wav", ramp)
    return open_noise(corpora.card(str(tmp_path / "mine")).noise_beside, None, lambda line: None)


def test_noise_of_ones_own_that_is_shorter_than_a_clip_is_heard_again(own):
    track = own.render(own.draw("test", rng(), 1, 32_000), 32_000, CPU)[0]  # just as long
    plan = own.draw("test", rng(1), 8, 100_000)
    long = own.render(plan, 100_000, CPU)
    assert len(set(plan[:, 0].tolist())) > 1
    for row, start in zip(long, plan[:, 0] - own.bank.regions["test"][0][0], strict=True):
        assert torch.equal(row, torch.from_numpy(np.resize(np.roll(track.numpy(), -start), 100_000)))
    filled = torch.empty(8, 100_000, dtype=torch.int16)
    own.fill(plan, filled)
    assert torch.equal(filled / 32768, long)


def test_noise_of_ones_own_that_is_long_enough_is_cut_as_any_other(own):
    plan = own.draw("train", rng(2), 6, 20_000)
    assert torch.equal(own.render(plan, 20_000, CPU), own.bank.cut(plan[:, 0], 20_000, CPU))
    np.testing.assert_array_equal(plan, own.bank.draw("train", rng(2), (6, 1), 20_000))


def test_too_few_recordings_of_ones_own_noise_say_how_many_it_takes(own):
    alone = replace(own, bank=replace(own.bank, regions={"train": own.bank.regions["train"]}, _room={}))
    with pytest.raises(UserError, match="mine/noise has no test recording; put at least 3 there") as caught:
        alone.draw("test", rng(), 1, 1000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("places", [("TBUS", "NPARK", "OOFFICE", "DLIVING"), ("TBUS", "NPARK"), ("TBUS", "NPARK", "")])
def test_noise_that_lies_in_folders_shares_none_between_splits(places, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "AUDIO", tmp_path / "audio")
    (tmp_path / "mine" / "speech").mkdir(parents=True)
    for place, name in enumerate(places):
        for channel in range(6):
            heard = np.roll(music().samples[32_000 * place :][:32_000] / np.float32(32768), channel)
            write(tmp_path / "mine" / "noise" / name / f"{'ch' if name else 'hum'}{channel + 1:02d}.wav", heard)
    bank = open_noise(corpora.card(str(tmp_path / "mine")).noise_beside, None, lambda line: None).bank
    assert bank.left_out().empty
    assert set(bank.clips.split) == {"train", "validation", "test"}
    shared = bank.clips.groupby(bank.clips["clip"].str.partition("/")[0]).split.nunique()
    # Of fewer than three no split could have a folder of its own.
    assert (shared.max() == 1) == (len(places) == 4)
