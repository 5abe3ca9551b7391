import math

import pytest
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_noise_ratio,
    source_aggregated_signal_distortion_ratio,
)

from harness.losses import l1, log_mse, mse, sa_sdr, sdr, si_sdr, snr

from .signals import CLEAN, ESTIMATE, NOISY, TINY_CLEAN, TINY_ESTIMATE, value_and_gradient

UNGUARDED = {"max_db": math.inf, "eps": 0.0}
SILENCE = torch.zeros_like(CLEAN)
CLICK = torch.zeros_like(CLEAN)
CLICK[:, 100] = 0.5


def close(value, expected, tolerance=1e-6):
    torch.testing.assert_close(value, torch.tensor(expected, dtype=value.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (l1, {}, [1, 1.666667]),
        (mse, {}, [1, 8.333333]),
        (log_mse, UNGUARDED, [0, 9.208188]),
        (snr, UNGUARDED, [-9.852767, -3.180633]),
        (snr, {"max_db": 20, "eps": 0}, [-9.452021, -3.091227]),
        (snr, {"max_db": 30, "eps": 0}, [-9.810987, -3.171609]),
        (si_sdr, {"zero_mean": False, **UNGUARDED}, [-18.239087, -3.180633]),
    ],
)
def test_the_tiny_pair_gives_the_published_values(loss, settings, expected):
    close(loss(TINY_ESTIMATE, TINY_CLEAN, **settings), expected)


def test_si_sdr_without_mean_has_no_error_left_on_a_shifted_ramp():
    value = si_sdr(TINY_ESTIMATE, TINY_CLEAN, zero_mean=True, **UNGUARDED)
    assert value[0] < -250  # minus infinity but for rounding
    close(value[1], 9.208188)


def test_sa_sdr_of_the_tiny_pair_as_two_sources():
    close(sa_sdr(TINY_ESTIMATE[None], TINY_CLEAN[None], **UNGUARDED), [-4.613270])


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (l1, {}, 0.05283719),
        (mse, {}, 4.41040055e-3),
        (log_mse, UNGUARDED, -23.555220),
        (snr, UNGUARDED, -6.150185),
        (snr, {"max_db": 30, "eps": 0}, -6.132324),
        (snr, {"max_db": 20, "eps": 0}, -5.974795),
        (si_sdr, {"zero_mean": False, **UNGUARDED}, -4.992816),
        (si_sdr, {"zero_mean": True, **UNGUARDED}, -4.992848),
    ],
)
def test_three_seconds_give_the_golden_values(loss, settings, expected):
    close(loss(ESTIMATE, CLEAN, **settings), [expected])


def test_sa_sdr_of_speech_and_noise_gives_the_golden_value():
    estimates, sources = torch.stack([ESTIMATE, NOISY - ESTIMATE], 1), torch.stack([CLEAN, NOISY - CLEAN], 1)
    close(sa_sdr(estimates, sources, **UNGUARDED), [-4.333195])


def test_the_speech_like_signal_is_the_one_the_values_were_made_with():
    close(CLEAN[0, 1000:1003], [-0.14076001, -0.15319421, -0.13984055], 1e-7)
    close(CLEAN.square().sum(), 872.444398)


CORNERS = {  # loss: value and gradient norm, with the guards, for each row of `corner`
    "snr": [(-6.1323, 0.595), (81.84, 0.321), (0.0043, 0.294), (0, 0), (-30, 0), (6.0217, 0.147), (0.0064, 0.294)],
    "si_sdr": [(-4.9791, 0.748), (81.84, 0.321), (0, 0.294), (0, 0), (-30, 2e-6), (-30, 2e-6), (42.92, 1.9e3)],
    "log_mse": [
        (-23.5374, 0.595),
        (-18.16, 0.321),
        (-17.40, 0.294),
        (-100, 0),
        (-47.41, 0),
        (-11.38, 0.147),
        (-17.40, 0.294),
    ],
    "sa_sdr": [
        (-4.3214, 0.595),
        (1.0755, 0.320),
        (1.8198, 0.294),
        (-30, 0),
        (-30, 0),
        (7.8383, 0.147),
        (1.8219, 0.294),
    ],
}
CORNER_NAMES = ["estimate", "silent target", "silent estimate", "both silent", "perfect", "inverted", "click"]


def corner(name):
    estimate = {
        "silent estimate": SILENCE,
        "both silent": SILENCE,
        "perfect": CLEAN,
        "inverted": -CLEAN,
        "click": CLICK,
    }
    return estimate.get(name, ESTIMATE), SILENCE if name in ("silent target", "both silent") else CLEAN


