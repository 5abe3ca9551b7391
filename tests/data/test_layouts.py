from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from harness import spec, tasks
from harness.data import archives, corpora
from harness.data.bank import Bank, open_bank
from harness.errors import UserError
from tests.data import layouts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every public corpus, and every kind of folder, side by side."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, make in (layouts.PUBLIC | layouts.OWN).items():
        make(folder / name)
    return folder


@pytest.fixture(autouse=True, scope="module")
def elsewhere(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


def named(name: str, made: Path) -> str:
    return name if name in corpora.names() else str(made / name)


def bank(name: str, made: Path) -> Bank:
    card = corpora.card(named(name, made))
    return open_bank(card, None if card.root else made, say=lambda text: None)


SPLIT = {  # of each corpus: who is in which split
    "voicebank_demand": {"train": {"p228", "p230"}, "validation": {"p226", "p287"}, "test": {"p232", "p257"}},
    "librispeech": {"train": {"19", "26"}, "validation": {"84"}, "test": {"61"}},
    "demand": {"train": {"NFIELD", "PCAFETER"}, "validation": {"DLIVING"}, "test": {"OOFFICE", "TBUS"}},
    "speech_commands": {
        "train": {f"{number:08x}" for number in range(4)},
        "validation": {"00000004"},
        "test": {"00000005"},
    },
    "fsdd": {"train": {"george", "jackson", "lucas"}, "validation": {"nicolas"}, "test": {"theo", "yweweler"}},
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_public_corpus_is_split_by_its_voices_as_its_card_says(name, made):
    clips = bank(name, made).clips
    assert {split: set(own.voice) for split, own in clips.groupby("split")} == SPLIT[name]
    assert bank(name, made).left_out().empty


@pytest.mark.parametrize("name", ["pairs", "speech_and_noise", "labelled"])
def test_a_folder_of_ones_own_has_every_split_and_shares_neither_voice_nor_recording(name, made):
    clips = bank(name, made).clips
    assert set(clips.split) == {"train", "validation", "test"}
    assert clips.groupby("name").split.nunique().max() == 1
    if name == "pairs":
        assert set(clips.voice) == {"s0", "s1", "s2", "s3"}
        assert clips.groupby("voice").split.nunique().max() == 1


def clips_of(name: str, folder: Path) -> pd.DataFrame:
    return open_bank(corpora.card(name), folder, say=lambda text: None).clips


def test_archives_that_lie_beside_what_was_unpacked_of_them_are_passed_by(made, tmp_path):
    for name in ("librispeech", "voicebank_demand", "demand", "esc50"):
        shutil.copytree(made / name, tmp_path / name)
    for subset in ("train-clean-100", "dev-clean", "test-clean"):
        for folder in ("librispeech", "librispeech/LibriSpeech"):
            (tmp_path / folder / f"{subset}.tar.gz").write_bytes(b"packed")
            (tmp_path / folder / f"{subset}.md5").write_bytes(b"0")
    for part in ("clean_testset_wav", "noisy_testset_wav"):
        (tmp_path / "voicebank_demand" / f"{part}.zip").write_bytes(b"packed")
    (tmp_path / "demand" / "NFIELD_16k.zip").write_bytes(b"packed")
    (tmp_path / "esc50" / "ESC-50-master.zip").write_bytes(b"packed")
    for name in ("librispeech", "voicebank_demand", "demand", "esc50"):
        pd.testing.assert_frame_equal(clips_of(name, tmp_path / name), clips_of(name, made / name))


def test_a_public_corpus_is_decoded_again_where_a_list_of_it_changes_and_not_where_it_was_looked_at(made, tmp_path):
    shutil.copytree(made / "speech_commands", tmp_path / "speech_commands")
    before = bank("speech_commands", tmp_path).folder
    (tmp_path / "speech_commands" / "yes" / ".DS_Store").write_bytes(b"")
    assert bank("speech_commands", tmp_path).folder == before
    shutil.copyfile(
        tmp_path / "speech_commands" / "testing_list.txt", tmp_path / "speech_commands" / "validation_list.txt"
    )
    with pytest.raises(UserError, match="has no recording for validation"):
        bank("speech_commands", tmp_path)


def test_a_file_among_the_speakers_is_none_of_them(made, tmp_path):
    shutil.copytree(made / "librispeech", tmp_path / "librispeech")
    shutil.rmtree(tmp_path / "librispeech" / "LibriSpeech" / "test-clean")
    (tmp_path / "librispeech" / "LibriSpeech" / "dev-clean" / "00-index.txt").write_text("84\n")
    shutil.copytree(
        tmp_path / "librispeech" / "LibriSpeech" / "dev-clean" / "84",
        tmp_path / "librispeech" / "LibriSpeech" / "dev-clean" / "85",
    )
    clips = clips_of("librispeech", tmp_path / "librispeech")
    assert {split: set(own.voice) for split, own in clips.groupby("split")} == {
        "train": {"19", "26"},
        "validation": {"84"},
        "test": {"85"},
    }


def test_environments_that_were_unpacked_into_a_folder_for_each_archive_are_all_found(made, tmp_path):
    for folder in (made / "demand").iterdir():
        shutil.copytree(folder, tmp_path / "demand" / f"{folder.name}_16k" / folder.name)
    shutil.copytree(made / "demand" / "TBUS", tmp_path / "demand" / "TBUS_48k" / "TBUS")  # the same again
    (tmp_path / "demand" / "DKITCHEN_16k").mkdir()  # begun
    assert archives.beginning(corpora.card("demand"), tmp_path) == tmp_path / "demand"
    pd.testing.assert_frame_equal(clips_of("demand", tmp_path), clips_of("demand", made / "demand"))
    one = tmp_path / "demand" / "NFIELD_16k"
    assert archives.beginning(corpora.card("demand"), one) is None


def test_a_folder_that_cannot_be_read_is_passed_by(made, tmp_path, monkeypatch):
    (tmp_path / "lost+found").mkdir()
    shutil.copytree(made / "fsdd", tmp_path / "other" / "fsdd")
    listed = os.scandir

    def closed(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert archives.beginning(corpora.card("fsdd"), tmp_path) == tmp_path / "other" / "fsdd"


def test_pairs_are_both_sides_of_a_file_resampled_once_by_scipys_filter(made):
    found = bank("voicebank_demand", made)
    row = found.clips[found.clips.name == "p257_002"].iloc[0]
    assert (row.noise, row.snr) == ("bus", 17.5)
    for side in ("clean", "noisy"):
        file = made / "voicebank_demand" / f"{side}_testset_wav" / "p257_002.wav"
        audio, rate = soundfile.read(file, dtype="float32")
        expected = resample_poly(audio, 16_000, rate)
        np.testing.assert_allclose(found.clip(row["clip"], noisy=side == "noisy"), expected, atol=1e-4)


def test_folds_take_turns_and_the_last_is_the_test_where_none_is_named(made):
    def folds(test):
        rule = spec.load("labels", {"corpus": "esc50", "scenes": {"fold": test}}).scenes
        assert rule.seconds == 5.0
        opened = tasks.get("labels").open("esc50", rule, made, lambda text: None, lambda *told: None)
        return {split: {clip[0] for clip in own["clip"]} for split, own in opened.clips.items()}

    assert folds(None) == {"train": {"1", "2", "3"}, "validation": {"4"}, "test": {"5"}}
    assert folds(1) == {"train": {"2", "3", "4"}, "validation": {"5"}, "test": {"1"}}
    with pytest.raises(UserError, match="has 5 folds, not 6"):
        folds(6)


def test_the_benchmark_of_speech_commands_has_silence_and_unknown_words(made):
    clips = bank("speech_commands_12", made).clips
    assert set(clips.label) == {"yes", "no", "_unknown_", "_silence_"}
    assert set(clips.name[clips.label == "_unknown_"].str.split("/").str[0]) == {"bird"}
    silence = clips[clips.label == "_silence_"]
    assert silence.groupby("name").split.nunique().max() == 1
    assert silence.samples.max() <= 16_000


def test_the_benchmarks_own_test_takes_the_place_of_the_listed_words(made, tmp_path):
    shutil.copytree(made / "speech_commands", tmp_path / "corpus")
    before = clips_of("speech_commands_12", tmp_path / "corpus")
    own = tmp_path / "corpus" / "speech_commands_test_set_v0.02"
    for label, source in {"yes": "yes", "_unknown_": "bird", "_silence_": "no"}.items():
        (own / label).mkdir(parents=True)
        shutil.copy(made / "speech_commands" / source / "00000005_nohash_0.wav", own / label / "ffffffff_nohash_0.wav")
    clips = clips_of("speech_commands_12", tmp_path / "corpus")
    test = clips[clips.split == "test"]
    assert dict(zip(test["clip"], test.label, strict=True)) == {
        f"speech_commands_test_set_v0.02/{label}/ffffffff_nohash_0": label
        for label in ("yes", "_unknown_", "_silence_")
    }
    for split in ("train", "validation"):
        assert sorted(clips["clip"][clips.split == split]) == sorted(before["clip"][before.split == split])
    all_words = clips_of("speech_commands", tmp_path / "corpus")
    assert not all_words["clip"].str.contains("test_set").any()  # it is the benchmark's alone


def damaged(corpus: str, file: str, change: Callable[[bytes], bytes], made: Path, folder: Path) -> Path:
    """A corpus with one file that is not as it was published."""
    path = shutil.copytree(made / corpus, folder / corpus) / file
    path.write_bytes(change(path.read_bytes()))
    return path


TABLE, LIST = ("esc50", "ESC-50-master/meta/esc50.csv"), ("speech_commands", "validation_list.txt")


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (TABLE, lambda text: text.replace(b"filename", b"file"), "has no column filename between commas"),
        (
            TABLE,
            lambda text: text.replace(b",", b";"),
            "has no column filename, fold, category, src_file between commas",
        ),
        (TABLE, lambda text: b"", "has no column filename, fold, category, src_file between commas"),
        (TABLE, lambda text: text + b"5-1-A-0.wav,5\n", "line 12 has no category, src_file"),
        (TABLE, lambda text: text + b"5-1-A-0.wav,5,0,,True,1,A\n", "line 12 has no category"),
        (TABLE, lambda text: text.replace(b"rain", b"pluie d'\xe9t\xe9", 1), "line 3 is no text in UTF-8"),
        (TABLE, lambda text: text + b"x" * 200_000, "line 11: field larger than field limit"),
        (LIST, lambda text: text + b"caf\xe9/00000001_nohash_0.wav\n", "line 4 is no text in UTF-8"),
        (LIST, lambda text: text.decode().encode("utf-16"), "line 1 is no text in UTF-8"),
    ],
)
def test_a_list_of_a_public_corpus_that_is_damaged_is_one_line_that_names_it(file, change, says, made, tmp_path):
    path = damaged(*file, change, made, tmp_path)
    with pytest.raises(UserError) as caught:
        open_bank(corpora.card(file[0]), tmp_path, say=lambda text: None)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert str(caught.value).endswith(": put the file as it was published there")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", [TABLE, LIST])
def test_a_list_that_an_office_program_saved_is_read_as_before(file, made, tmp_path):
    damaged(*file, lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), made, tmp_path)
    pd.testing.assert_frame_equal(clips_of(file[0], tmp_path), clips_of(file[0], made / file[0]))


