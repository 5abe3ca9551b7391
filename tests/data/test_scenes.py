import dataclasses
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.data.audio import SAMPLE_RATE
from harness.data.noises import Noise
from harness.data.scenes import MixtureRule, Scenes, list_digest, mix, open_scenes
from harness.errors import UserError
from tests.real import CPU, active_powers, music, scenes

SETS = {"validation": 40, "matched": 120, "mismatched": 60}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def voiced(seed: int = 0, items: int = 3, samples: int = 32000) -> tuple[torch.Tensor, torch.Tensor]:
    """Real speech with pauses, and Gaussian noise."""
    rng = np.random.default_rng(seed)
    bank = scenes().speech
    speech = bank.cut(bank.draw("train", rng, items, samples), samples, CPU)
    return speech, torch.from_numpy(rng.standard_normal((items, samples))).float()


def test_a_batch_has_noisy_and_clean_of_the_asked_length():
    batch = scenes().batch(0, 0, 5, CPU)
    assert set(batch) == {"noisy", "clean"}
    assert all(field.shape == (5, 2 * SAMPLE_RATE) and field.dtype == torch.float32 for field in batch.values())
    assert all(field.isfinite().all() for field in batch.values())
    assert (batch["noisy"] != batch["clean"]).any(1).all()


def test_equal_seed_and_step_make_equal_batches_whatever_came_before():
    first = scenes().batch(7, 11, 8, CPU)
    scenes().batch(3, 5, 2, CPU)
    torch.manual_seed(1)
    assert same(first, scenes().batch(7, 11, 8, CPU))
    reopened = open_scenes("prompts", MixtureRule(), say=lambda text: None)
    assert same(first, reopened.batch(7, 11, 8, CPU))


def test_other_seeds_and_steps_make_other_batches():
    seen = [scenes().batch(seed, step, 2, CPU)["clean"] for seed, step in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2))]
    for place, batch in enumerate(seen):
        assert not any(torch.equal(batch[0], other[0]) for other in seen[:place])


def test_a_batch_is_made_of_training_speech_only():
    # Speech of a batch is found again in the bank, by its correlation with the windows that were drawn.
    rule = scenes().rule
    drawn: list[np.ndarray] = []
    bank = scenes().speech

    class Spy:
        card, regions = bank.card, bank.regions

        def draw(self, split, rng, shape, samples):
            assert split == "train"
            drawn.append(bank.draw(split, rng, shape, samples))
            return drawn[-1]

        fill = staticmethod(bank.fill)

    spied = Scenes(rule, Spy(), scenes().kinds, "")  # type: ignore[arg-type]
    clean = spied.batch(0, 3, 4, CPU)["clean"]
    assert torch.equal(clean, scenes().batch(0, 3, 4, CPU)["clean"])
    speech = bank.cut(drawn[0], clean.shape[1], CPU)
    assert torch.cosine_similarity(clean, speech).min() > 0.9999


def test_every_training_noise_is_drawn_from_the_training_split():
    asked: list[str] = []

    class Spy:
        def __init__(self, noise):
            self.fill, self._noise = noise.fill, noise

        def draw(self, split, rng, items, samples):
            asked.append(split)
            return self._noise.draw(split, rng, items, samples)

    spied = dataclasses.replace(scenes(), kinds={name: Spy(noise) for name, noise in scenes().kinds.items()})
    for step in range(4):
        spied.batch(0, step, 8, CPU)
    assert len(asked) >= 8
    assert set(asked) == {"train"}


def test_training_snrs_and_levels_fill_their_ranges():
    low, high = scenes().rule.snr
    snrs, levels = [], []
    for step in range(30):
        batch = {name: field.numpy() for name, field in scenes().batch(0, step, 8, CPU).items()}
        for noisy, clean in zip(batch["noisy"], batch["clean"], strict=True):
            speech, noise = active_powers(clean, np.float64(noisy) - clean)
            snrs.append(10 * np.log10(speech / noise))
            levels.append(10 * np.log10(speech))
    for values, (least, most) in ((snrs, (low, high)), (levels, scenes().rule.level)):
        assert min(values) == pytest.approx(least, abs=0.6)
        assert max(values) == pytest.approx(most, abs=0.6)
        assert np.mean(values) == pytest.approx((least + most) / 2, abs=1.4)  # five standard errors


