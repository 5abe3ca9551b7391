"""Who takes part in a study: losses under weightings, those that it names and the controls of its combinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness import losses, throughput
from harness.errors import UserError
from harness.losses.combination import Combination
from harness.losses.weightings import Chosen, get_weighting
from harness.settings import Setting
from harness.spec import Study, check_fit

# Weights that stay as they are in a training: there is nothing to freeze.
STEADY = ("fixed", "searched", "equal", "equal_grad", "frozen")
EVEN = ("equal", "equal_grad")  # controls of every combination


@dataclass(frozen=True)
class Entrant:
    """A loss, by its canonical expression, under a weighting, by its own. What a study tunes, confirms and ranks."""

    loss: str
    weighting: str = "fixed"

    @property
    def shown(self) -> str:
        return throughput.shown(self.loss, self.weighting)


def asked(study: Study) -> list[Entrant]:
    """The losses of a study, each combination of several under each of its weightings, a single loss, with penalties or without,
    under `fixed`.

    Numbers in front of terms are those of `fixed`: every other weighting begins from the plain sum, so that combinations
    which differ in these numbers alone are one entrant under it.
    """
    found = []
    for expression in study.losses:
        combination = losses.parse(expression)
        for weighting in study.weighting if combination.balances else ("fixed",):
            shown = combination if weighting == "fixed" else plain(combination)
            found.append(Entrant(shown.expression, get_weighting(weighting).expression))
    return list(dict.fromkeys(found))


def controls(study: Study) -> list[Entrant]:
    """What stands beside each combination of several losses, where it is not asked for already: each term alone, and the terms
    made equal. A penalty is no loss alone, and a loss with penalties no combination."""
    found: list[Entrant] = []
    for expression in study.losses if study.controls else ():
        combination = losses.parse(expression)
        alone = [Entrant(term.expression) for term in _alone(combination) if _trains(term, study.task)]
        if len(alone) > 1:
            found += alone
            sum_ = plain(combination)
            even = EVEN if not combination.penalties else ()  # made equal to a loss, a penalty would forbid to learn
            found += [Entrant(sum_.expression, name) for name in even if _weighs(name, sum_)]
    return [entrant for entrant in dict.fromkeys(found) if entrant not in asked(study)]


def learned(study: Study) -> list[Entrant]:
    """The entrants whose weights move, so that freezing them is a control."""
    moving = [entrant for entrant in asked(study) if get_weighting(entrant.weighting).name not in STEADY]
    return moving if study.controls else []


def reference(study: Study) -> Entrant:
    """The loss that every table holds."""
    return Entrant(losses.parse(study.reference.loss).expression)


def plain(combination: Combination) -> Combination:
    """The same terms with no numbers in front of them."""
    return replace(combination, terms=tuple(replace(term, weight=1.0) for term in combination.terms))


def settings(combination: Combination) -> Iterator[tuple[str, Setting]]:
    """The settings that a search may set, each with the name of its value: those with a range, unless the expression gives
    them."""
    for label, term in zip(combination.names, combination.terms, strict=True):
        for name, setting in term.info.settings.items():
            if setting.range is not None and term.settings[name] == setting.default:
                yield f"{label}.{name}", setting


def frozen(learned: Entrant, weights: Sequence[float]) -> Entrant:
    """A learned entrant under the weights that it ended on, from the first update."""
    info = get_weighting(f"frozen(weights={tuple(weights)!r})")
    return Entrant(learned.loss, Chosen(info.name, info.settings).expression)


def with_values(loss: str, weighting: str, values: Mapping[str, float]) -> tuple[Combination, str]:
    """The combination and the weighting under what a search has set: `w2`, the weight of the second term, `si_sdr.max_db`,
    `weighting.rate`."""
    combination, chosen = losses.parse(loss), get_weighting(weighting)
    terms = []
    for label, term in zip(combination.names, combination.terms, strict=True):
        own = _under(label, values)
        terms.append(replace(term, settings=term.info.resolve({**term.settings, **own})))
    given: dict[str, Any] = {**_under("weighting", values)}
    if chosen.name == "searched":
        given["weights"] = (1.0, *(values[f"w{number}"] for number in range(2, len(terms) + 1)))
    resolved = chosen.info.resolve({**chosen.settings, **given})
    return replace(combination, terms=tuple(terms)), Chosen(chosen.name, resolved).expression


def _under(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(f"{label}."): value for name, value in values.items() if name.startswith(f"{label}.")}


def _alone(combination: Combination) -> list[Combination]:
    return [replace(plain(combination), terms=(replace(term, weight=1.0),)) for term in combination.terms]


def _trains(term: Combination, task: str) -> bool:
    return _holds(lambda: check_fit(term.expression, task))


def _weighs(weighting: str, combination: Combination) -> bool:
    """Whether a weighting can: some need a minimum of every term."""
    return _holds(lambda: get_weighting(weighting).build(combination))


def _holds(check: Callable[[], object]) -> bool:
    try:
        check()
    except UserError:
        return False
    return True
