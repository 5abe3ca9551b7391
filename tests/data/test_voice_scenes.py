from collections import Counter

import numpy as np
import pytest
import torch

from harness.data.voice_scenes import open_voice_scenes
from harness.errors import UserError
from tests.real import CPU, voice_scenes


def test_classes_are_the_folders_with_training_speech():
    assert voice_scenes().classes == ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June", "ru_RU_f_IvrvoiceRU")


def test_a_batch_has_windows_of_the_labelled_folder_reproducibly(monkeypatch):
    scenes, seen = voice_scenes(), []
    bank = scenes.speech
    monkeypatch.setattr(type(bank), "fill", lambda self, starts, out: seen.append(starts) or out.zero_())
    label = scenes.batch(0, 0, 200, CPU)["label"]
    monkeypatch.undo()
    clips = bank.clips.sort_values("start")
    heard = clips.iloc[np.searchsorted(clips.start, seen[0], side="right") - 1]
    assert set(heard.split) == {"train"}
    assert list(heard.voice) == [scenes.classes[number] for number in label]
    assert min(Counter(label.tolist()).values()) > 30
    first, again = (scenes.batch(1, 2, 4, CPU) for _ in range(2))
    assert first["noisy"].shape == (4, 16_000)
    assert all(torch.equal(first[name], again[name]) for name in ("noisy", "label"))


@pytest.mark.parametrize("test_set", ["validation", "matched", "mismatched"])
def test_judged_prompts_are_in_no_training(test_set):
    scenes = voice_scenes()
    items = scenes.items(test_set, 96)
    clips = scenes.speech.clips
    assert not {item.cluster for item in items} & set(clips[clips.split == "train"]["name"])
    assert {item.noise for item in items} == set(scenes.rule.unheard if test_set == "mismatched" else scenes.rule.noise)
    assert set(Counter(item.speaker for item in items).values()) == {24}
    assert scenes.items(test_set, 31) == items[:31]


def test_an_example_is_the_window_of_its_item():
    scenes = voice_scenes()
    for item in scenes.items("matched", 8):
        example = scenes.example(item)
        assert example["noisy"].shape == (16_000,)
        assert scenes.classes[int(example["label"])] == item.speaker
        clip = scenes.speech.clip(item.clip)
        assert item.start + 16_000 <= len(clip)
        noise = scenes.kinds[item.noise].render(np.array([item.plan]), 16_000, CPU)[0].numpy()
        window = clip[item.start :][:16_000]
        parts = np.stack([window, noise], 1).astype(np.float64)
        _, residual, *_ = np.linalg.lstsq(parts, example["noisy"].double().numpy(), rcond=None)
        assert residual[0] < 1e-6 * float(example["noisy"].square().sum())


def test_words_are_no_voices():
    with pytest.raises(
        UserError, match="corpus 'spoken_words' is words; voices needs speech, one of: librispeech, prompts"
    ):
        open_voice_scenes("spoken_words")
