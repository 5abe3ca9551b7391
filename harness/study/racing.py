"""Racing: a loss that is clearly apart gets no more seeds.

Looks are taken after 3 seeds, and each time that there are half as many again, while a third is left to be saved. On each metric
that the study is tuned for, a loss contends for the first place until the first of the contenders beats it for certain: by paired
differences on the matched test, adjusted by Holm over the pairs of contenders, at a level divided by the number of looks. To be
beaten by another one is not enough: the report would still print such a loss as tied with the first. A metric of one contender is
decided. Whoever contends on no metric that is open stops, the winner of one like those who are beaten on all, and keeps the seeds
it has; so does the reference, because a race that never stopped it would cost more than half of a whole study.

The looks at a metric share 5 % of error. The report compares once more at the end, which is no look: that has 5 % of its own, so
that race and report together say something false about a metric in one of ten cases at most (the sum of both, a union bound;
simulated, the race takes about 1 %). The report keeps what a look has decided (`harness.report.raced`), because no seeds are left
to decide it again. Metrics that are not raced on, DNSMOS among them, have the seeds that the race leaves: more losses may tie
there, for the first place too.

Every process looks for itself and sees the same, because looks rest on finished runs alone. Where one of them is out of reach,
because it failed or waits in the outbox, that look is void: it drops nobody, and the report says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from typing import Any

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
Defeats = dict[Entrant, dict[str, tuple[Entrant, float]]]  # whom -> metric -> by whom, p adjusted for pairs and looks


def looks(seeds: int) -> list[int]:
    """The numbers of seeds at which a race of so many is looked at."""
    found, at = [], FIRST
    while 3 * at <= 2 * seeds:
        found.append(at)
        at = 3 * at // 2
    return found


def beaten(
    tables: Mapping[Entrant, Array], clusters: Sequence[str], alpha: float
) -> tuple[Entrant, dict[Entrant, float]]:
    """The first by its mean, and whom it beats for certain, each with its p-value, adjusted over all pairs.

    tables: scores of one metric, (seeds, items) each of equal seeds and items, higher is better; an item that is NaN for one is
    left out for all. clusters: (items,) names.
    """
    known = ~np.isnan(np.concatenate(list(tables.values()))).any(axis=0)
    first = max(tables, key=lambda entrant: float(tables[entrant][:, known].mean()) if known.any() else 0.0)
    couples = list(combinations(tables, 2))
    if not couples:
        return first, {}
    differences = np.stack([(tables[a] - tables[b])[:, known] for a, b in couples])
    mean, se, df = two_way(differences, np.asarray(clusters)[known])
    # Of three seeds some pair always differs by nearly the same in each, by chance, and would look certain far too often. None is
    # taken to be surer than pairs are on the whole.
    se = np.maximum(se, np.sqrt(np.mean(se**2)))
    adjusted, _ = holm(p_value(Estimate(mean, se, df)), alpha)
    # A p-value that is NaN is not below: nothing is known.
    return first, {
        other: float(p)
        for couple, p in zip(couples, adjusted, strict=True)
        for other in couple
        if first in couple and other != first and p < alpha
    }


def narrowed(
    contenders: Mapping[str, Sequence[Entrant]], scores: Scores, clusters: Sequence[str], count: int
) -> tuple[dict[str, list[Entrant]], Defeats]:
    """Who contends on each metric after a look, of those that contended before, and who was beaten at it: whoever is named for no
    metric is decided.

    contenders: metric -> entrants; scores: of the same metrics, of all who contend; count: of the looks that share the level.
    """
    left: dict[str, list[Entrant]] = {}
    lost: Defeats = {}
    for metric, own in contenders.items():
        first, others = beaten({entrant: scores[metric][entrant] for entrant in own}, clusters, ALPHA / count)
        left[metric] = [entrant for entrant in own if entrant not in others]
        for entrant, p in others.items():
            lost.setdefault(entrant, {})[metric] = first, p * count
    return {metric: own for metric, own in left.items() if len(own) > 1}, lost


@dataclass
class Race:
    """Who of the entrants of a study gets seeds, as one process sees it.

    racing: those still in; stopped: the seeds of those that are out; contenders: on each metric that is open, none before the
    first look; looked: looks taken; reached: how many looks were taken when each told that it has what was due; choices: the
    setting of each that has told; defeats: on what each was beaten; void: seeds at a look that saw nothing -> for want of whose.
    """

    context: Context
    racing: list[Entrant]
    stopped: dict[Entrant, int] = field(default_factory=dict)
    contenders: dict[str, list[Entrant]] = field(default_factory=dict)
    looked: int = 0
    reached: dict[Entrant, int] = field(default_factory=dict)
    choices: dict[Entrant, Choice] = field(default_factory=dict)
    defeats: Defeats = field(default_factory=dict)
    void: dict[int, list[str]] = field(default_factory=dict)

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
        planned, left = looks(study.seeds), self.racing
        scores, missing = self._scores(had)
        if scores:
            before = self.contenders or dict.fromkeys(scores, self.racing)
            self.contenders, lost = narrowed(before, scores, self._clusters, len(planned))
            for entrant, own in lost.items():
                self.defeats.setdefault(entrant, {}).update(own)
            left = [entrant for entrant in self.racing if any(entrant in own for own in self.contenders.values())]
        else:
            self.void[had] = missing
        out = [entrant for entrant in self.racing if entrant not in left]
        self.stopped |= dict.fromkeys(out, had)
        self.racing, self.looked = left, self.looked + 1
        for entrant in [*out, *left] if self.looked == len(planned) else out:
            self._tell(entrant)

    def _tell(self, entrant: Entrant) -> None:
        """Keep where reports find it what the race has said of an entrant: once, when it is out or has been in to the end."""
        study, planned = self.context.study, looks(self.context.study.seeds)
        told: dict[str, Any] = {"seeds": self.stopped[entrant]} if entrant in self.stopped else {}
        told |= {"of": study.seeds, "looks": planned, "taken": planned[: self.looked], "void": self.void}
        told["beaten"] = {
            metric: [first.loss, first.weighting, float(f"{p:.3g}")]
            for metric, (first, p) in self.defeats.get(entrant, {}).items()
        }
        parent = self.context.parent(entrant.loss, entrant.weighting)
        outbox.mark(self.context.tracker, study.task, parent, None, raced=json.dumps(told))

    @cached_property
    def _clusters(self) -> list[str]:
        return [item.cluster for item in self.context.sets[SET]]

    def _scores(self, seeds: int) -> tuple[Scores, list[str]]:
        """Of so many seeds, that all have; a diverged one scores what the first control scores. Where some are out of reach none,
        and whose those are."""
        study, task = self.context.study, self.context.task
        metrics = dict.fromkeys(name for objective in study.objectives for name in task.metrics_of(objective))
        found: dict[Entrant, list[pd.DataFrame]] = {}
        for entrant in self.racing:
            tables = [self._table(entrant, seed) for seed in study.seed_list[:seeds]]
            found[entrant] = [table for table in tables if table is not None]
        if missing := [entrant.shown for entrant, own in found.items() if len(own) < seeds]:
            return {}, missing
        return {
            metric: {e: np.stack([table[metric].to_numpy(float) for table in own]) for e, own in found.items()}
            for metric in metrics
            if all(metric in table for own in found.values() for table in own)
        }, []

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
