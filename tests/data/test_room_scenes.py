import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from harness.data.rooms import EARLY, LEAD, TAPS
from harness.data.scenes import SPLITS, MixtureRule, list_digest
from tests.real import CPU, active_powers, room_scenes, scenes

COUNTS = {"validation": 8, "matched": 16, "mismatched": 8}


def without_walls(made):
    """The same scenes where nothing reflects: every response is a pulse."""
    pulses = np.zeros(made.rooms.responses.shape, np.float32)
    pulses[..., LEAD] = 1
    return dataclasses.replace(made, rooms=dataclasses.replace(made.rooms, responses=pulses))


@pytest.mark.parametrize("rule", [{}, {"noise_only": 0.25, "speech_only": 0.25}])
def test_without_reflections_the_judged_mixtures_are_those_of_no_room(rule):
    from harness.data.scenes import Scenes

    silent, dry = without_walls(room_scenes(**rule)), scenes()
    dry = Scenes(MixtureRule(**rule), dry.speech, dry.kinds, dry.digest)
    for test_set, count in COUNTS.items():
        items = silent.items(test_set, count)
        for item, plain in zip(items, dry.items(test_set, count), strict=True):
            assert (item.clip, item.noise, item.plan, item.level) == (plain.clip, plain.noise, plain.plan, plain.level)
            for heard, expected in zip(silent.mixture(item), dry.mixture(plain), strict=True):
                torch.testing.assert_close(heard, expected, atol=2e-6, rtol=1e-4)


def test_the_clean_speech_lies_where_the_mixture_has_it():
    made = room_scenes()
    for item in made.items("matched", 6):
        noisy, clean = made.mixture(item)
        dry = torch.from_numpy(made.speech.clip(item.clip))
        for heard in (noisy, clean):
            spectrum = torch.fft.rfft(heard, n=2 * len(dry)) * torch.fft.rfft(dry, n=2 * len(dry)).conj()
            # Whitened (GCC-PHAT), so that a pitch is not taken for a delay.
            assert int(torch.fft.irfft(spectrum / (spectrum.abs() + 1e-9)).argmax()) == 0
    # and it is the dry speech but for what comes within 50 ms
    response = torch.from_numpy(np.array(made.rooms.responses[item.room, 0, 0])).double()
    response[LEAD + EARLY + 1 :] = 0
    whole = torch.fft.irfft(
        torch.fft.rfft(dry.double(), n=len(dry) + TAPS) * torch.fft.rfft(response, n=len(dry) + TAPS),
        n=len(dry) + TAPS,
    )
    expected = whole[LEAD : LEAD + len(dry)].float()
    assert torch.cosine_similarity(expected, clean, 0) > 0.99999


@pytest.mark.parametrize("test_set", COUNTS)
def test_snr_and_level_are_those_of_what_is_heard(test_set):
    made = room_scenes()
    for item in made.items(test_set, COUNTS[test_set]):
        quiet = dataclasses.replace(item, holds="speech")
        noisy, clean = made.mixture(item)
        speech = made.mixture(quiet)[0]
        speech = speech * (clean.norm() / made.mixture(quiet)[1].norm())  # where a loud mixture was turned down
        powers = active_powers(speech.double().numpy(), (noisy - speech).double().numpy())
        assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(item.snr, abs=0.05)
        assert 10 * np.log10(powers[0]) == pytest.approx(item.level, abs=0.05) or noisy.abs().max() > 0.98


def test_rooms_of_a_judged_set_take_turns_and_training_hears_none_of_them():
    made = room_scenes()
    of = {name: set(made.rooms.of(split)) for name, (_, split) in SPLITS.items()}
    for test_set in COUNTS:
        heard = [item.room for item in made.items(test_set, 24)]
        assert set(heard[:12]) == set(heard[12:]) == of[test_set]
    assert not of["training"] & (of["validation"] | of["matched"] | of["mismatched"])
    assert not of["validation"] & of["matched"]

    asked: list[np.ndarray] = []
    dry = made.rooms.responses

    class Spy:
        def __getitem__(self, key):
            asked.append(key[0])
            return dry[key]

    spied = dataclasses.replace(made, rooms=dataclasses.replace(made.rooms, responses=Spy()))
    for step in range(4):
        spied.batch(0, step, 8, CPU)
    assert set(np.concatenate(asked)) <= of["training"]


def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_all_lists_are_others_than_without_rooms():
    made = room_scenes()
    assert made.items("matched", 7) == made.items("matched", 12)[:7]
    assert list_digest(made.items("matched", 7)) != list_digest(scenes().items("matched", 7))
    assert made.digest != scenes().digest


def test_batches_are_reproducible_heard_by_the_reference_first_and_louder_than_their_early_part():
    one, two = room_scenes(), room_scenes(channels=2)
    first, again, both = one.batch(3, 4, 8, CPU), one.batch(3, 4, 8, CPU), two.batch(3, 4, 8, CPU)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert set(first) == {"noisy", "clean"}
    assert set(both) == {"noisy", "clean", "channels"}
    assert both["channels"].shape == (8, 2, 32_000)
    assert torch.equal(both["noisy"], both["channels"][:, 0])
    assert not torch.equal(both["channels"][:, 0], both["channels"][:, 1])
    assert all(field.isfinite().all() and field.abs().max() < 1 for field in both.values())
    torch.testing.assert_close(first["clean"], both["clean"], atol=1e-5, rtol=1e-2)
    assert not torch.equal(one.batch(3, 5, 8, CPU)["clean"], first["clean"])


@pytest.mark.parametrize("channels", [None, 2])
def test_some_items_hold_a_part_alone(channels):
    made = room_scenes(noise_only=0.25, speech_only=0.25, channels=channels)
    silent = quiet = 0
    for step in range(12):
        batch = made.batch(0, step, 8, CPU)
        assert all(field.isfinite().all() for field in batch.values())
        plain = room_scenes(channels=channels).batch(0, step, 8, CPU)
        silent += int((~batch["clean"].any(1)).sum())
        same = (batch["noisy"] == plain["noisy"]).all(1)
        quiet += int((~same & batch["clean"].any(1)).sum())
        assert batch["noisy"].abs().amax(1).min() > 0
    assert silent == pytest.approx(24, abs=14)
    assert quiet == pytest.approx(24, abs=14)
    held = [item.holds for item in made.items("matched", 16)]
    assert (held.count("noise"), held.count("speech")) == (4, 4)
    for item in made.items("matched", 16):
        fields = made.example(item)
        assert fields["clean"].any() == (item.holds != "noise")
        if item.holds == "noise":
            assert 10 * float(fields["noisy"].double().square().mean().log10()) == pytest.approx(item.level, abs=0.05)


def test_several_channels_want_a_room():
    with pytest.raises(ValidationError, match="channels needs rooms, as in rooms: shoebox"):
        MixtureRule(channels=2)
