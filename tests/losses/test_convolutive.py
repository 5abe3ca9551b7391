import math

import numpy as np
import pytest
import torch
from scipy.signal import hilbert

from harness.losses import ci_sdr, si_sdr
from tests.real import mixtures

from .signals import CLEAN, ESTIMATE, NOISY, value_and_gradient

UNGUARDED = {"max_db": math.inf, "eps": 0.0, "load": 0.0}
NOISE = NOISY - CLEAN
SILENCE = torch.zeros_like(CLEAN)
CLICK = torch.zeros_like(CLEAN)
CLICK[:, 100] = 0.5


def quality(estimate, clean=CLEAN, **settings) -> float:
    return -ci_sdr(estimate, clean, **(UNGUARDED | settings)).item()


def decaying(taps: int) -> np.ndarray:
    response = np.random.RandomState(taps).standard_normal(taps) * np.exp(-np.arange(taps) / (taps / 4 + 1))
    response[0] = 1
    return response


def filtered(signal: torch.Tensor, taps: int) -> torch.Tensor:
    """Through a decaying random filter, cut to the length of the signal."""
    rows = [np.convolve(row, decaying(taps))[: signal.shape[-1]] for row in signal.numpy()]
    return torch.from_numpy(np.stack(rows))


def direct(estimate, clean, taps=512, load=1e-6, eps=1e-10, max_db=30.0) -> torch.Tensor:
    """The definition: normal equations written out and solved by Cholesky in float64, value from the residual."""
    estimate, clean = estimate.double(), clean.double()
    size = 1 << (clean.shape[-1] + taps).bit_length()
    spectrum = torch.fft.rfft(clean, n=size)
    correlation = torch.fft.irfft(spectrum.abs().square(), n=size)[:, :taps]
    cross = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(estimate, n=size), n=size)[:, :taps]
    floor = eps * clean.shape[-1]
    correlation[:, 0] += load * correlation[:, 0] + floor
    cross[:, 0] += floor
    place = torch.arange(taps)
    matrix = correlation[:, (place[:, None] - place).abs()]
    weights = torch.cholesky_solve(cross[..., None], torch.linalg.cholesky(matrix))[..., 0]
    projected = torch.fft.irfft(torch.fft.rfft(weights, n=size) * spectrum, n=size)
    error = projected - torch.nn.functional.pad(estimate, (0, size - clean.shape[-1]))
    target, error = projected.square().sum(-1), error.square().sum(-1)
    return -10 * torch.log10((target + floor) / (error + 10 ** (-max_db / 10) * target + floor))


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean clips of two seconds of recorded speech, (4, 32000)."""
    pairs = [(noisy[8000:40000], clean[8000:40000]) for noisy, clean in mixtures("matched", 12) if len(clean) >= 40000]
    noisy, clean = (torch.from_numpy(np.stack(signals)).float() for signals in zip(*pairs[:4], strict=True))
    return noisy, clean


@pytest.mark.parametrize(("taps", "expected"), [(1, -4.992816), (2, -4.992844), (32, -4.996232), (512, -5.046873)])
def test_three_seconds_give_the_golden_values(taps, expected):
    assert -quality(ESTIMATE, filter_length=taps) == pytest.approx(expected, abs=1e-6)
    single = ci_sdr(ESTIMATE.float(), CLEAN.float(), filter_length=taps, **UNGUARDED)
    assert single.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("max_db", [30.0, 50.0])
@pytest.mark.parametrize("distance", [1.0, 0.1, 0.01, 0.0])
def test_single_precision_on_speech_equals_the_definition(real, distance, max_db):
    noisy, clean = real
    estimate = clean + distance * (noisy - clean)
    expected = direct(estimate, clean, max_db=max_db)
    torch.testing.assert_close(ci_sdr(estimate, clean, max_db=max_db).double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(ci_sdr(estimate.double(), clean.double(), max_db=max_db), expected, rtol=0, atol=1e-4)


def test_speech_from_a_narrow_band_recording_is_solved_too(real):
    noisy, clean = real
    telephone = torch.fft.irfft(torch.fft.rfft(clean) * (torch.arange(16001) < 8000), n=32000)
    torch.testing.assert_close(ci_sdr(noisy, telephone).double(), direct(noisy, telephone), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (torch.from_numpy(hilbert(CLEAN.numpy()).imag.copy()), 15.4),
        (CLEAN + 0.05, 8.62),
        (torch.roll(CLEAN, 5, -1), 51.1),
        (torch.roll(CLEAN, -5, -1), 7.34),
        (torch.roll(CLEAN, 160, -1), 23.6),
        (filtered(CLEAN, 8), 51.6),
        (filtered(CLEAN, 128), 32.9),
        (filtered(CLEAN, 512), 28.3),
        (NOISE * CLEAN.norm() / NOISE.norm(), -20.2),
        (NOISY, 5.05),
    ],
    ids=["Hilbert", "offset", "late", "early", "160 late", "8 taps", "128 taps", "512 taps", "noise", "5 dB"],
)
def test_what_is_done_to_the_target_costs_what_the_definition_says(estimate, expected):
    assert quality(estimate) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("gain", [1.0, -1.0, 0.1])
def test_gain_and_sign_cost_nothing(gain):
    assert quality(gain * CLEAN) > 250


@pytest.mark.parametrize("taps", [8, 128, 512])
def test_a_filter_shorter_than_the_allowed_one_costs_nothing_but_its_tail(taps):
    ending = torch.nn.functional.pad(CLEAN, (0, 600))
    assert quality(filtered(ending, taps), ending) > 200
    noise = torch.nn.functional.pad(NOISE, (0, 600))
    reverberant = filtered(ending, taps)
    noise = noise * reverberant.norm() / noise.norm() * 10**-0.5
    assert quality(reverberant + noise, ending) == pytest.approx(10, abs=0.1)


CORNERS = {
    "silent target": (ESTIMATE, SILENCE),
    "silent estimate": (SILENCE, CLEAN),
    "both silent": (SILENCE, SILENCE),
    "perfect": (CLEAN, CLEAN),
    "inverted": (-CLEAN, CLEAN),
    "click": (CLICK, CLEAN),
}


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_one_tap_corner_cases_are_those_of_si_sdr(name, dtype):
    estimate, clean = (signal.to(dtype) for signal in CORNERS[name])
    value, slope = value_and_gradient(ci_sdr, estimate, clean, filter_length=1, load=0.0)
    expected_value, expected_slope = value_and_gradient(si_sdr, estimate, clean, zero_mean=False)
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-4)
    assert slope == pytest.approx(expected_slope, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("silent target", 81.84), ("silent estimate", 0), ("both silent", 0), ("perfect", -30), ("inverted", -30)],
)
def test_corner_cases_have_known_values_and_small_gradients(name, expected):
    value, slope = value_and_gradient(ci_sdr, *(signal.float() for signal in CORNERS[name]))
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert slope < 5
    assert (slope > 0.2) == name.startswith("silent")  # so that a silent estimate learns to speak


@pytest.mark.parametrize("gain", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("name", ["estimate", *CORNERS])
def test_value_and_gradient_are_finite_at_any_level(name, gain):
    estimate, clean = (gain * signal.float() for signal in CORNERS.get(name, (ESTIMATE, CLEAN)))
    assert all(map(math.isfinite, value_and_gradient(ci_sdr, estimate, clean)))


def test_zeros_behind_a_clip_change_nothing(real):
    noisy, clean = real
    alone = ci_sdr(noisy[:, :9000], clean[:, :9000])
    padded = torch.nn.functional.pad(noisy[:, :9000], (0, 5000), value=3.0)
    together = ci_sdr(padded, torch.nn.functional.pad(clean[:, :9000], (0, 5000)), torch.full((4,), 9000))
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("case", ["speech", "far off", "near", "quiet"])
def test_the_gradient_is_the_slope_along_a_line_of_one_second(real, case):
    noisy, clean = (signal[:1, :16000].double() for signal in real)
    estimate = {"speech": noisy, "far off": noisy - clean, "near": clean + 0.03 * noisy, "quiet": 1e-4 * noisy}[case]
    direction = estimate.abs().mean() * torch.randn(estimate.shape, generator=torch.Generator().manual_seed(0)).double()
    estimate.requires_grad_()
    ci_sdr(estimate, clean).sum().backward()
    step = 1e-4
    with torch.no_grad():
        up, down = (ci_sdr(estimate + sign * step * direction, clean).sum() for sign in (1, -1))
    assert (estimate.grad * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-3)


def test_one_broken_item_leaves_the_others_alone(real):
    noisy, clean = real
    broken = noisy.clone()
    broken[1, 100] = torch.nan
    kept = [0, 2, 3]
    assert torch.equal(ci_sdr(broken, clean)[kept], ci_sdr(noisy, clean)[kept])
    assert ci_sdr(broken, clean)[1].isnan()


def test_the_target_has_no_graph():
    clean = CLEAN.clone().requires_grad_()
    estimate = ESTIMATE.clone().requires_grad_()
    ci_sdr(estimate, clean).sum().backward()
    assert clean.grad is None
