"""MLflow: the only room that knows it. Every run is written here, by run id, and read back from here.

A run is *settled* when its tag `state` is "finished", "diverged" or "pruned"; only settled runs are reused or reported. MLflow's
own status follows Optuna's: finished -> FINISHED, diverged and pruned -> KILLED, failed -> FAILED.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness import paths
from harness.addresses import scrubbed, shown
from harness.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SETTLED = ("finished", "diverged", "pruned")
STATUS = {
    "finished": "FINISHED",
    "diverged": "KILLED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
NOTE = "mlflow.note.content"  # the tag that holds a description
INTERNAL = "mlflow."  # how tags begin that MLflow sets itself
MADE = "made"  # tag of an imported run: when it was made, where it was made
PARENT_KEY = ("protocol", "loss", "weighting")
SCHEMES = ("sqlite:///", "postgresql", "mysql", "http://", "https://")


def default_uri() -> str:
    return f"sqlite:///{paths.runs() / 'mlflow.db'}"


class Tracker:
    """One MLflow store. uri: `sqlite:////absolute/path`, a server's URL or a database's; None: `runs/mlflow.db`."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or default_uri()
        self.shown = shown(self.uri)  # for people
        if not self.uri.startswith(SCHEMES):
            raise UserError(f"tracking-uri {self.shown!r}: must begin with one of {', '.join(SCHEMES)}")
        self._client = _connect(self.uri)
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._folders: dict[str, Path] = {}  # of the runs found whose artifacts are files of this machine
        self.away, self.away_until = "", 0.0  # why, and until what `time.monotonic()`, it is not worth asking

    def experiment(self, name: str) -> str:
        """Id of the experiment of a task, made where it does not exist."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                from mlflow.exceptions import MlflowException

                artifacts = (paths.runs() / "artifacts").as_uri() if not self.uri.startswith("http") else None
                try:
                    self._experiments[name] = self._client.create_experiment(
                        name,
                        artifacts,
                        {"mlflow.experimentKind": "custom_model_development"},  # the UI for trainings, not for chats
                    )
                except MlflowException:
                    found = self._client.get_experiment_by_name(name)
                    if found is None:  # no other process was first
                        raise
            if found is not None:
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def experiment_name(self, experiment: str) -> str:
        return self._client.get_experiment(experiment).name

    def find(self, identity: str, *, claimed: bool = False) -> Run | None:
        """The settled run of that identity. claimed: the caller holds the trial's claim, so that a run which is still
        open was left by a process that is gone, and is closed; in the same search, which every claim pays for."""
        runs = self.search(f"tags.identity = '{identity}'")
        run = next((run for run in runs if run.data.tags.get("state") in SETTLED), None)
        if run is not None and run.info.status == "RUNNING":  # its maker was killed between its last two words
            self._client.set_terminated(run.info.run_id, STATUS[run.data.tags["state"]])
        for left in runs if run is None and claimed else ():
            if left.data.tags.get("state") == "running":
                self.finish(left.info.run_id, "interrupted")
        return run

    def search(self, where: str = "") -> list[Run]:
        """All live runs of all experiments that match a filter, oldest first."""
        experiments = [e.experiment_id for e in self._client.search_experiments()]
        runs: list[Run] = []
        token: str | None = ""
        while token is not None and experiments:
            page = self._client.search_runs(
                experiments, where, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token or None
            )
            runs += page
            for run in page:
                if run.info.artifact_uri.startswith("file:///"):
                    self._folders[run.info.run_id] = Path(url2pathname(urlsplit(run.info.artifact_uri).path))
            token = page.token or None
        return runs

    def parent(self, experiment: str, name: str, identity: str, tags: Mapping[str, str]) -> str:
        """Id of the parent run (protocol x loss) of that identity, made where it does not exist.

        Several may make it at once. MLflow has one unique key, the name of an experiment: who enters it first names the run
        that stays, and the identity is given to no other. The experiment is empty and hidden (deleted) from then on.
        """
        known = self._parents.get(identity)
        if known is None or self._client.get_run(known).info.lifecycle_stage == "deleted":
            known = self._parents[identity] = self._parent(experiment, name, identity, tags)
        return known

    def _parent(self, experiment: str, name: str, identity: str, tags: Mapping[str, str]) -> str:
        found = self.search(f"tags.identity = '{identity}'")
        if found:
            return found[0].info.run_id
        from mlflow.exceptions import MlflowException

        mine = self._start(experiment, name, {**tags, "phase": "parent"})
        key = f"parent of {identity}"
        try:
            self._client.delete_experiment(self._client.create_experiment(key, tags={"run": mine}))
            first = mine
        except MlflowException:
            entered = self._client.get_experiment_by_name(key)
            if entered is None:
                raise
            first = entered.tags["run"]
            self._client.delete_run(mine)
            if self._client.get_run(first).info.lifecycle_stage == "deleted":
                self._client.restore_run(first)  # taken out of the UI by hand, and asked for again
        self.tag(first, identity=identity)
        self._client.set_terminated(first, "FINISHED")
        return first

    def start(
        self, experiment: str, name: str, parent: str | None, tags: Mapping[str, str], params: Mapping[str, Any]
    ) -> str:
        """Open a run with its tags and parameters; returns its id."""
        from mlflow.entities import Param

        run = self._start(
            experiment, name, {**tags, "state": "running", **({"mlflow.parentRunId": parent} if parent else {})}
        )
        self._client.log_batch(run, params=[Param(key, str(value)) for key, value in params.items()])
        return run

    def _start(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return self._client.create_run(self.experiment(experiment), tags=dict(tags), run_name=name).info.run_id

    def log(self, run: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Log points (metric, value, step, time in ms), in as few requests as MLflow allows."""
        from mlflow.entities import Metric

        metrics = [Metric(name, value, at, step) for name, value, step, at in points]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(run, metrics=metrics[start : start + 1000])

    def tag(self, run: str, **tags: str) -> None:
        """Set tags, all or none. Of two processes that set a new one at once MLflow refuses one, which then finds it and
        replaces it."""
        from mlflow.entities import RunTag
        from mlflow.exceptions import MlflowException

        batch = [RunTag(name, value) for name, value in tags.items()]
        try:
            self._client.log_batch(run, tags=batch)
        except MlflowException:
            self._client.log_batch(run, tags=batch)

    def attach(self, run: str, name: str, data: Any) -> None:
        """Keep JSON data as an artifact of a run."""
        self._client.log_dict(run, data, name)

    def finish(self, run: str, state: str, artifacts: Path | None = None, **tags: str) -> None:
        """Close a run: artifacts first, the state last, so that a settled run is whole."""
        if artifacts is not None:
            tags |= _table(artifacts)
            self._client.log_artifacts(run, str(artifacts))
        self.tag(run, **tags, state=state)
        self._client.set_terminated(run, STATUS[state])

    def describe(self, experiments: Mapping[str, str], parents: Mapping[tuple[str, ...], str]) -> None:
        """Set the descriptions that the UI shows, in Markdown, where they are others than before. parents: by the tags
        `PARENT_KEY` of the parent run."""
        for name, text in experiments.items():
            experiment = self._client.get_experiment(self.experiment(name))
            if experiment.tags.get(NOTE) != text:
                self._client.set_experiment_tag(experiment.experiment_id, NOTE, text)
        for run in self.search("tags.phase = 'parent'") if parents else ():
            text = parents.get(tuple(run.data.tags.get(tag, "") for tag in PARENT_KEY), "")
            if text and run.data.tags.get(NOTE) != text:
                self._client.set_tag(run.info.run_id, NOTE, text)

    def artifact(self, run: str, name: str) -> Path | None:
        """A local copy (or the original) of an artifact; None where the run has none. A store that is away is not taken to have
        none: who exports would leave out what is there."""
        from mlflow.exceptions import MlflowException

        if run in self._folders:  # what a search has told is not asked again for each file of each run
            path = self._folders[run] / name
            return path if path.exists() else None
        try:
            return Path(self._client.download_artifacts(run, name))
        except (MlflowException, OSError) as error:
            if is_lost(error):  # or a file that is not there, which each kind of store says in its own way
                self._client.get_run(run)
            return None

    def read_json(self, run: str, name: str) -> Any:
        path = self.artifact(run, name)
        return json.loads(path.read_text()) if path is not None else None


