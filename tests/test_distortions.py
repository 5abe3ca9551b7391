"""Each distortion does what its name and level say, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import hilbert

from harness.distortions import (
    DISTORTIONS,
    RATE,
    Distortion,
    clipping,
    delay,
    gain,
    low_pass,
    noise,
    reverberation,
    turn,
)

SPEECH = torch.randn(16_001, generator=torch.Generator().manual_seed(3)) * torch.hann_window(16_001)


def levels(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda d: d.name)
@pytest.mark.parametrize("samples", [16_000, 16_001, 600])
def test_a_recording_keeps_its_length_and_one_level_of_each_leaves_it_as_it_was(
    distortion: Distortion, samples: int
) -> None:
    speech = SPEECH[:samples]
    made = distortion.apply(speech, levels(*distortion.levels))
    assert made.shape == (len(distortion.levels), samples)
    assert made.isfinite().all()
    apart = torch.linalg.vector_norm(made - speech, dim=-1) / torch.linalg.vector_norm(speech)
    if distortion.name == "noise":
        assert apart.tolist() == pytest.approx([10 ** (-snr / 20) for snr in distortion.levels], rel=1e-3)
    else:
        assert float(apart.min()) < 1e-5
    assert float(apart[list(distortion.levels).index(distortion.moderate)]) > 0.1
    assert torch.equal(made, distortion.apply(speech, levels(*distortion.levels)))


def test_noise_has_the_spectrum_of_the_speech() -> None:
    added = noise(SPEECH, levels(0.0))[0] - SPEECH
    assert torch.allclose(torch.fft.rfft(added).abs()[1:], torch.fft.rfft(SPEECH).abs()[1:], atol=1e-2)
    assert abs(float(torch.dot(added, SPEECH) / torch.dot(SPEECH, SPEECH))) < 0.05  # and shares nothing else with it


def test_gain_clipping_and_delay_follow_their_closed_forms() -> None:
    assert torch.allclose(gain(SPEECH, levels(20.0, -20.0)), torch.stack([10 * SPEECH, SPEECH / 10]))
    cut = clipping(SPEECH, levels(-6.0))[0]
    limit = float(SPEECH.abs().max()) * 10 ** (-6 / 20)
    assert float(cut.abs().max()) == pytest.approx(limit)
    assert torch.equal(cut[SPEECH.abs() < limit], SPEECH[SPEECH.abs() < limit])
    late = delay(SPEECH, levels(5.0))[0]
    assert torch.equal(late[5:], SPEECH[:-5])
    assert not late[:5].any()


@pytest.mark.parametrize("samples", [16_000, 16_001])
def test_half_a_turn_inverts_and_a_quarter_is_the_hilbert_transform(samples: int) -> None:
    speech = (SPEECH - SPEECH.mean())[:samples]
    quarter, half = turn(speech, levels(90.0, 180.0))
    assert torch.allclose(half, -speech, atol=1e-5)
    assert quarter.numpy() == pytest.approx(-np.imag(hilbert(speech.double().numpy())), abs=1e-4)


def test_a_low_pass_keeps_the_band_below_its_cutoff_and_nothing_above_its_edge() -> None:
    spectrum, passed = (torch.fft.rfft(x) for x in (SPEECH, low_pass(SPEECH, levels(2000.0))[0]))
    frequency = torch.fft.rfftfreq(len(SPEECH), 1 / RATE)
    assert torch.allclose(passed[frequency <= 2000], spectrum[frequency <= 2000], atol=1e-3)
    assert float(passed[frequency > 2200].abs().max()) < 1e-3


def test_a_room_answers_with_the_direct_path_first_and_decays_by_60_db_in_its_rt60() -> None:
    click = torch.zeros(RATE)
    click[0] = 1.0
    response = reverberation(click, levels(0.3))[0].double()
    assert response[0] == pytest.approx(1.0, abs=1e-5)
    assert response[1:39].abs().max() < 1e-5  # nothing before the first reflection
    tail = response[40:]
    assert float(10 * torch.log10(tail.square().sum())) == pytest.approx(-6, abs=0.7)
    backward = tail.square().flip(0).cumsum(0).flip(0)  # Schroeder's integral: its slope is the decay
    early, late = (10 * math.log10(float(backward[place])) for place in (0, round(0.15 * RATE)))
    assert early - late == pytest.approx(30, abs=1.5)
