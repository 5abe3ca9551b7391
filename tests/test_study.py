"""Planning, claiming and deciding: what is due, who runs it, what is chosen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from harness import spec, study, trial, workers
from harness.entrants import Entrant
from harness.study.tuning import Grid
from harness.study.worker import due
from tests.conftest import here, settled

GRID = (1e-3, 3.162e-3, 1e-2)


def test_the_best_rate_has_the_best_score_and_ties_go_to_the_smaller() -> None:
    assert study.best_rate({1e-3: 0.2, 3.162e-3: 0.4, 1e-2: 0.3}) == 3.162e-3
    assert study.best_rate({1e-2: 0.4, 1e-3: 0.4, 3.162e-3: 0.1}) == 1e-3


def test_diverged_rates_are_never_best_unless_all_diverged_then_the_smallest_is() -> None:
    assert study.best_rate({1e-3: -0.5, 3.162e-3: None, 1e-2: None}) == 1e-3
    assert study.best_rate({1e-3: None, 3.162e-3: None}) == 1e-3


def test_a_best_rate_inside_the_grid_adds_no_point() -> None:
    assert study.next_edge(dict(zip(GRID, (0.1, 0.3, 0.2), strict=True)), GRID) is None


@pytest.mark.parametrize(("scores", "added"), [((0.3, 0.2, 0.1), 3.162e-4), ((0.1, 0.2, 0.3), 3.162e-2)])
def test_a_best_rate_on_the_edge_adds_the_next_half_decade(scores: tuple[float, ...], added: float) -> None:
    assert study.next_edge(dict(zip(GRID, scores, strict=True)), GRID) == pytest.approx(added, rel=1e-3)


def test_the_edge_adds_at_most_two_points() -> None:
    scores = {3.162e-2: 0.4, 1e-1: 0.5, **dict.fromkeys(GRID, 0.1)}
    assert study.next_edge(scores, GRID) is None


def test_a_diverged_point_beyond_the_edge_leaves_the_best_inside() -> None:
    assert study.next_edge({**dict(zip(GRID, (0.1, 0.2, 0.3), strict=True)), 3.162e-2: None}, GRID) is None


def queue(path: Path) -> study.Queue:
    store = study.open_storage(f"sqlite:///{path / 'optuna.db'}")
    made = optuna.create_study(storage=store, study_name="q", direction="maximize", load_if_exists=True)
    return study.Queue(Entrant("si_sdr"), "tune", made)


def test_what_is_enqueued_twice_stands_for_one_plan_and_a_failed_trial_is_enqueued_again(tmp_path: Path) -> None:
    (one, two), since = (queue(tmp_path), queue(tmp_path)), datetime.now()
    plan = {"lr": 1e-3, "seed": 0}
    one.enqueue([plan], since)
    two.enqueue([plan], since)  # raced: it had not seen the other's
    one.refresh()
    first = one.of_plan(plan)
    assert first is not None
    assert first.number == 0
    claimed = one.optuna.ask()
    one.optuna.tell(claimed, state=TrialState.FAIL)
    one.refresh()
    second = one.of_plan(plan)
    assert second is None or second.number > 0
    one.enqueue([plan], since)
    again = one.of_plan(plan)
    assert again is not None
    assert again.state == TrialState.WAITING


def test_a_rate_that_another_process_has_just_added_is_waited_for(tmp_path: Path) -> None:
    one, two = queue(tmp_path), queue(tmp_path)
    grid = Grid(one, GRID, datetime.now())
    plans = [{"lr": lr, "seed": 0} for lr in GRID]
    one.enqueue(plans, grid.since)
    for score in (0.3, 0.2, 0.1):
        one.optuna.tell(one.optuna.ask(), score)
    one.refresh()  # what this process knows: the smallest rate is best, on the edge, and nothing is beyond it
    two.enqueue([{"lr": 3.162e-4, "seed": 0}], grid.since)
    two.optuna.ask()  # and the other process runs it
    assert grid.chosen() is None


@dataclass
class Fixed:
    """A job that is at a phase, with so many trials waiting; over where there is no queue."""

    queue: study.Queue | None

    def advance(self) -> study.Queue | None:
        return self.queue


def test_a_loss_is_tuned_before_the_one_ahead_of_it_is_confirmed_and_the_next_but_one_after_it(tmp_path: Path) -> None:
    store = study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")

    def at(loss: str, phase: str, trials: int) -> Fixed:
        made = study.Queue(Entrant(loss), phase, optuna.create_study(storage=store, study_name=f"{loss}/{phase}"))
        made.enqueue([{"lr": 1e-3, "seed": seed} for seed in range(trials)], datetime.now())
        return Fixed(made)

    first, second, third, waits = at("a", "confirm", 2), at("b", "tune", 2), at("c", "tune", 2), at("d", "tune", 0)
    left: list[Any] = [Fixed(None), first, second, third]
    assert due(left) == (second.queue, [first.queue, second.queue])
    assert left == [first, second, third]
    assert due([first, waits, second])[0] is first.queue  # whose rates all run
    assert due([waits, second, first])[0] is second.queue
    assert due([first, at("e", "confirm", 2)])[0] is first.queue
    assert due([waits]) == (None, [waits.queue])
    assert due([Fixed(None)]) == (None, [])


def test_a_trial_that_raised_in_this_study_is_not_tried_again_until_the_next_one(tmp_path: Path) -> None:
    made, since = queue(tmp_path), datetime.now()
    plan = {"lr": 1e-3, "seed": 0}
    made.enqueue([plan], since)
    claimed = made.optuna.ask()
    claimed.set_user_attr("error_at", time.time())
    claimed.set_user_attr("error", "ValueError: broken")
    made.optuna.tell(claimed, state=TrialState.FAIL)
    made.refresh()
    made.enqueue([plan], since)
    assert made.of_plan(plan) is None
    of_another_process, of_the_next_study = queue(tmp_path), queue(tmp_path)
    of_another_process.over([plan], since)
    assert of_another_process.of_plan(plan) is None
    of_the_next_study.over([plan], datetime.now())
    assert of_the_next_study.of_plan(plan) is not None


def test_a_trial_that_raised_before_our_eyes_is_not_tried_again_whatever_the_clocks_say(tmp_path: Path) -> None:
    made, plan = queue(tmp_path), {"lr": 1e-3, "seed": 0}
    since = datetime.now() + timedelta(hours=3)  # the clock of the machine that ran it is behind, or was set back
    made.over([plan], since)
    claimed = made.optuna.ask()
    claimed.set_user_attr("error_at", time.time())
    claimed.set_user_attr("error", "ValueError: broken")
    made.optuna.tell(claimed, state=TrialState.FAIL)
    assert made.over([plan], since)
    assert made.of_plan(plan) is None


def test_a_study_and_a_worker_that_start_at_once_on_new_stores_run_every_trial_exactly_once(
    tiny: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harness.cli"]
    # A core each where there are two: processes that do not know of each other would each take all cores.
    cores = sorted(os.sched_getaffinity(0))
    both = [
        subprocess.Popen(
            ["taskset", "-c", str(core), *command, verb, str(tiny), "--workers", "1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for verb, core in (("study", cores[0]), ("worker", cores[-1]))
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    runs = settled(tmp_path)
    assert max(Counter(run["identity"] for run in runs).values()) == 1
    phases = Counter((run["loss"], run["phase"]) for run in runs)
    assert phases["snr", "confirm"] == phases["mse", "confirm"] == 1
    assert 2 <= phases["snr", "tune"] <= 4
    assert {phases[name, "control"] for name in ("unprocessed", "oracle_mask", "oracle_psm")} == {1}
    finished = [line for output in outputs for line in output.splitlines() if ": finished" in line]
    assert len(finished) == len(runs)
    storage = f"sqlite:///{tmp_path / 'runs' / 'optuna.db'}"
    for name in optuna.get_all_study_names(storage):
        states = Counter(trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials)
        assert not states[TrialState.WAITING]
        assert not states[TrialState.RUNNING]


CLAIM = """
import sys
from multiprocessing import get_context
import optuna
from harness.study import open_storage

