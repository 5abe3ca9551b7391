"""The space of a search: what it may set for an entrant, and in which limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness import entrants, losses, models, train
from harness.context import Context
from harness.entrants import Entrant
from harness.losses.weightings import get_weighting
from harness.settings import Setting
from harness.trial import TUNING_SEED

DECADES = 2  # of a weight, to either side of where the terms are equal before training
EDGE = 0.05  # share of a dimension at either end that is called its edge


@dataclass(frozen=True)
class Dimension:
    """One number that a search sets: in the limits, ends included; by ratios if `log`; a whole one if `whole`."""

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at_the_edge(self, value: float) -> bool:
        """Whether a value lies so near to an end that the best one may lie beyond."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return min(at - low, high - at) < EDGE * (high - low)

    def shown(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}" + (", log" if self.log else "") + (", whole" if self.whole else "")


def space(context: Context, entrant: Entrant) -> list[Dimension]:
    """What the study's search sets for an entrant: the rate, the weights, settings of the weighting, and of the losses."""
    study, combination = context.study, losses.parse(entrant.loss)
    assert study.search is not None
    chosen = get_weighting(entrant.weighting)
    found = [Dimension("lr", study.rates[0], study.rates[-1], log=True)]
    if chosen.name == "searched":
        found += [
            Dimension(f"w{number}", centre / 10**DECADES, centre * 10**DECADES, log=True)
            for number, centre in enumerate(_even(_initial(context, entrant)), 1)
            if number > 1
        ]
    given = {name: s for name, s in chosen.info.settings.items() if chosen.settings[name] == s.default}
    found += [_of_setting(f"weighting.{name}", setting) for name, setting in given.items() if setting.range]
    wanted = ((name, setting) for name, setting in entrants.settings(combination) if study.search.sets(name))
    return found + [_of_setting(name, setting) for name, setting in wanted]


def _of_setting(name: str, setting: Setting) -> Dimension:
    assert setting.range is not None
    return Dimension(name, setting.range.low, setting.range.high, setting.range.log, setting.kind == "int")


def _initial(context: Context, entrant: Entrant) -> list[float]:
    """What each term is worth on the untrained net: its mean above its minimum, where one is known."""
    study, combination = context.study, losses.parse(entrant.loss)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(TUNING_SEED)
        model = models.build(study.model, study.conditions(combination)[1], context.sizes).to(context.device)
        objective = losses.Objective(combination, "fixed", context.sizes).to(context.device)

        def batch(step: int) -> dict[str, torch.Tensor]:
            return context.scenes.batch(TUNING_SEED, step, study.batch, context.device)

        terms = train.initial(model, objective, batch, models.get(study.model).fields)["terms"].tolist()
    return [abs(term - (minimum or 0.0)) for term, minimum in zip(terms, combination.minima, strict=True)]


def _even(values: Sequence[float]) -> list[float]:
    """The weights that would make these values equal to the first, to one digit, so that every machine has the same."""
    return [float(f"{values[0] / value:.0e}") if value > 0 and values[0] > 0 else 1.0 for value in values]
