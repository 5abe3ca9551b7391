"""Values and fixed points of each weighting, by hand or by its paper. What all must do: test_weightings_conformance."""

import json
import math

import pytest
import torch

from harness import keys
from harness.errors import UserError
from harness.losses import Weighting, all_weightings, get_weighting, parse, weighting
from harness.losses.weightings import registry


def built(expression, combination="mse + cross_entropy", /, **told) -> Weighting:
    module = get_weighting(expression).build(parse(combination))
    if told:
        with torch.no_grad():
            module.begin(**{name: torch.tensor(v) if isinstance(v, tuple) else v for name, v in told.items()})
    return module


def weights(module, terms, *more) -> list[float]:
    """What each raw term is multiplied by."""
    leaf = torch.tensor(terms, requires_grad=True)
    module(leaf, *map(torch.tensor, more)).backward()
    return leaf.grad.tolist()


def optimum(module, terms) -> torch.Tensor:
    """The log-variances that descent ends on, for terms that stay."""
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    for _ in range(200):
        optimiser.zero_grad()
        module(torch.tensor(terms)).backward()
        optimiser.step()
    return module.log_variance.detach()


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("fixed", "fixed"),
        (" dwa ( ) ", "dwa"),
        ("dwa(temperature=2)", "dwa"),
        ("dwa(temperature=3.0)", "dwa(temperature=3)"),
        ("frozen(weights=[1, 0.310])", "frozen(weights=(1, 0.31))"),
        ("uncertainty(rate=1e2, form='ratio', s0='initial')", "uncertainty(rate=100, form='ratio')"),
    ],
)
def test_equal_expressions_have_equal_text(written, canonical):
    chosen = get_weighting(written)
    assert chosen.expression == canonical
    assert get_weighting(canonical) == chosen


@pytest.mark.parametrize(
    ("written", "column", "message"),
    [
        ("fxed", 1, "unknown weighting 'fxed': did you mean 'fixed'?"),
        ("dwa(temprature=3)", 5, "unknown setting of dwa 'temprature': did you mean 'temperature'?"),
        ("dwa(temperature=0)", 17, "dwa.temperature = 0 is not valid: it must be a number from 0.1 to 100"),
        ("uncertainty(form='log')", 18, "it must be one of 'shift', 'ratio'"),
        ("frozen(weights=(1, -1))", 16, "a number from 0 to 1e+30 for each term"),
        ("dwa(3)", 5, "settings of dwa are named, as in dwa(temperature=2)"),
        ("dwa(temperature=2*2)", 17, "must be a literal"),
        ("dwa + fixed", 1, "expected the name of a weighting"),
        ("dwa(", 4, "expected the name of a weighting"),
        ("__import__('os')", 1, "unknown weighting '__import__'"),
    ],
)
def test_a_bad_expression_is_shown_with_the_place_and_the_mend(written, column, message):
    with pytest.raises(UserError) as error:
        get_weighting(written)
    assert message in str(error.value)
    assert f"(column {column} of {written!r})" in str(error.value)


def test_an_empty_expression_is_refused():
    with pytest.raises(UserError, match="an empty weighting expression"):
        get_weighting(" ")


def test_a_run_under_fixed_keeps_its_identity_and_any_other_weighting_has_one_of_its_own():
    pair = parse("mse + si_sdr")
    today = {**pair.canonical(), "versions": pair.versions, "weighting": "fixed"}
    assert keys.loss_key(pair, "fixed") == today
    named = [
        "fixed",
        "equal",
        "uncertainty",
        "uncertainty(rate=20)",
        "dwa",
        "dwa(temperature=3)",
        "frozen(weights=(1, 2))",
    ]
    assert len({keys.digest(keys.loss_key(pair, name)) for name in named}) == len(named)
    assert keys.loss_key(pair, "uncertainty(rate=10)") == keys.loss_key(pair, "uncertainty")
    assert json.dumps(keys.loss_key(pair, "frozen(weights=(1, 2))"))


