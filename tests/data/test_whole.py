import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.data import corpora
from harness.data.bank import Bank
from harness.data.corpora import Card
from harness.data.whole import caution, check_command, counts, open_whole
from harness.errors import UserError
from tests.conftest import here
from tests.data import layouts
from tests.data.layouts import write

PUBLISHED = {  # by their publishers, and as shared/corpora.md has them
    "voicebank_demand": {"trainset_28spk": 11_572, "test": 824},
    "librispeech": {"train-clean-100": 28_539, "dev-clean": 2_703, "test-clean": 2_620},
    "speech_commands": {"train": 84_843, "validation": 9_981, "test": 11_005},
    "speech_commands_12": {"train": 84_843, "validation": 9_981, "test": 4_890},
    "esc50": {"recordings": 2_000},
    "fsdd": {"recordings": 3_000},
    "demand": {"recordings": 18},
}
HERE = {  # of the tiny ones
    "voicebank_demand": {"trainset_28spk": 8, "test": 4},
    "librispeech": {"train-clean-100": 6, "dev-clean": 3, "test-clean": 3},
    "speech_commands": {"train": 12, "validation": 3, "test": 3},
    "speech_commands_12": {"train": 12, "validation": 3, "test": 3},
    "esc50": {"recordings": 10},
    "fsdd": {"recordings": 12},
    "demand": {"recordings": 5},
}


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    for name, make in layouts.PUBLIC.items():
        make(folder / name)
    return folder


def opened(card: Card, folder: Path) -> tuple[Bank, list[str]]:
    said: list[str] = []
    return open_whole(card, folder, said.append), [line for line in said if not line.endswith("decoding to 16 kHz")]


def expecting(name: str, **expected: int) -> Card:
    return corpora.card(name).model_copy(update={"expected": expected})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_knows_how_many_were_published_and_a_part_is_told_from_the_whole(name, made):
    card = corpora.card(name)
    assert card.expected == PUBLISHED[name]
    folder = made / name.removesuffix("_12")
    bank, said = opened(card, folder)
    assert counts(bank) == HERE[name]
    (line,) = [line for line in said if line.startswith(f"caution: {name}: ")]
    for part, number in HERE[name].items():
        assert f"has {number} of {PUBLISHED[name][part]:,} " in line
    assert line.endswith("no score on it can be compared with published ones")
    assert caution(opened(card.model_copy(update={"expected": HERE[name]}), folder)[0]) == ""


def test_a_test_without_some_of_its_pairs_and_a_training_with_more_are_said(made):
    _, said = opened(expecting("voicebank_demand", trainset_28spk=7, test=5), made / "voicebank_demand")
    assert said == [
        "caution: voicebank_demand: trainset_28spk has 8 pairs, where 7 were published; test has 4 of 5 pairs: "
        "no score on it can be compared with published ones"
    ]


def test_what_is_unpaired_is_not_counted_and_where_to_look_is_said(made, tmp_path):
    folder = tmp_path / "my corpus"
    shutil.copytree(made / "voicebank_demand", folder)
    (folder / "noisy_testset_wav" / "p232_001.wav").unlink()
    _, (line,) = opened(expecting("voicebank_demand", test=4), folder)
    command = f"harness data check voicebank_demand --data-dir '{folder}'"
    assert f"test has 3 of 4 pairs (1 that lie there are left out: {command} tells why)" in line
    done = here(*shlex.split(command)[1:], home=tmp_path)
    assert "left out: testset/p232_001: unpaired: no noisy one" in done.stdout
    fetched = here("data", "fetch", "voicebank_demand", "--data-dir", str(folder), home=tmp_path)
    assert f"1 recordings left out; their reasons: {command}" in " ".join(fetched.stdout.split())


def test_the_command_for_what_is_left_out_names_the_folder_that_was_given(made, tmp_path):
    layouts.speech_and_noise(tmp_path)
    own = corpora.card(str(tmp_path))
    for card in (own, own.noise_beside):
        assert check_command(card, tmp_path / "elsewhere") == f"harness data check {tmp_path}"
    assert check_command(corpora.card("fsdd"), None) == "harness data check fsdd"


def test_subsets_that_nobody_counted_are_no_matter_and_long_utterances_count_once(made, tmp_path):
    for subset, other in {"train-clean-100": "train-clean-360", "dev-clean": "dev-other"}.items():
        shutil.copytree(made / "librispeech" / "LibriSpeech" / subset, tmp_path / other)
    (utterance, *_) = layouts.speech(2.0)
    write(tmp_path / "test-clean" / "61" / "1" / "61-1-0000.flac", [*utterance, *utterance] * 3)
    bank, said = opened(expecting("librispeech", **{"train-clean-100": 9, "dev-clean": 9, "test-clean": 1}), tmp_path)
    assert (bank.clips.split == "test").sum() > 1
    assert said == []


def test_two_sets_of_speakers_side_by_side_are_one_and_that_is_said(made, tmp_path):
    shutil.copytree(made / "voicebank_demand", tmp_path / "corpus")
    for side in ("clean", "noisy"):
        shutil.copytree(
            made / "voicebank_demand" / f"{side}_trainset_28spk_wav", tmp_path / "corpus" / f"{side}_trainset_56spk_wav"
        )
    card = expecting("voicebank_demand")
    bank, said = opened(card, tmp_path / "corpus")
    assert said == ["voicebank_demand: trainset_28spk and trainset_56spk lie side by side: the first alone is taken"]
    assert not bank.clips["clip"].str.contains("56spk").any()
    for side in ("clean", "noisy"):
        shutil.rmtree(tmp_path / "corpus" / f"{side}_trainset_28spk_wav")
    bank, (older,) = opened(card, tmp_path / "corpus")
    assert "may be deleted" in older
    assert bank.clips["clip"].str.contains("56spk").sum() == 8


@pytest.mark.parametrize(
    ("name", "gone", "missing"),
    [
        ("voicebank_demand", ["clean_testset_wav", "noisy_testset_wav"], "test"),
        ("voicebank_demand", ["clean_trainset_28spk_wav", "noisy_trainset_28spk_wav"], "train, validation"),
        ("librispeech", ["LibriSpeech/dev-clean"], "validation"),
        ("demand", ["OOFFICE", "TBUS"], "test"),
    ],
)
def test_a_corpus_without_a_whole_part_is_refused_and_what_to_place_where_is_said(name, gone, missing, made, tmp_path):
    shutil.copytree(made / name, tmp_path / "corpus")
    for folder in gone:
        shutil.rmtree(tmp_path / "corpus" / folder)
    with pytest.raises(UserError) as caught:
        opened(corpora.card(name), tmp_path / "corpus")
    assert f"corpus {name!r}: {tmp_path / 'corpus'}" in str(caught.value)
    assert f" has no recording for {missing}; place there " in str(caught.value)
    assert corpora.card(name).place in str(caught.value)