@pytest.mark.parametrize("test_set", SETS)
def test_snr_and_level_of_every_judged_mixture_are_those_asked_for(test_set):
    for item in scenes().items(test_set, SETS[test_set]):
        noisy, clean = (signal.double().numpy() for signal in scenes().mixture(item))
        assert np.isfinite(noisy).all()
        assert np.abs(noisy).max() < 1
        speech, noise = active_powers(clean, noisy - clean)
        assert 10 * np.log10(speech / noise) == pytest.approx(item.snr, abs=0.01)
        assert 10 * np.log10(speech) == pytest.approx(item.level, abs=0.01)


@settings(max_examples=30)
@given(snr=st.floats(-20, 40), level=st.floats(-60, -10), seed=st.integers(0, 50))
def test_mixing_reaches_any_snr_and_level_that_fits(snr, level, seed):
    speech, noise = voiced(seed, 1)
    noisy, clean, gain = mix(speech, noise, torch.tensor([snr]), torch.tensor([level]))
    assert max(noisy.abs().max(), clean.abs().max()) <= 0.99 + 1e-6
    power, noise_power = active_powers(clean[0].double().numpy(), (noisy.double() - clean)[0].numpy())
    assert 10 * np.log10(power / noise_power) == pytest.approx(snr, abs=0.05)
    torch.testing.assert_close(clean, speech * gain)
    if noisy.abs().max() < 0.98:
        assert 10 * np.log10(power) == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("level", [-3.0, 0.0, 20.0])
def test_a_mixture_that_would_clip_is_scaled_down_with_its_target(level):
    speech, noise = voiced()
    noisy, clean, gain = mix(speech, noise, torch.tensor([0.0, 5, 10]), torch.full((3,), level))
    quiet_noisy, quiet_clean, _ = mix(speech, noise, torch.tensor([0.0, 5, 10]), torch.full((3,), -40.0))
    torch.testing.assert_close(noisy.abs().amax(1), torch.full((3,), 0.99))
    torch.testing.assert_close(clean, speech * gain[:, None])
    scale = clean.norm(dim=1) / quiet_clean.norm(dim=1)
    torch.testing.assert_close(noisy, quiet_noisy * scale[:, None], rtol=1e-4, atol=1e-5)


def test_the_target_itself_does_not_clip_where_noise_cancels_it():
    speech = torch.full((1, 4096), 0.1)
    noisy, clean, _ = mix(speech, -speech, torch.tensor([3.0]), torch.tensor([6.0]))
    assert clean.abs().max() == pytest.approx(0.99, abs=1e-5)
    assert noisy.abs().max() < 0.99


@pytest.mark.parametrize("samples", [1, 100, 512, 513, 32000])
def test_silent_speech_or_noise_stays_finite_and_silent(samples):
    tone = 0.1 * torch.sin(torch.arange(samples) / 3 + 1)
    silence = torch.zeros(samples)
    speech, noise = torch.stack([silence, silence, tone]), torch.stack([tone, silence, silence])
    noisy, clean, gain = mix(speech, noise, torch.tensor([5.0, 5, 5]), torch.tensor([-25.0, -25, -25]))
    for field in (noisy, clean, gain):
        assert field.isfinite().all()
    assert not clean[:2].any()
    assert not noisy[1].any()
    assert torch.equal(noisy[2], clean[2])
    assert noisy.abs().max() <= 0.99


def test_what_is_barely_there_is_not_blown_up_to_level():
    speech = torch.randn(1, 32000) * 1e-6  # -120 dBFS
    _, clean, _ = mix(speech, torch.randn(1, 32000), torch.tensor([0.0]), torch.tensor([-20.0]))
    assert 20 * clean.square().mean().sqrt().log10() < -50


@pytest.mark.parametrize("test_set", SETS)
def test_a_shorter_list_is_the_beginning_of_a_longer_one(test_set):
    longest = scenes().items(test_set, 130)
    for count in (0, 1, 3, 12, 13, 60, 129):
        assert scenes().items(test_set, count) == longest[:count]
    assert len(longest) == len({item.id for item in longest}) == 130


