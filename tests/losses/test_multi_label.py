import pytest
import torch
from torch.nn import functional

from harness.losses import bce, bce_with_logits, binary_focal, multi_label_soft_margin, soft_margin
from tests.losses.items import LOGITS, TARGETS, is_close, random_logits, random_targets

GOLDEN = [0.711112, 1.044446]


def test_they_have_the_golden_values():
    is_close(bce(LOGITS.sigmoid(), TARGETS), GOLDEN)
    is_close(bce_with_logits(LOGITS, TARGETS), GOLDEN)
    is_close(bce_with_logits(LOGITS, TARGETS, pos_weight=2.0), [0.984471, 1.148866])
    is_close(soft_margin(LOGITS, TARGETS), GOLDEN)
    is_close(multi_label_soft_margin(LOGITS, TARGETS), GOLDEN)
    is_close(binary_focal(LOGITS, TARGETS), [0.570174, 1.373188])


def test_three_names_are_one_function():
    logits, targets = random_logits(), random_targets()
    expected = bce_with_logits(logits, targets)
    torch.testing.assert_close(soft_margin(logits, targets), expected)
    torch.testing.assert_close(multi_label_soft_margin(logits, targets), expected)
    torch.testing.assert_close(bce(logits.sigmoid(), targets), expected)


def test_they_are_pytorchs_item_by_item():
    logits, targets = random_logits(), random_targets()
    weights = (0.5, 1.0, 2.0, 0.0, 1.0, 3.0, 1.0)
    tensor = torch.tensor(weights, dtype=torch.float64)
    for value, theirs in [
        (bce(logits.sigmoid(), targets), functional.binary_cross_entropy(logits.sigmoid(), targets, reduction="none")),
        (
            bce_with_logits(logits, targets, pos_weight=3.0),
            functional.binary_cross_entropy_with_logits(
                logits, targets, pos_weight=torch.full((7,), 3.0).double(), reduction="none"
            ),
        ),
        (soft_margin(logits, targets), functional.soft_margin_loss(logits, 2 * targets - 1, reduction="none")),
    ]:
        torch.testing.assert_close(value, theirs.mean(-1))
    torch.testing.assert_close(
        multi_label_soft_margin(logits, targets, class_weights=weights),
        functional.multilabel_soft_margin_loss(logits, targets, tensor, reduction="none"),
    )


def test_soft_margin_is_finite_where_its_exponential_is_not():
    value = soft_margin(torch.tensor([[-1e4]]), torch.tensor([[1.0]]))
    assert value.item() == 1e4


def test_a_saturated_probability_costs_no_more_than_its_floor_in_both_precisions():
    for dtype in (torch.float32, torch.float64):
        value = bce(torch.tensor([[1.0], [0.0]], dtype=dtype), torch.tensor([[0.0], [1.0]], dtype=dtype))
        torch.testing.assert_close(value, torch.full((2,), 16.118096, dtype=dtype))


def test_binary_focal_without_gamma_is_balanced_bce():
    logits, targets = random_logits(), random_targets()
    value = binary_focal(logits, targets, gamma=0.0, alpha=0.5)
    torch.testing.assert_close(value, 0.5 * 7 * bce_with_logits(logits, targets))


@pytest.mark.parametrize("loss", [bce_with_logits, soft_margin, multi_label_soft_margin, binary_focal])
def test_whole_numbers_will_do_as_targets(loss):
    logits, targets = random_logits().float(), random_targets()
    torch.testing.assert_close(loss(logits, targets.long()), loss(logits, targets.float()))
