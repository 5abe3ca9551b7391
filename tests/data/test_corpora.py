import hashlib
import re

import pytest
import yaml

from harness import paths
from harness.data import corpora, layouts
from harness.data.corpora import SplitRule
from harness.errors import UserError
from tests.real import music, scenes

NOISES = {"babble", "coloured", "music", "ssn"}


@pytest.mark.parametrize("name", corpora.names())
def test_a_card_says_what_it_is_under_which_licence_and_with_which_flaws(name):
    card = corpora.card(name)
    assert card.name == name
    assert card.title
    assert card.licence
    assert card.flaws
    if card.public:
        assert card.attribution
        assert card.place
        assert card.layout in layouts.MARKS
        assert card.bytes == pytest.approx(sum(archive.bytes for archive in card.archives), rel=0.5)
        assert all(archive.url.startswith("https://") for archive in card.archives)
        known = [archive.sha256 for archive in card.archives if archive.sha256]
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known)
    elif card.recorded:
        assert card.attribution
        assert card.sample_rate == 16_000
        assert card.split
        assert card.bytes == sum(part.bytes for part in card.contents.values())
        # G.722 at 64 kbit/s: 8,000 bytes are one second.
        assert card.hours == pytest.approx(card.bytes / 8000 / 3600, abs=0.01)
        assert set(card.upstream) == set(card.contents)
        assert all(url.startswith("https://") for url in card.upstream.values())
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in card.packages.values())
    elif card.kind == "words":
        assert card.synthetic
        assert any("ynthetic" in flaw for flaw in card.flaws)
        assert card.attribution
        assert not set(card.words) & set(card.unknown)
        assert card.words[:10] == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    elif card.kind == "rooms":
        assert card.synthetic
        assert card.maker
        assert set(card.rooms) == {"train", "validation", "test"}
        assert min(card.rooms.values()) >= 10
        assert 0 < card.absorption[0] < card.absorption[1] < 1
    else:
        assert card.maker
        assert set(card.minutes) == {"train", "validation", "test"}
        assert min(card.minutes.values()) >= 2


def test_speech_and_noise_are_told_apart():
    kinds = {
        "speech": {"prompts", "librispeech"},
        "pairs": {"voicebank_demand"},
        "words": {"spoken_words"},
        "labels": {"speech_commands", "speech_commands_12", "fsdd", "esc50"},
        "noise": NOISES | {"demand"},
        "rooms": {"shoebox"},
    }
    assert {kind: set(corpora.names(kind)) for kind in kinds} == kinds
    assert set(corpora.names()) == set.union(*kinds.values())


def test_the_made_up_and_fetched_corpora_are_what_they_were_before_there_were_others():
    digests = {"prompts": "1cc59d13f620", "music": "bb13eb516c67", "babble": "8645f25b3f53", "ssn": "cb06cf2c2104"}
    assert {name: corpora.card(name).digest() for name in digests} == digests
    assert (scenes().speech.digest, music().digest) == ("610cc58c41bd7b0c", "534e32e08b2f887d")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("prompts", ["prompts"]), ("librispeech + demand", ["librispeech", "demand"]), ("a+b+c", ["a", "b", "c"])],
)
def test_speech_and_its_noise_are_named_together(text, parts):
    assert corpora.parts(text) == parts


def test_no_recording_lies_in_two_splits():
    for clips in (scenes().speech.clips, music().clips):
        assert not clips["clip"].duplicated().any()
        ids = [set(rows["clip"]) for _, rows in clips.groupby("split")]
        assert sum(map(len, ids)) == len(set.union(*ids)) == len(clips)


def test_voices_that_differ_by_a_number_share_a_split_but_for_the_base_ones():
    rule = SplitRule(by="voice", train=6, validation=2, test=2)
    assert len({rule.of("", voice) for voice in ("iven", "iven2", "iven3", "iven4")}) == 1
    assert len({rule.of("", f"m{number}") for number in range(1, 9)}) > 1
    assert rule.of("yes", "Annie") == rule.of("no", "Annie")


def test_a_prompt_name_lies_in_one_split_for_every_language():
    clips = scenes().speech.clips
    # What the held-out voice says in the mismatched test, other voices may say in the matched one.
    kind = clips.split.replace({"mismatched": "test"})
    used = clips.assign(split=kind)[kind != "unused"]
    assert used.groupby("name").split.nunique().max() == 1
    assert set(used.split) == {"train", "validation", "test"}