@pytest.mark.parametrize(("test_set", "split"), [("validation", "validation"), ("matched", "test")])
def test_items_are_single_clips_of_their_split(test_set, split):
    clips = scenes().speech.clips.set_index("clip")
    for item in scenes().items(test_set, SETS[test_set]):
        row = clips.loc[item.clip]
        assert row.split == split
        assert row["name"] == item.cluster
        assert row.voice == item.speaker != "it_IT_m_Carlo"
        assert 1.5 <= row.samples / SAMPLE_RATE <= 8
        noisy, clean = scenes().mixture(item)
        assert len(noisy) == len(clean) == row.samples


def test_the_mismatched_test_has_a_voice_and_a_noise_that_training_never_hears():
    items = scenes().items("mismatched", 60)
    assert {item.speaker for item in items} == {"it_IT_m_Carlo"}
    assert {item.noise for item in items} == {"coloured"}
    assert "coloured" not in scenes().rule.noise
    assert "it_IT_m_Carlo" not in set(scenes().speech.clips.query("split == 'train'").voice)


def test_no_judged_list_shares_a_clip_or_a_recorded_noise_with_another():
    matched, validation, mismatched = (scenes().items(name, count) for name, count in SETS.items())
    assert not {i.clip for i in matched} & {i.clip for i in validation}
    assert not {i.clip for i in matched} & {i.clip for i in mismatched}
    clips = music().clips.set_index("split")
    for items, split in ((matched, "validation"), (validation, "test")):
        begin, length = clips.loc[split].start, clips.loc[split].samples
        starts = [item.plan[0] for item in items if item.noise == "music"]
        assert starts
        assert all(begin <= start < begin + length for start in starts)


@pytest.mark.parametrize("test_set", SETS)
def test_noise_kinds_and_snrs_are_balanced(test_set):
    items = scenes().items(test_set, SETS[test_set])
    kinds = scenes().rule.unheard if test_set == "mismatched" else scenes().rule.noise
    cells = Counter((item.noise, item.snr) for item in items)
    assert set(cells) <= {(kind, snr) for kind in kinds for snr in (0.0, 5.0, 10.0, 15.0)}
    assert len(cells) == 4 * len(kinds)
    assert max(cells.values()) - min(cells.values()) <= 1


def test_prompt_names_take_turns():
    items = scenes().items("matched", 120)
    available = scenes().speech.clips.query("split == 'test'")
    available = available[available.samples.between(1.5 * SAMPLE_RATE, 8 * SAMPLE_RATE)]
    names = available.name.nunique()
    assert len({item.cluster for item in items[:names]}) == min(names, 120)
    assert len({item.clip for item in items}) == min(120, len(available))


def test_a_mixture_is_the_same_when_made_again():
    item = scenes().items("matched", 8)[-1]
    first = scenes().mixture(item)
    scenes().mixture(scenes().items("matched", 1)[0])
    assert all(torch.equal(a, b) for a, b in zip(first, scenes().mixture(item), strict=True))


ELSEWHERE = """
import hashlib, json, sys, torch
from harness.data.scenes import MixtureRule, list_digest, open_scenes
s = open_scenes("prompts", MixtureRule(), say=lambda text: None)
items = [i for name in ("validation", "matched", "mismatched") for i in s.items(name, 8)]
sounds = [hashlib.sha256(x.numpy().tobytes()).hexdigest() for i in items for x in s.mixture(i)]
batch = s.batch(3, 4, 4, torch.device("cpu"))
sounds += [hashlib.sha256(batch[name].numpy().tobytes()).hexdigest() for name in ("noisy", "clean")]
print(json.dumps([s.digest, list_digest(items), sounds]))
"""


def test_another_process_makes_the_same_lists_mixtures_and_batches():
    # With another hash seed: nothing may depend on the order of a set.
    told = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        capture_output=True,
        text=True,
        check=True,
        env={**__import__("os").environ, "PYTHONHASHSEED": "123"},
    ).stdout
    space: dict[str, object] = {}
    lines: list[str] = []
    exec(ELSEWHERE.replace("print(", "out("), {"out": lines.append, **space})
    assert json.loads(told) == json.loads(lines[0])


