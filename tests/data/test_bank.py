import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import corpora
from harness.data.audio import SAMPLE_RATE, decode_g722
from harness.data.bank import Bank, buffer, open_bank, sounding
from harness.errors import UserError
from tests.data.conftest import NAMES, VOICES, Tiny, describe
from tests.real import CPU, music, prompts_folder, scenes


def opened(tiny: Tiny, data_dir: Path | None = None) -> Bank:
    return open_bank(tiny.card, data_dir, say=lambda text: None)


def test_every_recording_is_kept_or_left_out_with_a_reason():
    card, bank = corpora.card("prompts"), scenes().speech
    left_out = bank.left_out()
    assert len(bank.clips) + len(left_out) == sum(part.files for part in card.contents.values()) == 2831
    assert not set(bank.clips["clip"]) & set(left_out["clip"])
    reasons = left_out.set_index("clip").reason
    assert reasons.str.startswith("folder silence").sum() == 50  # 10 a language
    assert all("/silence/" in clip for clip in reasons.index[reasons.str.startswith("folder")])
    tones = {f"{voice}/{name}" for voice in card.contents for name in card.leave_out.names}
    assert set(reasons.index[reasons == "no speech (by name)"]) == tones
    assert len(tones) == 20
    assert reasons["ru_RU_f_IvrvoiceRU/is"] == "too short (0.00 s)"
    assert len(reasons) == 71


def test_at_tone_time_exactly_is_speech_and_kept_in_every_language_that_has_it():
    on_disk = {path.parent.name for path in prompts_folder().glob("*/at-tone-time-exactly.g722")}
    clips = scenes().speech.clips
    assert set(clips[clips.name == "at-tone-time-exactly"].voice) == on_disk
    assert len(on_disk) == 4


def test_as_many_prompts_over_one_and_a_half_seconds_as_were_counted():
    clips = scenes().speech.clips
    longer = clips[clips.samples > 1.5 * SAMPLE_RATE]
    assert len(longer) == 1269
    assert longer.samples.sum() / SAMPLE_RATE / 60 == pytest.approx(105, abs=1)


def test_a_clip_is_the_decoded_file():
    bank = scenes().speech
    for row in bank.clips.iloc[[0, 700, -1]].itertuples():
        path = prompts_folder() / f"{row.clip}.g722"
        decoded = decode_g722(path)
        assert row.samples == len(decoded) == 2 * path.stat().st_size
        samples = bank.clip(row.clip)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples * 32768, decoded)
        cut = bank.cut(np.array([row.start]), row.samples, CPU)[0]
        np.testing.assert_array_equal(cut.numpy(), samples)


def test_clips_lie_apart_by_silent_gaps_of_a_tenth_to_three_tenths_of_a_second():
    bank = scenes().speech
    clips = bank.clips.sort_values("start")
    ends = (clips.start + clips.samples).to_numpy()
    gaps = clips.start.to_numpy()[1:] - ends[:-1]
    assert gaps.min() >= 0.1 * SAMPLE_RATE - 1
    assert gaps.max() <= 0.3 * SAMPLE_RATE
    for end, gap in zip(ends[:50], gaps[:50], strict=True):
        assert not bank.samples[end : end + gap].any()


def reached(bank: Bank, starts: np.ndarray, samples: int) -> list[tuple[str, str]]:
    """(split, voice) of every clip that some window holds a sample of."""
    clips = bank.clips.sort_values("start")
    begins, ends = clips.start.to_numpy(), (clips.start + clips.samples).to_numpy()
    first, last = np.searchsorted(ends, starts, side="right"), np.searchsorted(begins, starts + samples, side="left")
    assert (last - first >= 0).all()
    hit = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)]).astype(int))
    return list(clips.iloc[hit][["split", "voice"]].drop_duplicates().itertuples(index=False, name=None))


