"""Results whose store is away, full or killed: they wait, whole, and are sent once. Against a real MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import outbox, paths, spec, trial, workers
from harness.outbox import Parent, Record
from harness.tracking import Tracker
from tests.conftest import harness, here
from tests.servers import Server, free_port

PARENT = Parent("snr", "parent-of-snr", {"loss": "snr"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    return tmp_path


def begin(tracker: Tracker, identity: str) -> Record:
    return Record(tracker, "denoise", "snr confirm", PARENT, {"identity": identity, "phase": "probe"}, {"lr": 1e-3})


def finish(record: Record, folder: Path) -> None:
    record.log([("validation/score", 0.25, 24), *(("train/total", step / 3, step) for step in range(1200))])
    (folder / "scores").mkdir(exist_ok=True)
    (folder / "scores" / "scores.csv").write_text("item,snr\na,1.5\n")
    record.close("finished", folder / "scores", "")


def check_arrived(tracker: Tracker, identity: str) -> None:
    """One run of that identity, whole, under the one parent."""
    finished = [run for run in tracker.search(f"tags.identity = '{identity}'") if run.data.tags["state"] == "finished"]
    assert [run.info.status for run in finished] == ["FINISHED"]
    run = finished[0]
    parents = [parent.info.run_id for parent in tracker.search(f"tags.identity = '{PARENT.identity}'")]
    assert parents == [run.data.tags["mlflow.parentRunId"]]
    history = tracker._client.get_metric_history(run.info.run_id, "train/total")
    assert [(m.step, m.value) for m in history] == [(step, step / 3) for step in range(1200)]
    path = tracker.artifact(run.info.run_id, "scores.csv")
    assert path is not None
    assert path.read_text() == "item,snr\na,1.5\n"


def test_what_a_dead_server_did_not_take_waits_counts_as_settled_and_is_sent_once(server: Server, home: Path) -> None:
    tracker = Tracker(server.uri)
    early, late = begin(tracker, "early"), begin(tracker, "late")
    early.log([("train/total", 0.0, 0)])
    server.kill()
    try:
        finish(late, home)
        assert late.lost
        never = begin(tracker, "never begun")
        finish(never, home)
        assert outbox.waiting(tracker) == 2
        kept = outbox.find(tracker, "late")
        assert kept is not None
        assert kept["state"] == "finished"
        assert outbox.find(tracker, "early") is None  # it is still running
        tracker.away_until = 0.0
        assert outbox.send(tracker) == 2
    finally:
        server.start()
    tracker.away_until = 0.0
    assert outbox.send(tracker) == 0
    for identity in ("late", "never begun"):
        check_arrived(tracker, identity)
    assert outbox.send(tracker) == 0
    assert len(tracker.search("tags.identity = 'late'")) == 1
    assert [run.data.tags["state"] for run in tracker.search("tags.identity = 'early'")] == ["running"]


def test_a_store_whose_disk_is_full_takes_the_results_when_there_is_room_again(server: Server, home: Path) -> None:
    tracker = Tracker(server.uri)
    record = begin(tracker, "no room")
    server.kill()
    server.start(largest_file=(server.folder / "mlflow.db").stat().st_size)
    try:
        finish(record, home)
        assert record.lost
        assert outbox.waiting(tracker) == 1
    finally:
        server.kill()
        server.start()
    tracker.away_until = 0.0
    assert outbox.send(tracker) == 0
    check_arrived(tracker, "no room")


def test_what_was_selected_waits_too(server: Server, home: Path) -> None:
    tracker = Tracker(server.uri)
    tracker.away, tracker.away_until = "away", time.monotonic() + 60
    outbox.mark(tracker, "denoise", Parent("mse", "parent-of-mse", {"loss": "mse"}), selected='{"lr": 1}')
    outbox.mark(tracker, "denoise", Parent("mse", "parent-of-mse", {"loss": "mse"}), selected='{"lr": 2}')
    assert outbox.waiting(tracker) == 1
    tracker.away_until = 0.0
    assert outbox.send(tracker) == 0
    (parent,) = tracker.search("tags.identity = 'parent-of-mse'")
    assert parent.data.tags["selected"] == '{"lr": 2}'


@pytest.fixture
def store(home: Path) -> Tracker:
    """A store on this disk."""
    return Tracker(f"sqlite:///{home / 'mlflow.db'}")


def keep(store: Tracker, identity: str, home: Path) -> None:
    """A finished run that waits, though the store would take it."""
    store.away, store.away_until = "away", time.monotonic() + 60
    finish(begin(store, identity), home)
    store.away_until = 0.0


def test_several_that_send_at_once_send_once(store: Tracker, home: Path) -> None:
    for number in range(3):
        keep(store, f"shared {number}", home)
    senders, barrier = [Tracker(store.uri) for _ in range(4)], threading.Barrier(4)
    faults: list[Exception] = []

    def send(tracker: Tracker) -> None:
        barrier.wait()
        try:
            outbox.send(tracker)
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=send, args=(tracker,)) for tracker in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert outbox.waiting(store) == 0
    for number in range(3):
        check_arrived(store, f"shared {number}")


def test_a_sender_that_is_killed_midway_is_finished_by_the_next(
    store: Tracker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, "halfway", home)
    for step in ("start", "log", "finish"):
        whole = getattr(store, step)

        def killed(*given: object, whole: Callable[..., object] = whole, **named: object) -> None:
            whole(*given, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, step, killed)
            with pytest.raises(KeyboardInterrupt):
                outbox.send(store)
        assert outbox.waiting(store) == 1
    assert outbox.send(store) == 0
    check_arrived(store, "halfway")
    states = sorted(run.data.tags["state"] for run in store.search("tags.identity = 'halfway'"))
    assert states == ["finished", "interrupted"]  # the one whose number was not yet written down was closed


def test_a_result_that_the_store_already_has_is_not_sent_again(store: Tracker, home: Path) -> None:
    keep(store, "twice", home)
    finish(begin(store, "twice"), home)
    assert outbox.send(store) == 0
    check_arrived(store, "twice")
    assert len(store.search("tags.identity = 'twice'")) == 1


def test_what_waits_is_known_while_the_store_is_not_asked(tiny: Path, home: Path) -> None:
    context = workers.open_study(spec.load(str(tiny)), workers.Options(), 1, print)
    planned = trial.Planned("snr", "tune", 0, 1e-3)
    store = context.tracker
    store.away, store.away_until = "away", time.monotonic() + 60
    assert trial._known(context, planned) is None
    finish(begin(store, context.identity(planned)), home)
    known = trial._known(context, planned)
    assert known is not None
    assert (known.state, known.value, known.reused) == ("finished", 0.25, True)


def test_each_store_has_an_outbox_of_its_own(store: Tracker, home: Path) -> None:
    keep(store, "mine", home)
    other = Tracker(f"sqlite:///{home / 'other.db'}")
    assert outbox.waiting(other) == 0
    assert outbox.send(other) == 0
    assert outbox.waiting(store) == 1


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server that holds nothing of other tests, for a study with its report."""
    (tmp_path / "server").mkdir()
    running = Server(tmp_path / "server")
    yield running
    running.kill()


