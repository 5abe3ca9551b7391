import math

import pytest
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_noise_ratio,
    source_aggregated_signal_distortion_ratio,
)

from harness.losses import sa_sdr, sd_sdr, sdr, si_sdr, snr, wsdr

from .signals import (
    CLEAN,
    ESTIMATE,
    NOISY,
    SILENCE,
    TINY_CLEAN,
    TINY_ESTIMATE,
    altered,
    close,
    corner,
    value_and_gradient,
)

UNGUARDED = {"max_db": math.inf, "eps": 0.0}


def pair(estimate, clean, noisy=NOISY):
    """Estimates and sources of sa_sdr: the second source is the noise, what is left of the mixture."""
    return torch.stack([estimate, noisy - estimate], 1), torch.stack([clean, noisy - clean], 1)


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=-1)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (snr, UNGUARDED, [-9.852767, -3.180633]),
        (snr, {"max_db": 20, "eps": 0}, [-9.452021, -3.091227]),
        (snr, {"max_db": 30, "eps": 0}, [-9.810987, -3.171609]),
        (si_sdr, {"zero_mean": False, **UNGUARDED}, [-18.239087, -3.180633]),
        (sd_sdr, {"zero_mean": False, **UNGUARDED}, [-6.625407, -3.180633]),
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


def test_wsdr_of_the_tiny_pair():
    noisy = torch.tensor([[3.0, 3, 3], [5, 4, 5]], dtype=torch.float64)
    close(wsdr(TINY_ESTIMATE, TINY_CLEAN, noisy, eps=0.0), [-0.969349, -0.540481])


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (snr, UNGUARDED, -6.150185),
        (snr, {"max_db": 30, "eps": 0}, -6.132324),
        (snr, {"max_db": 20, "eps": 0}, -5.974795),
        (si_sdr, {"zero_mean": False, **UNGUARDED}, -4.992816),
        (si_sdr, {"zero_mean": True, **UNGUARDED}, -4.992848),
        (sd_sdr, {"zero_mean": False, **UNGUARDED}, -4.204791),
    ],
)
def test_three_seconds_give_the_golden_values(loss, settings, expected):
    close(loss(ESTIMATE, CLEAN, **settings), [expected])


def test_sa_sdr_of_speech_and_noise_gives_the_golden_value():
    close(sa_sdr(*pair(ESTIMATE, CLEAN), **UNGUARDED), [-4.333195])


def test_wsdr_of_three_seconds_gives_the_golden_values():
    close(wsdr(ESTIMATE, CLEAN, NOISY, eps=0.0), [-0.77961725], 1e-8)
    close(wsdr(NOISY, CLEAN, NOISY, eps=1e-12), [-0.66209007], 1e-6)  # nothing is left of the mixture: 0/0 without eps


def test_the_speech_like_signal_is_the_one_the_values_were_made_with():
    close(CLEAN[0, 1000:1003], [-0.14076001, -0.15319421, -0.13984055], 1e-7)
    close(CLEAN.square().sum(), 872.444398)


CORNERS = {  # loss: value and gradient norm, with the guards, for each case
    "snr": [(-6.1323, 0.595), (81.84, 0.321), (0.0043, 0.294), (0, 0), (-30, 0), (6.0217, 0.147), (0.0064, 0.294)],
    "si_sdr": [(-4.9791, 0.748), (81.84, 0.321), (0, 0.294), (0, 0), (-30, 2e-6), (-30, 2e-6), (42.92, 1.9e3)],
    "sd_sdr": [(-4.1934, 0.817), (81.84, 0.321), (82.6, 0.588), (0, 0), (-30, 2e-6), (6.0217, 0.147), (78.35, 1.9e3)],
    "sa_sdr": [(-4.3214, 0.595), (1.0755, 0.32), (1.8198, 0.294), (-30, 0), (-30, 0), (7.8383, 0.147), (1.8219, 0.294)],
    "wsdr": [(-0.7796, 0.045), (-1, 2e-8), (-0.1175, 347), (-1, 0), (-1, 0), (0.6950, 0.004), (-0.1132, 1.5)],
}
CORNER_NAMES = ["estimate", "silent target", "silent estimate", "both silent", "perfect", "inverted", "click"]
CALLS = {
    "snr": snr,
    "si_sdr": lambda e, s: si_sdr(e, s, zero_mean=False),
    "sd_sdr": lambda e, s: sd_sdr(e, s, zero_mean=False),
    "sa_sdr": lambda e, s: sa_sdr(*pair(e, s)),
    "wsdr": lambda e, s: wsdr(e, s, NOISY),
}