@settings(max_examples=40)
@given(
    split=st.sampled_from(["train", "validation", "test", "mismatched"]),
    seed=st.integers(0, 2**32),
    seconds=st.floats(0.05, 8),
)
def test_windows_never_reach_another_splits_samples(split, seed, seconds):
    for bank in (scenes().speech, music()):
        if split in bank.regions:
            samples = round(seconds * SAMPLE_RATE)
            starts = bank.draw(split, np.random.default_rng(seed), 400, samples)
            assert {name for name, _ in reached(bank, starts, samples)} == {split}
            assert starts.min() >= 0
            assert starts.max() + samples <= len(bank.samples)
            # Nor does one window hold two voices, or two pieces of music.
            clips = bank.clips.sort_values("start")
            ends = (clips.start + clips.samples).to_numpy()
            first = np.searchsorted(ends, starts, side="right")
            last = np.searchsorted(clips.start.to_numpy(), starts + samples, side="left") - 1
            voices = clips.voice.to_numpy()
            assert (voices[first] == voices[last])[first <= last].all()


def made_up(lengths: list[int], splits: list[str]) -> Bank:
    """Clips of these lengths side by side, one voice each, whose samples count from 1."""
    starts = np.cumsum([0, *lengths[:-1]])
    clips = pd.DataFrame({"clip": range(len(lengths)), "split": splits, "start": starts, "samples": lengths})
    clips["voice"] = clips["clip"].astype(str)
    regions = {
        split: np.array([rows.start.to_numpy(), rows.samples.to_numpy()]) for split, rows in clips.groupby("split")
    }
    samples = np.arange(1, sum(lengths) + 1, dtype=np.int16)
    return Bank(describe(Path(), ()), samples, clips, regions, "digest", Path())


@settings(max_examples=60)
@given(
    clips=st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["train", "test"])), min_size=1, max_size=8),
    samples=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_every_window_that_fits_is_drawn_and_no_other(clips, samples, seed):
    bank = made_up([length for length, _ in clips], [split for _, split in clips])
    starts = bank.clips[bank.clips.split == "train"]
    fitting = {s for row in starts.itertuples() for s in range(row.start, row.start + row.samples - samples + 1)}
    if not fitting:
        with pytest.raises(UserError, match=r"corpus 'tiny' has no train recording of 0\.00 s or more"):
            bank.draw("train", np.random.default_rng(seed), 3, samples)
        return
    drawn = bank.draw("train", np.random.default_rng(seed), (40, 60), samples)
    assert drawn.shape == (40, 60)
    assert set(drawn.ravel().tolist()) <= fitting
    if len(fitting) < 100:  # 2,400 draws miss one of 100 with a chance of 1e-9
        assert set(drawn.ravel().tolist()) == fitting


def test_a_region_is_drawn_as_often_as_it_is_long():
    bank = made_up([1000, 3000, 96], ["train", "train", "train"])
    drawn = bank.draw("train", np.random.default_rng(0), 100_000, 97)
    share = (drawn >= 1000).mean()
    # 904 and 2904 windows fit; five standard deviations of 100,000 draws are 0.0067.
    assert share == pytest.approx(2904 / (904 + 2904), abs=0.0067)


@pytest.mark.parametrize(
    ("samples", "kept"),
    [(300, [100, 100, 100]), (600, [100, 250, 250]), (100, [33, 33, 34]), (5000, [100, 900, 3000])],
)
def test_a_shortened_bank_trains_on_the_beginning_of_every_voice_in_equal_shares(samples, kept):
    bank = made_up([100, 900, 3000, 500], ["train", "train", "train", "test"])
    short = bank.shortened(samples / SAMPLE_RATE)
    assert short.regions["train"].tolist() == [[0, 100, 1000], kept]
    np.testing.assert_array_equal(short.regions["test"], bank.regions["test"])
    drawn = short.draw("train", np.random.default_rng(0), 5000, 20)
    ends = drawn + 20
    inside = [(drawn >= start) & (ends <= start + length) for start, length in zip([0, 100, 1000], kept, strict=True)]
    assert np.any(inside, axis=0).all()
    assert ends.max() > 1000 + kept[-1] - 20


