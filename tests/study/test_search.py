"""Searches by TPE: as many draws as were asked for, none lost and none twice, the choice told by the store alone."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from harness import outbox, paths, study, trial
from harness.context import Context, Outcome, Planned, Report
from harness.entrants import Entrant
from harness.space import Dimension, space
from harness.study.search import Draws, _pruner, _Tpe
from tests.conftest import blank
from tests.study.conftest import formula, runs, work

Maker = Callable[..., Context]
SEARCH: dict[str, Any] = {"losses": ["mse"], "rates": [1e-4, 1e-1], "search": {}}


def numbers_of(context: Context) -> dict[TrialState, int]:
    """Trials of the search by state, as Optuna's store has them."""
    url = study.default_storage()
    (name,) = [name for name in optuna.get_all_study_names(url) if name.endswith("/tune")]
    return Counter(t.state for t in optuna.load_study(study_name=name, storage=url).trials)


def drawn(context: Context) -> list[float]:
    return [float(run.data.params["lr"]) for run in runs(context, "tune")]


def selected(context: Context, loss: str = "mse") -> dict[str, Any]:
    (parent,) = [run for run in runs(context, "parent") if run.data.tags["loss"] == loss]
    return json.loads(parent.data.tags["selected"])


def test_a_search_of_twenty_is_made_once_and_chooses_the_best_and_tells_what_mattered(made: Maker) -> None:
    context = made(
        losses=["smooth_l1"], rates=[1e-4, 1e-1], search={"settings": ["beta"]}, updates={"tune": 2, "confirm": 2}
    )
    work(context)
    tuned = [run for run in runs(context, "tune") if run.data.tags["loss"] == "smooth_l1"]
    assert len(tuned) == len({run.data.tags["identity"] for run in tuned}) == 20
    best = max(tuned, key=lambda run: run.data.metrics["validation/score"])
    choice = selected(context, "smooth_l1")
    assert choice["lr"] == float(best.data.params["lr"])
    assert choice["values"] == {"smooth_l1.beta": float(best.data.params["smooth_l1.beta"])}
    assert choice["trials"] == 20
    (confirmed,) = [run for run in runs(context, "confirm") if run.data.tags["loss"] == "smooth_l1"]
    assert confirmed.data.params["smooth_l1.beta"] == best.data.params["smooth_l1.beta"]
    (parent,) = [run for run in runs(context, "parent") if run.data.tags["loss"] == "smooth_l1"]
    importance = context.tracker.read_json(parent.info.run_id, "importance.json")
    assert set(importance) == {"lr", "smooth_l1.beta"}
    assert sum(importance.values()) == pytest.approx(1)
    assert set(json.loads(parent.data.tags["space"])) == {"lr", "smooth_l1.beta"}
    rows = {(row.loss, row.phase): row for row in study.plan(context)}
    assert (rows["smooth_l1", "tune"].trials, rows["smooth_l1", "tune"].settled) == (20, 20)

    (paths.runs() / "optuna.db").unlink()  # and all is found again
    assert {event.outcome.reused for event in work(context) if event.outcome} == {True}
    assert selected(context, "smooth_l1") == choice
    assert len(runs(context, "tune")) == 20


def test_one_process_draws_the_same_again_on_another_store_and_every_draw_is_another(
    made: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = drawn_by(made(**SEARCH, draws=4))
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "other"))
    shutil.copytree(blank() / "runs", paths.runs())
    assert drawn_by(made(**SEARCH, draws=4)) == first
    assert len(set(first)) == 4
    assert all(1e-4 <= lr <= 1e-1 for lr in first)


def drawn_by(context: Context) -> list[float]:
    work(context)
    return drawn(context)