def test_lines_of_a_log_that_tell_neither_noise_nor_snr_are_passed_over(made, tmp_path):
    def change(text: bytes) -> bytes:
        return b"file noise snr\n\xe9t\xe9\n" + text.replace(b"p257_001 bus 12.5", b"p257_001 bus loud")

    damaged("voicebank_demand", "log_testset.txt", change, made, tmp_path)
    (tmp_path / "voicebank_demand" / "log_trainset.txt").mkdir()
    clips = clips_of("voicebank_demand", tmp_path).set_index("name")
    assert clips.snr[["p232_001", "p232_002", "p257_002"]].tolist() == [2.5, 7.5, 17.5]
    assert np.isnan(clips.snr["p257_001"])


@pytest.mark.parametrize("name", ["voicebank_demand", "pairs", "esc50", "fsdd", "labelled", "speech_commands_12"])
def test_batches_and_items_of_a_corpus_are_what_its_recordings_hold(name, made):
    corpus = named(name, made)
    study = "quick" if corpora.card(corpus).kind == "pairs" else "labels"
    loaded = spec.load(study, {"corpus": corpus, "scenes": {"seconds": 0.5}})
    opened = tasks.get(loaded.task).open(corpus, loaded.scenes, made, lambda text: None, lambda *told: None)
    batch, again = (opened.batch(1, 2, 4, CPU) for _ in range(2))
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert batch["noisy"].shape == (4, 8000)
    assert batch["noisy"].abs().amax(1).min() > 0
    items = opened.items("matched", 1000)
    clips = opened.bank.clips if study == "labels" else opened.speech.clips
    tested = clips["clip"][clips.split == "test"] if study == "quick" else opened.clips["test"]["clip"]
    assert sorted(item.clip for item in items) == sorted(tested)
    assert opened.items("matched", 3) == items[:3] or np.isnan(items[0].snr)
    assert [item.clip for item in opened.items("matched", 2)] == [item.clip for item in items[:2]]
    assert opened.items("mismatched", 5) == []
    example = opened.example(items[0])
    if study == "labels":
        assert batch["label"].max() < len(opened.classes)
        assert opened.classes[int(example["label"])] == items[0].label
    else:
        assert example["noisy"].shape == example["clean"].shape
        assert not torch.equal(example["noisy"], example["clean"])


def test_without_the_recordings_one_line_says_which_files_to_place_where(monkeypatch, tmp_path):
    with pytest.raises(
        UserError, match="does not hold 'voicebank_demand', which is: clean_trainset_28spk_wav/"
    ) as caught:
        open_bank(corpora.card("voicebank_demand"), tmp_path, say=lambda text: None)
    assert "\n" not in str(caught.value)
    card = corpora.card("fsdd")
    away = [archive.model_copy(update={"url": "http://127.0.0.1:9/fsdd.zip"}) for archive in card.archives]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match=r"cannot get 'fsdd'.*cannot be reached.*recordings/<digit>.* under ") as caught:
        archives.root(card.model_copy(update={"archives": tuple(away)}), None, lambda text: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("voicebank_demand", "corpus 'voicebank_demand' is pairs: keywords wants words"),
        ("fsdd", "tasks that take labels: labels"),
        ("demand", "none, it is mixed in"),
    ],
)
def test_a_task_that_does_not_take_a_corpus_says_which_do(corpus, message):
    with pytest.raises(UserError, match=message):
        spec.load("keywords", {"corpus": corpus})
