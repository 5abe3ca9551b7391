import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from harness.losses import count_mse, get, poisson_nll
from tests.losses.items import is_close


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "rates", "expected"),
    [
        ({}, (0, 1), [1, -0.281718]),
        ({"full": True}, (0, 1), [1.651806, 1.482363]),
        ({"log_input": False}, (1, 2), [1, -0.079442]),
    ],
)
def test_it_has_the_golden_values(settings, rates, expected):
    is_close(poisson_nll(numbers(*rates), numbers(2, 3), **settings), expected)


@pytest.mark.parametrize("log_input", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_it_is_pytorchs_item_by_item(log_input, full):
    count = torch.arange(8).double()
    rate = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    expected = functional.poisson_nll_loss(rate, count, log_input=log_input, full=full, eps=0, reduction="none")
    torch.testing.assert_close(poisson_nll(rate, count, log_input=log_input, full=full), expected)


@given(st.floats(-12, 12), st.integers(0, 5000), st.booleans())
def test_the_deviance_is_never_negative_and_0_at_the_best_rate(rate, count, full):
    value = poisson_nll(numbers(rate), numbers(count), deviance=True, full=full).item()
    assert value >= -1e-9 * (1 + count)
    if count:
        assert poisson_nll(numbers(count).log(), numbers(count), deviance=True).item() == pytest.approx(
            0, abs=1e-9 * count
        )


def test_only_the_deviance_has_a_known_minimum():
    assert get("poisson_nll").minimum() is None
    assert get("poisson_nll").minimum({"deviance": True}) == 0


def test_the_deviance_has_the_same_gradient():
    gradients = []
    for deviance in (False, True):
        rate = numbers(0, 1, -2).requires_grad_()
        poisson_nll(rate, numbers(2, 3, 0), deviance=deviance).sum().backward()
        gradients.append(rate.grad)
    assert torch.equal(*gradients)


def test_a_wild_rate_is_held():
    value = poisson_nll(torch.tensor([1e4, -1e4]), torch.tensor([0, 2]))
    torch.testing.assert_close(value, torch.tensor([22026.4658, 20.0]), rtol=1e-4, atol=1e-4)


def test_count_mse_is_pytorchs_mse_of_the_expected_count_from_one_up():
    rate, count = torch.linspace(0, 3, 9, dtype=torch.float64), torch.arange(9).double()
    expected = functional.mse_loss(rate.exp(), count, reduction="none")
    torch.testing.assert_close(count_mse(rate, count), expected)
    torch.testing.assert_close(count_mse(numbers(1e4), numbers(0)), numbers(10).exp().square())


def test_count_mse_goes_on_below_one_with_the_slope_that_it_has_there():
    rate = numbers(-20, -1, -1e-9, 1e-9).requires_grad_()
    value = count_mse(rate, numbers(3, 3, 3, 3))
    value.sum().backward()
    torch.testing.assert_close(value, numbers(22, 3, 2, 2).square())
    torch.testing.assert_close(rate.grad, -2 * numbers(22, 3, 2, 2))


def test_nothing_said_of_nothing_there_is_no_error():
    assert count_mse(numbers(-1, -9, -1e4), numbers(0, 0, 0)).tolist() == [0, 0, 0]
    assert count_mse(numbers(-0.5), numbers(0)).item() == 0.25