def _table(artifacts: Path) -> dict[str, str]:
    """Write the scores of a run once more in the form of `mlflow.log_table`; the tag by which the UI finds it, to compare runs
    item by item, where there are any."""
    scores = artifacts / "scores.csv"
    if not scores.is_file():
        return {}
    import pandas as pd

    table = pd.read_csv(scores, keep_default_na=False, na_values=[""])
    order = sorted(table, key=lambda name: (name != "item", not pd.api.types.is_float_dtype(table[name])))
    table[order].to_json(scores.with_suffix(".json"), orient="split", index=False, double_precision=4)
    return {"mlflow.loggedArtifacts": json.dumps([{"path": "scores.json", "type": "table"}])}


def one_of_each(runs: Iterable[Run]) -> list[Run]:
    """One run of each identity, in their order: the first, as `find` gives it; of measurements that were taken again the newest.

    There are two where a worker that was taken for dead finished while another remade its trial.
    """
    runs, kept = list(runs), {}
    for run in runs:
        if run.data.tags["identity"] not in kept or run.data.tags["phase"] == "throughput":
            kept[run.data.tags["identity"]] = run
    return [run for run in runs if kept[run.data.tags["identity"]] is run]


def made_at(run: Run) -> str:
    """When a run was begun, on whatever machine: "2026-11-25T18:41:07", UTC."""
    here = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return run.data.tags.get(MADE) or here.strftime("%Y-%m-%dT%H:%M:%S")


