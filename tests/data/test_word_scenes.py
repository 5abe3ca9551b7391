import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness.data.audio import BOUNDARY_SECONDS, SAMPLE_RATE
from harness.data.scenes import list_digest
from harness.data.word_scenes import GAP, TASKS, DigitRule, WordRule, open_word_scenes
from harness.errors import UserError
from tests.real import CPU, active_powers, word_scenes

SETS = ("validation", "matched", "mismatched")
GIVEN = {
    "keywords": {"label": (torch.int64, ())},
    "tags": {"targets": (torch.float32, (20,))},
    "digits": {"tokens": (torch.int64, (6,)), "token_lengths": (torch.int64, ())},
    "count": {"count": (torch.float32, ())},
    "locate": {"target_boundary": (torch.float32, (2,)), "label": (torch.int64, ())},
}


@pytest.fixture(params=TASKS)
def task(request) -> str:
    return str(request.param)


def same(a, b) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def voices_of(scenes, split: str) -> set[str]:
    return {scenes.words.voice_names[voice] for voice in scenes.words.voices[split]}


def drawn(scenes, step: int = 0, items: int = 64):
    """What is said in a batch, by a spy on its drawing."""
    seen = []
    spied = type(scenes)(**(vars(scenes) | {"rule": scenes.rule}))
    object.__setattr__(spied, "_say", lambda *args: seen.append(scenes._say(*args)) or seen[-1])
    return spied.batch(0, step, items, CPU), seen[0]


def test_a_batch_has_the_fields_of_its_task(task):
    batch = word_scenes(task).batch(0, 0, 5, CPU)
    assert batch["noisy"].shape == (5, word_scenes(task).rule.samples)
    assert batch["noisy"].abs().max() < 1
    assert batch["noisy"].isfinite().all()
    assert {name: (f.dtype, tuple(f.shape[1:])) for name, f in batch.items() if name != "noisy"} == GIVEN[task]
    assert all(len(field) == 5 for field in batch.values())


def test_an_example_is_one_row_of_such_a_batch(task):
    scenes = word_scenes(task)
    example = scenes.example(scenes.items("matched", 3)[2])
    assert example["noisy"].shape == (scenes.rule.samples,)
    assert {name: (f.dtype, tuple(f.shape)) for name, f in example.items() if name != "noisy"} == GIVEN[task]


def test_equal_seed_and_step_make_equal_batches_whatever_came_before(task):
    scenes = word_scenes(task)
    first = scenes.batch(7, 11, 8, CPU)
    scenes.batch(3, 5, 2, CPU)
    assert same(first, scenes.batch(7, 11, 8, CPU))
    assert not torch.equal(first["noisy"], scenes.batch(7, 12, 8, CPU)["noisy"])
    assert not torch.equal(first["noisy"], scenes.batch(8, 11, 8, CPU)["noisy"])
    again = open_word_scenes(task, "spoken_words", say=lambda text: None)
    assert again.digest == scenes.digest
    assert same(first, again.batch(7, 11, 8, CPU))


def test_a_batch_is_said_by_training_voices_and_known_words_alone(task):
    scenes = word_scenes(task)
    for step in range(5):
        _, spoken = drawn(scenes, step)
        clips = scenes.words.bank.clips.iloc[spoken.row[spoken.there]]
        assert set(clips.split) == {"train"}
        assert set(clips["name"]) <= set(scenes.classes)
        assert not set(clips.voice) & set(scenes.words.bank.card.novelty)


@pytest.mark.parametrize("test_set", SETS)
def test_judged_items_are_said_by_voices_that_no_training_hears(task, test_set):
    scenes = word_scenes(task)
    items = scenes.items(test_set, 60)
    split = "validation" if test_set == "validation" else "test"
    assert {item.speaker for item in items} <= voices_of(scenes, split)
    assert not {item.speaker for item in items} & voices_of(scenes, "train")
    assert {item.noise for item in items} == set(scenes.rule.unheard if test_set == "mismatched" else scenes.rule.noise)
    assert all(item.cluster == item.speaker for item in items)


def test_validation_and_test_voices_are_others(task):
    lists = [word_scenes(task).items(name, 100) for name in SETS]
    speakers = [{item.speaker for item in items} for items in lists]
    assert not speakers[0] & (speakers[1] | speakers[2])


def test_a_shorter_list_is_the_beginning_of_a_longer_one(task):
    scenes = word_scenes(task)
    longer = scenes.items("matched", 90)
    assert scenes.items("matched", 37) == longer[:37]
    assert len({item.id for item in longer}) == 90
    assert list_digest(longer) != list_digest(longer[:37])
    assert json.loads(json.dumps([asdict(item) for item in longer]))


def test_judged_lists_are_balanced():
    items = word_scenes("keywords").items("matched", 480)
    assert set(Counter(item.words[0] for item in items).values()) == {24}
    assert set(Counter((item.noise, item.snr) for item in items).values()) == {40}
    voices = Counter(item.speaker for item in items)
    assert max(voices.values()) - min(voices.values()) <= 1
    sizes = Counter(len(item.words) for item in word_scenes("tags").items("matched", 99))
    assert set(sizes.values()) == {33}