def test_the_order_of_terms_counts_where_weights_are_given_for_each():
    def made(name):
        return [keys.digest(keys.loss_key(parse(text), name)) for text in ("mse + si_sdr", "si_sdr + mse")]

    assert len(set(made("uncertainty"))) == 1
    assert len(set(made("frozen(weights=(1, 2))"))) == 2


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("fixed", [2, 0.5, 1]),
        ("searched", [2, 0.5, 1]),
        ("frozen(weights=(1, 0.31, 0))", [1, 0.31, 0]),
        ("searched(weights=(1, 0.31, 4))", [1, 0.31, 4]),
    ],
)
def test_fixed_weights_are_those_of_the_expression_and_given_ones_stand_in_their_place(expression, expected):
    module = built(expression, "2*mse + 0.5*si_sdr + l1")
    assert weights(module, (0.3, -7.0, 2.0)) == pytest.approx(expected)
    assert module(torch.tensor([0.3, -7.0, 2.0])).item() == pytest.approx(
        sum(w * t for w, t in zip(expected, (0.3, -7.0, 2.0), strict=True))
    )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("frozen", "needs the weights, one for each term"),
        ("frozen(weights=(1, 2, 3))", "3 weights for the 2 terms of 'mse"),
        ("frozen(weights=(0, 0))", "all weights of 'mse"),
    ],
)
def test_weights_that_do_not_fit_the_terms_are_refused(expression, message):
    with pytest.raises(UserError, match=message):
        built(expression)


def test_equal_divides_by_the_height_above_the_minimum_before_training():
    module = built("equal", "mse + 3*si_sdr", terms=(0.02, -5.0))
    assert weights(module, (0.01, -20.0)) == pytest.approx([1 / 0.02, 1 / 25])
    assert module(torch.tensor([0.02, -5.0])).item() == pytest.approx(1 - 5 / 25)


def test_equal_grad_divides_by_the_norm_of_the_gradient_before_training():
    module = built("equal_grad", "mse + 3*si_sdr", output_gradients=(0.004, 2.0))
    assert weights(module, (0.01, -20.0)) == pytest.approx([250, 0.5])


@pytest.mark.parametrize("name", ["equal", "uncertainty", "dwa", "gradnorm"])
def test_a_term_without_a_finite_minimum_is_refused_in_one_line_that_names_it(name):
    with pytest.raises(UserError) as error:
        built(name, "poisson_nll + l2_penalty")
    assert f"weighting {name} needs terms with a known minimum, and poisson_nll has none" in str(error.value)
    assert "\n" not in str(error.value)
    built(name, "poisson_nll(deviance=True) + l2_penalty")


def test_uncertainty_has_the_optima_of_the_paper_and_each_data_term_is_one_half_there():
    """Kendall et al., equations 5 and 10: s = ln L for a value, ln 2L for a class."""
    values = (0.02, 1.5)
    module = built("uncertainty", "mse + cross_entropy")  # untold: from s = 0, with no delta
    s = optimum(module, values)
    assert s.tolist() == pytest.approx([math.log(0.02), math.log(2 * 1.5)], abs=1e-3)
    assert s.tolist() == pytest.approx([-3.9120, 1.0986], abs=1e-3)
    data = module.share * (-s).exp() * torch.tensor(values)
    assert data.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert (data + 0.5 * s).tolist() == pytest.approx([-1.456012, 1.049306], abs=1e-4)
    # The geometric mean, up to a constant.
    assert module(torch.tensor(values)).item() == pytest.approx(
        0.5 * math.log(0.02) + 0.5 * math.log(3.0) + 1, abs=1e-4
    )


def test_uncertainty_begins_at_the_log_of_the_initial_value_above_the_minimum():
    module = built("uncertainty", "si_sdr + cross_entropy", terms=(-5.0, 2.0))
    assert module.curves()["log_variance"].tolist() == pytest.approx([math.log(25), math.log(2)], abs=1e-6)
    assert weights(module, (-5.0, 2.0)) == pytest.approx([0.5 / 25, 1 / 2])
    assert module.delta.tolist() == pytest.approx([0.025, 0.002])
    assert built("uncertainty(s0='zero')", terms=(1e-4, 2.0)).curves()["log_variance"].tolist() == [0, 0]


def test_a_loss_times_1000_moves_its_log_variance_by_6_908_and_not_its_part_in_the_gradient():
    plain, loud = built("uncertainty", "mse + l1"), built("uncertainty", "mse + l1")
    first, second = optimum(plain, (0.02, 0.4)), optimum(loud, (20.0, 0.4))
    assert (second - first).tolist() == pytest.approx([6.908, 0], abs=2e-3)
    assert weights(loud, (20.0, 0.4))[0] * 1000 == pytest.approx(weights(plain, (0.02, 0.4))[0], rel=1e-3)


