import pytest
import torch
from sklearn.metrics import hinge_loss
from torch.nn import functional

from harness.errors import UserError
from harness.losses import hinge, multi_label_margin, multi_margin
from tests.losses.items import LABEL, LOGITS, TARGETS, is_close, random_label, random_logits, random_targets


def test_they_have_the_golden_values():
    is_close(multi_margin(LOGITS, LABEL), [0, 0.666667])
    is_close(multi_margin(LOGITS, LABEL, p=2), [0, 1.333333])
    is_close(multi_label_margin(LOGITS, TARGETS), [0.666667, 0.666667])


def test_hinge_is_that_of_scikit_learn():
    logits, targets = random_logits(classes=1), random_targets(classes=1)
    assert hinge(logits, targets).mean().item() == pytest.approx(
        hinge_loss(targets[:, 0].numpy(), logits[:, 0].numpy())
    )
    assert hinge(torch.tensor([[2.0, 0.3], [-2.0, 0.3]]), torch.tensor([[1, 1], [0, 0]])).tolist() == pytest.approx(
        [0.35, 0.65]
    )


def test_a_class_that_is_there_weighs_more_in_hinge_by_its_weight():
    logits, targets = torch.tensor([[0.5, -0.5, 3.0, 0.0]]), torch.tensor([[1, 1, 0, 0]])
    assert hinge(logits, targets, pos_weight=3.0).item() == pytest.approx((3 * 0.5 + 3 * 1.5 + 4 + 1) / 4)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("margin", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("weight", [None, (0.5, 1.0, 2.0, 0.0, 1.0, 3.0, 1.0)])
def test_multi_margin_is_pytorchs_item_by_item(p, margin, weight):
    logits, label = random_logits(), random_label()
    tensor = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    expected = functional.multi_margin_loss(logits, label, p, margin, tensor, reduction="none")
    torch.testing.assert_close(multi_margin(logits, label, p=p, margin=margin, weight=weight), expected)


def test_multi_label_margin_is_pytorchs_item_by_item():
    logits, targets = random_logits(), random_targets()
    lists = torch.full((40, 7), -1)
    for item, row in enumerate(targets):
        present = row.nonzero()[:, 0]
        lists[item, : len(present)] = present
    expected = functional.multilabel_margin_loss(logits, lists, reduction="none")
    torch.testing.assert_close(multi_label_margin(logits, targets), expected)


@pytest.mark.parametrize("targets", [torch.zeros(2, 3), torch.ones(2, 3)])
def test_without_a_pair_of_classes_multi_label_margin_is_0_and_pulls_nowhere(targets):
    logits = LOGITS.clone().requires_grad_()
    value = multi_label_margin(logits, targets)
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert not logits.grad.any()


def test_a_wrong_number_of_weights_names_the_setting():
    with pytest.raises(UserError, match=r"^multi_margin\.weight needs one number for each of 3 classes, not 1$"):
        multi_margin(LOGITS, LABEL, weight=(1.0,))