def test_the_hash_of_a_list_changes_with_anything_in_it():
    items = scenes().items("matched", 6)
    whole = list_digest(items)
    assert whole == list_digest(scenes().items("matched", 6))
    first = items[0]
    changes = [{field.name: "x"} for field in dataclasses.fields(first) if field.type == "str"]
    changes += [{"snr": first.snr + 5}, {"level": first.level + 0.01}, {"plan": (first.plan[0] + 1, *first.plan[1:])}]
    assert len(changes) == len(dataclasses.fields(first))
    others = [list_digest([dataclasses.replace(first, **change), *items[1:]]) for change in changes]
    others += [list_digest(items[:5]), list_digest(items[::-1]), list_digest([])]
    assert len({whole, *others}) == 1 + len(others)


def test_the_digest_of_scenes_follows_their_recordings():
    quick = open_scenes("prompts", MixtureRule(seconds=1, snr=(5, 6)), say=lambda text: None)
    assert quick.digest == scenes().digest  # the rule stands in the protocol by itself
    without = open_scenes("prompts", MixtureRule(noise=("ssn", "babble")), say=lambda text: None)
    assert without.digest != scenes().digest


@pytest.mark.parametrize(
    ("corpus", "rule", "message"),
    [
        ("music", {}, "corpus 'music' is noise; a task needs speech, one of: librispeech, prompts"),
        (
            "prompts",
            {"noise": ("prompts",)},
            "corpus 'prompts' is not noise; noises are: babble, coloured, demand, music, ssn",
        ),
        ("prompts", {"unheard": ("colored",)}, "unknown corpus 'colored': did you mean 'coloured'"),
        ("nothing", {}, "unknown corpus 'nothing'"),
    ],
)
def test_scenes_that_cannot_be_are_one_line(corpus, rule, message):
    with pytest.raises(UserError, match=message) as caught:
        open_scenes(corpus, MixtureRule(**rule), say=lambda text: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        {"noise": ()},
        {"unheard": ()},
        {"test_snrs": ()},
        {"snr": (15, 0)},
        {"snr": (0, float("nan"))},
        {"level": (-20, -35)},
        {"level": (float("-inf"), -20)},
        {"test_snrs": (0, float("inf"))},
        {"seconds": 0.01},
        {"seconds": float("nan")},
        {"items": {"matched": 1}},
        {"loudness": 3},
    ],
)
def test_rules_that_make_no_mixtures_are_refused(rule):
    with pytest.raises(ValidationError):
        MixtureRule(**rule)


def test_no_unheard_noise_is_needed_where_there_is_no_mismatched_test():
    rule = MixtureRule(unheard=(), items={"mismatched": 0})
    quick = open_scenes("prompts", rule, say=lambda text: None)
    assert quick.items("mismatched", 0) == []


def test_one_snr_is_a_range_too():
    rule = MixtureRule(snr=(5, 5), level=(-25, -25), noise=("ssn",), seconds=1)
    batch = dataclasses.replace(scenes(), rule=rule).batch(0, 0, 2, CPU)
    for noisy, clean in zip(batch["noisy"].double().numpy(), batch["clean"].double().numpy(), strict=True):
        speech, noise = active_powers(clean, noisy - clean)
        assert 10 * np.log10(speech / noise) == pytest.approx(5, abs=0.01)
        assert 10 * np.log10(speech) == pytest.approx(-25, abs=0.01)


def test_babble_of_a_judged_item_never_holds_the_target_clip_itself() -> None:
    real = scenes()
    clips = real.speech.clips.set_index("clip")
    babble = real.kinds["babble"]
    judged = [item for item in real.items("matched", 240) if item.noise == "babble"]
    assert len(judged) == 80
    for item in judged:
        start, samples = item.plan[0], clips.loc[item.clip, "samples"]
        heard = babble.said[(babble.said.start < start + samples) & (babble.said.start + babble.said.samples > start)]
        assert set(heard.talker) == set(range(6))
        assert item.clip not in set(heard["clip"])
    # The rule is needed: a window drawn without it holds the clip now and then.
    rng = np.random.default_rng(0)
    drawn = babble.draw("test", rng, 400, 5 * SAMPLE_RATE)[:, 0]
    assert any(babble.holds(item.clip, start, 5 * SAMPLE_RATE) for item in judged for start in drawn)


