"""The MLflow store: what is settled, who was first, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from harness.errors import UserError
from harness.tracking import Tracker, make_once
from tests.conftest import blank
from tests.servers import free_port


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module: making one takes seconds."""
    address = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    Tracker(address)
    return address


def test_only_a_settled_run_is_found_by_its_identity(uri: str) -> None:
    tracker = Tracker(uri)
    run = tracker.start("denoise", "mine", None, {"identity": "one"}, {"lr": 1e-3})
    assert tracker.find("one") is None
    tracker.finish(run, "failed", reason="broken")
    assert tracker.find("one") is None
    again = tracker.start("denoise", "mine", None, {"identity": "one"}, {"lr": 1e-3})
    tracker.finish(again, "finished")
    found = tracker.find("one")
    assert found is not None
    assert found.info.run_id == again


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "FINISHED"), ("diverged", "KILLED"), ("interrupted", "KILLED"), ("failed", "FAILED")],
)
def test_the_state_of_a_run_shows_in_mlflows_own_status(uri: str, state: str, status: str) -> None:
    tracker = Tracker(uri)
    run = tracker.start("denoise", state, None, {"identity": state}, {})
    tracker.finish(run, state)
    (found,) = tracker.search(f"tags.identity = '{state}'")
    assert (found.info.status, found.data.tags["state"]) == (status, state)


def test_artifacts_and_long_curves_come_back_as_they_were_logged(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri)
    run = tracker.start("denoise", "curves", None, {"identity": "curves"}, {})
    tracker.log(run, [("train/total", step / 7, step, 0) for step in range(2500)])
    (tmp_path / "spec.json").write_text('{"a": 1}')
    tracker.finish(run, "finished", tmp_path)
    history = tracker._client.get_metric_history(run, "train/total")
    assert [(m.step, m.value) for m in history] == [(step, step / 7) for step in range(2500)]
    assert tracker.read_json(run, "spec.json") == {"a": 1}
    assert tracker.artifact(run, "nothing.csv") is None


def test_scores_are_a_table_that_the_ui_can_compare_between_runs(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri)
    run = tracker.start("denoise", "scored", None, {"identity": "scored"}, {})
    (tmp_path / "scores.csv").write_text("item,noise,snr,pesq_wb\na,null,1.23456,\nb,ssn,2,1.5\n")
    tracker.finish(run, "finished", tmp_path)
    (found,) = tracker.search("tags.identity = 'scored'")
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [{"path": "scores.json", "type": "table"}]
    split = tracker.read_json(run, "scores.json")
    assert split["columns"] == ["item", "snr", "pesq_wb", "noise"]  # what to compare by, then what is compared
    table = pd.DataFrame(split["data"], columns=split["columns"])
    assert table["item"].tolist() == ["a", "b"]
    assert table["noise"].tolist() == ["null", "ssn"]
    assert table["snr"].tolist() == [1.2346, 2]
    assert table["pesq_wb"].isna().tolist() == [True, False]


def test_descriptions_are_set_where_they_are_new(uri: str) -> None:
    tracker = Tracker(uri)
    tags = {"protocol": "p", "weighting": "fixed"}
    parents = [tracker.parent("denoise", loss, f"described {loss}", tags | {"loss": loss}) for loss in ("l2", "mse")]
    tracker.describe({"denoise": "first"}, {("p", "l2", "fixed"): "of l2", ("p", "l1", "fixed"): "of none"})
    tracker.describe({"denoise": "**second**"}, {("p", "l2", "fixed"): "of l2"})
    assert tracker._client.get_experiment_by_name("denoise").tags["mlflow.note.content"] == "**second**"
    notes = [tracker._client.get_run(run).data.tags.get("mlflow.note.content") for run in parents]
    assert notes == ["of l2", None]


def test_a_parent_is_made_once_and_found_again(uri: str) -> None:
    first = Tracker(uri).parent("denoise", "si_sdr", "parent-1", {"loss": "si_sdr"})
    assert Tracker(uri).parent("denoise", "si_sdr", "parent-1", {"loss": "si_sdr"}) == first
    assert len(Tracker(uri).search("tags.identity = 'parent-1'")) == 1