def test_log_variances_stay_within_ten_of_their_start_and_come_back():
    module = built("uncertainty", "mse + l1", terms=(1e-4, 3.0))
    with torch.no_grad():
        module.log_variance.copy_(torch.tensor([1e3, -1e3]))
    module(torch.tensor([1e-4, 3.0]))
    assert (module.log_variance - module.start).tolist() == pytest.approx([10, -10], abs=1e-4)
    optimum(module, (1e-4, 3.0))
    assert (module.log_variance - module.start).abs().max() < 0.01


def test_a_term_that_reaches_its_minimum_does_not_run_away():
    module = built("uncertainty", "mse + l1", terms=(0.1, 0.1))
    s = optimum(module, (0.0, 0.1))
    assert s[0].item() == pytest.approx(math.log(1e-3 * 0.1), abs=0.01)  # delta is what is left
    assert module(torch.tensor([0.0, 0.1])).isfinite()


def test_a_loss_in_db_is_positive_above_its_minimum_or_as_a_ratio():
    terms = torch.tensor([-10.0, 0.3])
    assert built("uncertainty", "si_sdr + mse").positive(terms).tolist() == pytest.approx([20, 0.3])
    ratio = built("uncertainty(form='ratio')", "si_sdr + mse")
    assert ratio.positive(terms).tolist() == pytest.approx([0.1, 0.3])
    assert optimum(ratio, terms.tolist()).tolist() == pytest.approx([math.log(0.1), math.log(0.3)], abs=1e-3)


def test_without_the_subtracted_minimum_the_total_would_have_no_lower_bound():
    """What the refusal is for: a negative term drives the formula to minus infinity."""
    module = built("uncertainty", "mse + l1")
    module.minima.zero_()
    module.start.fill_(0.0)
    totals = []
    for span in (5.0, 10.0):
        with torch.no_grad():
            module.log_variance.fill_(-span)
        totals.append(module(torch.tensor([-10.0, 1.0])).item())
    assert totals[1] < 100 * totals[0] < 0
    assert built("uncertainty", "si_sdr + l1")(torch.tensor([-29.9, 0.0])) > -1  # 0.1 above its minimum


def test_uncertainty_learns_at_its_own_rate_without_decay():
    assert built("uncertainty").learning_rate(1e-3) == pytest.approx(1e-2)
    assert built("uncertainty(rate=50)").learning_rate(1e-3) == pytest.approx(5e-2)
    assert all_weightings()["uncertainty"].settings["rate"].range.log


def test_dwa_has_the_weights_of_its_golden_means():
    """Means (1, 2), then (0.5, 1.8), at a temperature of 2."""
    module = built("dwa", "mse + l1", updates=40)  # an epoch is two updates
    seen = [
        weights(module, terms) for terms in [(0.5, 2.5), (1.5, 1.5), (0.4, 1.6), (0.6, 2.0), (0.1, 0.1), (0.1, 0.1)]
    ]
    assert seen[:4] == [[1, 1]] * 4
    assert seen[4] == seen[5] == pytest.approx([0.900332, 1.099668], abs=1e-6)
    assert weights(module, (9.0, 9.0)) == pytest.approx(
        [2 * (1 / (1 + math.exp((0.1 / 1.8 - 0.2) / 2))), 2 * (1 / (1 + math.exp((0.2 - 0.1 / 1.8) / 2)))], abs=1e-5
    )


def test_dwa_subtracts_the_minimum_and_keeps_the_weights_in_front():
    module = built("dwa", "2*si_sdr + mse", updates=20)  # an epoch is an update
    for terms in ((-10.0, 1.0), (-20.0, 1.0)):
        assert weights(module, terms) == [2, 1]
    ratios = torch.tensor([10 / 20, 1.0])
    expected = 2 * (ratios / 2).softmax(0) * torch.tensor([2.0, 1.0])
    assert weights(module, (-20.0, 1.0)) == pytest.approx(expected.tolist())


def test_dwa_moves_only_in_training():
    module = built("dwa", "mse + l1", updates=20).eval()
    for terms in ((1.0, 1.0), (0.1, 1.0), (0.1, 1.0)):
        assert weights(module, terms) == [1, 1]


