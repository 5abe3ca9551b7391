"""Every registered weighting by every check that applies to it. A new one is tested as soon as it is registered."""

import random
from typing import Annotated, Literal

import pytest
import torch
from torch import nn

from harness.conformance.of_weightings import CHECKS
from harness.losses import Range, Weighting, all_weightings, weighting
from harness.losses.weightings import registry

PAIRS = [
    pytest.param(check, info, id=f"{check.name}, {info.name}", marks=[pytest.mark.cuda] if check.cuda else [])
    for check in CHECKS
    for info in all_weightings().values()
    if check.applies(info)
]


@pytest.mark.parametrize(("check", "info"), PAIRS)
def test_it_holds(check, info):
    if check.cuda and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    assert list(check.find(info)) == []


class Linear(Weighting):
    """A weight learned as a factor alone."""

    def __init__(self, combination):
        super().__init__(combination)
        self.weights = nn.Parameter(torch.ones(len(combination.terms)))

    def forward(self, terms):
        return (self.weights * terms).sum()


class Unbounded(Linear):
    """Kendall's total of terms that may be negative."""

    def forward(self, terms):
        return (0.5 * (-self.weights).exp() * terms + 0.5 * self.weights).sum()


class Forgetful(Weighting):
    """Falls with a count that no state holds."""

    count = 0

    def forward(self, terms):
        self.count += 1
        return terms.sum() / self.count


class Peeking(Weighting):
    """Looks at a value."""

    def forward(self, terms):
        return terms.sum() * (1.0 if terms[0] > 0 else 2.0)


class Ranked(Weighting):
    """The first counts most."""

    def forward(self, terms):
        return (terms / torch.arange(1, len(terms) + 1)).sum()


class Unguarded(Weighting):
    """Each over itself."""

    def forward(self, terms):
        return (terms / terms.detach()).sum()


class First(Weighting):
    """Only the first."""

    def forward(self, terms):
        return terms[0] + terms.detach().sum()


class Vector(Weighting):
    """No sum."""

    def forward(self, terms):
        return terms


class Silent(Weighting):
    def forward(self, terms):
        return terms.sum()


class Negative(Weighting):
    """Needs a minimum, and has no use for `begin`."""

    def forward(self, terms):
        return self.above_minimum(terms).sum()


class Narrow(Weighting):
    """A range that is too wide."""

    def __init__(self, combination, *, power: Annotated[float, Range(0.0, 200.0)] = 1.0):
        super().__init__(combination)
        self.power = power

    def forward(self, terms):
        return (10.0**self.power * terms).sum()


class Moody(Weighting):
    """Scale free at its default alone."""

    initial: torch.Tensor

    def __init__(self, combination, *, form: Literal["divided", "raw"] = "divided"):
        super().__init__(combination)
        self.form = form
        self.register_buffer("initial", torch.ones(len(combination.terms)))

    def begin(self, terms):
        if self.form == "divided":
            self.initial.copy_(self.above_minimum(terms))

    def forward(self, terms):
        return (self.written * terms / self.initial).sum()


class Rolling(Weighting):
    """Chance that is not torch's."""

    def forward(self, terms):
        return terms.sum() * random.random()


BAD = [
    (Linear, "learned_weights_stay_on_terms_that_stay", {}),
    (Unbounded, "a_term_without_a_minimum_is_refused_or_does_no_harm", {}),
    (Negative, "a_term_without_a_minimum_is_refused_or_does_no_harm", {}),
    (Forgetful, "a_training_goes_on_from_a_saved_state_as_if_nothing_had_been", {}),
    (Peeking, "no_value_is_looked_at_on_the_way", {}),
    (Ranked, "terms_in_another_order_have_the_same_weights", {}),
    (Unguarded, "total_weights_and_gradients_are_finite", {}),
    (First, "the_gradient_of_every_term_reaches_the_model", {}),
    (Vector, "the_total_is_a_scalar", {}),
    (Silent, "it_documents_itself", {}),
    (Silent, "a_term_times_1000_keeps_its_part_in_the_gradient", {"scale_free": True}),
    (Moody, "a_term_times_1000_keeps_its_part_in_the_gradient", {"scale_free": True}),
    (Narrow, "every_end_of_a_setting_s_range_works", {}),
    (Rolling, "two_trainings_from_one_seed_are_equal", {}),
]


@pytest.mark.parametrize(("cls", "name", "says"), BAD)
def test_each_check_finds_what_it_is_for(cls, name, says, monkeypatch):
    monkeypatch.setattr(registry, "_WEIGHTINGS", dict(registry._WEIGHTINGS))
    weighting(**says)(cls)
    (check,) = [check for check in CHECKS if check.name == name]
    info = all_weightings()[cls.__name__.lower()]
    assert check.applies(info)
    assert check.faults(info)


def test_settings_that_rule_out_an_indifference_to_scale_are_told_and_not_held_against_it(monkeypatch):
    monkeypatch.setattr(registry, "_WEIGHTINGS", dict(registry._WEIGHTINGS))
    weighting(scale_free=True, unless={"form": "raw"})(Moody)
    (check,) = [check for check in CHECKS if check.name == "a_term_times_1000_keeps_its_part_in_the_gradient"]
    assert check.faults(all_weightings()["moody"]) == []


def test_every_check_applies_to_some_weighting_tells_the_mend_and_is_tried_on_one_that_fails():
    assert {check.name for check in CHECKS} == {pair.values[0].name for pair in PAIRS}
    assert {check.name for check in CHECKS if not check.cuda} == {name for _, name, _ in BAD}
    assert all(check.mend for check in CHECKS)
