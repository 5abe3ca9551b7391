"""What begins when all is confirmed: frozen weights, and the phase in equal time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness import estimate, exchange, study, throughput, workers
from harness.context import Context, Planned
from harness.entrants import Entrant
from harness.study import equal_time, frozen, parents
from harness.study.tuning import Choice
from harness.tracking import Tracker
from tests.study.conftest import formula, runs, work

Maker = Callable[..., Context]
STEPS = {"mse": 50.0, "snr": 100.0, "l1": 30.0}  # ms


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The losses whose step was measured, with a clock that does not tremble."""
    seen: list[str] = []

    def step(model: str, expression: str, *_: Any, **more: Any) -> float:
        seen.append(expression)
        return STEPS[expression]

    monkeypatch.setattr(throughput, "training_step", step)
    return seen


def test_frozen_weights_are_the_mean_of_the_last_tenth_and_begin_when_the_learned_ones_are_confirmed(
    made: Maker,
) -> None:
    context = made(
        losses=["snr + mse"],
        weighting="uncertainty",
        rates=[1e-3, 3e-3, 1e-2],
        seeds=2,
        updates={"tune": 2, "confirm": 40},
    )
    titles = [event.title for event in work(context)]
    first = min(place for place, title in enumerate(titles) if "frozen" in title)
    assert all("frozen" in title for title in titles[first:])
    assert {title.split(" tune")[0] for title in titles[first:] if " tune" in title} == {
        "snr + mse (frozen(weights=(1, 0.1875)))"
    }
    weightings = Counter(
        run.data.tags["weighting"] for run in runs(context, "confirm") if run.data.tags["loss"] == "snr + mse"
    )
    assert weightings == {"uncertainty": 2, "equal": 2, "equal_grad": 2, "frozen(weights=(1, 0.1875))": 2}
    terms = Counter(run.data.tags["loss"] for run in runs(context, "confirm") if run.data.tags["weighting"] == "fixed")
    assert terms == {"snr": 2, "mse": 2}
    assert all(row.settled == row.trials for row in study.plan(context))


def test_every_entrant_of_a_search_gets_as_many_trials_the_terms_alone_and_frozen_weights_too(made: Maker) -> None:
    context = made(
        losses=["snr + mse"], weighting=["uncertainty", "searched"], rates=[1e-3, 1e-2], seeds=1, search={}, draws=3,
        updates={"tune": 2, "confirm": 40},
    )  # fmt: skip
    work(context)
    tuned = Counter((run.data.tags["loss"], run.data.tags["weighting"]) for run in runs(context, "tune"))
    kinds = ["uncertainty", "searched", "equal", "equal_grad", "frozen(weights=(1, 0.125))"]
    assert tuned == dict.fromkeys([("snr", "fixed"), ("mse", "fixed"), *(("snr + mse", kind) for kind in kinds)], 3)


def test_the_weights_are_in_the_identity_and_decided_once_for_a_setting(made: Maker) -> None:
    context = made(losses=["snr + mse"], weighting="uncertainty")
    learned = Entrant("snr + mse", "uncertainty")
    assert frozen.of(context, learned, Choice(1e-2, "tuned")) is None  # nothing is confirmed
    kept = {"setting": {"lr": 1e-2, "values": {}}, "weights": [1.0, 0.31]}
    parents.write(context, learned, "frozen", kept)
    decided = frozen.of(context, learned, Choice(1e-2, "tuned"))
    assert decided == Entrant("snr + mse", "frozen(weights=(1, 0.31))")
    assert frozen.of(context, learned, Choice(3e-3, "tuned")) is None
    identities = {
        context.identity(Planned("snr + mse", "confirm", 1, 1e-2, f"frozen(weights=(1, {weight}))"))
        for weight in (0.31, 0.32)
    }
    assert len(identities) == 2