def test_gradnorm_s_gradient_is_that_of_the_papers_objective():
    """sum |w_k g_k - mean(w g) r_k^alpha|, its right side held constant: g_k sign(...) by w_k."""
    module = built("gradnorm(alpha=1)", "mse + 2*l1 + si_sdr", terms=(1.0, 1.0, 0.0))
    terms, gradients = (0.5, 1.0, -15.0), (3.0, 1.0, 0.2)
    assert weights(module, terms, gradients) == pytest.approx([1, 2, 1])  # at first 1 each, times those in front
    norms = [3.0, 2.0, 0.2]
    fallen = [0.5, 1.0, 0.5]
    wanted = [sum(norms) / 3 * height / (sum(fallen) / 3) for height in fallen]
    signs = [math.copysign(1, have - want) for have, want in zip(norms, wanted, strict=True)]
    expected = [norm * sign for norm, sign in zip(norms, signs, strict=True)]
    assert module.weights.grad.tolist() == pytest.approx(expected)
    leaf = torch.tensor(terms)
    assert module(leaf, torch.tensor(gradients)).item() == pytest.approx(0.5 + 2 * 1.0 - 15.0)


def test_gradnorm_ends_with_equal_gradients_of_terms_that_fall_alike_and_weights_that_sum_to_k():
    module = built("gradnorm", "mse + l1 + rmse", terms=(1.0, 1.0, 1.0))
    optimiser = torch.optim.Adam(module.parameters(), lr=module.learning_rate(1e-3))
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.025 * (1 - step / 200)
        optimiser.zero_grad()
        module(torch.tensor([0.3, 0.3, 0.3]), torch.tensor([4.0, 1.0, 1.0])).backward()
        optimiser.step()
    found = torch.tensor(weights(module, (0.3, 0.3, 0.3), (4.0, 1.0, 1.0)))
    assert found.sum().item() == pytest.approx(3, abs=1e-5)
    assert found.tolist() == pytest.approx([1 / 3, 4 / 3, 4 / 3], abs=0.02)


def test_gradnorm_learns_its_weights_at_their_own_rate_whatever_the_model_s():
    assert [built("gradnorm").learning_rate(lr) for lr in (1e-4, 1e-1)] == [0.025, 0.025]
    assert built("gradnorm(lr=0.2)").learning_rate(1e-3) == 0.2


def test_gradnorm_gives_more_weight_to_a_term_that_falls_slowly():
    module = built("gradnorm", "mse + l1", terms=(1.0, 1.0))
    module(torch.tensor([0.1, 0.9]), torch.tensor([1.0, 1.0])).backward()
    assert module.weights.grad[0] > 0 > module.weights.grad[1]  # a step down its gradient lowers the first


@pytest.fixture
def own(monkeypatch):
    """Weightings registered in a test are gone after it."""
    monkeypatch.setattr(registry, "_WEIGHTINGS", dict(registry._WEIGHTINGS))


def test_a_weighting_of_ones_own_is_chosen_by_name_and_told_what_it_names(own):
    @weighting(minima=True)
    class HalfLife(Weighting):
        """Of a test."""

        def __init__(self, combination, *, strong: bool = False):
            super().__init__(combination)
            self.strong = strong

        def begin(self, updates, terms):
            self.told = updates, terms

        def forward(self, terms):
            return terms.sum() * (2 if self.strong else 1)

    module = built("half_life(strong=True)", terms=(1.0, 2.0), updates=7)
    assert module.told[0] == 7
    assert weights(module, (1.0, 1.0)) == [2, 2]
    with pytest.raises(UserError, match="poisson_nll has none"):
        built("half_life", "mse + poisson_nll")


def test_a_class_that_is_no_weighting_or_asks_for_what_there_is_not_is_refused(own):
    with pytest.raises(UserError, match=r"derived from harness\.losses\.Weighting"):
        weighting(torch.nn.Module)

    class Curious(Weighting):
        """Of a test."""

        def forward(self, terms, labels):
            return terms.sum()

    with pytest.raises(
        UserError, match="weighting curious: forward takes labels; it may take: terms, shared_gradients"
    ):
        weighting(Curious)


def test_the_name_of_another_module_s_weighting_is_not_taken(own):
    class Fixed(Weighting):
        """Of a test."""

        def forward(self, terms):
            return terms.sum()

    with pytest.raises(UserError, match="two weightings are called 'fixed'"):
        weighting(Fixed)
