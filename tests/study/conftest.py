"""Studies whose trainings are stood in for by a formula: planning, claiming, logging and deciding are the real ones."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness import losses, outbox, paths, scale, spec, study, trial, workers
from harness.context import Context, Outcome, Planned, Report
from harness.tracking import Tracker
from tests.conftest import blank

Make = Callable[[Context, Planned, outbox.Record, Path, Report], Outcome]


def score(planned: Planned, share: float = 1.0) -> float:
    """Best at a rate of 3e-3 and at values of 3; `share` of the training takes it as far."""
    assert planned.lr is not None
    off = math.log10(planned.lr / 3e-3) ** 2
    off += sum(math.log10(value / 3) ** 2 for value in planned.values.values() if value > 0)
    return share - off


def formula(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
    """What a run comes to: `score`, looked at as often as a training is; weights of terms, see `_weights`."""
    if planned.phase == "control":
        return Outcome("finished", None)
    updates = planned.updates or getattr(context.study.updates, planned.phase)
    for done in trial.looks_at(planned.phase, updates, context.study.pruner):
        now = score(planned, done / updates)
        points = {"validation/score": now, "validation/pesq_wb": now, "validation/stoi": -now, "updates": done}
        record.log([(name, value, done) for name, value in points.items()])
        if report(planned.title, done, updates, now) and done < updates:
            return Outcome("pruned", now, f"pruned after {done} of {updates} updates")
    trial._write_spec(context, planned, folder, {})
    names = losses.parse(planned.loss).names
    rows = [_weights(step, updates, planned.seed or 0, len(names)) for step in range(1, updates + 1)]
    table = pd.DataFrame(rows, columns=[f"weight/{name}" for name in names])
    table.assign(step=range(1, updates + 1), seconds=0.0).to_csv(folder / "training.csv", index=False)
    several = len(context.study.objectives) > 1
    return Outcome("finished", now, values=(now, -now) if several else ())


def _weights(step: int, updates: int, seed: int, terms: int) -> list[float]:
    """0 but in the last tenth of the updates, where the first is 2, and those of other terms move and are larger for later seeds:
    of 40 updates they are seed / 4 in the mean."""
    if step <= 0.9 * updates:
        return [0.0] * terms
    return [2.0, *[seed * (1, 2, 1, 4)[(step - 1) % 4] / 8] * (terms - 1)]


@pytest.fixture(scope="package")
def opened(tiny: Path) -> Iterator[Context]:
    with scale.own_home():
        yield workers.open_study(spec.load(str(tiny)), workers.Options("cpu", 1), 1, lambda line: None)


@pytest.fixture
def made(opened: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Context]:
    """A maker of studies like the tiny one, with some keys replaced, on stores of their own. draws: of a search, also fewer than
    a study file may ask for."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    shutil.copytree(blank() / "runs", paths.runs())

    def make(run: Make = formula, draws: int | None = None, **changes: Any) -> Context:
        raw = opened.study.model_dump(mode="json") | changes
        of = spec.Study.model_validate(raw)
        if draws is not None:
            assert of.search is not None
            of = of.model_copy(update={"search": of.search.model_copy(update={"trials": draws})})
        return replace(opened, study=of, tracker=Tracker(), make=run, controls={})

    return make


def work(context: Context, **more: Any) -> list[study.Event]:
    """Do what is left of a study in this process; what ended, in order."""
    seen: list[study.Event] = []
    study.work(context, study.open_storage(), seen.append, datetime.now(), **more)
    return [event for event in seen if event.outcome is not None]


def runs(context: Context, phase: str) -> list[Any]:
    return [run for run in context.tracker.search() if run.data.tags.get("phase") == phase]
