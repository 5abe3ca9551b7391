"""One study on several machines: a PostgreSQL hands out the trials, an MLflow server keeps the results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from optuna.trial import TrialState

from harness import study
from harness.tracking import Tracker
from tests.servers import PASSWORD, Postgres, Server


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


WORKERS = """
import math, os, signal, sys, threading, time
from dataclasses import replace
from datetime import datetime
from multiprocessing import get_context
from harness import spec, study, workers
from harness.context import Outcome
from harness.tracking import Tracker

url, uri = os.environ["HARNESS_STORAGE"], os.environ["HARNESS_TRACKING_URI"]
loaded, options = spec.load(sys.argv[1], {"seeds": 5}), workers.Options(tracking_uri=uri, storage=url)
context = workers.open_study(loaded, options, 1, lambda line: None)

def work(number):
    met = threading.Event()

    def make(context, planned, record, folder, report):
        if not met.is_set():
            together.wait(timeout=200)  # each has a trial in hand
            met.set()
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "spec.json").write_text("{}")
        time.sleep(0.2)
        value = -abs(math.log10(planned.lr / 1e-2)) if planned.lr else None
        record.log([("validation/score", value or 0.0, 1)])
        return Outcome("finished", value)

    own, store = replace(context, tracker=Tracker(uri), make=make), study.open_storage(url, print)
    with study.joined(own, store, True, print):
        study.work(own, store, lambda event: None, datetime.now(), number)

fork = get_context("fork")  # of a process that has imported everything
together = fork.Barrier(3)
started = [fork.Process(target=work, args=(number,)) for number in range(3)]
for process in started:
    process.start()
for process in started:
    process.join()
print(*(process.exitcode for process in started))
"""


@dataclass
class Story:
    """Three workers on a database and a server whose addresses hold passwords; one was killed in the middle of a trial."""

    home: Path
    output: str
    tracker: Tracker
    command_lines: set[str]  # of all processes meanwhile


@pytest.fixture(scope="module")
def story(database: Postgres, server: Server, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The loops, the stores and the kill are real; what a trial is made of is not trained."""
    home = tmp_path_factory.mktemp("machines")
    command = [sys.executable, "-c", WORKERS, str(tiny)]
    machines = subprocess.Popen(command, env=environment(home, database, server), **PIPES)
    seen = watched(machines)
    return Story(home, machines.communicate()[0], Tracker(server.uri), seen)


PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def environment(home: Path, database: Postgres, server: Server) -> dict[str, str]:
    stores = {"HARNESS_STORAGE": database.url, "HARNESS_TRACKING_URI": server.uri.replace("//", f"//me:{PASSWORD}@")}
    return {**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **stores}


def watched(process: subprocess.Popen[str], timeout: float = 300) -> set[str]:
    """The command lines of all processes of the machine until this one ends."""
    seen, deadline = set(), time.monotonic() + timeout
    while process.poll() is None:
        assert time.monotonic() < deadline
        for other in psutil.process_iter():
            with suppress(psutil.Error):
                seen.add(" ".join(other.cmdline()))
        time.sleep(0.3)
    return seen


def trials(database: Postgres) -> Counter[TrialState]:
    """How the trials of all studies are, but for who worked on them."""
    store = study.open_storage(database.url)
    names = [name for name in optuna.get_all_study_names(store) if not name.startswith("machines/")]
    return Counter(t.state for name in names for t in optuna.load_study(study_name=name, storage=store).trials)


def test_of_three_workers_one_is_killed_and_every_trial_is_made_exactly_once(story: Story, database: Postgres) -> None:
    assert story.output.splitlines()[-1:] == ["0 0 -9"], story.output
    runs = [run.data.tags for run in story.tracker.search("tags.phase != 'parent'")]
    made = Counter(tags["identity"] for tags in runs if tags["state"] == "finished")
    assert set(made.values()) == {1}
    phases = Counter((tags["loss"], tags["phase"]) for tags in runs if tags["state"] == "finished")
    assert phases["snr", "tune"] == 3
    assert phases["snr", "confirm"] == phases["mse", "confirm"] == 5
    assert sum(phases.values()) == 3 + 3 + 5 + 5  # and the controls
    (killed,) = [tags["identity"] for tags in runs if tags["state"] != "finished"]
    assert made[killed] == 1  # by another one
    states = trials(database)
    assert states[TrialState.COMPLETE] == len(made)
    assert not states[TrialState.WAITING]
    assert not states[TrialState.RUNNING]


def check_secret(command_lines: set[str], output: str, *folders: Path) -> None:
    assert [line for line in command_lines if PASSWORD in line] == []
    assert PASSWORD not in output
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_the_password_is_in_no_log_store_or_command_line(story: Story, server: Server) -> None:
    check_secret(story.command_lines, story.output, story.home, server.folder)


@pytest.mark.slow  # three machines train: minutes
def test_three_machines_that_train_lose_one_of_them_and_no_trial(tiny: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load(tiny.read_text()) | {"seeds": 3, "updates": {"tune": 20, "confirm": 30}}
    file = tmp_path / "trained.yaml"
    file.write_text(yaml.safe_dump(raw))
    (tmp_path / "server").mkdir()
    database, server = Postgres(), Server(tmp_path / "server")
    try:
        logs = [tmp_path / f"machine {k}.txt" for k in range(3)]
        machines = [started(file, log, tmp_path / log.stem, database, server) for log in logs]
        wait_for(lambda: "finished" in logs[2].read_text())  # and takes the next trial
        wait_for(lambda: any(run.data.tags.get("state") == "running" for run in Tracker(server.uri).search()))
        os.killpg(machines[2].pid, signal.SIGKILL)
        codes = [machine.wait(600) for machine in machines]
        assert codes == [0, 0, -signal.SIGKILL], [log.read_text() for log in logs]
        runs = [run.data.tags for run in Tracker(server.uri).search("tags.phase != 'parent'")]
        made = Counter(
            tags["identity"] for tags in runs if tags["state"] == "finished" and tags["phase"] != "throughput"
        )
        assert set(made.values()) == {1}
        phases = Counter((tags["loss"], tags["phase"]) for tags in runs if tags["state"] == "finished")
        assert phases["snr", "confirm"] == phases["mse", "confirm"] == 3
        assert phases["snr", "tune"] >= 2
        states = trials(database)
        assert states[TrialState.COMPLETE] == len(made)
        assert not states[TrialState.WAITING]
        assert not states[TrialState.RUNNING]
        tables = [(tmp_path / log.stem / "reports" / "ranking.csv").read_text() for log in logs[:2]]
        assert tables[0] == tables[1]
    finally:
        server.kill()
        database.end()


def started(file: Path, log: Path, home: Path, database: Postgres, server: Server) -> subprocess.Popen[str]:
    """A machine of one worker, with its processes in one group."""
    command = [sys.executable, "-m", "harness.cli", "study", str(file), "--workers", "1"]
    home.mkdir()
    with log.open("w") as out:
        return subprocess.Popen(
            command, env=environment(home, database, server), stdout=out, stderr=out, text=True, start_new_session=True
        )


def wait_for(done: Callable[[], bool], timeout: float = 300) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)
