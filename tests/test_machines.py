"""One study on several machines: a PostgreSQL hands out the trials, an MLflow server keeps the results."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from harness import study
from harness.tracking import SETTLED, Tracker
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


@dataclass
class Machine:
    """A worker with a home of its own, as on another machine."""

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        return (self.home / "output").read_text()


def begin(home: Path, verb: str, arguments: list[str], environment: dict[str, str] | None = None) -> Machine:
    home.mkdir(parents=True, exist_ok=True)
    core = random.choice(sorted(os.sched_getaffinity(0)))  # each would take all of them
    command = ["taskset", "-c", str(core), sys.executable, "-m", "harness.cli", verb, *arguments]
    own = {**os.environ, "HARNESS_HOME": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1", **(environment or {})}
    with (home / "output").open("ab") as output:
        return Machine(home, subprocess.Popen(command, env=own, stdout=output, stderr=output))


def states(url: str) -> Counter[TrialState]:
    found = optuna.study.get_all_study_summaries(storage=study.open_storage(url))
    trials = (optuna.load_study(study_name=s.study_name, storage=study.open_storage(url)).trials for s in found)
    return Counter(trial.state for one in trials for trial in one)


@dataclass
class Story:
    """Three workers, of which one was killed, and the study that writes the report."""

    folder: Path
    machines: list[Machine]
    study: Machine
    tracker: Tracker
    killed: str = ""  # identity of the run that was killed
    seen: set[str] = field(default_factory=set)  # command lines meanwhile


@pytest.fixture(scope="module")
def story(database: Postgres, server: Server, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("machines")
    uri = server.uri.replace("//", f"//me:{PASSWORD}@")
    given = [str(tiny), "--workers", "1", "--storage", database.url, "--tracking-uri", uri]
    machines = [begin(folder / str(number), "worker", given) for number in range(3)]
    tracker = Tracker(server.uri)
    told = Story(folder, machines, machines[0], tracker)
    deadline = time.monotonic() + 240
    while any(machine.process.poll() is None for machine in machines):
        assert time.monotonic() < deadline, [machine.output for machine in machines]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                told.seen.add(" ".join(process.cmdline()))
        if not told.killed:
            running = tracker.search("tags.state = 'running' and tags.phase = 'tune'")
            if running:
                victim = machines[-1]
                victim.process.send_signal(signal.SIGKILL)
                told.killed = "yes"
        time.sleep(0.1)
    told.study = begin(folder / "report", "study", given)
    told.study.process.wait(timeout=300)
    return told


def test_every_trial_is_made_exactly_once_though_a_worker_was_killed(story: Story, database: Postgres) -> None:
    assert [machine.process.returncode for machine in story.machines] == [0, 0, -9], [m.output for m in story.machines]
    assert story.study.process.returncode == 0, story.study.output
    runs = [run.data.tags for run in story.tracker.search("tags.phase != 'parent' and tags.phase != 'throughput'")]
    made = Counter(tags["identity"] for tags in runs if tags["state"] in SETTLED)
    assert set(made.values()) == {1}
    print(Counter((t["phase"], t["state"]) for t in runs), states(database.url))


def test_no_password_is_left_anywhere(story: Story, server: Server) -> None:
    lines = [line for line in story.seen if PASSWORD in line]
    assert lines == []
    for folder in (story.folder, server.folder):
        for path in folder.rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path