@pytest.mark.parametrize("name", CORNER_NAMES)
@pytest.mark.parametrize("loss", CORNERS)
def test_corner_cases_have_the_known_value_and_gradient(loss, name):
    estimate, clean = corner(name)
    value, gradient = value_and_gradient(CALLS[loss], estimate, clean)
    expected_value, expected_gradient = CORNERS[loss][CORNER_NAMES.index(name)]
    assert value == pytest.approx(expected_value, rel=1e-3, abs=1e-4)
    # Gradients are printed with one digit where they are small and two where they are large.
    small, large = expected_gradient < 0.01, expected_gradient > 1
    assert gradient == pytest.approx(expected_gradient, rel=0.13 if small else 0.03 if large else 0.012, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [(snr, {}, -7.9317), (si_sdr, {"zero_mean": False}, -30.0), (sd_sdr, {"zero_mean": False}, -3.5121)],
)
def test_one_sample_has_the_known_value(loss, settings, expected):
    one = [torch.tensor([[sample]], dtype=torch.float64) for sample in (0.3, 0.5)]
    close(loss(*one, **settings), [expected], 1e-4)


@pytest.mark.parametrize("loss", [snr, si_sdr, sd_sdr])
def test_a_perfect_estimate_is_exactly_at_the_ceiling(loss):
    close(loss(CLEAN, CLEAN, max_db=20, eps=0.0), [-20.0], 1e-12)
    close(sa_sdr(CLEAN[None], CLEAN[None], max_db=20, eps=0.0), [-20.0], 1e-12)


def test_torchmetrics_agrees():
    ours = si_sdr(ESTIMATE, CLEAN, zero_mean=True, **UNGUARDED)
    torch.testing.assert_close(-ours, scale_invariant_signal_distortion_ratio(ESTIMATE, CLEAN, zero_mean=True))
    torch.testing.assert_close(-snr(ESTIMATE, CLEAN, **UNGUARDED), signal_noise_ratio(ESTIMATE, CLEAN))
    estimates, sources = pair(ESTIMATE, CLEAN)
    theirs = source_aggregated_signal_distortion_ratio(estimates, sources, scale_invariant=False)
    torch.testing.assert_close(-sa_sdr(estimates, sources, **UNGUARDED), theirs)


def test_wsdr_is_its_two_cosines_weighted_by_energy():
    noise = NOISY - CLEAN
    share = CLEAN.square().sum() / (CLEAN.square().sum() + noise.square().sum())
    expected = -share * cosine(CLEAN, ESTIMATE) - (1 - share) * cosine(noise, NOISY - ESTIMATE)
    torch.testing.assert_close(wsdr(ESTIMATE, CLEAN, NOISY, eps=0.0), expected)


# Qualities in dB of the clean signal altered in known ways: SNR, SI-SDR without removal of means, and wSDR.
FORGIVEN = {
    "hilbert": (-3.01, None, -0.088),
    "inverted": (-6.02, math.inf, 0.695),
    "quieter": (0.92, math.inf, -0.887),
    "offset": (8.62, 8.62, -0.913),
    "5 late": (4.08, 2.63, -0.772),
    "5 early": (4.08, 2.63, -0.772),
    "160 late": (-2.21, -15.3, -0.225),
    "8 taps": (4.11, 2.05, -0.757),
    "128 taps": (-6.42, -31.4, -0.084),
    "512 taps": (-14.5, -8.26, -0.299),
    "noise": (-3.02, -56.6, 0.098),
    "mixture": (5.00, 4.99, -0.662),
    "zeros": (0, 0, -0.118),
}
ALTERED = altered()


@pytest.mark.parametrize("name", FORGIVEN)
def test_what_is_forgiven_is_known(name):
    of_snr, of_si_sdr, of_wsdr = FORGIVEN[name]
    estimate = ALTERED[name]
    silent = name == "zeros"  # where only the guards give a value
    guards = {} if silent else UNGUARDED
    assert -snr(estimate, CLEAN, **guards).item() == pytest.approx(of_snr, rel=0.02, abs=0.01)
    assert wsdr(estimate, CLEAN, NOISY).item() == pytest.approx(of_wsdr, rel=0.02, abs=6e-4)
    quality = -si_sdr(estimate, CLEAN, zero_mean=False, **guards).item()
    if of_si_sdr is None:
        assert quality < -60
    elif of_si_sdr == math.inf:
        assert quality > 200
    else:
        assert quality == pytest.approx(of_si_sdr, rel=0.02, abs=0.01)