def claim(url, start, claimed):
    study = optuna.load_study(study_name="race", storage=open_storage(url))
    start.wait()
    mine = []
    while any(t.state == optuna.trial.TrialState.WAITING for t in study.get_trials(deepcopy=False)):
        mine.append(study.ask().number)
    claimed.put(mine)

fork = get_context("fork")  # of a process that has imported everything, and opened nothing
start, claimed = fork.Barrier(4), fork.Queue()
claimers = [fork.Process(target=claim, args=(sys.argv[1], start, claimed)) for _ in range(4)]
for process in claimers:
    process.start()
print(*(number for _ in claimers for number in claimed.get(timeout=280)))
for process in claimers:
    process.join()
sys.exit(any(process.exitcode for process in claimers))
"""


def test_four_processes_that_claim_at_once_never_claim_one_trial_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    queue = optuna.create_study(storage=study.open_storage(url), study_name="race")
    for number in range(120):
        queue.enqueue_trial({"x": number})
    done = subprocess.run([sys.executable, "-c", CLAIM, url], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    claimed = Counter(int(number) for number in done.stdout.split())
    assert {number: claimed[number] for number in range(120)} == dict.fromkeys(range(120), 1)
    numbers = Counter(trial.number for trial in queue.get_trials())
    assert max(numbers.values()) == 1


DECIDE = """
import math, sys, time
from datetime import datetime, timedelta
from pathlib import Path
from harness import spec, study, workers
from harness.entrants import Entrant
context = workers.open_study(spec.load(sys.argv[1]), workers.Options(), 1, print)
job = study.Job(context, Entrant("snr"), study.open_storage(), datetime.now())
assert job.chosen is None
Path(sys.argv[2]).touch()
while len(list(Path(sys.argv[2]).parent.glob("ready-*"))) < 2:
    time.sleep(0.001)
