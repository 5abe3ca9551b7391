import math

import pytest
import torch
from torch.nn import functional

from harness.losses import gaussian_nll, get, kl_box
from tests.losses.items import is_close


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def of_errors(loss, errors, log_variances, **settings):
    """Values of single boundaries that are off by `errors`."""
    errors = numbers(*errors)[:, None]
    return loss(torch.zeros_like(errors), numbers(*log_variances)[:, None], errors, **settings)


def best(error):
    """The log-variance at which `kl_box` is least."""
    return math.log(error**2) if error <= 1 else math.log(2 * error - 1)


def test_kl_box_has_the_golden_values():
    is_close(of_errors(kl_box, (0.3, 3, 0.3, 3), (0, 0, 1, 1)), [0.045, 2.5, 0.516555, 1.419699])
    is_close(of_errors(kl_box, (0.3, 3), (best(0.3), best(3))), [-0.703973, 1.304719])


@pytest.mark.parametrize("error", [0.3, 1.0, 3.0])
def test_the_best_log_variance_of_kl_box_is_the_papers(error):
    assert best(error) == pytest.approx({0.3: -2.408, 1.0: 0, 3.0: 1.609}[error], abs=1e-3)
    spread = numbers(best(error)).requires_grad_()
    kl_box(numbers(0)[None], spread[None], numbers(error)[None]).sum().backward()
    assert spread.grad.item() == pytest.approx(0, abs=1e-12)


def test_at_log_variance_0_it_is_smooth_l1():
    generator = torch.Generator().manual_seed(0)
    boundary, target = (3 * torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = functional.smooth_l1_loss(boundary, target, reduction="none").mean(-1)
    torch.testing.assert_close(kl_box(boundary, torch.zeros_like(boundary), target), expected)


def test_value_and_slope_are_continuous_where_the_quadratic_ends():
    values, slopes = [], []
    for error in (1 - 1e-9, 1 + 1e-9):
        boundary = numbers(0)[None].requires_grad_()
        value = kl_box(boundary, numbers(0.5)[None], numbers(error)[None])
        value.sum().backward()
        values.append(value.item())
        slopes.append(boundary.grad.item())
    assert values[0] == pytest.approx(values[1], abs=1e-8)
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-8)


def test_scale_is_the_unit_of_the_error():
    torch.testing.assert_close(
        of_errors(kl_box, (0.6, 6), (0, 1), scale=2.0), of_errors(kl_box, (0.3, 3), (0, 1)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["kl_box", "gaussian_nll"])
def test_the_clamp_sets_the_minimum(name):
    assert get(name).minimum() == -3.5
    assert get(name).minimum({"clamp": 4}) == -2
    is_close(of_errors(get(name).function, (0, 0), (-7, -1e4)), [-3.5, -3.5])


def test_gaussian_nll_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    boundary, spread, target = (torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    expected = functional.gaussian_nll_loss(boundary, target, spread.exp(), reduction="none").mean(-1)
    torch.testing.assert_close(gaussian_nll(boundary, spread, target), expected)


def test_the_value_is_the_mean_over_the_boundaries():
    boundary, spread, target = numbers(0, 0)[None], numbers(0, 1)[None], numbers(0.3, 3)[None]
    for loss in (kl_box, gaussian_nll):
        each = of_errors(loss, (0.3, 3), (0, 1))
        torch.testing.assert_close(loss(boundary, spread, target), each.mean()[None])
