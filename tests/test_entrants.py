"""Who takes part in a study: weightings of combinations, their controls, and what a search has set."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from harness import entrants, losses, paths, spec
from harness.entrants import Entrant
from harness.losses import registry

BASE = yaml.safe_load((paths.STUDIES / "smoke.yaml").read_text())


def study(**changes: Any) -> spec.Study:
    return spec.Study.model_validate({"name": "mine", **BASE, **changes})


def test_a_combination_is_trained_under_each_weighting_and_a_single_loss_under_fixed_alone() -> None:
    made = study(losses=["snr", "snr+ mse"], weighting=["fixed", "uncertainty", "dwa(temperature=2)"])
    assert entrants.asked(made) == [
        Entrant("snr"),
        Entrant("snr + mse"),
        Entrant("snr + mse", "uncertainty"),
        Entrant("snr + mse", "dwa"),
    ]


def test_the_numbers_in_front_of_terms_are_those_of_fixed_and_tell_no_entrants_of_other_weightings_apart() -> None:
    made = study(losses=["snr + 0.1*mse", "snr + 10*mse"], weighting=["fixed", "equal"])
    fixed = [Entrant("snr + 0.1*mse"), Entrant("snr + 10*mse")]
    assert sorted(entrants.asked(made), key=str) == sorted([*fixed, Entrant("snr + mse", "equal")], key=str)


def test_beside_a_combination_stand_its_terms_alone_and_made_equal_under_its_conditions_once() -> None:
    made = study(losses=["snr", "snr + 0.1*mse with dropout=0.3", "snr + 10*mse with dropout=0.3"])
    assert entrants.controls(made) == [
        Entrant("snr with dropout=0.3"),
        Entrant("mse with dropout=0.3"),
        Entrant("snr + mse with dropout=0.3", "equal"),
        Entrant("snr + mse with dropout=0.3", "equal_grad"),
    ]
    assert entrants.controls(study(losses=["snr + mse"], controls=False)) == []


def test_a_control_that_is_asked_for_already_is_left_out() -> None:
    asked = study(losses=["snr", "mse", "snr + mse"], weighting=["equal", "equal_grad"])
    assert entrants.controls(asked) == []


def test_a_control_whose_weighting_cannot_weigh_the_terms_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOSSES", dict(registry._LOSSES))

    @losses.loss
    def bottomless(estimate, clean):  # type: ignore[no-untyped-def]
        return (estimate * clean).sum(-1)

    made = [entrant.weighting for entrant in entrants.controls(study(losses=["snr + bottomless"]))]
    assert made == ["fixed", "fixed", "equal_grad"]


def test_a_loss_with_penalties_is_no_combination_of_losses() -> None:
    made = study(losses=["snr + 1e-3*l2_penalty"], weighting=["fixed", "dwa", "searched"])
    assert entrants.asked(made) == [Entrant("snr + 0.001*l2_penalty")]
    assert entrants.controls(made) == []


def test_beside_several_losses_with_a_penalty_stands_each_alone_and_nothing_that_would_move_the_penalty() -> None:
    made = study(losses=["snr + 0.1*mse + 1e-3*l2_penalty"])
    assert entrants.controls(made) == [Entrant("snr"), Entrant("mse")]


def test_only_weights_that_move_are_frozen() -> None:
    made = study(losses=["snr + mse"], weighting=["fixed", "equal", "uncertainty", "dwa"])
    assert [entrant.weighting for entrant in entrants.learned(made)] == ["uncertainty", "dwa"]
    assert entrants.learned(study(losses=["snr + mse"], weighting="dwa", controls=False)) == []


def test_what_a_search_has_set_reaches_the_terms_and_the_weighting() -> None:
    values = {"w2": 0.25, "snr.max_db": 20.0}
    combination, weighting = entrants.with_values("snr + mse", "searched", values)
    assert combination.expression == "snr(max_db=20) + mse"
    assert weighting == "searched(weights=(1, 0.25))"
    _, weighting = entrants.with_values("snr + mse", "uncertainty(s0='zero')", {"weighting.rate": 3.0})
    assert losses.get_weighting(weighting).settings["rate"] == 3
    assert losses.get_weighting(weighting).settings["s0"] == "zero"


def test_of_two_terms_of_one_loss_each_has_settings_of_its_own() -> None:
    expression = "huber(delta=0.1) + huber + huber(delta=0.2)"
    names = [name for name, _ in entrants.settings(losses.parse(expression))]
    assert names == ["huber_2.delta"]  # the expression gives the others
    combination, _ = entrants.with_values(expression, "fixed", {"huber_2.delta": 0.3})
    assert combination.expression == "huber(delta=0.1) + huber(delta=0.3) + huber(delta=0.2)"


@pytest.mark.parametrize("weighting", ["fixed", "dwa(temperature=3)"])
def test_nothing_set_changes_nothing(weighting: str) -> None:
    combination, same = entrants.with_values("0.5*snr + mse", weighting, {})
    assert (combination.expression, same) == ("0.5*snr + mse", weighting)
