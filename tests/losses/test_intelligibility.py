import math
import sys

import numpy as np
import pystoi
import pytest
import torch
from scipy.signal import hilbert

from harness.losses import estoi, intelligibility, stoi, third_octaves
from tests.real import mixtures

from .signals import CLEAN, ESTIMATE, NOISY, value_and_gradient

NOISE = NOISY - CLEAN
SILENCE = torch.zeros_like(CLEAN)
CLICK = torch.zeros_like(CLEAN)
CLICK[:, 100] = 0.5
BOTH = pytest.mark.parametrize("loss", [stoi, estoi])


def mix(ratio: float) -> torch.Tensor:
    """The clean golden signal with noise at that many decibels."""
    return CLEAN + NOISE * (CLEAN.norm() / NOISE.norm() * 10 ** (-ratio / 20))


def metric(estimate, clean, loss, rate=16000) -> torch.Tensor:
    pairs = zip(estimate.double().numpy(), clean.double().numpy(), strict=True)
    values = [pystoi.stoi(target, signal, rate, extended=loss is estoi) for signal, target in pairs]
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean clips of 1.6 seconds of recorded speech, (6, 25600)."""
    pairs = [(noisy[:25600], clean[:25600]) for noisy, clean in mixtures("matched", 12) if len(clean) >= 25600]
    noisy, clean = (torch.from_numpy(np.stack(signals)).float() for signals in zip(*pairs[:6], strict=True))
    return noisy, clean


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (ESTIMATE, (0.801675, 0.158650)),
        (mix(20), (0.959809, 0.479225)),
        (mix(10), (0.897913, 0.255603)),
        (mix(0), (0.639414, 0.092531)),
        (mix(-5), (0.440931, 0.047150)),
    ],
    ids=["e", "20 dB", "10 dB", "0 dB", "-5 dB"],
)
def test_three_seconds_give_the_golden_values(estimate, expected):
    for loss, value in zip((stoi, estoi), expected, strict=True):
        assert 1 - loss(estimate, CLEAN).item() == pytest.approx(value, abs=3e-6)
        assert 1 - loss(estimate.float(), CLEAN.float()).item() == pytest.approx(value, abs=1e-5)


@BOTH
@pytest.mark.parametrize("rate", [16000, 10000, 8000])
def test_recorded_speech_has_the_value_of_pystoi(real, loss, rate):
    noisy, clean = real
    for estimate in (noisy, clean + 0.2 * (noisy - clean), noisy - clean):
        expected = metric(estimate, clean, loss, rate)
        torch.testing.assert_close(
            1 - loss(estimate.double(), clean.double(), sample_rate=rate), expected, rtol=0, atol=1e-5
        )
        torch.testing.assert_close(1 - loss(estimate, clean, sample_rate=rate).double(), expected, rtol=0, atol=1e-5)


@BOTH
def test_without_dropping_silence_it_is_pystoi_without_dropping_silence(real, loss, monkeypatch):
    monkeypatch.setattr(sys.modules["pystoi.stoi"].utils, "remove_silent_frames", lambda x, y, *_: (x, y))
    noisy, clean = real
    torch.testing.assert_close(
        1 - loss(noisy.double(), clean.double(), vad=False), metric(noisy, clean, loss), rtol=0, atol=1e-5
    )


@BOTH
def test_the_input_is_resampled_as_pystoi_does(real, loss):
    noisy = real[0].double()
    for rate in (16000, 8000):
        expected = pystoi.utils.resample_oct(noisy[0].numpy(), 10000, rate)
        ours = third_octaves.resample(noisy[:1], rate)[0, : len(expected)]
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("gain", [1e-4, 0.1, -1.0, 1e4])
def test_level_and_sign_change_nothing(loss, gain):
    expected = loss(ESTIMATE, CLEAN)
    torch.testing.assert_close(loss(gain * ESTIMATE, CLEAN), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        loss(gain * ESTIMATE.float(), gain * CLEAN.float()).double(), expected, rtol=0, atol=1e-5
    )


@BOTH
def test_turning_all_phases_by_a_quarter_costs_next_to_nothing(loss):
    turned = torch.from_numpy(hilbert(CLEAN.numpy()).imag.copy())
    assert 0 <= loss(turned, CLEAN).item() < 1e-3


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perfect_estimate_has_the_minimum_and_no_gradient(loss, dtype):
    value, slope = value_and_gradient(loss, CLEAN.to(dtype), CLEAN.to(dtype))
    assert value == pytest.approx(0, abs=1e-6)
    assert slope < 1e-3


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("estimate", "clean"),
    [
        (ESTIMATE, SILENCE),
        (SILENCE, CLEAN),
        (SILENCE, SILENCE),
        (ESTIMATE[:, :5000], CLEAN[:, :5000]),
        (ESTIMATE[:, :100], CLEAN[:, :100]),
        (ESTIMATE[:, :1], CLEAN[:, :1]),
    ],
    ids=["silent target", "silent estimate", "both silent", "25 frames", "shorter than a window", "one sample"],
)
def test_what_cannot_be_judged_is_1_without_a_gradient(loss, estimate, clean, dtype):
    value, slope = value_and_gradient(loss, estimate.to(dtype), clean.to(dtype))
    assert value == pytest.approx(1, abs=1e-6)
    assert slope == 0


GATED = ESTIMATE.clone()
GATED[:, 16000:24000] = 0


@BOTH
@pytest.mark.parametrize("gain", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(
    ("estimate", "clean"),
    [
        (CLICK, CLEAN),
        (ESTIMATE, CLICK),
        (torch.full_like(CLEAN, 0.3), CLEAN),
        (ESTIMATE, torch.full_like(CLEAN, 0.3)),
        (GATED, CLEAN),
        (GATED + 1e-7 * NOISE, CLEAN),
    ],
    ids=["click", "click to estimate", "offset", "offset to estimate", "gated", "all but gated"],
)
def test_value_and_gradient_are_finite_at_any_level(loss, gain, estimate, clean):
    value, slope = value_and_gradient(loss, gain * estimate.float(), gain * clean.float())
    assert math.isfinite(slope)
    assert 0 <= value <= 2


@BOTH
@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("length", [9000, 12801, 16000])
def test_a_clip_in_a_padded_batch_has_the_value_of_the_clip_alone(real, loss, vad, length):
    noisy, clean = (signal.double() for signal in real)
    alone = loss(noisy[:, :length], clean[:, :length], vad=vad)
    together = loss(noisy, clean, torch.full((6,), length), vad=vad)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    single = loss(noisy.float(), clean.float(), torch.full((6,), length), vad=vad)
    torch.testing.assert_close(
        single, loss(noisy[:, :length].float(), clean[:, :length].float(), vad=vad), rtol=0, atol=1e-6
    )


@BOTH
@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("distance", [1.0, 0.1])
def test_the_gradient_is_the_slope_along_a_line_of_one_second(real, loss, vad, distance):
    noisy, clean = (signal[:2, 8000:24000].double() for signal in real)
    estimate = clean + distance * (noisy - clean)
    direction = torch.randn(estimate.shape, generator=torch.Generator().manual_seed(0)).double() * noisy.std()
    estimate.requires_grad_()
    loss(estimate, clean, vad=vad).sum().backward()
    step = 1e-7  # few envelopes cross the clipping between both ends
    with torch.no_grad():
        up, down = (loss(estimate + sign * step * direction, clean, vad=vad).sum() for sign in (1, -1))
    assert (estimate.grad * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-4)


@BOTH
def test_items_have_their_own_gradients(real, loss):
    noisy, clean = (signal.double() for signal in real)
    lengths = torch.tensor([25600, 20000, 25600, 12000, 3000, 25600])
    weights = torch.tensor([1.0, -2, 3, 0.5, 4, 0])
    together = noisy.clone().requires_grad_()
    (weights * loss(together, clean, lengths)).sum().backward()
    for item, (length, weight) in enumerate(zip(lengths.tolist(), weights.tolist(), strict=True)):
        alone = noisy[item : item + 1, :length].clone().requires_grad_()
        (weight * loss(alone, clean[item : item + 1, :length])).sum().backward()
        torch.testing.assert_close(together.grad[item : item + 1, :length], alone.grad, rtol=1e-6, atol=1e-9)
        assert not together.grad[item, length:].any()


@BOTH
def test_one_broken_item_leaves_the_others_alone(real, loss):
    noisy, clean = real
    broken = noisy.clone()
    broken[1, 100] = torch.nan
    kept = [0, 2, 3, 4, 5]
    assert torch.equal(loss(broken, clean)[kept], loss(noisy, clean)[kept])


@BOTH
def test_the_target_has_no_graph_and_the_graph_can_be_walked_twice(loss):
    clean, estimate = CLEAN.clone().requires_grad_(), ESTIMATE.clone().requires_grad_()
    value = loss(estimate, clean).sum()
    once = torch.autograd.grad(value, estimate, retain_graph=True)[0]
    assert torch.equal(once, torch.autograd.grad(value, estimate, retain_graph=True)[0])
    assert torch.autograd.grad(value, clean, allow_unused=True) == (None,)


def test_every_frame_gets_the_slope_of_all_segments_that_hold_it():
    generator = torch.Generator().manual_seed(0)
    y, x = (torch.rand(2, 15, 40, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    for measure in (intelligibility._Correlation, intelligibility._SpectralCorrelation):
        assert torch.autograd.gradcheck(lambda y, measure=measure: measure.apply(y, x), y.requires_grad_())
