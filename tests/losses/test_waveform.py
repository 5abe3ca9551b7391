import math

import pytest
import torch
from torch.nn import functional

from harness.losses import huber, l1, l2, log_mse, mse, rmse, smooth_l1, snr

from .signals import CLEAN, ESTIMATE, SILENCE, TINY_CLEAN, TINY_ESTIMATE, close, corner, value_and_gradient

UNGUARDED = {"max_db": math.inf, "eps": 0.0}


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (l1, {}, [1, 1.666667]),
        (mse, {}, [1, 8.333333]),
        (l2, {}, [1.732051, 5]),
        (rmse, {}, [1, 2.886751]),
        (smooth_l1, {"beta": 1.0}, [0.5, 1.5]),
        (smooth_l1, {"beta": 0.5}, [0.75, 1.583333]),
        (huber, {"delta": 1.0}, [0.5, 1.5]),
        (huber, {"delta": 0.5}, [0.375, 0.791667]),
        (log_mse, UNGUARDED, [0, 9.208188]),
    ],
)
def test_the_tiny_pair_gives_the_published_values(loss, settings, expected):
    close(loss(TINY_ESTIMATE, TINY_CLEAN, **settings), expected)


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        (l1, {}, 0.05283719),
        (mse, {}, 4.41040055e-3),
        (l2, {}, 14.549888),
        (rmse, {}, 0.06641085),
        (smooth_l1, {}, 0.03277381),
        (huber, {}, 1.63869040e-3),
        (log_mse, UNGUARDED, -23.555220),
    ],
)
def test_three_seconds_give_the_golden_values(loss, settings, expected):
    assert loss(ESTIMATE, CLEAN, **settings).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("case", "value", "gradient"),
    [
        ("estimate", -23.5374, 0.595),
        ("silent target", -18.16, 0.321),
        ("silent estimate", -17.40, 0.294),
        ("both silent", -100, 0),
        ("perfect", -47.41, 0),
        ("inverted", -11.38, 0.147),
        ("click", -17.40, 0.294),
    ],
)
def test_corner_cases_of_log_mse_have_the_known_value_and_gradient(case, value, gradient):
    estimate, clean = corner(case)
    assert value_and_gradient(log_mse, estimate, clean) == (
        pytest.approx(value, rel=1e-3),
        pytest.approx(gradient, rel=5e-3, abs=1e-6),
    )


def test_one_sample_has_the_known_value():
    close(log_mse(torch.tensor([[0.3]]).double(), torch.tensor([[0.5]]).double()), [-13.9523], 1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (l1, lambda e, s: functional.l1_loss(e, s, reduction="none").mean(-1)),
        (mse, lambda e, s: functional.mse_loss(e, s, reduction="none").mean(-1)),
        (l2, lambda e, s: functional.pairwise_distance(e, s, eps=0)),
        (rmse, lambda e, s: functional.mse_loss(e, s, reduction="none").mean(-1).sqrt()),
        (smooth_l1, lambda e, s: functional.smooth_l1_loss(e, s, beta=0.05, reduction="none").mean(-1)),
        (huber, lambda e, s: functional.huber_loss(e, s, delta=0.05, reduction="none").mean(-1)),
    ],
)
def test_torch_agrees_on_value_and_gradient(ours, theirs):
    results = []
    for loss in (ours, theirs):
        estimate = ESTIMATE.clone().requires_grad_()
        value = loss(estimate, CLEAN)
        value.sum().backward()
        results.append((value.detach(), estimate.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("loss", [l2, rmse])
def test_a_perfect_item_has_a_gradient_of_zero_and_leaves_the_others_theirs(loss):
    estimate = torch.stack([CLEAN[0], ESTIMATE[0]]).requires_grad_()
    loss(estimate, CLEAN.expand(2, -1)).sum().backward()
    assert not estimate.grad[0].any()
    assert estimate.grad[1].norm().item() == pytest.approx(value_and_gradient(loss, ESTIMATE, CLEAN)[1])


def test_l2_grows_with_the_length_of_a_clip_and_rmse_does_not():
    long = [torch.cat([signal] * 4, -1) for signal in (ESTIMATE, CLEAN)]
    torch.testing.assert_close(l2(*long), 2 * l2(ESTIMATE, CLEAN))
    torch.testing.assert_close(rmse(*long), rmse(ESTIMATE, CLEAN))


def test_huber_is_its_threshold_times_smooth_l1_and_below_it_both_are_squares():
    for threshold in (0.01, 0.05, 1.0):
        torch.testing.assert_close(
            huber(ESTIMATE, CLEAN, delta=threshold), threshold * smooth_l1(ESTIMATE, CLEAN, beta=threshold)
        )
    torch.testing.assert_close(smooth_l1(ESTIMATE, CLEAN, beta=1.0), mse(ESTIMATE, CLEAN) / 2)


def test_log_mse_and_snr_have_the_same_gradient():
    slopes = []
    for loss in (log_mse, snr):
        estimate = ESTIMATE.clone().requires_grad_()
        loss(estimate, CLEAN, **UNGUARDED).sum().backward()
        slopes.append(estimate.grad.flatten())
    assert torch.cosine_similarity(*slopes, dim=0) > 1 - 1e-10


def test_the_floor_of_log_mse_does_not_depend_on_the_length_of_the_clip():
    hum = 1e-5 * torch.sin(torch.arange(600, dtype=torch.float64) * torch.pi / 100)[None]
    long = torch.cat([hum, hum, hum], -1)
    for target in (0.0, 0.5):
        close(log_mse(long, target * long), log_mse(hum, target * hum).tolist(), 1e-9)


@pytest.mark.parametrize("loss", [l1, mse, l2, rmse, smooth_l1, huber, log_mse])
def test_lengths_hide_whatever_the_padding_holds(loss):
    estimate, clean = torch.randn(2, 2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    garbage = estimate.clone()
    garbage[0, 60:] = torch.nan
    garbage.requires_grad_()
    value = loss(garbage, clean, torch.tensor([60, 100]))
    torch.testing.assert_close(value[:1], loss(estimate[:1, :60], clean[:1, :60]))
    value.sum().backward()
    assert not garbage.grad[0, 60:].any()


@pytest.mark.parametrize("loss", [l1, mse, l2, rmse, smooth_l1, huber])
def test_silence_costs_the_size_of_the_target_and_nothing_if_that_is_silent(loss):
    assert loss(SILENCE, CLEAN) == loss(CLEAN, SILENCE) > 0
    assert loss(SILENCE, SILENCE) == 0
