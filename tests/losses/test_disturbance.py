import math

import numpy as np
import pytest
import torch
from scipy.signal import hilbert

from harness.losses import disturbance, pmsqe
from harness.losses.bark import bark
from tests.real import mixtures

from .signals import CLEAN, ESTIMATE, NOISY, value_and_gradient

NOISE = NOISY - CLEAN
SILENCE = torch.zeros_like(CLEAN)
CLICK = torch.zeros_like(CLEAN)
CLICK[:, 100] = 0.5
TABLES = {rate: bark(rate, torch.device("cpu"), torch.float64) for rate in (16000, 8000)}


def mix(ratio: float) -> torch.Tensor:
    return CLEAN + NOISE * (CLEAN.norm() / NOISE.norm() * 10 ** (-ratio / 20))


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean clips of 1.6 seconds of recorded speech, (6, 25600)."""
    pairs = [(noisy[:25600], clean[:25600]) for noisy, clean in mixtures("matched", 12) if len(clean) >= 25600]
    noisy, clean = (torch.from_numpy(np.stack(signals)).float() for signals in zip(*pairs[:6], strict=True))
    return noisy, clean


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (CLEAN, 0.000295),
        (-CLEAN, 0.000295),
        (0.1 * CLEAN, 0.000295),
        (10 * CLEAN, 0.000295),
        (torch.from_numpy(hilbert(CLEAN.numpy()).imag.copy()), 0.011766),
        (CLEAN + 0.95 * torch.nn.functional.pad(CLEAN, (1, -1)), 0.000504),
        (mix(30), 0.783147),
        (mix(20), 1.037663),
        (mix(10), 1.573599),
        (mix(5), 1.993665),
        (ESTIMATE, 1.993665),
        (mix(0), 2.433672),
        (mix(-5), 2.771709),
        (torch.roll(CLEAN, 5, -1), 0.0050),
        (torch.roll(CLEAN, 160, -1), 0.186),
        (CLEAN + 0.05, 1.536),
    ],
    ids=[
        *(
            "clean",
            "inverted",
            ".1",
            "10",
            "Hilbert",
            "filtered",
            "30 dB",
            "20 dB",
            "10 dB",
            "5 dB",
            "e",
            "0 dB",
            "-5 dB",
        ),
        *("late", "later", "offset"),
    ],
)
def test_three_seconds_give_the_golden_values(estimate, expected):
    tolerance = 1e-6 if round(expected, 4) != expected else 5e-4
    assert pmsqe(estimate, CLEAN).item() == pytest.approx(expected, abs=tolerance)
    assert pmsqe(estimate.float(), CLEAN.float()).item() == pytest.approx(expected, abs=max(1e-5, tolerance))


def test_the_bark_spectrum_is_the_one_of_the_reference():
    valid, count = torch.ones(1, 186, 1, dtype=torch.bool), torch.tensor([186])
    power = disturbance._power(CLEAN, TABLES[16000], 186)
    spectrum = power[..., :-1] * disturbance._level_gain(power, valid, count, 0.0)
    assert (disturbance._audible(spectrum, TABLES[16000], 100) >= 1e7).sum() == 141
    expected = [27749315.2, 416129269.8, 69536906.3, 62144.38]
    assert spectrum[0, 50, [5, 10, 20, 40]].tolist() == pytest.approx(expected, rel=2e-6)


def test_the_tables_add_up():
    wide, narrow = TABLES[16000], TABLES[8000]
    assert (len(wide.width), len(narrow.width)) == (49, 42)
    assert wide.width.sum().item() == pytest.approx(21.335652, abs=1e-6)
    assert wide.exponent[:5].tolist() == pytest.approx([0.255201] * 4 + [0.251688], abs=1e-6)
    assert wide.exponent[[11, 12, 48]].tolist() == pytest.approx([0.231622, 0.23, 0.23], abs=1e-6)
    for tables, bins in ((wide, 256), (narrow, 128)):
        spread = torch.block_diag(tables.low.weights[:, :-1], tables.high.weights[:, :-1])
        assert spread.shape == (bins, len(tables.width))
        assert ((spread > 0).sum(1) == 1).all()  # every bin belongs to one band
        speech = torch.cat([tables.low.weights[:, -1], tables.high.weights[:, -1]])
        assert speech.nonzero().flatten().tolist() == list(range(11, 105))
    assert (wide.high.weights[:, -2] > 0).sum() == 20
    assert (narrow.high.weights[:, -2] > 0).sum() == 11


def test_the_level_is_the_mean_square_of_the_telephone_band():
    tone = 0.1 * torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000, dtype=torch.float64))[None]
    for rate, signal in ((16000, tone), (8000, tone[:, ::2])):
        tables = TABLES[rate]
        level = disturbance._power(signal, tables, 40)[..., -1].mean()
        assert level.item() == pytest.approx(0.005, rel=0.01)


def test_noise_costs_what_power_spectra_say_and_not_what_magnitudes_say():
    assert pmsqe(mix(0), CLEAN).item() > 1.8
    for rate in (16000, 8000):
        values = [pmsqe(mix(ratio), CLEAN, sample_rate=rate).item() for ratio in (30, 20, 10, 5, 0, -5)]
        assert values == sorted(values)


def test_a_narrow_band_judges_what_it_holds():
    low = torch.fft.irfft(torch.fft.rfft(CLEAN) * (torch.arange(24001) < 11000))[:, ::2]
    noisy = torch.fft.irfft(torch.fft.rfft(mix(10)) * (torch.arange(24001) < 11000))[:, ::2]
    assert pmsqe(low, low, sample_rate=8000).item() < 1e-3
    assert pmsqe(noisy, low, sample_rate=8000).item() == pytest.approx(1.5, abs=0.4)


def test_each_equaliser_forgives_what_it_is_for():
    tilted = CLEAN + 0.95 * torch.nn.functional.pad(CLEAN, (1, -1))
    assert pmsqe(tilted, CLEAN, frequency_equalisation=False) > 10 * pmsqe(tilted, CLEAN)
    wave = 1 + 0.5 * torch.sin(2 * torch.pi * torch.arange(48000, dtype=torch.float64) / 16000)
    assert pmsqe(wave * CLEAN, CLEAN, gain_equalisation=False) > 3 * pmsqe(wave * CLEAN, CLEAN)


CORNERS = {  # value and gradient
    "silent target": (ESTIMATE, SILENCE, 3.1605, 0.060),
    "silent estimate": (SILENCE, CLEAN, 3.4245, 0.0),
    "both silent": (SILENCE, SILENCE, 0.0004, 0.0),
    "click": (CLICK, CLEAN, 3.4200, 0.137),
}


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corner_cases_have_the_known_value_and_gradient(name, dtype):
    estimate, clean, expected_value, expected_slope = CORNERS[name]
    value, slope = value_and_gradient(pmsqe, estimate.to(dtype), clean.to(dtype))
    assert value == pytest.approx(expected_value, abs=1e-4)
    assert slope == pytest.approx(expected_slope, abs=1e-3)


@pytest.mark.parametrize("gain", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("name", ["estimate", "perfect", "offset", "short", "one sample", *CORNERS])
def test_value_and_gradient_are_finite_at_any_level(name, gain):
    estimate, clean = CORNERS.get(name, (ESTIMATE, CLEAN))[:2]
    if name in ("short", "one sample"):
        length = 300 if name == "short" else 1
        estimate, clean = ESTIMATE[:, 1000 : 1000 + length], CLEAN[:, 1000 : 1000 + length]
    elif name in ("perfect", "offset"):
        estimate = CLEAN if name == "perfect" else torch.full_like(CLEAN, 0.3)
    for pair in ((estimate, clean), (clean, estimate)):
        value, slope = value_and_gradient(pmsqe, *(gain * signal.float() for signal in pair))
        assert 0 <= value < 8
        assert math.isfinite(slope)


@pytest.mark.parametrize("length", [1, 300, 512, 700, 12801])
def test_a_clip_in_a_padded_batch_has_the_value_of_the_clip_alone(real, length):
    noisy, clean = (signal.double() for signal in real)
    alone = pmsqe(noisy[:, :length], clean[:, :length])
    garbage = noisy.clone()
    garbage[:, length:] = 3
    torch.testing.assert_close(pmsqe(garbage, clean, torch.full((6,), length)), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"frequency_equalisation": False, "gain_equalisation": False}, {"sample_rate": 8000}]
)
@pytest.mark.parametrize("distance", [1.0, 0.2])
def test_the_gradient_is_the_slope_along_a_line_of_one_second(real, settings, distance):
    noisy, clean = (signal[:2, 8000:24000].double() for signal in real)
    estimate = clean + distance * (noisy - clean)
    direction = torch.randn(estimate.shape, generator=torch.Generator().manual_seed(0)).double() * noisy.std()
    estimate.requires_grad_()
    pmsqe(estimate, clean, **settings).sum().backward()
    step = 1e-8  # few cells cross a threshold between both ends
    with torch.no_grad():
        up, down = (pmsqe(estimate + sign * step * direction, clean, **settings).sum() for sign in (1, -1))
    assert (estimate.grad * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3)


def test_single_precision_on_speech_is_as_good_as_double(real):
    noisy, clean = real
    torch.testing.assert_close(pmsqe(noisy, clean).double(), pmsqe(noisy.double(), clean.double()), rtol=0, atol=1e-5)


def test_one_broken_item_leaves_the_others_alone(real):
    noisy, clean = real
    broken = noisy.clone()
    broken[1, 100] = torch.nan
    kept = [0, 2, 3, 4, 5]
    assert torch.equal(pmsqe(broken, clean)[kept], pmsqe(noisy, clean)[kept])


def test_the_target_has_no_graph():
    clean, estimate = CLEAN.clone().requires_grad_(), ESTIMATE.clone().requires_grad_()
    pmsqe(estimate, clean).sum().backward()
    assert clean.grad is None