def test_an_interrupted_draw_is_put_back_with_the_same_setting(made: Maker) -> None:
    seen: list[float] = []

    def interrupted(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
        if planned.phase == "tune":
            assert planned.lr is not None
            seen.append(planned.lr)
            if len(seen) == 3:
                raise KeyboardInterrupt
        return formula(context, planned, record, folder, report)

    context = made(interrupted, draws=4, **SEARCH)
    with pytest.raises(KeyboardInterrupt):
        work(context)
    parents = {run.data.tags["loss"]: run.data.tags for run in runs(context, "parent")}
    limits = {name: json.loads(tags["space"]) for name, tags in parents.items() if "space" in tags}
    assert limits["mse"] == {d.name: [d.low, d.high, d.log, d.whole] for d in space(context, Entrant("mse"))}
    work(context)
    assert seen[3] == seen[2]  # the lost one first
    assert len(seen) == 5
    assert Counter(run.data.tags["state"] for run in runs(context, "tune")) == {"finished": 4, "interrupted": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", ["_start", "start"])
def test_a_run_that_is_cut_short_while_it_begins_is_left_closed(
    made: Maker, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    context = made(**SEARCH)
    begin = getattr(context.tracker, step)

    def cut_short(*given: Any) -> str:
        number = begin(*given)
        if any(isinstance(tags, dict) and tags.get("phase") == "tune" for tags in given):
            raise error
        return number  # of the parent

    monkeypatch.setattr(context.tracker, step, cut_short)
    with pytest.raises(error):
        trial.run(context, Planned("mse", "tune", 0, 1e-3), lambda *_: None)
    (run,) = runs(context, "tune")
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "interrupted")


def test_diverged_and_pruned_draws_count_and_are_told_as_pruned(made: Maker) -> None:
    def diverging(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
        if planned.phase == "tune" and planned.lr is not None and planned.lr > 1e-2:
            return Outcome("diverged", None, "loss nan")
        return formula(context, planned, record, folder, report)

    context = made(
        diverging,
        draws=12,
        losses=["mse"],
        rates=[1e-4, 1e-1],
        updates={"tune": 80, "confirm": 20},
        search={"pruner": "median"},
    )
    work(context)
    states = Counter(run.data.tags["state"] for run in runs(context, "tune"))
    assert sum(states.values()) == 12
    assert states["diverged"] >= 1
    assert states["pruned"] >= 1
    assert {run.info.status for run in runs(context, "tune") if run.data.tags["state"] == "pruned"} == {"KILLED"}
    told = numbers_of(context)
    assert told == {TrialState.PRUNED: states["diverged"] + states["pruned"], TrialState.COMPLETE: states["finished"]}
    finished = [run for run in runs(context, "tune") if run.data.tags["state"] == "finished"]
    assert selected(context)["lr"] == float(
        max(finished, key=lambda run: run.data.metrics["validation/score"]).data.params["lr"]
    )


@pytest.mark.parametrize("name", ["median", "hyperband", "wilcoxon"])
def test_each_pruner_ends_bad_draws_early_and_never_the_best(name: str) -> None:
    looks = trial.looks_at("tune", 400, name)[:-1]
    pruner = _pruner(name, looks, 400)
    # Named, because what is drawn follows from the name, and one that optuna makes up is another in every run.
    made = optuna.create_study(study_name="search", direction="maximize", sampler=_Tpe(), pruner=pruner)
    queue = Draws(Entrant("mse"), "tune", made, looks=looks)

    def objective(claimed: optuna.Trial) -> float:
        off = math.log10(claimed.suggest_float("lr", 1e-4, 1e-1, log=True) / 3e-3) ** 2
        for done in range(20, 400, 20):
            if queue.look(claimed, done, done / 400 - off):
                raise optuna.TrialPruned
        return 1 - off

    made.optimize(objective, n_trials=30)
    states = Counter(t.state for t in made.trials)
    assert states[TrialState.PRUNED] >= 3
    assert states[TrialState.COMPLETE] >= 3
    nearest = min(made.trials, key=lambda t: abs(math.log10(t.params["lr"] / 3e-3)))
    assert nearest.state == TrialState.COMPLETE or name == "hyperband"  # which spends little on most, by design
    assert set(made.trials[0].intermediate_values) <= set(looks)


def test_a_search_in_which_everything_diverges_ends_and_takes_the_smallest_rate(made: Maker) -> None:
    def diverged(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
        return Outcome("finished" if planned.phase == "control" else "diverged", None, "loss nan")

    context = made(diverged, draws=3, **SEARCH)
    work(context)
    assert selected(context)["lr"] == min(drawn(context))


def test_a_search_whose_every_training_raises_ends_and_is_tried_again_by_the_next_command(made: Maker) -> None:
    def broken(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
        raise RuntimeError("out of order")

    context = made(broken, draws=3, **SEARCH)
    assert len([event for event in work(context) if " tune " in event.title]) == 3
    first = drawn(context)
    work(replace(context, make=formula))
    settled = [run for run in runs(context, "tune") if run.data.tags["state"] == "finished"]
    assert [float(run.data.params["lr"]) for run in settled] == first


def test_several_objectives_have_a_front_from_which_the_best_mean_is_confirmed(made: Maker) -> None:
    context = made(
        losses=["mse"], rates=[1e-4, 1e-1], objective="pesq_wb, stoi", draws=5, updates={"tune": 2, "confirm": 2}
    )
    assert context.study.objectives == ("pesq_wb", "stoi")
    work(context)
    choice = selected(context)
    assert len(choice["front"]) == 5  # one metric is the other's negative: none dominates
    tuned = runs(context, "tune")
    best = max(tuned, key=lambda run: run.data.metrics["validation/score"])
    assert choice["lr"] == float(best.data.params["lr"])
    for point in choice["front"]:
        (run,) = [run for run in tuned if float(run.data.params["lr"]) == point["values"]["lr"]]
        assert point["objectives"]["stoi"] == -point["objectives"]["pesq_wb"] == run.data.metrics["validation/stoi"]


def test_weights_are_searched_around_where_the_terms_are_equal_before_training(made: Maker) -> None:
    context = made(losses=["snr + 1e-3*mse"], weighting="searched", rates=[1e-4, 1e-1])
    assert context.study.search is not None
    assert context.study.search.trials == 20
    lr, weight = space(context, Entrant("snr + mse", "searched"))
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-1, True)
    assert weight.name == "w2"
    assert weight.log
    assert weight.high / weight.low == pytest.approx(1e4)
    # snr is some 30 dB above its minimum, and mse some 1e-3.
    assert 1e3 < math.sqrt(weight.low * weight.high) < 1e6
    assert space(context, Entrant("snr + mse", "searched")) == [lr, weight]


def test_the_settings_of_a_weighting_are_searched_and_of_losses_those_that_are_named(made: Maker) -> None:
    changes = {"losses": ["snr + huber"], "weighting": "uncertainty", "rates": [1e-4, 1e-1]}
    context = made(**changes, search={"settings": ["max_db"]})
    names = [d.name for d in space(context, Entrant("snr + huber", "uncertainty"))]
    assert names == ["lr", "weighting.rate", "snr.max_db"]
    assert [d.name for d in space(made(**changes, search={}), Entrant("snr(max_db=20)"))] == ["lr"]
    every = [d.name for d in space(made(**changes, search={"settings": True}), Entrant("snr(max_db=20) + huber"))]
    assert "huber.delta" in every
    assert "snr.max_db" not in every  # the expression gives it


def test_a_value_near_an_end_is_at_the_edge() -> None:
    wide = Dimension("lr", 1e-4, 1e-1, log=True)
    assert [wide.at_the_edge(lr) for lr in (1e-4, 1.2e-4, 1e-3, 9e-2)] == [True, True, False, True]
    assert not Dimension("max_db", 10, 50).at_the_edge(13)


def test_a_training_that_is_ended_at_a_look_leaves_a_settled_run(made: Maker) -> None:
    context = made(
        trial.make, losses=["mse"], rates=[1e-3, 1e-2], search={"pruner": "median"}, updates={"tune": 80, "confirm": 2}
    )
    planned = Planned("mse", "tune", 0, 1e-3)
    outcome = trial.run(context, planned, lambda title, done, of, score: score is not None)
    assert (outcome.state, outcome.reason) == ("pruned", "pruned after 20 of 80 updates")
    (run,) = runs(context, "tune")
    assert (run.info.status, run.data.tags["state"], run.data.metrics["updates"]) == ("KILLED", "pruned", 20)
    again = trial.settled(context, planned)
    assert again is not None
    assert (again.state, again.value) == ("pruned", outcome.value)


DRAW = """
import os, signal, sys, time
from datetime import datetime
from pathlib import Path
import optuna
from harness import study
from harness.context import Outcome
from harness.entrants import Entrant
from harness.space import Dimension
from harness.study.search import Draws, _Tpe
from harness.study.worker import _claim, _Worker

class Counted(Draws):
    def make(self, context, planned, report):
        if sys.argv[3] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        own.with_suffix(".drawing").touch()
        while len(list(own.parent.glob("*.drawing"))) < 2:  # each has a draw in hand, however late it came
            time.sleep(0.001)
        time.sleep(0.02)
        return Outcome("finished", planned.lr)

own = Path(sys.argv[2])
made = optuna.create_study(storage=study.open_storage(sys.argv[1]), study_name="search", sampler=_Tpe(), load_if_exists=True)
queue = Counted(Entrant("mse"), "tune", made, space=[Dimension("lr", 1e-4, 1e-1, True)], quota=15, since=datetime.now())
own.touch()
while sys.argv[3] != "die" and len(list(own.parent.glob("ready-?"))) < 3:
    time.sleep(0.001)
while True:
    queue.restore()
    if queue.ready():
        _claim(queue, _Worker(None, lambda event: None, 0, 0.0))
    elif any(t.state == optuna.trial.TrialState.RUNNING for t in queue.trials):
        queue.bury()
        time.sleep(0.05)
    else:
        break
"""


def test_of_two_workers_on_one_search_none_draws_beyond_the_quota_or_what_the_other_drew_and_a_killed_draw_is_made_again(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    command = [sys.executable, "-c", DRAW, url]
    dead = subprocess.run([*command, str(tmp_path / "ready-0"), "die"], check=False)
    assert dead.returncode == -signal.SIGKILL
    both = [subprocess.Popen([*command, str(tmp_path / f"ready-{n}"), "live"]) for n in (1, 2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    trials = optuna.load_study(study_name="search", storage=url).trials
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    plans = [t.user_attrs["planned"]["lr"] for t in complete]
    assert len(plans) == len(set(plans)) == 15
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert trials[0].state == TrialState.FAIL  # the killed one
    assert trials[0].user_attrs["planned"]["lr"] in plans
    assert len({t.user_attrs["owner"] for t in complete}) == 2


def test_a_draw_beyond_the_quota_is_given_back_whoever_asked_first(tmp_path: Path) -> None:
    store = study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    made = optuna.create_study(storage=store, study_name="search")
    queue = Draws(
        Entrant("mse"), "tune", made, space=[Dimension("lr", 1e-4, 1e-1, True)], quota=2, since=datetime.now()
    )
    asked = [made.ask() for _ in range(3)]  # three that saw room for two
    assert [queue.take(claimed) is not None for claimed in (asked[2], asked[0], asked[1])] == [False, True, True]