@pytest.mark.parametrize("task", ["locate", "digits", "count", "tags"])
def test_words_lie_where_they_are_said_to(task):
    scenes = word_scenes(task)
    for item in scenes.items("validation", 40):
        spoken = scenes.spoken(item)
        clean = scenes._clean(item)[0]
        rest = clean.clone()
        for row, onset, offset in zip(
            spoken.row[spoken.there], spoken.onset[spoken.there], spoken.offset[spoken.there], strict=True
        ):
            word = torch.from_numpy(scenes.words.bank.clip(scenes.words.bank.clips["clip"][row]))
            assert offset - onset == len(word)
            if task != "tags":
                assert torch.equal(clean[onset:offset], word)
            rest[onset:offset] -= word
        assert rest.abs().max() < 1e-6


def test_boundaries_cut_the_clean_word_out_of_the_clip():
    scenes = word_scenes("locate")
    for item in scenes.items("matched", 40):
        example = scenes.example(item)
        onset, offset = (example["target_boundary"].double() * BOUNDARY_SECONDS * SAMPLE_RATE).round().long().tolist()
        clean = scenes._clean(item)[0]
        word = torch.from_numpy(scenes.words.bank.clip(scenes.words.bank.clips["clip"][item.rows[0]]))
        assert torch.equal(clean[onset:offset], word)
        assert not clean[:onset].any()
        assert not clean[offset:].any()
        assert scenes.words.words[int(example["label"])] == scenes.words.bank.clips["name"][item.rows[0]]


@pytest.mark.parametrize("task", ["digits", "count"])
def test_words_in_a_row_do_not_touch_and_fit(task):
    scenes = word_scenes(task)
    for step in range(20):
        _, spoken = drawn(scenes, step)
        for there, onset, offset in zip(spoken.there, spoken.onset, spoken.offset, strict=True):
            assert there[0]
            assert (np.diff(there.astype(int)) <= 0).all()
            assert onset[0] >= 0
            assert offset[there].max() <= scenes.rule.samples
            assert (onset[there][1:] - offset[there][:-1] >= GAP).all()


def test_digits_are_the_tokens_one_to_ten_and_what_is_padded_is_blank():
    scenes = word_scenes("digits")
    batch, spoken = drawn(scenes)
    names = scenes.words.bank.clips["name"].to_numpy()
    for tokens, length, there, row in zip(
        batch["tokens"], batch["token_lengths"], spoken.there, spoken.row, strict=True
    ):
        said = [scenes.classes.index(name) + 1 for name in names[row[there]]]
        assert tokens.tolist() == said + [0] * (6 - len(said))
        assert int(length) == len(said)
    assert set(batch["token_lengths"].tolist()) == {1, 2, 3, 4, 5, 6}


def test_tags_are_different_words_and_counts_are_what_is_said():
    batch, spoken = drawn(word_scenes("tags"))
    assert torch.equal(batch["targets"].sum(1), torch.from_numpy(spoken.there.sum(1)).float())
    assert set(batch["targets"].sum(1).tolist()) == {1.0, 2.0, 3.0}
    batch, spoken = drawn(word_scenes("count"))
    assert batch["count"].tolist() == spoken.there.sum(1).tolist()
    assert set(batch["count"].tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_almost_every_drawn_string_fits():
    scenes = word_scenes("digits")
    lengths = torch.cat([scenes.batch(0, step, 64, CPU)["token_lengths"] for step in range(20)])
    assert int((lengths == 6).sum()) > 0.9 * len(lengths) / 6


def test_imbalance_is_of_training_alone():
    scenes = word_scenes("keywords", imbalance=100.0)
    labels = torch.cat([scenes.batch(0, step, 64, CPU)["label"] for step in range(60)])
    counts = torch.bincount(labels, minlength=20).float()
    weights = 100.0 ** -torch.linspace(0, 1, 20)
    expected = len(labels) * weights / weights.sum()
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()
    assert scenes.items("matched", 40) == word_scenes("keywords").items("matched", 40)


def test_open_set_items_are_words_that_no_training_holds():
    scenes = word_scenes("keywords")
    items = scenes.items("open_set", 60)
    assert set(Counter(scenes.words.words[item.words[0]] for item in items)) == set(scenes.words.bank.card.unknown)
    assert {int(scenes.example(item)["label"]) for item in items} == {-1}
    assert not {item.speaker for item in items} & voices_of(scenes, "train")


def test_the_snr_is_over_the_active_speech():
    scenes = word_scenes("keywords")
    for item in scenes.items("matched", 12):
        noisy, clean = scenes.example(item)["noisy"].double().numpy(), scenes._clean(item)[0].double().numpy()
        noise = scenes.kinds[item.noise].render(np.array([item.plan]), scenes.rule.samples, CPU)[0].double().numpy()
        (gain, noise_gain), *_ = np.linalg.lstsq(np.stack([clean, noise], 1), noisy, rcond=None)
        speech, rest = active_powers(gain * clean, noise_gain * noise)
        assert 10 * np.log10(speech / rest) == pytest.approx(item.snr, abs=0.05)


def test_the_digest_follows_the_noises():
    other = open_word_scenes("keywords", "spoken_words", WordRule(noise=("ssn",)), say=lambda text: None)
    assert other.digest != word_scenes("keywords").digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"words": (0, 1)}, "fewest, most"), ({"words": (3, 2)}, "fewest, most"), ({"seconds": 0.5}, "greater than")],
)
def test_a_rule_that_makes_no_item_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        DigitRule(**changes)


def test_a_task_or_corpus_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="did you mean 'keywords'"):
        open_word_scenes("keyword", "spoken_words")
    with pytest.raises(UserError, match="corpus 'prompts' is speech; tags needs words, one of: spoken_words"):
        open_word_scenes("tags", "prompts")
