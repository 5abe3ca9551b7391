"""Trials that end whoever makes them: tried three times, told of, and the rest is done."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console

from harness import liveness, spec, study, workers
from harness.entrants import Entrant
from harness.space import Dimension
from harness.study.queue import BEGUN, DEATHS, TOO_OFTEN
from harness.study.search import Draws, _Tpe
from harness.study.worker import _claim, _Worker
from harness.tracking import Tracker
from harness.view import View
from tests.conftest import harness, settled
from tests.test_bad_days import PLAN, Scripted, file_store, scripted, states

STORY = """
import math, os, signal, sys
from dataclasses import replace
from datetime import datetime
from multiprocessing import get_context
from harness import spec, study, workers
from harness.context import Outcome
from harness.tracking import Tracker
from harness.view import View
from tests.conftest import harness, settled

loaded = spec.load(sys.argv[1], {"losses": ["snr", "l1"], "rates": [1e-3, 3e-3, 1e-2]})
context = workers.open_study(loaded, workers.Options(), 1, lambda line: None)
study.open_storage()  # made before workers race for it

def make(context, planned, record, folder, report):
    if (planned.loss, planned.phase) == ("l1", "confirm"):
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "spec.json").write_text("{}")
    record.log([("validation/score", 0.5, 1)])
    return Outcome("finished", -abs(math.log10(planned.lr / 3e-3)) if planned.lr else None)

def show(event):
    if event.outcome is not None:
        print(f"{event.title}: {event.outcome.state}: {event.outcome.reason}", flush=True)

def work(since):
    own = replace(context, tracker=Tracker(), make=make)
    study.work(own, study.open_storage(), show, since)

fork = get_context("fork")  # of a process that has imported everything
def command():
    process = fork.Process(target=work, args=(datetime.now(),))
    process.start()
    process.join()
    return process.exitcode

