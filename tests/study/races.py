"""Races over given scores: the real race decides and tells, and the real report judges what is left; no training, no store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.entrants import Entrant
from harness.report import raced, ranking
from harness.report.blocks import Block
from harness.study import racing
from harness.study.tuning import Choice

Tables = dict[str, np.ndarray]  # loss -> (seeds, items)
CHOICE = Choice(1e-3, "tuned")


class Staged(racing.Race):
    """A race whose runs have all been made but those of `failed`. scores: metric -> loss -> (seeds, items)."""

    def __init__(self, scores: Mapping[str, Tables], clusters: Sequence[str], failed: tuple[str, ...] = ()) -> None:
        tables = next(iter(scores.values()))
        seeds = len(next(iter(tables.values())))
        study = SimpleNamespace(seeds=seeds, seed_list=range(seeds), task="denoise", objectives=list(scores))
        task = SimpleNamespace(metrics_of=lambda objective: [objective])
        context: Any = SimpleNamespace(study=study, task=task, tracker=None, parent=lambda loss, weighting: loss)
        super().__init__(context, [Entrant(loss) for loss in tables])
        self.all, self.failed = scores, failed
        self.__dict__["_clusters"] = list(clusters)

    def _table(self, entrant: Entrant, seed: int) -> pd.DataFrame | None:
        if entrant.loss in self.failed:
            return None
        return pd.DataFrame({metric: own[entrant.loss][seed] for metric, own in self.all.items()})


def run(race: Staged, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Race to the end; what is told of each loss, as a report reads it."""
    told: dict[str, dict[str, Any]] = {}

    def mark(tracker: Any, task: str, parent: str, files: Any, *, raced: str) -> None:
        assert parent not in told  # told once: an export that was made before would keep the earlier word
        told[parent] = json.loads(raced)

    monkeypatch.setattr(racing.outbox, "mark", mark)
    entrants = list(race.racing)
    while [entrant for entrant in entrants if not race.over(entrant, CHOICE)]:
        pass
    return told


def had(told: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Seeds that each loss has after a race."""
    return {loss: own.get("seeds", own["of"]) for loss, own in told.items()}


def compare(
    tables: Tables, clusters: Sequence[str], metric: str, told: Mapping[str, Mapping[str, Any]] | None
) -> tuple[set[str], set[str], np.ndarray, list[str]]:
    """What the report makes of it: who ties with the best mean, who is of rank 1, who beats whom, in which order. told: by a race,
    None where all have all their seeds."""
    seeds = had(told) if told else {loss: len(own) for loss, own in tables.items()}
    left = {loss: pd.DataFrame(own[: seeds[loss]]) for loss, own in tables.items()}
    block = Block("p", raced.SET, metric, left, {}, {}, pd.Series(list(clusters)), 0, {})
    race = None
    if told:
        rows = [
            {"name": loss, "loss": loss, "weighting": "fixed", "role": "loss", "seed": seed, "raced": told[loss]}
            for loss in tables
            for seed in range(seeds[loss])
        ]
        race = raced.decided(pd.DataFrame(rows))
    _, beats, order = ranking._compare(block, [], race)
    first = {order[k] for k in np.flatnonzero(~beats.any(axis=0))}
    return {order[k] for k in range(len(order)) if not beats[0, k]}, first, beats, order


def agreement(tables: Tables, seeds: Mapping[str, int], beats: np.ndarray, order: list[str]) -> float:
    """tau-b between the order by all seeds and that by the seeds which a race left, over the pairs that all seeds part."""
    one, other = np.nonzero(np.triu(beats | beats.T))
    whole = np.array([tables[loss].mean() for loss in order])
    left = np.array([tables[loss][: seeds[loss]].mean() for loss in order])
    return float(np.mean(np.sign(whole[one] - whole[other]) * np.sign(left[one] - left[other])))
