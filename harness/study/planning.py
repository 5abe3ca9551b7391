"""What a study would run and what it would reuse, as MLflow has it. Starts nothing, and asks nothing of Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness import entrants, trial
from harness.context import Context, Planned
from harness.entrants import Entrant
from harness.space import space
from harness.study import equal_time, frozen, parents
from harness.study.search import known


@dataclass(frozen=True)
class PlanRow:
    """One line of `harness plan`: trials of a loss and phase, how many of them are settled already."""

    loss: str
    phase: str
    trials: int
    settled: int
    updates: int


def plan(context: Context) -> list[PlanRow]:
    """What `work` would run and what it would reuse. Rates that an edge may add are not foreseen, nor what weights a learned
    weighting ends on, nor whom a race drops, nor, before they are measured, the updates in equal time."""
    rows = [
        PlanRow(name, "control", 1, _settled(context, [Planned(name, "control")]), 0) for name in context.task.controls
    ]
    study = context.study
    found = [*entrants.asked(study), *entrants.controls(study)]
    reference = entrants.reference(study)
    for entrant in found:
        rows += _tuned(context, entrant)
    rows += _tuned(context, reference, shipped=True) if reference not in found else []
    for learned in entrants.learned(study):
        decided = frozen.known(context, learned)
        rows += (
            _tuned(context, decided)
            if decided
            else _unknown(context, f"{learned.loss} (frozen, of {learned.weighting})")
        )
    return rows


def trained(context: Context, found: Iterable[Entrant]) -> list[Entrant]:
    """Those of these entrants that have a settled run. What raised an error, or ended its process, whenever it was trained does no
    better where its cost is measured."""
    made = {row.loss for row in plan(context) if row.settled}
    return [entrant for entrant in found if entrant.shown in made]


def spaces(context: Context) -> list[tuple[str, str, str]]:
    """What a search draws for each entrant: entrant, name, limits."""
    if context.study.search is None:
        return []
    found = [*entrants.asked(context.study), *entrants.controls(context.study)]
    return [(e.shown, dimension.name, dimension.shown()) for e in found for dimension in space(context, e)]


def _tuned(context: Context, entrant: Entrant, shipped: bool = False) -> Iterator[PlanRow]:
    """The rows of an entrant. shipped: it is the reference, which has its rate."""
    study = context.study
    selected = parents.selection(context, entrant) or ({"lr": study.reference.lr} if shipped else None)
    values = (selected or {}).get("values", {})
    if not shipped:
        trials, settled = _tuning(context, entrant, selected or {})
        yield PlanRow(entrant.shown, "tune", trials, settled, study.updates.tune)
    named = {"weighting": entrant.weighting, "values": values}
    rate = selected["lr"] if selected else None
    confirming = [Planned(entrant.loss, "confirm", seed, rate, **named) for seed in study.seed_list if rate is not None]
    yield PlanRow(entrant.shown, "confirm", study.seeds, _settled(context, confirming), study.updates.confirm)
    if study.equal_time:
        updates = equal_time.updates_of(context, entrant, values) if rate is not None else None
        again = [
            Planned(entrant.loss, "equal_time", seed, rate, **named, updates=updates)
            for seed in equal_time.seeds(study)
            if updates is not None
        ]
        yield PlanRow(
            entrant.shown, "equal_time", study.seeds, _settled(context, again), updates or study.updates.confirm
        )


def _tuning(context: Context, entrant: Entrant, selected: dict[str, object]) -> tuple[int, int]:
    """How many trials tune an entrant, and how many of them are settled."""
    study = context.study
    if study.search is not None:
        made = len(known(context, entrant, space(context, entrant)))
        return study.search.trials, min(made, study.search.trials)
    scores = selected.get("scores", {})
    assert isinstance(scores, dict)
    tried = sorted({*study.rates, *map(float, scores)})
    tuning = [Planned(entrant.loss, "tune", trial.TUNING_SEED, lr, entrant.weighting) for lr in tried]
    return len(tried), _settled(context, tuning)


def _unknown(context: Context, shown: str) -> Iterator[PlanRow]:
    """The rows of an entrant whose weights are not known yet."""
    study = context.study
    tuning = len(study.rates) if study.search is None else study.search.trials
    yield PlanRow(shown, "tune", tuning, 0, study.updates.tune)
    yield PlanRow(shown, "confirm", study.seeds, 0, study.updates.confirm)
    if study.equal_time:
        yield PlanRow(shown, "equal_time", study.seeds, 0, study.updates.confirm)


def _settled(context: Context, plans: list[Planned]) -> int:
    return sum(trial.settled(context, planned) is not None for planned in plans)
