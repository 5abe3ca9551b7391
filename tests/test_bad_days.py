"""What goes wrong around a study: each is one clear line, and all else stays as it was."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from sqlalchemy import event, text

from harness import study
from harness.context import Outcome, Planned
from harness.entrants import Entrant
from harness.errors import in_one_line
from harness.study import storage
from harness.study.worker import _claim, _Worker
from tests.servers import PASSWORD, Postgres

PLAN = {"lr": 1e-3, "seed": 0}


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.end()


@dataclass
class Scripted(study.Queue):
    """A queue whose trials do what a test says in place of a training."""

    script: Any = None

    def make(self, context: Any, planned: Planned, report: Any) -> Outcome:
        self.script()
        return Outcome("finished", 0.5)


def scripted(store: study.Store, script: Any) -> Scripted:
    """One trial that waits."""
    made = optuna.create_study(storage=store, study_name="q", direction="maximize", load_if_exists=True)
    queue = Scripted(Entrant("si_sdr"), "tune", made, script=script)
    queue.over([PLAN], datetime.now())
    return queue


def claim(queue: Scripted) -> None:
    context: Any = None
    _claim(queue, _Worker(context, lambda shown: None, 0, math.inf))


def states(queue: Scripted) -> list[TrialState]:
    queue.refresh()
    return [t.state for t in queue.trials]


def file_store(folder: Path) -> study.Store:
    return study.open_storage(f"sqlite:///{folder / 'optuna.db'}")


def test_a_database_that_is_restarted_in_the_middle_of_a_trial_is_waited_for_in_two_lines(database: Postgres) -> None:
    said: list[str] = []
    store = study.open_storage(database.url, said.append)

    def restart() -> None:
        database.stop("immediate")
        threading.Timer(2.5, database.start).start()

    queue = scripted(store, restart)
    claim(queue)
    assert states(queue) == [TrialState.COMPLETE]
    away, back = said
    address = f"storage 'postgresql+psycopg://postgres:***@127.0.0.1:{database.port}/postgres'"
    assert away.startswith(f"{address} is away (connection failed")
    assert back.startswith(f"{address} is back after")
    assert PASSWORD not in away + back


def test_a_trial_whose_end_a_database_did_not_hear_of_is_enqueued_again_at_once(database: Postgres) -> None:
    """The connection is lost in the middle of telling, when nothing can wait for it."""
    store = study.open_storage(database.url)
    queue = scripted(store, lambda: None)
    queue.optuna = optuna.create_study(storage=store, direction="maximize")
    queue.over([PLAN], datetime.now())

    def lose(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE trials") and "COMPLETE" in str(_[0]):
            event.remove(store.engine, "before_cursor_execute", lose)
            with store.engine.connect() as other:
                other.execute(
                    text("select pg_terminate_backend(pid) from pg_stat_activity where pid = :pid"),
                    {"pid": connection.connection.dbapi_connection.info.backend_pid},
                )

    event.listen(store.engine, "before_cursor_execute", lose)
    with pytest.raises(Exception) as lost:  # noqa: PT011  Optuna's own handler trips over it
        claim(queue)
    assert storage.is_away(lost.value)
    assert states(queue) == [TrialState.RUNNING]
    queue.bury()
    assert not queue.over([PLAN], datetime.now())
    assert states(queue) == [TrialState.FAIL, TrialState.WAITING]


def test_a_clock_that_jumps_makes_no_living_trial_dead_and_one_without_signs_of_life_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 0.2)
    store = file_store(tmp_path)
    made = optuna.create_study(storage=store)
    trials = [made.ask()._trial_id for _ in range(2)]

    def jump() -> None:
        with store.engine.begin() as connection:
            connection.execute(text("update trial_heartbeats set heartbeat = datetime(heartbeat, '-2 hours')"))

    for trial in trials:
        store.record_heartbeat(trial)
    jump()
    assert store.silent(made._study_id) == trials
    assert store._get_stale_trial_ids(made._study_id) == []
    time.sleep(0.5)
    store.record_heartbeat(trials[0])
    assert store._get_stale_trial_ids(made._study_id) == [trials[1]]


def test_a_trial_that_nobody_put_a_name_to_is_given_up_by_no_clock_but_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = scripted(file_store(tmp_path), lambda: None)
    queue.optuna.ask()  # and dies before its first word
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    states(queue)
    queue.bury()
    assert states(queue) == [TrialState.RUNNING]
    now += storage.GRACE + 1
    queue.bury()
    assert states(queue) == [TrialState.FAIL]


def test_a_process_that_stood_still_and_was_taken_for_dead_goes_on_in_peace(tmp_path: Path) -> None:
    def taken() -> None:
        other = file_store(tmp_path)
        other.set_trial_state_values(queue.optuna.trials[0]._trial_id, TrialState.FAIL)

    queue = scripted(file_store(tmp_path), taken)
    claim(queue)
    assert states(queue) == [TrialState.FAIL]
    assert not queue.over([PLAN], datetime.now())
    assert states(queue) == [TrialState.FAIL, TrialState.WAITING]  # whoever claims it finds its run in MLflow


def test_a_full_disk_is_told_as_such_and_the_store_is_whole_when_there_is_room_again(tmp_path: Path) -> None:
    store = file_store(tmp_path)
    made = optuna.create_study(storage=store, study_name="full")

    def limit(pages: int) -> None:
        @event.listens_for(store.engine, "checkout")
        def smaller(connection: Any, *_: Any) -> None:
            connection.execute(f"pragma max_page_count = {pages}")

    limit(1)  # SQLite takes the present size for the least
    with pytest.raises(optuna.exceptions.StorageInternalError) as error:
        [made.enqueue_trial({"lr": 1e-3}, user_attrs={"planned": {"lr": 1e-3}}) for _ in range(200)]
    assert in_one_line(error.value) == "no space left for the database: free some, then run the same command again"
    before = len(made.trials)
    limit(10**6)
    made.enqueue_trial({"lr": 1e-3})
    assert [t.state for t in made.trials] == [TrialState.WAITING] * (before + 1)


def test_too_little_memory_is_told_with_what_to_make_smaller() -> None:
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**50)
    for error in (torchs.value, MemoryError()):
        assert in_one_line(error).startswith("out of memory: make `batch` or `scenes: seconds` smaller")


def test_a_connection_gives_up_on_a_network_that_went_silent_unless_its_address_says_otherwise(
    database: Postgres,
) -> None:
    def limits(url: str) -> list[int]:
        with study.open_storage(url).engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            with socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
                asked = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                return [line.getsockopt(socket.IPPROTO_TCP, option) for option in asked]

    assert limits(database.url) == [30, 10, 3, 60_000]
    assert limits(f"{database.url}?keepalives_idle=7&tcp_user_timeout=9000") == [7, 10, 3, 9000]


def test_only_drivers_that_know_the_limits_are_given_them() -> None:
    assert storage._limits("postgresql://host/name?connect_timeout=3").keys() == storage.LIMITS.keys() - {
        "connect_timeout"
    }
    assert storage._limits("postgresql+pg8000://host/name") == {}
    assert storage._limits("mysql+pymysql://host/name") == {}