queue = job.advance()
print("decided", job.chosen.lr, queue.phase, flush=True)
"""


def test_the_switch_from_tune_to_confirm_that_two_processes_race_is_made_once_and_the_same_way(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    context = workers.open_study(spec.load(str(tiny)), workers.Options(), 1, print)
    store = study.open_storage()
    job = study.Job(context, Entrant("snr"), store, datetime.now())
    scores = {3.162e-3: 0.5, 1e-2: 0.75, 3.162e-2: 0.25}  # the best lies inside: nothing is added
    for rate, score in scores.items():
        job.tuning.queue.enqueue([{"lr": rate, "seed": trial.TUNING_SEED}], job.since)
        job.tuning.queue.optuna.tell(job.tuning.queue.optuna.ask(), score)
    command = [sys.executable, "-c", DECIDE, str(tiny)]
    both = [
        subprocess.Popen([*command, str(tmp_path / f"ready-{n}")], stdout=subprocess.PIPE, text=True) for n in range(2)
    ]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["decided 0.01 confirm"] * 2
    (parent,) = context.tracker.search("tags.phase = 'parent'")
    assert json.loads(parent.data.tags["selected"]) == {
        "lr": 1e-2,
        "tuning": "tuned",
        "scores": {f"{rate:.4g}": score for rate, score in scores.items()},
    }
    queue = job.advance()
    assert queue is not None
    stand = [queue.of_plan({"lr": 1e-2, "seed": seed}) for seed in context.study.seed_list]
    assert all(t is not None and t.state == TrialState.WAITING for t in stand)
    assert {t.user_attrs["planned"]["lr"] for t in queue.trials} == {1e-2}


PLUGIN = """
import torch
from harness.losses import loss

@loss(minimum=0.0)
def not_a_number(estimate, clean):
    return (estimate - clean).square().mean(-1) * float("nan")

@loss(minimum=0.0)
def out_of_order(estimate, clean):
    raise RuntimeError("this loss is out of order")

@loss(minimum=0.0)
def greedy(estimate, clean):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB.")
"""


@pytest.mark.usefixtures("own_registries")
def test_a_loss_that_diverges_scores_as_unprocessed_and_one_that_raises_leaves_the_rest_done(
    tiny: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    chosen = ["--loss", "not_a_number", "--loss", "out_of_order", "--loss", "greedy", "--loss", "mse"]
    done = here("study", str(tiny), "--plugin", str(plugin), *chosen, home=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "RuntimeError: this loss is out of order (mine.py, line 11: raise RuntimeError(" in done.stdout
    assert "out of memory: make `batch` or `scenes: seconds` smaller in the study, or take --device cpu" in done.stdout
    states = {(run["loss"], run["phase"]): run["state"] for run in settled(tmp_path)}
    assert states["not_a_number", "confirm"] == "diverged"
    assert states["mse", "confirm"] == "finished"
    ranking = pd.read_csv(tmp_path / "reports" / "ranking.csv")
    means = ranking[ranking.test_set == "matched"].set_index(["loss", "metric"])["mean"]
    assert means["not_a_number", "pesq_wb"] == pytest.approx(means["unprocessed", "pesq_wb"], abs=1e-9)
    assert "out_of_order" not in set(ranking.loss)
    reasons = [run.get("reason") for run in settled(tmp_path) if run["loss"] == "not_a_number"]
    assert all(reason == "loss nan at update 1" for reason in reasons)