def test_clips_behind_the_end_of_a_shortened_bank_are_of_no_split():
    bank = scenes().speech
    train = bank.clips[bank.clips.split == "train"]
    half = bank.shortened(train.samples.sum() / 2 / SAMPLE_RATE)
    kept = half.clips[half.clips.split == "train"]
    assert 0 < len(kept) < len(train)
    starts, lengths = half.regions["train"]
    for clip in kept.itertuples():
        assert any(s <= clip.start and clip.start + clip.samples <= s + n for s, n in zip(starts, lengths, strict=True))
    others = bank.clips.split != "train"
    pd.testing.assert_frame_equal(half.clips[others], bank.clips[others])


def test_cut_windows_have_the_asked_shape_and_the_banks_samples():
    bank = made_up([200], ["train"])
    cut = bank.cut(np.array([0, 5, 7, 190]), 10, CPU)
    assert cut.shape == (4, 10)
    np.testing.assert_array_equal((cut[3] * 32768).numpy(), np.arange(191, 201))


def test_windows_cut_for_any_device_are_the_same_samples():
    bank = made_up([200], ["train"])
    starts = np.array([3, 150])
    assert buffer(torch.device("cuda"), 2, 10).dtype == torch.int16  # half as many bytes to send
    sent = buffer(torch.device("cuda"), 2, 10)
    bank.fill(starts, sent)
    assert torch.equal(sounding(sent, CPU), bank.cut(starts, 10, CPU))


@pytest.mark.parametrize("split", ["validation", "no such split"])
def test_a_split_without_a_recording_long_enough_is_one_line(tiny: Tiny, split):
    tiny.place()
    with pytest.raises(UserError, match=r"corpus 'tiny' has no .* recording of 60\.00 s or more") as caught:
        opened(tiny).draw(split, np.random.default_rng(0), 2, 60 * SAMPLE_RATE)
    assert "\n" not in str(caught.value)


def test_a_small_bank_holds_what_the_card_says(tiny: Tiny):
    tiny.place()
    bank = opened(tiny)
    kept = [name for split in ("train", "validation", "test") for name in NAMES[split]]
    assert set(bank.clips["clip"]) == {f"{voice}/{name}" for voice in VOICES for name in kept}
    english = bank.clips[bank.clips.voice == "en_US_f_Allison"]
    for split in ("train", "validation", "test"):
        assert set(english[english.split == split].name) == set(NAMES[split])
    italian = bank.clips[bank.clips.voice == "it_IT_m_Carlo"].set_index("name").split
    assert set(italian[list(NAMES["test"])]) == {"mismatched"}
    assert set(italian[[*NAMES["train"], *NAMES["validation"]]]) == {"unused"}
    assert sorted(bank.left_out().reason) == ["folder silence"] * 2 + ["no speech (by name)"] * 2


def test_a_bank_made_once_needs_no_recordings(tiny: Tiny):
    import shutil

    said: list[str] = []
    seen: list[tuple[int, int]] = []
    root = tiny.place()
    first = open_bank(tiny.card, say=said.append, progress=lambda what, done, of: seen.append((done, of)))
    assert said == ["tiny: decoding to 16 kHz"]
    assert seen == [(done, 22) for done in range(1, 23)]
    shutil.rmtree(root)
    again = open_bank(tiny.card, say=said.append)
    assert len(said) == 1
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.samples, first.samples)


def test_equal_recordings_make_equal_banks_wherever_they_lie_and_others_do_not(tiny: Tiny):
    tiny.place()
    bank, elsewhere = opened(tiny), opened(tiny, tiny.source)
    assert elsewhere.folder != bank.folder
    assert elsewhere.digest == bank.digest
    other = tiny.source.parent / "other"
    other.mkdir()
    for voice in VOICES:
        (tiny.source / voice).rename(other / voice)
    file = other / "en_US_f_Allison" / "with.g722"
    file.write_bytes(file.read_bytes()[:-1])
    assert opened(tiny, other).digest != bank.digest