@pytest.mark.parametrize("name", CORNER_NAMES)
@pytest.mark.parametrize("loss", CORNERS)
def test_corner_cases_have_the_known_value_and_gradient(loss, name):
    estimate, clean = corner(name)
    if loss == "sa_sdr":  # the second source is the noise, what is left of the mixture
        value, gradient = value_and_gradient(
            lambda e: sa_sdr(torch.stack([e, NOISY - e], 1), torch.stack([clean, NOISY - clean], 1)), estimate
        )
    else:
        settings = {"zero_mean": False} if loss == "si_sdr" else {}
        value, gradient = value_and_gradient(
            {"snr": snr, "si_sdr": si_sdr, "log_mse": log_mse}[loss], estimate, clean, **settings
        )
    expected_value, expected_gradient = CORNERS[loss][CORNER_NAMES.index(name)]
    assert value == pytest.approx(expected_value, rel=1e-3, abs=1e-4)
    # Values are printed with two digits where they are 2e-6 or 1.9e3.
    assert gradient == pytest.approx(expected_gradient, rel=5e-3 if expected_gradient < 1 else 0.03, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [(snr, {}, -7.9317), (si_sdr, {"zero_mean": False}, -30.0), (log_mse, {}, -13.9523)],
)
def test_one_sample_has_the_known_value(loss, settings, expected):
    close(
        loss(torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64), **settings),
        [expected],
        1e-4,
    )


@pytest.mark.parametrize("loss", [snr, si_sdr])
def test_a_perfect_estimate_is_exactly_at_the_ceiling(loss):
    close(loss(CLEAN, CLEAN, max_db=20, eps=0.0), [-20.0], 1e-12)
    close(sa_sdr(CLEAN[None], CLEAN[None], max_db=20, eps=0.0), [-20.0], 1e-12)


def test_torchmetrics_agrees():
    ours = si_sdr(ESTIMATE, CLEAN, zero_mean=True, **UNGUARDED)
    torch.testing.assert_close(-ours, scale_invariant_signal_distortion_ratio(ESTIMATE, CLEAN, zero_mean=True))
    torch.testing.assert_close(-snr(ESTIMATE, CLEAN, **UNGUARDED), signal_noise_ratio(ESTIMATE, CLEAN))
    estimates, sources = torch.stack([ESTIMATE, NOISY - ESTIMATE], 1), torch.stack([CLEAN, NOISY - CLEAN], 1)
    theirs = source_aggregated_signal_distortion_ratio(estimates, sources, scale_invariant=False)
    torch.testing.assert_close(-sa_sdr(estimates, sources, **UNGUARDED), theirs)


def gradient(loss, estimate, **settings):
    estimate = estimate.clone().requires_grad_()
    loss(estimate, CLEAN, **settings).sum().backward()
    return estimate.grad.flatten()


def test_log_mse_and_snr_have_the_same_gradient():
    cosine = torch.cosine_similarity(
        gradient(log_mse, ESTIMATE, **UNGUARDED), gradient(snr, ESTIMATE, **UNGUARDED), dim=0
    )
    assert cosine > 1 - 1e-10


def test_si_sdr_forgives_gain_and_snr_does_not():
    for gain in (0.1, 0.5, 3.0, 10.0):
        close(si_sdr(gain * ESTIMATE, CLEAN), si_sdr(ESTIMATE, CLEAN).tolist(), 1e-4)
    assert snr(0.1 * ESTIMATE, CLEAN) > snr(ESTIMATE, CLEAN) + 3


def test_a_constant_offset_counts_unless_means_are_removed():
    offset = CLEAN + 0.05
    close(-si_sdr(offset, CLEAN, zero_mean=False, **UNGUARDED), [8.62], 1e-3)
    close(-snr(offset, CLEAN, **UNGUARDED), [8.62], 1e-3)
    assert si_sdr(offset, CLEAN, zero_mean=True, **UNGUARDED) < -200
    assert snr(offset, CLEAN, zero_mean=True, **UNGUARDED) < -200


def test_a_silent_source_among_two_leaves_sa_sdr_as_it_was():
    speech = CLEAN + (NOISY - CLEAN)  # 5 dB
    leak = 1e-3 * torch.roll(CLEAN, 7000, -1)
    value, slope = value_and_gradient(
        lambda e: sa_sdr(torch.stack([e, leak], 1), torch.stack([CLEAN, SILENCE], 1)), speech
    )
    assert value == pytest.approx(-5, abs=0.1)
    assert 0 < slope < 10


@pytest.mark.parametrize("loss", [snr, si_sdr, log_mse, sa_sdr])
def test_the_floor_does_not_depend_on_the_length_of_the_clip(loss):
    hum = 1e-5 * torch.sin(torch.arange(600, dtype=torch.float64) * torch.pi / 100).repeat(1, 1, 1)
    once = hum if loss is sa_sdr else hum[0]
    for target in (0.0, 0.5):
        long = torch.cat([once, once, once], -1)
        close(loss(long, target * long), loss(once, target * once).tolist(), 1e-9)


def test_si_sdr_stays_exact_in_float32_near_its_ceiling():
    noise = torch.roll(CLEAN, 11111, -1)
    estimate = CLEAN + 10 ** (-40 / 20) * noise
    exact = si_sdr(estimate, CLEAN, max_db=50)
    assert exact < -38
    close(si_sdr(estimate.float(), CLEAN.float(), max_db=50), exact.tolist(), 1e-4)


def test_lengths_hide_whatever_the_padding_holds():
    estimate, clean = torch.randn(2, 2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.tensor([60, 100])
    garbage = estimate.clone()
    garbage[0, 60:] = torch.nan
    for loss in (l1, mse, log_mse, snr, si_sdr):
        torch.testing.assert_close(loss(garbage, clean, lengths)[:1], loss(estimate[:1, :60], clean[:1, :60]))


def test_sdr_is_another_name_of_snr():
    assert sdr is snr