def test_the_held_out_voice_is_nowhere_in_training_validation_or_the_matched_test():
    clips = scenes().speech.clips
    held_out = clips[clips.voice == "it_IT_m_Carlo"]
    assert set(held_out.split) == {"mismatched", "unused"}
    assert set(clips[clips.split == "mismatched"].voice) == {"it_IT_m_Carlo"}
    others = {"en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "ru_RU_f_IvrvoiceRU"}
    for split in ("train", "validation", "test"):
        assert set(clips[clips.split == split].voice) == others


def test_names_go_80_10_10_by_their_sha1():
    clips = scenes().speech.clips
    tenths = clips.name.map(lambda name: int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10)
    expected = tenths.map(lambda tenth: "train" if tenth < 8 else "validation" if tenth == 8 else "test")
    heard = clips.voice != "it_IT_m_Carlo"
    assert (clips.split[heard] == expected[heard]).all()
    share = clips.split[heard].value_counts(normalize=True)
    assert share["train"] == pytest.approx(0.8, abs=0.03)
    assert share["validation"] == pytest.approx(0.1, abs=0.03)


def test_music_is_split_by_track_three_one_one():
    split = music().clips.groupby("split").name.apply(set)
    assert {name: len(tracks) for name, tracks in split.items()} == {"train": 3, "validation": 1, "test": 1}
    assert len(set.union(*split)) == 5


@pytest.mark.parametrize("name", ["prompts", "music"])
def test_the_banks_splits_are_those_of_the_cards_rule(name):
    clips = (scenes().speech if name == "prompts" else music()).clips
    rule = corpora.card(name).split
    assert rule
    assert clips.split.tolist() == [rule.of(*pair) for pair in zip(clips.name, clips.voice, strict=True)]


def test_a_recording_that_no_list_names_is_unused():
    rule = SplitRule(by="list", lists={"train": ("a", "b"), "test": ("c",)})
    assert [rule.of(name, name) for name in "abcd"] == ["train", "train", "test", "unused"]


def test_the_digest_follows_what_decides_the_bank_and_nothing_else():
    card = corpora.card("prompts")
    assert card.digest() == corpora.card("prompts").digest()
    for same in ({"title": "Other"}, {"flaws": ()}, {"upstream": {}}, {"packages": {}}, {"licence": "MIT"}):
        assert card.model_copy(update=same).digest() == card.digest()
    assert card.split
    others = [
        {"split": card.split.model_copy(update={"train": 7})},
        {"split": card.split.model_copy(update={"held_out": ("fr_CA_f_June",)})},
        {"leave_out": card.leave_out.model_copy(update={"shorter_than": 0.2})},
        {"leave_out": card.leave_out.model_copy(update={"names": ()})},
        {"contents": {name: part for name, part in card.contents.items() if name != "fr_CA_f_June"}},
        {"version": "1.6.2"},
        {"layout": "tracks"},
    ]
    digests = {card.model_copy(update=other).digest() for other in others}
    assert len(digests) == len(others)
    assert card.digest() not in digests


@pytest.mark.parametrize("name", ["promts", "../datasets/prompts", "prompts.yaml", "", "/etc/passwd"])
def test_an_unknown_corpus_is_one_line_and_names_the_nearest(name):
    with pytest.raises(UserError, match="unknown corpus") as caught:
        corpora.card(name)
    assert "\n" not in str(caught.value)
    assert "prompts" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "while parsing"),
        ("- a\n- list\n", "broken.yaml"),
        ("", "broken.yaml"),
        ("name: broken\n", "title"),
        ("colour: red\n", "colour"),
        ("kind: sound\n", "kind"),
    ],
)
def test_a_faulty_card_is_one_line_that_names_the_file_and_the_key(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(paths, "CARDS", tmp_path)
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        corpora.card("broken")
    assert "\n" not in str(caught.value)
    assert "broken.yaml" in str(caught.value)
    assert message in str(caught.value)


def test_a_misspelt_key_of_a_real_card_is_refused(tmp_path, monkeypatch):
    raw = yaml.safe_load((paths.CARDS / "prompts.yaml").read_text())
    monkeypatch.setattr(paths, "CARDS", tmp_path)
    raw["leave_out"]["name"] = raw["leave_out"].pop("names")
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=r"leave_out\.name"):
        corpora.card("prompts")
