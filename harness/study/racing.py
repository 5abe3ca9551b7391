"""Racing: a loss that is clearly apart gets no more seeds.

Looks are taken after 3 seeds, and each time that there are half as many again, while a third is left to be saved. On each metric
that the study is tuned for, a loss contends for the first place until another contender beats it for certain: by paired
differences on the matched test, adjusted by Holm over the pairs of contenders, at a level divided by the number of looks. A
metric of one contender is decided. Whoever contends on no metric that is open stops, the winner of one like those who are beaten
on all, and keeps the seeds it has. Every process looks for itself and sees the same, because looks rest on finished runs alone.
Where one of them is out of reach, because it failed or waits in the outbox, that look drops nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations

import numpy as np
import pandas as pd

from harness import outbox
from harness.context import Context, Planned
from harness.entrants import Entrant
from harness.intervals import ALPHA, Array, Estimate, holm, p_value, two_way
from harness.study.tuning import Choice

FIRST = 3  # seeds before the first look: of fewer, too little is known to drop anybody
SET = "matched"

Scores = Mapping[str, Mapping[Entrant, Array]]  # metric -> entrant -> (seeds, items), higher is better


def looks(seeds: int) -> list[int]:
    """The numbers of seeds at which a race of so many is looked at."""
    found, at = [], FIRST
    while 3 * at <= 2 * seeds:
        found.append(at)
        at = 3 * at // 2
    return found


def unbeaten(tables: Mapping[Entrant, Array], clusters: Sequence[str], alpha: float) -> list[Entrant]:
    """Whom nobody beats for certain, in the order given.

    tables: scores of one metric, (seeds, items) each of equal seeds and items, higher is better; an item that is NaN for one is
    left out for all. clusters: (items,) names.
    """
    couples = list(combinations(tables, 2))
    if not couples:
        return list(tables)
    known = ~np.isnan(np.concatenate(list(tables.values()))).any(axis=0)
    differences = np.stack([(tables[a] - tables[b])[:, known] for a, b in couples])
    mean, se, df = two_way(differences, np.asarray(clusters)[known])
    # Of three seeds some pair always differs by nearly the same in each, by chance, and would look certain far too often. None is
    # taken to be surer than pairs are on the whole.
    se = np.maximum(se, np.sqrt(np.mean(se**2)))
    adjusted, _ = holm(p_value(Estimate(mean, se, df)), alpha)
    # A p-value that is NaN is not below: nothing is known.
    beaten = {b if gain > 0 else a for (a, b), gain, p in zip(couples, mean, adjusted, strict=True) if p < alpha}
    return [entrant for entrant in tables if entrant not in beaten]


def narrowed(
    contenders: Mapping[str, Sequence[Entrant]], scores: Scores, clusters: Sequence[str], alpha: float
) -> dict[str, list[Entrant]]:
    """Who contends on each metric after a look, of those that contended before: whoever is named for none is decided.

    contenders: metric -> entrants; scores: of the same metrics, of all who contend.
    """
    left = {
        metric: unbeaten({entrant: scores[metric][entrant] for entrant in own}, clusters, alpha)
        for metric, own in contenders.items()
    }
    return {metric: own for metric, own in left.items() if len(own) > 1}


@dataclass
class Race:
    """Who of the entrants of a study gets seeds, as one process sees it.

    racing: those still in; stopped: the seeds of those that are out; contenders: on each metric that is open, none before the
    first look; looked: looks taken; reached: how many looks were taken when each told that it has what was due; choices: the
    setting of each that has told.
    """

    context: Context
    racing: list[Entrant]
    stopped: dict[Entrant, int] = field(default_factory=dict)
    contenders: dict[str, list[Entrant]] = field(default_factory=dict)
    looked: int = 0
    reached: dict[Entrant, int] = field(default_factory=dict)
    choices: dict[Entrant, Choice] = field(default_factory=dict)

    def due(self, entrant: Entrant) -> int:
        """How many seeds an entrant gets: those until the next look, or those that it had when it was out."""
        seeds = self.context.study.seeds
        return self.stopped.get(entrant, [*looks(seeds), seeds][self.looked])

    def over(self, entrant: Entrant, choice: Choice) -> bool:
        """Told that an entrant has the seeds that were due; whether it gets no more."""
        if entrant in self.racing and self.due(entrant) < self.context.study.seeds:
            self.choices[entrant], self.reached[entrant] = choice, self.looked
            if all(self.reached.get(other) == self.looked for other in self.racing):
                self._look()
            return entrant in self.stopped
        return True

    def _look(self) -> None:
        study, had = self.context.study, self.due(self.racing[0])
        left = self.racing
        if scores := self._scores(had):
            before = self.contenders or dict.fromkeys(scores, self.racing)
            self.contenders = narrowed(before, scores, self._clusters, ALPHA / len(looks(study.seeds)))
            left = [entrant for entrant in self.racing if any(entrant in own for own in self.contenders.values())]
        told = json.dumps({"seeds": had, "of": study.seeds, "looks": looks(study.seeds)})
        for entrant in self.racing:
            if entrant not in left:
                self.stopped[entrant] = had
                parent = self.context.parent(entrant.loss, entrant.weighting)
                outbox.mark(self.context.tracker, study.task, parent, None, raced=told)
        self.racing, self.looked = left, self.looked + 1

    @cached_property
    def _clusters(self) -> list[str]:
        return [item.cluster for item in self.context.sets[SET]]

    def _scores(self, seeds: int) -> Scores:
        """Of so many seeds, that all have; a diverged one scores what the first control scores. {} where one is out of reach."""
        study, task = self.context.study, self.context.task
        metrics = dict.fromkeys(name for objective in study.objectives for name in task.metrics_of(objective))
        found: dict[Entrant, list[pd.DataFrame]] = {}
        for entrant in self.racing:
            tables = [self._table(entrant, seed) for seed in study.seed_list[:seeds]]
            found[entrant] = [table for table in tables if table is not None]
            if len(found[entrant]) < len(tables):
                return {}
        return {
            metric: {e: np.stack([table[metric].to_numpy(float) for table in own]) for e, own in found.items()}
            for metric in metrics
            if all(metric in table for own in found.values() for table in own)
        }

    def _table(self, entrant: Entrant, seed: int) -> pd.DataFrame | None:
        """The scores of a run, or of the control in the place of one that diverged."""
        choice, tracker = self.choices[entrant], self.context.tracker
        planned = Planned(entrant.loss, "confirm", seed, choice.lr, entrant.weighting, dict(choice.values))
        control = self.context.control_identity(self.context.task.controls[0])
        for identity in (self.context.identity(planned), control):
            run = outbox.answer(tracker, partial(tracker.find, identity))
            if run is None:
                return None
            if run.data.tags["state"] != "diverged":
                path = outbox.answer(tracker, partial(tracker.artifact, run.info.run_id, "scores.csv"))
                table = pd.read_csv(path) if path is not None else None
                return None if table is None else table[table["test_set"] == SET].reset_index(drop=True)
        return None
