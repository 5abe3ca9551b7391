"""Studies that are killed: at most the running trials are lost, nothing is doubled, and the table comes out the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import yaml
from optuna.trial import TrialState

from harness.tracking import Tracker
from tests.conftest import harness, here, settled

KILLS = ("ctrl-c", "hang up", "terminate", "kill the parent", "kill a worker")


@pytest.fixture(autouse=True, scope="module")
def two_cores() -> Iterator[None]:
    """Two workers on two cores have a thread each, as in `here`: the last digits of a table depend on how many there are."""
    all_ = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_)[:2])  # of this process and of those that it starts
    yield
    os.sched_setaffinity(0, all_)


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the same study, left in peace."""
    home = tmp_path_factory.mktemp("undisturbed")
    done = here("study", str(tiny), "--workers", "2", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def of_study(home: Path) -> list[psutil.Process]:
    """The living processes of studies under this home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            living = process.status() != psutil.STATUS_ZOMBIE
            if living and process.pid != os.getpid() and process.environ().get("HARNESS_HOME") == str(home):
                found.append(process)
    return found


def workers_of(parent: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes that the study has started, without those that have just ended."""
    workers = []
    for child in psutil.Process(parent.pid).children():
        with suppress(psutil.Error):
            if "spawn_main" in str(child.cmdline()):
                workers.append(child)
    return workers


def running_or_done(home: Path) -> tuple[int, int]:
    """Trials that run, and trials that are over, as Optuna's file has them."""
    with suppress(sqlite3.Error), sqlite3.connect(f"file:{home}/runs/optuna.db?mode=ro", uri=True) as db:
        states = Counter(state for (state,) in db.execute("select state from trials"))
        return states["RUNNING"], states["COMPLETE"] + states["PRUNED"]
    return 0, 0


def kill_one(study: Path, home: Path, how: str, wait: float) -> bool:
    """Start the study, wait for a trial to run and for so many seconds more, and kill. False where it ended before."""
    environment = {**os.environ, "HARNESS_HOME": str(home)}
    command = [sys.executable, "-m", "harness.cli", "study", str(study), "--workers", "2"]
    with (home / "output").open("a") as output:
        parent = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=_interruptible
        )
        while parent.poll() is None and not running_or_done(home)[0]:
            time.sleep(0.05)
        time.sleep(wait)
        if parent.poll() is not None:
            return False
        if how == "ctrl-c":
            os.killpg(parent.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
        elif how == "hang up":
            os.killpg(parent.pid, signal.SIGHUP)  # as does a terminal that is closed
        elif how == "terminate":
            parent.send_signal(signal.SIGTERM)
        elif how == "kill the parent":
            parent.kill()
        else:
            random.choice(workers_of(parent) or [psutil.Process(parent.pid)]).kill()
        sent = time.monotonic()
        code = parent.wait(timeout=600)  # what is left of the study, where it survives
        if code == 0 and time.monotonic() - sent < 5:  # it was over already
            return False
        assert code == {"ctrl-c": 130, "hang up": 130, "terminate": 130, "kill the parent": -9}.get(how, code)
    deadline = time.monotonic() + 60
    while of_study(home):  # workers whose parent was killed end by themselves
        assert time.monotonic() < deadline, of_study(home)
        time.sleep(0.2)
    return True


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background of a shell inherit a deaf ear


def table(home: Path) -> pd.DataFrame:
    ranking = pd.read_csv(home / "reports" / "ranking.csv").drop(columns="run_id")
    return ranking.sort_values(["test_set", "metric", "loss"], ignore_index=True)


def check_whole(home: Path, undisturbed: Path) -> None:
    """The end of every story: one finished run for each plan, both stores of one mind, and the table of the undisturbed."""
    runs = Tracker(f"sqlite:///{home / 'runs' / 'mlflow.db'}").search()
    children = [run for run in runs if run.data.tags["phase"] in ("control", "tune", "confirm")]
    state_of = {"finished": "FINISHED", "diverged": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
    for run in children:
        assert run.info.status == state_of[run.data.tags["state"]]
    identities = Counter(tags["identity"] for tags in settled(home))
    assert set(identities) == {tags["identity"] for tags in settled(undisturbed)}
    assert set(identities.values()) == {1}
    assert Counter(run.data.tags["phase"] for run in runs)["parent"] == len({r.data.tags["loss"] for r in children})
    storage, told = f"sqlite:///{home / 'runs' / 'optuna.db'}", 0
    for name in optuna.get_all_study_names(storage):
        states = Counter(trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials)
        assert not states[TrialState.WAITING]
        assert not states[TrialState.RUNNING]
        told += states[TrialState.COMPLETE] + states[TrialState.PRUNED]
    assert told == len(identities)
    pd.testing.assert_frame_equal(table(home), table(undisturbed), rtol=1e-6)


def disturb(tiny: Path, home: Path, undisturbed: Path, kills: list[str], seed: int) -> None:
    rng = random.Random(seed)
    landed = [kill_one(tiny, home, how, rng.uniform(0, 4)) for how in kills]
    assert any(landed)
    done = harness("study", str(tiny), "--workers", "2", home=home)
    assert done.returncode == 0, done.stdout + done.stderr + (home / "output").read_text()
    assert "Traceback" not in done.stdout + done.stderr
    check_whole(home, undisturbed)


def test_a_lost_optuna_file_is_replayed_from_mlflow(tiny: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "optuna.db").unlink()
    done = here("study", str(tiny), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": finished" not in done.stdout
    check_whole(tmp_path, undisturbed)


def test_max_hours_stops_in_the_middle_of_a_trial_and_says_what_remains(tiny: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    done = harness("study", str(tiny), "--updates", "1000000", "--max-hours", "0.004", "--workers", "2", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 150
    assert "stopped after 0.004 hours" in done.stdout
    assert "runs to make, about" in done.stdout
    assert not of_study(tmp_path)
    runs = Tracker(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}").search()
    assert {run.data.tags["state"] for run in runs if run.data.tags.get("phase") == "tune"} <= {"interrupted"}
    assert not [run for run in runs if run.data.tags.get("phase") == "throughput"]  # the time is over


def test_workers_whose_parent_is_killed_while_they_start_end_too(tiny: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "harness.cli", "study", str(tiny), "--workers", "2"]
    with (tmp_path / "output").open("w") as output:
        parent = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        while not workers_of(parent):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 60
    while of_study(tmp_path):
        assert time.monotonic() < deadline, of_study(tmp_path)
        time.sleep(0.2)
    assert running_or_done(tmp_path)[1] == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"to fill a disk needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_study_whose_disk_is_full_says_so_in_one_line_and_the_same_command_completes_it(
    tiny: Path, undisturbed: Path, disk: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HARNESS_HOME": str(disk)}
    command = [sys.executable, "-m", "harness.cli", "study", str(tiny), "--workers", "2"]
    with (tmp_path / "output").open("w") as output:
        study = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        while study.poll() is None and not running_or_done(disk)[1]:
            time.sleep(0.05)
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        code = study.wait(timeout=300)
    said = (tmp_path / "output").read_text()
    assert code not in (0, -signal.SIGKILL), said
    assert "Traceback" not in said
    assert "no space left" in said
    (disk / "filler").unlink()
    done = harness("study", str(tiny), "--workers", "2", home=disk)
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(disk, undisturbed)


def test_a_study_killed_at_two_random_moments_ends_as_if_left_in_peace(
    tiny: Path, undisturbed: Path, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed of the moments: {seed}")
    disturb(tiny, tmp_path, undisturbed, ["ctrl-c", "kill the parent"], seed)


@pytest.mark.slow
@pytest.mark.parametrize("story", range(4))
def test_studies_killed_at_twenty_random_moments_end_as_if_left_in_peace(
    tiny: Path, undisturbed: Path, tmp_path: Path, story: int
) -> None:
    seed = random.randrange(10**6)
    print(f"seed of the moments: {seed}")
    kills = [*KILLS, "kill a worker"]
    random.Random(seed).shuffle(kills)
    disturb(tiny, tmp_path, undisturbed, kills, seed)


@pytest.mark.slow
def test_a_search_killed_at_random_moments_loses_no_draw_and_makes_none_beyond_its_quota(
    tiny: Path, tmp_path: Path
) -> None:
    raw = yaml.safe_load(tiny.read_text())
    raw |= {"losses": ["snr + mse"], "weighting": "searched", "controls": False, "equal_time": True}
    searching = tmp_path / "searching.yaml"
    searching.write_text(yaml.safe_dump(raw))
    seed = random.randrange(10**6)
    print(f"seed of the moments: {seed}")
    rng = random.Random(seed)
    for how in KILLS:
        kill_one(searching, tmp_path, how, rng.uniform(0, 4))
    done = harness("study", str(searching), "--workers", "2", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "output").read_text()
    assert "Traceback" not in done.stdout + done.stderr
    runs = settled(tmp_path)
    assert max(Counter(tags["identity"] for tags in runs).values()) == 1
    assert Counter(tags["phase"] for tags in runs if tags["loss"] == "snr + mse") == {
        "tune": 20,
        "confirm": 1,
        "equal_time": 1,
    }
    assert Counter(tags["phase"] for tags in runs if tags["loss"] == "mse") == {"confirm": 1, "equal_time": 1}
    storage = f"sqlite:///{tmp_path / 'runs' / 'optuna.db'}"
    for name in optuna.get_all_study_names(storage):
        states = Counter(trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials)
        assert not states[TrialState.WAITING]
        assert not states[TrialState.RUNNING]
    again = here("study", str(searching), home=tmp_path)
    assert again.returncode == 0
    assert ": finished" not in again.stdout
