import pytest
import torch

from harness.errors import UserError
from harness.losses import l1_penalty, l2_penalty


def test_half_the_sum_of_squares_over_all_tensors():
    assert l2_penalty([torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([2.0])]).item() == 0.5 * (30 + 4)


def test_the_gradient_is_the_weight():
    weight = torch.randn(3, 4, requires_grad=True)
    l2_penalty([weight]).backward()
    torch.testing.assert_close(weight.grad, weight.detach())


@pytest.mark.parametrize(("optimiser", "equal"), [(torch.optim.Adam, True), (torch.optim.AdamW, False)])
def test_under_adam_and_not_under_adamw_the_penalty_is_weight_decay(optimiser, equal):
    start, data = torch.tensor([3.0, -2.0]), torch.tensor([1.0, 0.5])
    explicit, implicit = (start.clone().requires_grad_() for _ in range(2))
    first, second = optimiser([explicit], lr=0.1, weight_decay=0.0), optimiser([implicit], lr=0.1, weight_decay=0.3)
    for _ in range(3):
        first.zero_grad()
        second.zero_grad()
        ((explicit * data).sum() + 0.3 * l2_penalty([explicit])).backward()
        (implicit * data).sum().backward()
        first.step()
        second.step()
    assert torch.allclose(explicit, implicit) is equal


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_no_weights_at_all_is_an_error(penalty):
    with pytest.raises(UserError, match=f"{penalty.__name__}: no weights"):
        penalty([])


def test_l1_is_the_sum_of_absolute_values_and_its_slope_the_sign():
    weight = torch.tensor([[1.0, -2], [0, 4]], requires_grad=True)
    value = l1_penalty([weight, torch.tensor([-3.0])])
    assert value.item() == 7 + 3
    value.backward()
    assert weight.grad.tolist() == [[1, -1], [0, 1]]