@pytest.mark.slow
def test_a_study_whose_server_dies_midway_ends_with_one_line_and_is_completed_by_the_same_command(
    fresh: Server, tiny: Path, home: Path
) -> None:
    command = [sys.executable, "-m", "harness.cli", "study", str(tiny), "--tracking-uri", fresh.uri, "--workers", "1"]
    with (home / "output").open("w") as output:
        study = subprocess.Popen(command, env=dict(os.environ), stdout=output, stderr=output)
        deadline = time.monotonic() + 300
        while ": finished" not in (home / "output").read_text():
            assert study.poll() is None, (home / "output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        fresh.kill()
        try:
            assert study.wait(timeout=300) == 2, (home / "output").read_text()
        finally:
            fresh.start()
    said = (home / "output").read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "wait in runs/outbox" in line
    assert outbox.waiting(Tracker(fresh.uri)) > 3
    done = harness(*command[3:], home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    tracker = Tracker(fresh.uri)
    assert outbox.waiting(tracker) == 0
    runs = tracker.search("tags.study = 'tiny' and tags.phase != 'parent'")
    settled = [run.data.tags["identity"] for run in runs if run.data.tags["state"] == "finished"]
    assert len(settled) == len(set(settled)) >= 7
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    assert "snr" in (home / "reports" / "ranking.csv").read_text()


def test_a_store_that_cannot_be_reached_at_the_start_is_one_line(tiny: Path, home: Path) -> None:
    port = free_port()
    tries = {
        "tracking-uri": ("--tracking-uri", f"http://127.0.0.1:{port}"),
        "storage": ("--storage", f"postgresql://127.0.0.1:{port}/none"),
    }
    for name, given in tries.items():
        done = here("study", str(tiny), *given, home=home)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"error: {name} '{given[1]}': cannot be opened")


def test_a_home_that_cannot_be_written_is_one_line(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = here("study", str(tiny), home=tmp_path / "file" / "home")  # nobody, root included, can write below a file
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert str(tmp_path / "file" / "home") in done.stderr


def test_results_wait_below_runs(store: Tracker, home: Path) -> None:
    keep(store, "here", home)
    assert [path.name for path in (paths.runs() / "outbox").glob("*/*") if path.is_dir()] == ["here"]
