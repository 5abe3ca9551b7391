"""Who may work on a study: nobody whose code or recordings are not those of who works on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from harness import liveness, plugins, source, spec, study, workers
from harness.context import Context
from harness.errors import UserError
from harness.study import joining, storage


@pytest.fixture(scope="module")
def context(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(tmp_path_factory.mktemp("home")))
        yield workers.open_study(spec.load(str(tiny)), workers.Options(), 1, lambda line: None)


@pytest.fixture
def store(tmp_path: Path) -> study.Store:
    return study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")


@contextmanager
def other_code(patch: pytest.MonkeyPatch) -> Iterator[None]:
    with patch.context() as changed:
        changed.setattr(source, "digest", lambda: "0123456789ab")
        yield


def enter(context: Context, store: study.Store, joins: bool) -> list[str]:
    """What is said to who enters, and leaves again."""
    said: list[str] = []
    with study.joined(context, store, joins, said.append):
        pass
    return said


def entries(store: study.Store) -> list[optuna.trial.FrozenTrial]:
    (name,) = optuna.get_all_study_names(store)
    return optuna.load_study(study_name=name, storage=store).trials


def test_who_has_the_same_joins_in_silence_and_leaves_no_result(context: Context, store: study.Store) -> None:
    with study.joined(context, store, False, pytest.fail):
        assert enter(context, store, True) == []
    assert [t.state for t in entries(store)] == [TrialState.FAIL] * 2


def test_other_code_is_refused_while_somebody_works_by_whatever_command(
    context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with study.joined(context, store, False, pytest.fail), other_code(monkeypatch):
        for joins in (True, False):
            with pytest.raises(UserError, match="works on it now") as refused:
                enter(context, store, joins)
            assert "the code here is 0123456789ab" in str(refused.value)
            assert f"not {entries(store)[0].user_attrs['code']}" in str(refused.value)


def test_code_that_has_changed_goes_on_by_the_beginner_who_is_told_and_not_by_who_joins(
    context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(context, store, False)
    with other_code(monkeypatch):
        with pytest.raises(UserError, match="harness study"):
            enter(context, store, True)
        (line,) = enter(context, store, False)
        assert "the code here is 0123456789ab" in line
        assert enter(context, store, True) == []  # the study goes on with this
    with pytest.raises(UserError, match="not 0123456789ab"):
        enter(context, store, True)


def test_other_recordings_are_refused_and_named(context: Context, store: study.Store) -> None:
    fewer = {name: items[:1] for name, items in context.sets.items()}
    other = replace(context)
    other.sets = fewer
    assert other.protocol_digest != context.protocol_digest
    with (
        study.joined(context, store, False, pytest.fail),
        pytest.raises(UserError, match=r"the recordings here are [0-9a-f]{12}, not [0-9a-f]{12}"),
    ):
        enter(other, store, True)


def test_a_plug_in_of_the_same_name_must_be_the_same_and_others_may_be_anything(
    context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "sources", lambda: {"mine.py": "aaa"})
    with study.joined(context, store, False, pytest.fail):
        monkeypatch.setattr(plugins, "sources", lambda: {"yours.py": "ccc"})
        assert enter(context, store, True) == []
        monkeypatch.setattr(plugins, "sources", lambda: {"mine.py": "bbb"})
        with pytest.raises(UserError, match=r"the plug-in mine\.py here is bbb, not aaa"):
            enter(context, store, True)


def test_who_was_killed_keeps_nobody_out(context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(joining, "mine", _of_a_dead_process)
        book = optuna.create_study(storage=store, study_name=f"machines/{joining._key(context)}")
        store.create_new_trial(book._study_id, template_trial=joining._entry(context))
    with other_code(monkeypatch):
        enter(context, store, True)  # the killed one had not been accepted, so that nobody worked last
    assert [t.state for t in entries(store)] == [TrialState.FAIL] * 2


def beat_every(seconds: float, patch: pytest.MonkeyPatch) -> None:
    for module in (joining, storage):
        patch.setattr(module, "HEARTBEAT", seconds)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life that come, and fail to come, in a fraction of a second."""
    beat_every(0.3, monkeypatch)


def jump(store: study.Store) -> None:
    """Set the database's clock two hours ahead, or be without one for so long."""
    with store.engine.begin() as connection:
        connection.execute(text("update trial_heartbeats set heartbeat = datetime(heartbeat, '-2 hours')"))


def beats(store: study.Store) -> int:
    with store.engine.begin() as connection:
        return int(connection.execute(text("select count(*) from trial_heartbeats")).scalar() or 0)


def test_who_lives_and_looks_silent_for_a_moment_is_at_work_all_the_same(
    context: Context, store: study.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat_every(2, monkeypatch)  # a sign of life that is late on a busy machine still comes between two looks
    other, said = study.open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), []
    look = other.silent

    def first(study_id: int) -> list[int]:
        monkeypatch.setattr(other, "silent", look)
        jump(store)
        return look(study_id)

    with study.joined(context, store, False, pytest.fail), other_code(monkeypatch):
        while not beats(store):
            time.sleep(0.01)
        monkeypatch.setattr(other, "silent", first)
        with (
            pytest.raises(UserError, match="works on it now"),
            study.joined(context, other, True, said.append),
        ):
            pass
        assert [t.state for t in entries(store)] == [TrialState.RUNNING, TrialState.FAIL]
    assert len(said) == 1
    assert said[0].startswith("who works on this study on ")


@pytest.mark.usefixtures("quick")
def test_who_is_silent_at_two_looks_keeps_nobody_out(
    context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(joining, "mine", lambda: "elsewhere 1 1")
        book = optuna.create_study(storage=store, study_name=f"machines/{joining._key(context)}")
        store.record_heartbeat(store.create_new_trial(book._study_id, template_trial=joining._entry(context)))
    jump(store)
    assert enter(context, store, True) == []  # with the same code, whether it lives or not: nothing to wait for
    with other_code(monkeypatch):
        waited, goes_on = enter(context, store, False)
    assert "gives no sign of life" in waited
    assert "which worked on this study last" in goes_on
    assert [t.state for t in entries(store)] == [TrialState.FAIL] * 3


@pytest.mark.usefixtures("quick")
def test_signs_of_life_go_on_whatever_a_database_answers(
    context: Context, store: study.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = OperationalError("select", {}, Exception("server closed the connection"), connection_invalidated=True)
    answers: list[Exception | None] = [lost, optuna.exceptions.StorageInternalError(), OSError("no route"), None, None]
    heard, died = [], []

    def record(self: study.Store, number: int) -> None:
        answer = answers.pop(0) if answers else None
        if answer is not None:
            raise answer
        heard.append(number)

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", record)
    monkeypatch.setattr(threading, "excepthook", died.append)
    with study.joined(context, store, False, pytest.fail):
        deadline = time.monotonic() + 20
        while len(heard) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(heard) >= 2
    assert died == []


def test_the_hash_of_the_code_is_that_of_every_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.py", "b/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(source, "PACKAGE", tmp_path)
    before = source.digest()
    (tmp_path / "b" / "notes.txt").write_text("no code")
    assert source.digest() == before
    (tmp_path / "b" / "c.py").write_text("x = 2\n")
    assert source.digest() != before


def _of_a_dead_process() -> str:
    machine, _, born = liveness.mine().rsplit(" ", 2)
    return f"{machine} 4194304 {born}"  # beyond the largest number of a process