def test_speech_too_small_for_babble_without_the_target_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr(Noise, "holds", lambda *_: True)
    with pytest.raises(UserError, match=r"corpus 'prompts': every window of \w+ holds the clip") as caught:
        scenes().items("matched", 24)
    assert "\n" not in str(caught.value)


def test_few_seconds_of_training_are_all_that_batches_and_the_set_of_heard_items_hold() -> None:
    small = open_scenes("prompts", MixtureRule(train_seconds=60), say=lambda line: None)
    items = small.items("training", 12)
    heard = set(small.speech.clips.loc[small.speech.clips.split == "train", "clip"])
    assert {item.clip for item in items} <= heard
    assert len(heard) < 100
    for bank in (small.speech, *(kind.bank for kind in small.kinds.values())):
        starts, lengths = bank.regions["train"]
        assert lengths.sum() <= 60 * SAMPLE_RATE
        drawn = bank.draw("train", np.random.default_rng(0), 500, 32000)
        assert all(((starts <= place) & (place + 32000 <= starts + lengths)).any() for place in drawn)
    for item in items:
        starts, lengths = small.kinds[item.noise].bank.regions["train"]
        assert ((starts <= item.plan[0]) & (item.plan[0] < starts + lengths)).any()
    judged = {name: list_digest(scenes().items(name, 5)) for name in SETS}
    assert {name: list_digest(small.items(name, 5)) for name in SETS} == judged


SHARES = {"noise_only": 0.2, "speech_only": 0.1}


@pytest.fixture(scope="module")
def one_sided() -> Scenes:
    return open_scenes("prompts", MixtureRule(seconds=0.5, **SHARES), say=lambda text: None)


def test_the_asked_shares_of_training_hold_noise_alone_or_speech_alone(one_sided):
    batches = [one_sided.batch(0, step, 50, CPU) for step in range(8)]
    noisy, clean = (torch.cat([batch[name] for batch in batches]) for name in ("noisy", "clean"))
    silent, quiet = ~clean.any(-1), (noisy == clean).all(-1)
    assert silent.double().mean() == pytest.approx(0.2, abs=0.06)  # three standard errors
    assert quiet.double().mean() == pytest.approx(0.1, abs=0.045)
    assert noisy[silent].any(-1).all()
    assert noisy.abs().max() <= 0.99 + 1e-6


def test_judged_sets_hold_the_asked_shares_in_even_steps_and_the_rest_is_as_without(one_sided):
    items = one_sided.items("matched", 60)
    held = [getattr(item, "holds", "both") for item in items]
    assert Counter(held) == {"noise": 12, "speech": 6, "both": 42}
    assert held[:30] == [getattr(item, "holds", "both") for item in one_sided.items("matched", 30)]
    for item, plain in zip(items, scenes().items("matched", 60), strict=True):
        assert item == plain or (item.id == plain.id and np.isnan(item.snr))
        noisy, clean = one_sided.mixture(item)
        if getattr(item, "holds", "") == "noise":
            assert not clean.any()
            assert 10 * np.log10(noisy.double().square().mean()) == pytest.approx(plain.level - plain.snr, abs=0.02)
        elif getattr(item, "holds", "") == "speech":
            assert torch.equal(noisy, clean)
            assert torch.allclose(clean, scenes().mixture(plain)[1], rtol=1e-3, atol=1e-6) or clean.abs().max() > 0.98


def test_a_rule_without_one_sided_items_says_nothing_of_them_in_its_identity():
    assert not {"noise_only", "speech_only"} & set(MixtureRule().model_dump(exclude_none=True))
    assert set(SHARES) <= set(MixtureRule(**SHARES).model_dump(exclude_none=True))