@pytest.mark.parametrize(("gain", "expected"), [(1, -1), (2, -0.878), (0.5, -0.939), (-1, 0.695), (0, -0.1175)])
def test_wsdr_fixes_the_gain(gain, expected):
    assert wsdr(gain * CLEAN, CLEAN, NOISY).item() == pytest.approx(expected, abs=6e-4)


def test_wsdr_without_speech_or_without_noise():
    close(wsdr(SILENCE, SILENCE, NOISY), [-1.0])
    close(wsdr(NOISY, SILENCE, NOISY), [0.0])
    close(wsdr(CLEAN, CLEAN, CLEAN), [-1.0])
    close(wsdr(0.3 * NOISY, SILENCE, NOISY), [-1.0])  # any gain below 1, says the docstring


def test_sd_sdr_is_snr_and_the_gain_of_the_target_in_the_estimate():
    for gain in (0.1, 0.8, 1.0, 3.0):
        estimate = gain * NOISY
        scale = (estimate * CLEAN).sum() / CLEAN.square().sum()
        expected = -snr(estimate, CLEAN, **UNGUARDED) + 20 * scale.log10()
        torch.testing.assert_close(-sd_sdr(estimate, CLEAN, zero_mean=False, **UNGUARDED), expected)
        quality = -sd_sdr(estimate, CLEAN, **UNGUARDED)
        assert quality <= -si_sdr(estimate, CLEAN, **UNGUARDED)
        assert scale > 1 or quality <= -snr(estimate, CLEAN, zero_mean=True, **UNGUARDED)


def test_si_sdr_forgives_gain_and_snr_does_not():
    for gain in (0.1, 0.5, 3.0, 10.0):
        close(si_sdr(gain * ESTIMATE, CLEAN), si_sdr(ESTIMATE, CLEAN).tolist(), 1e-4)
    assert snr(0.1 * ESTIMATE, CLEAN) > snr(ESTIMATE, CLEAN) + 3


def test_a_constant_offset_counts_unless_means_are_removed():
    for loss in (si_sdr, sd_sdr, snr):
        close(-loss(CLEAN + 0.05, CLEAN, zero_mean=False, **UNGUARDED), [8.62], 1e-2)
        assert loss(CLEAN + 0.05, CLEAN, zero_mean=True, **UNGUARDED) < -200


def test_a_silent_source_among_two_leaves_sa_sdr_as_it_was():
    leak = 1e-3 * torch.roll(CLEAN, 7000, -1)
    value, slope = value_and_gradient(
        lambda e: sa_sdr(torch.stack([e, leak], 1), torch.stack([CLEAN, SILENCE], 1)), NOISY
    )
    assert value == pytest.approx(-5, abs=0.1)
    assert 0 < slope < 10


def test_sa_sdr_of_estimates_that_add_up_to_the_mixture_has_the_slope_of_snr_and_a_free_noise_estimate_another():
    slopes = []
    free = torch.stack([ESTIMATE, 0.5 * (NOISY - ESTIMATE)], 1)
    sources = pair(CLEAN, CLEAN)[1]
    for loss in (
        lambda e: snr(e, CLEAN, **UNGUARDED),
        lambda e: sa_sdr(*pair(e, CLEAN), **UNGUARDED),
        lambda e: sa_sdr(free + torch.stack([e - ESTIMATE, 0 * e], 1), sources, **UNGUARDED),
    ):
        estimate = ESTIMATE.clone().requires_grad_()
        loss(estimate).sum().backward()
        slopes.append(estimate.grad)
    assert cosine(slopes[0], slopes[1]) > 1 - 1e-10
    # The error of the noise no longer pulls at the speech.
    assert slopes[2].norm() < 0.99 * slopes[1].norm()


@pytest.mark.parametrize("loss", [snr, si_sdr, sd_sdr, sa_sdr])
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


@pytest.mark.parametrize("loss", [snr, si_sdr, sd_sdr, wsdr])
def test_lengths_hide_whatever_the_padding_holds(loss):
    generator = torch.Generator().manual_seed(0)
    signals = [*torch.randn(3 if loss is wsdr else 2, 2, 100, generator=generator, dtype=torch.float64)]
    garbage = signals[0].clone()
    garbage[0, 60:] = torch.nan
    garbage.requires_grad_()
    value = loss(garbage, *signals[1:], torch.tensor([60, 100]))
    torch.testing.assert_close(value[:1], loss(*[signal[:1, :60] for signal in signals]))
    value.sum().backward()
    assert not garbage.grad[0, 60:].any()


def test_sdr_is_another_name_of_snr():
    assert sdr is snr
