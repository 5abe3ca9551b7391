import math
from functools import cache

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from harness.losses import boundary_mse, boundary_smooth_l1, gaussian_nll, get, kl_box
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


def random_boundaries(items=20):
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(items, 2, generator=generator, dtype=torch.float64) for _ in range(2))


def test_the_controls_are_pytorchs():
    boundary, target = random_boundaries()
    mse = functional.mse_loss(boundary, target, reduction="none").mean(-1)
    torch.testing.assert_close(boundary_mse(boundary, target), mse)
    for beta in (0.5, 1.0, 2.0):
        expected = functional.smooth_l1_loss(boundary, target, beta=beta, reduction="none").mean(-1)
        torch.testing.assert_close(boundary_smooth_l1(boundary, target, beta=beta), expected)


def test_the_controls_are_the_others_at_one_variance():
    boundary, target = random_boundaries()
    flat = torch.zeros_like(boundary)
    torch.testing.assert_close(2 * gaussian_nll(boundary, flat, target), boundary_mse(boundary, target))
    torch.testing.assert_close(kl_box(boundary, flat, target), boundary_smooth_l1(boundary, target))


class Regressor(nn.Module):
    """A place and how sure it is of it, from one number."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.place, self.spread = nn.Linear(32, 1), nn.Linear(32, 1)
        nn.init.normal_(self.spread.weight, std=1e-4)
        nn.init.zeros_(self.spread.bias)

    def forward(self, x):
        hidden = self.trunk(x)
        return self.place(hidden), self.spread(hidden)


def noisy_places(items, seed):
    """Places on a curve, with noise whose spread depends on where: from 0.1 to 1 in units of the loss."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(items, 1, generator=generator) - 1
    spread = 0.1 + 0.9 * (0.5 + 0.5 * x).square()
    return x, 2 * torch.sin(3 * x), spread * torch.randn(items, 1, generator=generator)


@cache
def trained(loss):
    """Predicted places and log-variances of unseen items, and what their places are."""
    torch.manual_seed(0)
    net, (x, curve, noise) = Regressor(), noisy_places(2000, 0)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for _ in range(300):
        optimiser.zero_grad()
        loss(*net(x), curve + noise).mean().backward()
        optimiser.step()
        schedule.step()
    x, curve, noise = noisy_places(4000, 1)
    with torch.no_grad():
        place, spread = net(x)
    return place[:, 0], spread[:, 0], (curve + noise)[:, 0]


def without_variance(boundary, _, target):
    return boundary_smooth_l1(boundary, target)


@pytest.mark.parametrize("loss", [kl_box, gaussian_nll])
def test_the_variance_that_is_learned_tells_how_wrong_a_place_is(loss):
    place, spread, target = trained(loss)
    error, sigma = (target - place).abs(), (spread / 2).exp()
    assert spearmanr(sigma, error).statistic > 0.5
    assert 0.8 < ((target - place) / sigma).std() < 1.25
    plain, _, target = trained(without_variance)
    rmse = [((found - target) ** 2).mean().sqrt() for found in (place, plain)]
    assert rmse[0] <= 1.01 * rmse[1]