print(*(command() for _ in range(int(sys.argv[2]))))
"""


def test_a_trial_that_ends_its_process_is_given_up_after_three_and_a_later_command_tries_it_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", STORY, str(tiny), "5"], capture_output=True, text=True, timeout=300, check=False
    )
    *said, codes = done.stdout.splitlines()
    assert codes == "-9 -9 -9 0 -9", done.stdout + done.stderr  # the fifth tries again
    lines = Counter(line.split(": ", 1)[1] for line in said)
    assert lines == {"finished: ": len(said) - 1, f"failed: {TOO_OFTEN}": 1}
    assert [line for line in said if "failed" in line] == [f"l1 confirm lr 0.003 seed 1: failed: {TOO_OFTEN}"]
    runs = Tracker(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}").search("tags.phase = 'confirm'")
    ended = Counter((run.data.tags["loss"], run.data.tags["state"]) for run in runs)
    assert ended == {("snr", "finished"): 1, ("mse", "finished"): 1, ("l1", "interrupted"): 3, ("l1", "running"): 1}


def claim(queue: Scripted) -> None:
    context: Any = None
    _claim(queue, _Worker(context, lambda shown: None, 0, math.inf))


def die(queue: study.Queue) -> None:
    """What is left of a trial whose process was killed in its middle, and that somebody has found out."""
    claimed = queue.optuna.ask()
    machine, _, born = liveness.mine().rsplit(" ", 2)
    claimed.set_user_attr("owner", f"{machine} 4194304 {born}")  # beyond the largest number of a process
    assert queue.take(claimed) is not None
    claimed.set_user_attr(BEGUN, True)
    queue.refresh()
    queue.bury()
    queue.refresh()


def test_after_three_deaths_a_trial_raised_an_error_that_the_next_study_forgets(tmp_path: Path) -> None:
    queue, since = scripted(file_store(tmp_path), None), datetime.now()
    for _ in range(DEATHS):
        assert not queue.over([PLAN], since)
        assert queue.given_up == []
        die(queue)
    assert queue.over([PLAN], since)
    assert [planned.lr for planned in queue.given_up] == [PLAN["lr"]]
    assert states(queue) == [TrialState.FAIL] * (DEATHS + 1)
    assert queue.trials[-1].user_attrs["error"] == TOO_OFTEN
    assert queue.over([PLAN], since)  # asked again, nothing more is said
    assert len(queue.given_up) == 1
    later = Scripted(queue.entrant, "tune", queue.optuna, script=None)
    assert not later.over([PLAN], datetime.now())


def test_a_draw_of_a_search_that_is_given_up_is_one_of_its_draws(tmp_path: Path) -> None:
    made = optuna.create_study(storage=file_store(tmp_path), sampler=_Tpe())
    space = [Dimension("lr", 1e-4, 1e-1, True)]
    queue = Draws(Entrant("mse"), "tune", made, space=space, quota=2, since=datetime.now())
    for _ in range(DEATHS):
        assert queue.given_up == []
        die(queue)
        queue.restore()
    assert len(queue.given_up) == 1
    assert queue.room() == 1
    assert not any(t.state == TrialState.WAITING for t in queue.trials)
    again = Draws(Entrant("mse"), "tune", made, space=space, quota=2, since=datetime.now())
    again.restore()
    assert [t.state for t in again.trials][-1] == TrialState.WAITING


def test_another_process_whose_clock_is_ahead_takes_the_error_for_one_of_this_study(tmp_path: Path) -> None:
    queue = scripted(file_store(tmp_path), None)
    other = Scripted(queue.entrant, "tune", queue.optuna, script=None)
    ahead = datetime.now() + timedelta(hours=1)
    for _ in range(DEATHS):
        other.over([PLAN], ahead)
        queue.over([PLAN], datetime.now())
        die(queue)
    queue.over([PLAN], datetime.now() - timedelta(hours=1))
    assert other.over([PLAN], ahead)
    assert other.given_up == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_was_interrupted_is_put_back_however_often(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        raise error

    queue, since = scripted(file_store(tmp_path), interrupted), datetime.now()
    for _ in range(2 * DEATHS):
        with pytest.raises(error):
            claim(queue)
        if states(queue)[-1] == TrialState.RUNNING:
            queue.bury()  # Optuna tells of a Ctrl-C alone
        assert not queue.over([PLAN], since)
    assert queue.given_up == []
    assert states(queue)[-1] == TrialState.WAITING


def test_trials_whose_end_the_store_did_not_hear_of_are_no_deaths(tmp_path: Path) -> None:
    queue, since = scripted(file_store(tmp_path), None), datetime.now()
    for _ in range(2 * DEATHS):
        claimed = queue.optuna.ask()
        claimed.set_user_attr("owner", liveness.mine())
        claimed.set_user_attr(BEGUN, True)
        queue.refresh()
        queue.bury()
        assert not queue.over([PLAN], since)
    assert queue.given_up == []


def test_trials_beyond_the_plan_are_no_deaths(tmp_path: Path) -> None:
    queue = scripted(file_store(tmp_path), lambda: None)
    for _ in range(2 * DEATHS):
        queue.optuna.enqueue_trial(PLAN, user_attrs={"planned": PLAN})
    for _ in range(2 * DEATHS):
        claim(queue)
    queue.refresh()
    beyond = [t for t in queue.trials if t.state == TrialState.FAIL]
    assert len(beyond) == 2 * DEATHS - 1
    assert not any(BEGUN in t.user_attrs for t in beyond)


def dies(raw: Any, options: Any, rank: int, threads: int, started: datetime, until: float, writer: Any) -> None:
    """In place of a worker: one that is killed in its trial, but for the fourth, which begins one more and ends well."""
    lives = Path(os.environ["LIVES"])
    with lives.open("a") as file:
        file.write("x")
    if os.environ["BEGINS"]:
        writer.send(study.Event(rank, "", begun=True))
    if lives.stat().st_size < 4:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("begins", "lives", "killed"), [("yes", 4, "3 of 4"), ("", 1, "1 of 1")])
def test_where_all_workers_were_killed_in_trials_one_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str, lives: int, killed: str
) -> None:
    monkeypatch.setenv("LIVES", str(tmp_path / "lives"))
    monkeypatch.setenv("BEGINS", begins)
    monkeypatch.setattr(workers, "_worker", dies)
    view, quick = View(Console(quiet=True), []), spec.load("quick")
    workers.run_processes(quick, workers.Options(), 1, view, datetime.now(), math.inf, 1)
    assert (tmp_path / "lives").stat().st_size == lives
    (failure,) = view.failures
    assert failure.startswith(f"{killed} workers stopped early (exit code -9")


DEADLY = """
import os, signal
from harness.losses import loss

@loss(minimum=0.0)
def deadly(estimate, clean):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # seven processes, one upon the other
def test_a_loss_that_kills_its_process_leaves_the_rest_done_and_is_told_of_at_the_end(
    tiny: Path, tmp_path: Path
) -> None:
    raw = yaml.safe_load(tiny.read_text()) | {"rates": [3.162e-3]}
    (tmp_path / "one_rate.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "mine.py").write_text(DEADLY)
    chosen = ["--plugin", str(tmp_path / "mine.py"), "--loss", "deadly", "--loss", "snr"]
    done = harness("study", str(tmp_path / "one_rate.yaml"), *chosen, "--workers", "2", home=tmp_path / "home")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("not done: deadly")]
    assert [line.split(": ")[1] for line in told] == [
        "deadly tune lr 0.00316 seed 0",
        "deadly confirm lr 0.00316 seed 1",
    ]
    assert all(TOO_OFTEN in line for line in told)
    finished = {(tags["loss"], tags["phase"]) for tags in settled(tmp_path / "home")}
    assert {("snr", "confirm"), ("mse", "confirm")} <= finished