def test_parents_made_at_once_by_several_trackers_leave_one(uri: str) -> None:
    trackers, made = [Tracker(uri) for _ in range(8)], []
    barrier = threading.Barrier(8)

    def make(tracker: Tracker) -> None:
        barrier.wait()
        made.append(tracker.parent("denoise", "snr", "parent-2", {"loss": "snr"}))

    threads = [threading.Thread(target=make, args=(tracker,)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = [run.info.run_id for run in trackers[0].search("tags.identity = 'parent-2'")]
    assert len(left) == 1
    assert set(made) == set(left)
    assert [run.info.run_id for run in trackers[0].search("tags.phase = 'parent' and tags.loss = 'snr'")] == left
    assert [e.name for e in trackers[0]._client.search_experiments()] == ["denoise", "Default"]


def test_a_tag_that_several_set_at_once_is_set(uri: str) -> None:
    run = Tracker(uri).start("denoise", "tagged", None, {}, {})
    trackers, barrier = [Tracker(uri) for _ in range(8)], threading.Barrier(8)
    faults: list[Exception] = []

    def choose(tracker: Tracker) -> None:
        for number in range(8):
            barrier.wait()
            try:
                tracker.tag(run, **{f"selected_{number}": "the same"})
            except Exception as fault:
                faults.append(fault)

    threads = [threading.Thread(target=choose, args=(tracker,)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    tags = trackers[0]._client.get_run(run).data.tags
    assert {tags[f"selected_{number}"] for number in range(8)} == {"the same"}


def test_a_parent_that_was_deleted_by_hand_comes_back(uri: str) -> None:
    tracker = Tracker(uri)
    first = tracker.parent("denoise", "l1", "parent-3", {"loss": "l1"})
    tracker._client.delete_run(first)
    assert tracker.parent("denoise", "l1", "parent-3", {"loss": "l1"}) == first
    assert [run.info.run_id for run in tracker.search("tags.identity = 'parent-3'")] == [first]


def test_a_database_that_two_make_at_once_is_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    code = f"""
import sqlite3, time
from pathlib import Path
from harness.tracking import make_once
def make(draft):
    with sqlite3.connect(draft) as db:
        db.execute("create table t (n int)")
        time.sleep(0.5)
        db.execute("insert into t values (1)")
make_once(Path({str(path)!r}), make)
"""
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    import sqlite3

    assert sqlite3.connect(path).execute("select count(*) from t").fetchone() == (1,)
    assert list(tmp_path.iterdir()) == [path]


def test_a_make_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def make(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once(tmp_path / "new.db", make)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address", ["file:///somewhere", "mlruns", "sqlite:////nowhere/at/all/mlflow.db", "http://127.0.0.1:9"]
)
def test_a_store_that_cannot_be_opened_is_one_line_with_its_address(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="tracking-uri") as error:
        Tracker(address)
    assert address in str(error.value)
    assert "\n" not in str(error.value)


def test_the_log_of_a_deleted_database_is_not_replayed_into_the_new_one(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "mlflow.db"

    def make(value: int) -> Callable[[Path], None]:
        def write(draft: Path) -> None:
            with closing(sqlite3.connect(draft)) as database, database:
                database.execute("create table t (n int)")
                database.execute("insert into t values (?)", (value,))

        return write

    make_once(path, make(1))
    killed = sqlite3.connect(path)  # never closed, as by kill -9: its log stays
    killed.execute("pragma journal_mode = wal")
    with killed:
        killed.executemany("insert into t values (?)", [(n,) for n in range(100)])
    path.unlink()
    assert path.with_name("mlflow.db-wal").stat().st_size > 0
    make_once(path, make(2))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("select n from t").fetchall() == [(2,)]
    killed.close()


def test_the_ui_listens_on_this_machine_alone(tmp_path: Path) -> None:
    shutil.copytree(blank() / "runs", tmp_path / "runs")
    port, environment = free_port(), {**os.environ, "HARNESS_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "harness.cli", "ui", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        answer = b""
        while not answer:
            with suppress(OSError):
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert listening(process.pid) == {("127.0.0.1", port)}
    finally:
        process.terminate()
        process.wait(timeout=60)


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses that a process and those it has started take connections on."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                own = process.net_connections("inet")
                found |= {tuple(one.laddr) for one in own if one.status == psutil.CONN_LISTEN}
    return found
