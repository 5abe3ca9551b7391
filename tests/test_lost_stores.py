"""Stores that go away while a command asks them: one line with the mend and code 2, and no password, whatever was being asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import bench, cli, outbox, paths, spec, tracking, workers
from harness.errors import in_one_line, lost_store
from harness.study import open_storage, storage
from harness.tracking import Tracker
from tests.conftest import here
from tests.servers import PASSWORD, Postgres, Server

PUBLISHED = paths.RESULTS / "runs" / "quick"
LINE = "error: tracking-uri: the MLflow store cannot be asked (API request to http://me:***@127.0.0.1:"


@dataclass(frozen=True)
class Gone:
    """A tracker of a server that was killed after it had answered, and what a command said in whose middle it was."""

    tracker: Tracker
    code: int
    errors: str
    left: list[Path]


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gone]:
    folder = tmp_path_factory.mktemp("server")
    server, ended = Server(folder), False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        tracker = Tracker(server.uri.replace("//", f"//me:{PASSWORD}@"))
        record = outbox.Record(tracker, "denoise", "run", None, {"identity": "0" * 12, "phase": "confirm"}, {})
        record.close("finished", PUBLISHED, "")
        assert not record.lost
        whole = Tracker.artifact

        def artifact(self: Tracker, run: str, name: str) -> Path | None:
            nonlocal ended
            assert ended or whole(self, run, "none.csv") is None  # what is not there is no fault
            server.kill()
            ended = True
            return whole(self, run, name)

        patch.setattr(Tracker, "artifact", artifact)
        done = here(
            "export", str(folder / "export"), "--tracking-uri", tracker.uri, home=tmp_path_factory.mktemp("home")
        )
        yield Gone(tracker, done.returncode, done.stderr, list(folder.glob("*export*")))
    server.kill()


def check(code: int, errors: str) -> None:
    assert code == 2
    assert errors.startswith(LINE), errors
    assert errors.endswith("the same command goes on once it answers\n")
    assert errors.count("\n") == 1
    assert PASSWORD not in errors


def test_an_export_in_whose_middle_the_server_goes_away_is_not_written_without_what_is_there(gone: Gone) -> None:
    check(gone.code, gone.errors)
    assert gone.left == []


@pytest.mark.parametrize(
    "command",
    [("report",), ("claims",), ("export", "out"), ("import", str(PUBLISHED)), ("plan", "smoke"), ("worker", "smoke")],
)
def test_each_command_says_that_the_server_went_away(
    gone: Gone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "_connect", lambda uri: gone.tracker._client)  # it answered a moment ago
    done = here(*command, "--tracking-uri", gone.tracker.uri, home=tmp_path / "home")
    check(done.returncode, done.stderr)
    assert not (tmp_path / "out").exists()


def test_what_losses_cost_is_measured_and_kept_while_the_server_is_away(
    gone: Gone, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    monkeypatch.setattr(bench.throughput, "measure", lambda *given: Cost())
    context = replace(workers.open_study(spec.load(str(tiny)), workers.Options(), 1, print), tracker=gone.tracker)
    rows, failures = bench.measure(context, ["mse"], False, lambda *_: None)
    assert (rows, failures) == ([Cost().row()], [])
    assert outbox.waiting(gone.tracker) == 1


class Cost:
    def row(self) -> dict[str, Any]:
        return {"loss": "mse", "device": "cpu", "threads": 1, "dtype": "float32", "loss_ms": 1.0}


@pytest.fixture(scope="module")
def lost() -> Iterator[Exception]:
    """What is raised where a database was stopped and nobody waits for it."""
    database = Postgres()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "PATIENCE", -1)
        store = open_storage(database.url)
        database.end()
        with pytest.raises(Exception) as error:  # noqa: PT011  whatever Optuna makes of it
            store.get_all_studies()
        yield error.value


def test_a_database_that_goes_away_is_one_line_for_a_command_and_for_a_worker(
    lost: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = lost_store(lost)
    assert line is not None
    assert line.startswith("storage: the database that hands out trials cannot be asked (")
    assert in_one_line(lost) == line
    assert (ended(lost, monkeypatch), capsys.readouterr().err) == (2, f"error: {line}\n")


def ended(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit code of a command that raises an error."""

    def app(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code


# With names of their own, because the name of a test stands in the command line of the process that runs it.
@pytest.mark.parametrize("password", [PASSWORD, "mit 9 Salz@", "a/b#c"], ids=["letters", "spaces", "marks"])
def test_a_fault_of_ours_is_a_traceback_without_a_password(
    password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql://me:{password}@host/x"
    monkeypatch.setattr(sys, "argv", ["harness", "report", f"--tracking-uri={address}"])
    assert ended(KeyError(f"no key in {address} (or {address!r})"), monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "KeyError" in said
    assert "me:***@host/x" in said
    for word in password.split(" "):
        assert word not in said
