"""Equal time: each loss gets as many updates as fit into the time that the reference takes for its own.

Step times are measured once all is confirmed, by one process, while no other one trains: the measurement is a trial that one
process claims and all others wait for.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna

from harness import entrants, keys, spec, throughput
from harness.context import Context, Outcome, Planned, Report
from harness.devices import device_name
from harness.entrants import Entrant
from harness.study import parents
from harness.study.queue import Plan, Queue, open_queue
from harness.study.tuning import Choice
from harness.trial import FRESH_SEEDS

ROUNDS = 3  # of a step with the loss and one with the reference, in turn: a busy moment of the machine meets both
Settings = Mapping[Entrant, Choice]


def updates_of(context: Context, entrant: Entrant, values: Mapping[str, float]) -> int | None:
    """The updates of an entrant in equal time, where they are decided: for this kind of device and what a search has set."""
    kept = parents.read(context, entrant, "equal_time")
    same = kept is not None and (kept["kind"], kept["values"]) == (context.device.type, dict(values))
    return kept["updates"] if kept is not None and same else None


def seeds(study: spec.Study) -> list[int]:
    """Seeds that neither tuning nor confirming has seen."""
    return [FRESH_SEEDS + seed for seed in study.seed_list]


def plans(context: Context, settings: Settings) -> dict[Entrant, list[Plan]]:
    """The runs of each entrant whose updates are decided."""
    found = {entrant: updates_of(context, entrant, choice.values) for entrant, choice in settings.items()}
    return {
        entrant: [{**settings[entrant].plan(seed), "updates": updates} for seed in seeds(context.study)]
        for entrant, updates in found.items()
        if updates is not None
    }


@dataclass
class Steps(Queue):
    """The measurement of step times, a trial like any other. due: what is to be measured."""

    due: Settings = field(default_factory=dict)

    def planned(self, plan: Plan) -> Planned:
        return Planned(f"step times of {len(self.due)} losses", "measured")

    def make(self, context: Context, planned: Planned, report: Report) -> Outcome:
        for done, (entrant, choice) in enumerate(self.due.items()):
            report(planned.title, done, len(self.due), None)
            parents.write(context, entrant, "equal_time", measured(context, entrant, choice.values))
        return Outcome("finished", None)

    def write(self, claimed: optuna.Trial, plan: Plan) -> None:
        return  # what is measured is no number to draw


@dataclass
class Measuring:
    """The step times that are not known yet, as work that one process does."""

    queue: Steps
    since: datetime

    def advance(self) -> Queue | None:
        due = [[entrant.shown, dict(choice.values)] for entrant, choice in self.queue.due.items()]
        plan = {"of": keys.digest([self.queue.optuna.study_name, due])}
        return self.queue if due and not self.queue.over([plan], self.since) else None


def measuring(context: Context, store: optuna.storages.RDBStorage, since: datetime, settings: Settings) -> Measuring:
    """The step times of these entrants, but for those that are known."""
    queue: Steps = open_queue(Steps, context, store, entrants.reference(context.study), f"steps/{context.device.type}")
    queue.due = {e: choice for e, choice in settings.items() if updates_of(context, e, choice.values) is None}
    return Measuring(queue, since)


def measured(context: Context, entrant: Entrant, values: Mapping[str, float]) -> dict[str, Any]:
    """Median step times in ms, and the updates that take as long as those of the reference."""
    reference = entrants.reference(context.study)
    batches = [context.scenes.batch(0, step, context.study.batch, context.device) for step in range(4)]
    rounds = [
        (_step(context, batches, reference, {}), _step(context, batches, entrant, values))
        for _ in range(ROUNDS if entrant != reference else 1)
    ]
    theirs, own = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = 1.0 if entrant == reference else statistics.median(a / b for a, b in rounds)
    return {
        "updates": max(1, round(context.study.updates.confirm * ratio)),
        "step_ms": own,
        "reference_ms": theirs,
        "values": dict(values),
        "kind": context.device.type,
        "device": device_name(context.device),
    }


def _step(context: Context, batches: Sequence[Any], entrant: Entrant, values: Mapping[str, float]) -> float:
    combination, weighting = entrants.with_values(entrant.loss, entrant.weighting, values)
    return throughput.training_step(
        context.study.model,
        combination.expression,
        list(batches),
        context.device,
        sizes=context.sizes,
        weighting=weighting,
    )
