import math

import pytest
import torch

from harness.data.pair_scenes import PairRule, open_pair_scenes
from harness.data.scenes import list_digest
from tests.data import layouts
from tests.real import CPU

PARTS = {"noise_only": 0.25, "speech_only": 0.25}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "audio").mkdir()
    with layouts.kept_apart(tmp_path / "audio"):
        layouts.pairs(tmp_path / "pairs")
        yield str(tmp_path / "pairs")


def opened(folder, **rule):
    return open_pair_scenes(folder, PairRule(seconds=0.5, **rule), say=lambda text: None)


def test_some_pairs_of_a_training_lose_a_part(folder):
    plain, cut = opened(folder), opened(folder, **PARTS)
    silent = quiet = whole = 0
    for step in range(12):
        batch, before = cut.batch(0, step, 8, CPU), plain.batch(0, step, 8, CPU)
        for noisy, clean, noisy_before, clean_before in zip(*batch.values(), *before.values(), strict=True):
            assert noisy.isfinite().all()
            if not clean.any() and clean_before.any():
                torch.testing.assert_close(noisy, noisy_before - clean_before)
                silent += 1
            elif torch.equal(noisy, clean):
                assert torch.equal(clean, clean_before)
                quiet += 1
            else:
                assert torch.equal(noisy, noisy_before)
                whole += 1
    assert silent == pytest.approx(24, abs=14)
    assert quiet == pytest.approx(24, abs=14)
    assert silent + quiet + whole == 96


def test_judged_pairs_lose_a_part_in_even_steps_and_say_so(folder):
    plain, cut = opened(folder), opened(folder, **PARTS)
    for test_set in ("validation", "matched"):
        items, before = cut.items(test_set, 8), plain.items(test_set, 8)
        assert [item.clip for item in items] == [item.clip for item in before]
        for item, whole in zip(items, before, strict=True):
            example, expected = cut.example(item), plain.example(whole)
            held = getattr(item, "holds", "both")
            assert math.isnan(item.snr) == (held != "both") or math.isnan(whole.snr)
            if held == "noise":
                assert not example["clean"].any()
                assert item.speaker == ""
                torch.testing.assert_close(example["noisy"], expected["noisy"] - expected["clean"])
            elif held == "speech":
                assert torch.equal(example["noisy"], expected["clean"])
                assert item.noise == "none"
            else:
                assert all(torch.equal(example[name], expected[name]) for name in example)
    held = [getattr(item, "holds", "both") for item in cut.items("matched", 4)]
    assert {"noise", "speech"} & set(held)
    assert list_digest(opened(folder).items("matched", 8)) == list_digest(plain.items("matched", 8))
