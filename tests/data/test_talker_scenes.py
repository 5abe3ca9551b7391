import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness.data.scenes import SPLITS
from harness.data.talker_scenes import TalkerRule, open_talker_scenes
from harness.errors import UserError
from tests.real import CPU, active_powers, talker_scenes


def test_a_mixture_is_the_sum_of_its_sources_where_there_is_neither_noise_nor_a_room():
    batch = talker_scenes().batch(0, 0, 8, CPU)
    assert batch["noisy"].shape == (8, 32_000)
    assert batch["sources"].shape == (8, 2, 32_000)
    torch.testing.assert_close(batch["noisy"], batch["sources"].sum(1), atol=1e-6, rtol=0)
    for item in talker_scenes().items("matched", 6):
        example = talker_scenes().example(item)
        torch.testing.assert_close(example["noisy"], example["sources"].sum(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rule", [{}, {"rooms": "shoebox", "noise": ("ssn",)}])
def test_equal_seed_and_step_make_equal_batches_and_others_others(rule):
    made = talker_scenes(**rule)
    one, again, other = made.batch(1, 2, 4, CPU), made.batch(1, 2, 4, CPU), made.batch(1, 3, 4, CPU)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["noisy"], other["noisy"])
    assert all(field.isfinite().all() and field.abs().max() < 1 for field in one.values())


def test_the_two_voices_are_of_two_people_and_both_heard_in_training_only():
    made = talker_scenes()
    bank, drawn = made.speech, []
    clips = bank.clips.sort_values("start")
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn.append(list(made._windows(rng, 16, 32_000)))
    for ones, twos in drawn:
        for starts in zip(ones, twos, strict=True):
            rows = [clips.iloc[np.searchsorted(clips.start.to_numpy(), start, side="right") - 1] for start in starts]
            assert {row.split for row in rows} == {"train"}
            assert len({bank.card.talker(row.voice) for row in rows}) == 2


@pytest.mark.parametrize("test_set", ["validation", "matched", "mismatched"])
def test_a_judged_item_is_two_clips_of_two_people_of_its_split_saying_two_things(test_set):
    made, splits = talker_scenes(), SPLITS[test_set]
    clips = made.speech.clips.set_index("clip")
    items = made.items(test_set, 30)
    for item in items:
        one, two = clips.loc[item.clip], clips.loc[item.other]
        assert (one.split, two.split) == splits
        assert made.speech.card.talker(one.voice) != made.speech.card.talker(two.voice)
        assert one["name"] != two["name"]
        both = max(0, min(one.samples, item.later + two.samples) - item.later)
        assert 0.29 <= both / min(one.samples, two.samples) <= 1
    assert len({item.other_speaker for item in items}) >= 2
    assert items[:10] == made.items(test_set, 10)


def test_two_folders_of_one_person_are_known_as_such():
    card = talker_scenes().speech.card
    assert card.talker("en_US_f_Allison") == card.talker("es_MX_f_Allison") == "Allison"
    assert card.talker("ru_RU_f_IvrvoiceRU") != card.talker("fr_CA_f_June")
    assert card.model_copy(update={"layout": "librispeech"}).talker("p_225") == "p_225"


def test_levels_are_those_asked_for():
    for item in talker_scenes().items("matched", 8):
        for talker, source in enumerate(talker_scenes().example(item)["sources"].double().numpy()):
            if talker != item.silent:
                level = 10 * np.log10(active_powers(source)[0])
                assert level == pytest.approx(item.level + talker * item.ratio, abs=0.05)


def test_noise_has_its_snr_below_both_talkers_together_and_mismatched_noise_is_the_unheard_one():
    made = talker_scenes(noise=("ssn", "music"), unheard=("coloured",), silent=0.0)
    assert {item.noise for item in made.items("matched", 12)} == {"ssn", "music"}
    assert {item.noise for item in made.items("mismatched", 4)} == {"coloured"}
    for item in made.items("matched", 6):
        example = made.example(item)
        speech = example["sources"].sum(0)
        powers = active_powers(speech.double().numpy(), (example["noisy"] - speech).double().numpy())
        assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(item.snr, abs=0.05)
    assert {item.noise for item in talker_scenes(noise=("ssn",)).items("mismatched", 2)} == {"ssn"}
    assert all(math.isnan(item.snr) and item.plan == () for item in talker_scenes().items("matched", 4))


def test_as_many_items_as_asked_for_have_a_silent_talker_each_of_the_two_in_turn():
    items = talker_scenes().items("matched", 40)
    silent = [item.silent for item in items]
    assert [place for place, who in enumerate(silent) if who >= 0] == list(range(4, 40, 5))
    assert (silent.count(0), silent.count(1)) == (4, 4)
    for item in items[:10]:
        talks = talker_scenes().example(item)["sources"].any(-1).tolist()
        assert talks == [item.silent != 0, item.silent != 1]
    share = [
        float((~talker_scenes(silent=0.5).batch(0, step, 16, CPU)["sources"].any(-1)).any(1).float().mean())
        for step in range(12)
    ]
    assert np.mean(share) == pytest.approx(0.5, abs=0.15)
    assert all(talker_scenes(silent=0.0).batch(0, step, 16, CPU)["sources"].any(-1).all() for step in range(3))


def test_training_voices_overlap_as_far_as_the_rule_says():
    batch = talker_scenes(silent=0.0, overlap=(0.5, 0.5)).batch(0, 0, 16, CPU)["sources"]
    one, two = batch[:, 0], batch[:, 1]
    assert not one[:, 24_000:].any()  # three quarters of two seconds each, the half of it together
    assert not two[:, :7_900].any()
    assert one[:, :23_000].any(1).all()
    assert two[:, 9_000:].any(1).all()
    whole = talker_scenes(silent=0.0, overlap=(1, 1)).batch(0, 0, 16, CPU)["sources"]
    assert (whole[..., -4000:].abs().amax(-1) > 0).float().mean() > 0.9


def test_without_reflections_a_room_changes_nothing():
    import dataclasses

    from harness.data.rooms import LEAD

    made, dry = talker_scenes(rooms="shoebox"), talker_scenes()
    pulses = np.zeros(made.rooms.responses.shape, np.float32)
    pulses[..., LEAD] = 1
    silent = dataclasses.replace(made, rooms=dataclasses.replace(made.rooms, responses=pulses))
    for item, plain in itertools.islice(zip(silent.items("matched", 6), dry.items("matched", 6), strict=True), 6):
        assert (item.clip, item.other, item.later) == (plain.clip, plain.other, plain.later)
        for name, field in silent.example(item).items():
            torch.testing.assert_close(field, dry.example(plain)[name], atol=2e-6, rtol=1e-4)
    heard = made.example(made.items("matched", 1)[0])
    left = heard["noisy"] - heard["sources"].sum(0)
    assert left.square().mean() > 1e-3 * heard["noisy"].square().mean()  # what the room adds is no part of a source


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"overlap": (0.5, 1.5)}, "must lie within 0 and 1"),
        ({"ratio": (3, -3)}, "must be low, high"),
        ({"silent": 0.9}, "less than or equal to 0.5"),
    ],
)
def test_what_cannot_be_is_refused(rule, message):
    with pytest.raises(ValidationError, match=message):
        TalkerRule(**rule)


def test_a_corpus_of_no_speech_is_refused():
    with pytest.raises(UserError, match="corpus 'music' is noise; separate needs speech"):
        open_talker_scenes("music", say=lambda text: None)
