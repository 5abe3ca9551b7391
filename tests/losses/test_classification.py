import math

import pytest
import torch
from torch.nn import functional

from harness.errors import UserError
from harness.losses import cross_entropy, focal, get, js_div, kl_div, nll, parse
from tests.losses.items import LABEL, LOGITS, TARGET_PROB, is_close, random_label, random_logits

WEIGHTS = (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.407606, 1.407606]),
        ({"label_smoothing": 0.1}, [0.507606, 1.407606]),
        ({"class_weights": WEIGHTS}, [0.407606, 2.815212]),
        ({"class_weights": WEIGHTS, "label_smoothing": 0.1}, [0.715033, 2.748545]),
    ],
)
def test_cross_entropy_has_the_golden_values(settings, expected):
    is_close(cross_entropy(LOGITS, LABEL, **settings), expected)


def test_over_the_sum_of_weights_it_is_pytorchs_weighted_mean():
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    value = cross_entropy(LOGITS, LABEL, class_weights=WEIGHTS).sum() / weight[LABEL].sum()
    torch.testing.assert_close(value, functional.cross_entropy(LOGITS, LABEL, weight))
    is_close(value, 1.074273)


def test_weights_with_a_mean_of_one_over_the_items_keep_the_batch_mean():
    label = torch.tensor([0, 0, 0, 1])  # priors 3/4 and 1/4
    value = cross_entropy(torch.zeros(4, 2), label, class_weights=(2 / 3, 2.0)).mean()
    assert value.item() == pytest.approx(math.log(2))


def test_the_least_value_under_smoothing_is_the_entropy_of_the_smoothed_target():
    share = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3], dtype=torch.float64)
    least = cross_entropy(share.log()[None], torch.tensor([0]), label_smoothing=0.1)
    is_close(least, [0.291140])
    assert get("cross_entropy").minimum({"label_smoothing": 0.1}) == 0  # it depends on the number of classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_kl_div_from_a_smoothed_target_is_cross_entropy_less_the_targets_entropy(smoothing):
    logits, label = random_logits(), random_label()
    smoothed = (1 - smoothing) * functional.one_hot(label, 7).double() + smoothing / 7
    entropy = -torch.xlogy(smoothed, smoothed).sum(-1)
    expected = cross_entropy(logits, label, label_smoothing=smoothing) - entropy
    torch.testing.assert_close(kl_div(logits, smoothed), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_nll_of_log_softmax_is_cross_entropy(weights):
    value = nll(LOGITS.log_softmax(-1), LABEL, class_weights=weights)
    assert torch.equal(value, cross_entropy(LOGITS, LABEL, class_weights=weights))


def test_kl_div_and_js_div_have_the_golden_values():
    is_close(kl_div(LOGITS, TARGET_PROB), [0.005787, 0.009660])
    is_close(js_div(LOGITS, TARGET_PROB), [0.001479, 0.002377])


def test_js_div_is_symmetric_and_at_most_the_logarithm_of_two():
    first, second = random_logits(seed=3).softmax(-1), random_logits(seed=4).softmax(-1)
    torch.testing.assert_close(js_div(first.log(), second), js_div(second.log(), first))
    opposite = js_div(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert opposite.item() == pytest.approx(math.log(2))
    assert js_div(first.log(), first).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [(1, [0.136450, 1.063125]), (2, [0.045678, 0.802948]), (5, [0.001714, 0.345937])],
)
def test_focal_has_the_golden_values(gamma, expected):
    is_close(focal(LOGITS, LABEL, gamma=gamma), expected)
    is_close(focal(LOGITS, LABEL, gamma=gamma, alpha=0.5), [value / 2 for value in expected])


def test_focal_without_gamma_is_cross_entropy_bit_for_bit():
    label = random_label()
    values, gradients = [], []
    for loss in (lambda x: focal(x, label, gamma=0.0), lambda x: cross_entropy(x, label)):
        logits = random_logits().float().requires_grad_()
        values.append(loss(logits))
        values[-1].sum().backward()
        gradients.append(logits.grad)
    assert torch.equal(*values)
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("probability", "ratio"), [(0.5, 4), (0.9, 100), (0.968, 976.5625)])
def test_what_is_known_counts_less_by_the_papers_ratio(probability, ratio):
    logits = torch.tensor([[math.log(probability), math.log(1 - probability)]], dtype=torch.float64)
    label = torch.tensor([0])
    assert (cross_entropy(logits, label) / focal(logits, label)).item() == pytest.approx(ratio)


def test_the_slope_is_finite_for_a_gamma_below_one_where_the_class_is_sure():
    logits = torch.tensor([[1e4, -1e4], [40.0, 0.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0]), gamma=0.5).sum().backward()
    assert logits.grad.isfinite().all()


def test_a_wrong_number_of_weights_is_one_line_that_names_the_setting():
    message = "cross_entropy.class_weights needs one number for each of 3 classes, not 2"
    with pytest.raises(UserError, match=f"^{message}$"):
        cross_entropy(LOGITS, LABEL, class_weights=(1.0, 2.0))


def test_weights_are_written_in_an_expression_as_in_python():
    combination = parse("cross_entropy(label_smoothing=0, class_weights=[1, 2.5])")
    assert combination.expression == "cross_entropy(class_weights=(1, 2.5))"
    assert parse(combination.expression).canonical() == combination.canonical()
    assert parse("cross_entropy(class_weights=None)").expression == "cross_entropy"
    with pytest.raises(UserError, match=r"None, or a number from 0 to 1000 for each class \(column 29"):
        parse("cross_entropy(class_weights=3)")
