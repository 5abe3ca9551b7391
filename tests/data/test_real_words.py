from collections import Counter

import numpy as np
import pytest
import torch

from harness.data import real_words
from harness.data.real_words import Window, mixed
from harness.data.scenes import NoisyRule
from harness.errors import UserError
from tests.real import CPU, active_powers, voice_scenes, word_scenes


def said(task):
    """The scenes of a task with the bank of the people who say its real words."""
    scenes = word_scenes("keywords") if task == "keywords" else voice_scenes()
    return scenes, scenes.people if task == "keywords" else scenes.speech


def test_keywords_has_all_digits_of_the_one_english_voice_in_every_noise_at_every_snr():
    scenes, _ = said("keywords")
    items = scenes.items("real_words", 120)
    assert {item.speaker for item in items} == {"en_US_f_Allison"}
    assert set(Counter((item.cluster, item.noise, item.snr) for item in items).values()) == {1}
    assert Counter(item.cluster for item in items) == {f"digits/{digit}": 12 for digit in range(10)}
    assert scenes.items("real_words", 31) == items[:31]
    for item in items[:20]:
        assert scenes.classes[int(scenes.example(item)["label"])] == scenes.words.words[int(item.cluster[-1])]
    assert scenes.classes[:3] == ("zero", "one", "two")


def test_voices_has_the_digits_that_no_training_hears_by_the_voices_that_it_does():
    scenes, bank = said("voices")
    items = scenes.items("real_words", 96)
    assert Counter(item.clip for item in items) == {f"{v}/digits/{d}": 12 for v in scenes.classes for d in (0, 9)}
    trained = set(bank.clips.loc[bank.clips["split"] == "train", "name"])
    assert not {item.cluster for item in items} & trained
    assert all(scenes.classes[int(scenes.example(item)["label"])] == item.speaker for item in items[:20])


@pytest.mark.parametrize("task", ["keywords", "voices"])
def test_the_recording_lies_whole_in_its_window_at_its_snr_and_in_no_noise(task):
    scenes, bank = said(task)
    for item in scenes.items("real_words", 24):
        clip = bank.clip(item.clip)
        clean = np.zeros(scenes.rule.samples)
        clean[-item.start : -item.start + len(clip)] = clip
        noise = scenes.kinds[item.noise].render(np.array([item.plan]), scenes.rule.samples, CPU)[0].double().numpy()
        noisy = scenes.example(item)["noisy"].double().numpy()
        (gain, noise_gain), residual, *_ = np.linalg.lstsq(np.stack([clean, noise], 1), noisy, rcond=None)
        assert residual[0] < 1e-6 * (noisy**2).sum()
        speech, rest = active_powers(gain * clean, noise_gain * noise)
        assert 10 * np.log10(speech / rest) == pytest.approx(item.snr, abs=0.05)
        assert not scenes.kinds[item.noise].holds(item.clip, item.plan[0], scenes.rule.samples)


def test_a_window_may_begin_before_its_clip_or_inside():
    scenes, bank = said("voices")
    (item,) = scenes.items("real_words", 1)
    rule = NoisyRule(seconds=0.2, snr=(90, 90))
    inside = Window(**(vars(item) | {"start": 800, "snr": 90.0}))
    clip = torch.from_numpy(bank.clip(item.clip)[800:][: rule.samples])
    heard = mixed(bank, scenes.kinds, rule, inside)
    torch.testing.assert_close(heard / heard.norm(), clip / clip.norm(), rtol=0, atol=1e-3)


def test_speech_without_single_digits_or_with_long_ones_is_refused():
    _, bank = said("voices")
    with pytest.raises(UserError, match="must hold single digits"):
        real_words.digits(bank, "nobody", ("test",), 16_000)
    with pytest.raises(UserError, match="none longer than"):
        real_words.digits(bank, ".*", ("test",), 8000)