def test_in_equal_time_each_loss_gets_the_updates_that_the_reference_leaves_time_for(
    made: Maker, measured: list[str], tmp_path: Path
) -> None:
    context = made(
        losses=["snr", "l1"], equal_time=True, updates={"tune": 2, "confirm": 30}, seeds=2, rates=[1e-3, 3e-3, 1e-2]
    )
    rows = [row for row in study.plan(context) if row.phase == "equal_time"]
    assert [(row.loss, row.trials, row.settled) for row in rows] == [("snr", 2, 0), ("l1", 2, 0), ("mse", 2, 0)]
    titles = [event.title for event in work(context)]
    order = [title.split(" seed")[0].split(" lr")[0] for title in titles]
    assert (
        order.index("step times of 3 losses measured")
        == max(i for i, title in enumerate(order) if "confirm" in title) + 1
    )
    again = runs(context, "equal_time")
    updates = {run.data.tags["loss"]: run.data.params["updates"] for run in again}
    assert updates == {"snr": "15", "l1": "50", "mse": "30"}
    assert {run.data.metrics["updates"] for run in again} == {15, 50, 30}
    assert {run.data.tags["seed"] for run in again} == {"1001", "1002"}  # which nothing has seen
    assert len({run.data.tags["identity"] for run in again}) == 6
    assert {run.data.tags["test_list"] for run in again} == {
        run.data.tags["test_list"] for run in runs(context, "confirm")
    }

    before = len(measured)
    assert not [event for event in work(context) if event.outcome and not event.outcome.reused]
    assert len(measured) == before  # known, and so the same runs
    rows = [row for row in study.plan(context) if row.phase == "equal_time"]
    assert [(row.updates, row.settled) for row in rows] == [(15, 2), (50, 2), (30, 2)]
    assert estimate.sentence(context, rows, workers.Options("cpu", 1)).startswith("0 runs to make")

    exchange.write(context.tracker, "", tmp_path / "export", lambda done, of: None)
    other = Tracker(f"sqlite:///{tmp_path / 'other.db'}")
    made_, known, _ = exchange.read(other, tmp_path / "export", lambda done, of: None)
    assert (made_, known) == (len(titles) - 1, 0)
    assert sorted(run.data.tags["identity"] for run in other.search("tags.phase = 'equal_time'")) == sorted(
        run.data.tags["identity"] for run in again
    )


def test_the_updates_belong_to_a_kind_of_device_and_to_what_a_search_has_set(made: Maker, measured: list[str]) -> None:
    context = made(losses=["snr"], equal_time=True)
    loss = Entrant("snr")
    parents.write(context, loss, "equal_time", equal_time.measured(context, loss, {}))
    assert equal_time.updates_of(context, loss, {}) == context.study.updates.confirm / 2
    assert equal_time.updates_of(context, loss, {"snr.max_db": 20.0}) is None
    parents.write(context, loss, "equal_time", {**equal_time.measured(context, loss, {}), "kind": "cuda"})
    assert equal_time.updates_of(context, loss, {}) is None


def test_step_times_are_measured_by_one_process_and_the_others_wait(made: Maker, measured: list[str]) -> None:
    context = made(losses=["snr"], equal_time=True)
    settings = {Entrant(name): Choice(1e-2, "tuned") for name in ("snr", "mse")}
    store = study.open_storage()
    one, two = (equal_time.measuring(context, store, datetime.now(), settings) for _ in range(2))
    assert one.advance() is one.queue
    claimed = one.queue.optuna.ask()
    assert one.queue.take(claimed) is not None
    waiting = two.advance()
    assert waiting is two.queue
    assert not waiting.ready()  # it runs elsewhere
    one.queue.make(context, one.queue.planned({"of": ""}), lambda *_: None)
    one.queue.optuna.tell(claimed, 0.0)
    assert two.advance() is None
    assert equal_time.measuring(context, store, datetime.now(), settings).advance() is None
    assert len(equal_time.plans(context, settings)) == 2


def test_the_reference_has_its_own_updates_in_equal_time_and_a_real_step_takes_time(made: Maker) -> None:
    context = made(formula, losses=["snr"], equal_time=True)
    found = equal_time.measured(context, Entrant("mse"), {})
    assert found["updates"] == context.study.updates.confirm
    assert found["step_ms"] > 0
    assert json.loads(json.dumps(found)) == found