def is_lost(error: Exception) -> bool:
    """Whether an error says that the store is away, full or refused to write, rather than that it was asked nonsense."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    return isinstance(error, OSError)  # artifacts are written by this process; requests' errors are OSErrors too


def _connect(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would print passwords
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It prints the traceback of every error that it raises too: what the store could not take is told in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    def make(path: Path) -> None:
        MlflowClient(f"sqlite:///{path}").search_experiments()
        log_ahead(path)

    try:
        if uri.startswith("sqlite:///"):
            make_once(Path(uri.removeprefix("sqlite:///")), make)
        elif not uri.startswith("http"):
            create_engine(uri).connect().close()  # MLflow itself would try for minutes
        client = MlflowClient(uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        reason = " ".join(scrubbed(str(error), uri).split())[:160]
        raise UserError(f"tracking-uri {shown(uri)!r}: cannot be opened ({reason})") from error
    return client


def make_once(path: Path, make: Any) -> None:
    """Make a database file whole or not at all: two first starts at once would race through its migrations.

    It is built under another name and linked into place; whoever is second throws its own away.
    """
    if path.exists():
        return
    if path.parent == paths.runs():
        path.parent.mkdir(parents=True, exist_ok=True)
    for log in ("-wal", "-shm"):  # of a database that was deleted: SQLite would replay them into the new one
        path.with_name(path.name + log).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        make(draft)
        try:
            os.link(draft, path)
        except FileExistsError:
            return


def log_ahead(path: Path) -> None:
    """Let a database keep a write-ahead log: a commit then waits for the disk once, not four times, and who reads does not
    wait for who writes. A folder that cannot have one (on some network file systems) keeps the slower way."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode = wal")


def serve(tracker: Tracker, port: int, say: Callable[[str], None]) -> None:
    """Run MLflow's UI over the store on 127.0.0.1 until it is stopped; a server's own UI is only named."""
    if tracker.uri.startswith("http"):
        say(f"the runs are on {tracker.shown}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(f"port {port}: in use; name another with --port") from None
    say(f"MLflow on http://127.0.0.1:{port} (Ctrl-C stops it)")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    artifacts = (paths.runs() / "artifacts").as_uri()
    command += ["--default-artifact-root", artifacts, "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": tracker.uri,  # not an argument, which everybody could read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs would be two more processes, unused
    }
    server = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        server.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # the server has processes of its own


@lru_cache(maxsize=1)
def commit() -> str:
    """The checkout's commit, with "+" where tracked files differ from it; "" outside a checkout."""
    git = ["git", "-C", str(paths.ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else ""
