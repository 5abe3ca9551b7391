"""Folders of one's own: what is taken for what, what is left out, and how the rest is split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.data import corpora
from harness.data.bank import Bank, open_bank
from harness.errors import UserError
from tests.data import layouts
from tests.data.layouts import write


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


def opened(root: Path, said: list[str] | None = None) -> Bank:
    return open_bank(corpora.card(str(root)), say=[].append if said is None else said.append)


PUBLISHED = {  # a folder, and what there is to be said of it
    "librispeech/LibriSpeech": "laid out as librispeech: use CORPUS=librispeech DATA_DIR={folder}",
    "librispeech": "laid out as librispeech: use CORPUS=librispeech DATA_DIR={folder}/LibriSpeech",
    "voicebank_demand": "laid out as voicebank_demand: use CORPUS=voicebank_demand DATA_DIR={folder}",
    "demand": "laid out as demand: use CORPUS=demand DATA_DIR={folder}",
    "speech_commands": "use CORPUS=speech_commands (or speech_commands_12) DATA_DIR={folder}",
    "esc50": "laid out as esc50: use CORPUS=esc50 DATA_DIR={folder}/ESC-50-master",
    "fsdd": "laid out as fsdd: use CORPUS=fsdd DATA_DIR={folder}",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_corpus_given_as_a_folder_is_told_by_its_name(name, tmp_path):
    layouts.PUBLIC[name.partition("/")[0]](tmp_path / name.partition("/")[0])
    with pytest.raises(UserError) as caught:
        corpora.card(str(tmp_path / name))
    assert PUBLISHED[name].format(folder=tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def labelled(root: Path, *names: str, each: int = 3) -> None:
    clips = layouts.speech(1.6)
    for name in names:
        for number in range(each):
            write(root / name / f"{number}.wav", next(clips))


@pytest.mark.parametrize(
    "names",
    [
        ("train/clean", "train/noisy", "test/clean", "test/noisy"),
        ("Train", "VAL"),
        ("dog", "cat", "eval"),
        ("train-clean-100", "dev-other"),
        ("clean_train", "noisy_train"),
        ("validation_set", "testing"),
    ],
)
def test_splits_and_sides_of_pairs_are_no_labels(names, tmp_path):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"are named as splits or sides .* may hold: clean/ and noisy/ with") as caught:
        corpora.card(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "dog" not in str(caught.value)


@pytest.mark.parametrize("names", [("cleaning", "tested"), ("valley", "trainer"), ("recordings", "train-whistle")])
def test_words_that_only_begin_like_a_split_are_labels(names, tmp_path):
    labelled(tmp_path, *names)
    said: list[str] = []
    assert set(opened(tmp_path, said).clips.label) == {*names}
    assert said[-1] == f"{tmp_path.name}: labels: {', '.join(sorted(names))}"


def test_folders_that_begin_with_an_underscore_are_no_labels_and_listed(tmp_path):
    labelled(tmp_path, "yes", "no", "_background_noise_")
    bank = opened(tmp_path)
    assert set(bank.clips.label) == {"yes", "no"}
    reasons = bank.left_out().set_index("clip").reason.to_dict()
    assert set(reasons) == {f"_background_noise_/{number}.wav" for number in range(3)}
    assert set(reasons.values()) == {"folder _background_noise_: a name that begins with _ is no label"}