def test_empty_short_silent_and_corrupt_recordings_are_left_out_or_decoded_and_never_a_crash(tiny: Tiny):
    folder = tiny.source / "en_US_f_Allison"
    silence = (folder / "silence" / "1.g722").read_bytes()
    speech = (folder / "with.g722").read_bytes()
    for name, content in {
        "empty": b"",
        "short": speech[:799],  # 1,598 samples: just under 0.1 s
        "long-enough": speech[:800],
        "quiet": silence,
        "corrupt": np.random.default_rng(0).bytes(8000),
    }.items():
        (folder / f"{name}.g722").write_bytes(content)
    bank = opened(tiny.but(), tiny.source)
    reasons = bank.left_out().set_index("clip").reason
    assert reasons["en_US_f_Allison/empty"] == "too short (0.00 s)"
    assert reasons["en_US_f_Allison/short"] == "too short (0.10 s)"
    assert reasons["en_US_f_Allison/quiet"].startswith("silent (")
    kept = set(bank.clips["clip"])
    assert {"en_US_f_Allison/long-enough", "en_US_f_Allison/corrupt"} <= kept
    assert len(kept) + len(reasons) == 27


@pytest.mark.parametrize("name", ["null", "NA", "nan", "1", "007", "True"])
def test_any_file_name_is_a_name(tiny: Tiny, name):
    folder = tiny.source / "en_US_f_Allison"
    (folder / "with.g722").rename(folder / f"{name}.g722")
    bank = opened(tiny.but(), tiny.source)
    assert name in set(bank.clips.name)
    assert f"en_US_f_Allison/{name}" in set(bank.clips["clip"])


def test_folders_without_any_speech_are_one_line(tiny: Tiny, tmp_path):
    for voice in VOICES:
        (tmp_path / "empty" / voice).mkdir(parents=True)
    with pytest.raises(UserError, match="tiny") as caught:
        opened(tiny, tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interrupted_build_leaves_nothing_and_the_next_one_works(tiny: Tiny):
    tiny.place()

    def interrupt(what: str, done: int, of: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_bank(tiny.card, say=lambda text: None, progress=interrupt)
    assert list((tiny.audio / "bank").iterdir()) == []
    assert len(opened(tiny).clips) == 18


TWO = """
import sys, time
from pathlib import Path
from harness import paths
from harness.data.bank import open_bank
from harness.data.corpora import Card
folder = Path(sys.argv[1])
paths.AUDIO = folder / "audio"
(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 2:
    time.sleep(0.001)
bank = open_bank(Card.model_validate_json((folder / "card.json").read_text()), say=lambda text: None)
print(bank.digest, len(bank.clips), int(bank.samples.astype(int).sum()))
"""


def test_a_bank_built_by_two_processes_at_once_is_whole(tiny: Tiny):
    tiny.place()
    folder = tiny.audio.parent
    (folder / "card.json").write_text(tiny.card.model_dump_json())
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, str(folder), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    bank = opened(tiny)
    assert answers == [f"{bank.digest} 18 {int(bank.samples.astype(int).sum())}\n"] * 2
    assert [path.name for path in (tiny.audio / "bank").iterdir()] == [bank.folder.name]  # no scratch folder left


def test_the_long_term_spectrum_is_that_of_the_training_speech_by_scipys_welch(tiny: Tiny):
    tiny.place()
    bank = opened(tiny)
    total, frames = np.zeros(257), 0
    for row in bank.clips[bank.clips.split == "train"].itertuples():
        clip = bank.samples[row.start : row.start + row.samples] / 32768
        count = (len(clip) - 512) // 256 + 1
        _, density = scipy.signal.welch(clip, nperseg=512, noverlap=256, detrend=False, scaling="spectrum")
        total, frames = total + count * density, frames + count
    expected = total / frames
    got = bank.spectrum()
    assert got.shape == (257,)
    # scipy's is one-sided: twice the power but at 0 and 8 kHz. Its window is scaled to sum to 1, ours sums to 256.
    # The bank keeps four digits.
    np.testing.assert_allclose(got[1:-1], expected[1:-1] * 256**2 / 2, rtol=6e-4)
    np.testing.assert_allclose(got[[0, -1]], expected[[0, -1]] * 256**2, rtol=6e-4, atol=1e-9)
