"""The store that hands out trials: Optuna's database, made once and opened by every process of a study."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Connection, Engine, event

from harness import paths
from harness.errors import UserError
from harness.tracking import log_ahead, make_once

HEARTBEAT = 10  # seconds between a running trial's signs of life
GRACE = 6 * HEARTBEAT  # seconds without one after which a trial is taken to be dead


def default_storage() -> str:
    return f"sqlite:///{paths.runs() / 'optuna.db'}"


def open_storage(url: str | None = None) -> optuna.storages.RDBStorage:
    """The store that hands out trials. UserError where it cannot be opened."""
    url = url or default_storage()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

    def connect(address: str) -> optuna.storages.RDBStorage:
        wait = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
        store = optuna.storages.RDBStorage(
            address, engine_kwargs=wait, heartbeat_interval=HEARTBEAT, grace_period=GRACE
        )
        if wait:
            _lock_before_reading(store.engine)
        return store

    def make(path: Path) -> None:
        connect(f"sqlite:///{path}").remove_session()
        log_ahead(path)

    try:
        if url.startswith("sqlite:///"):
            make_once(Path(url.removeprefix("sqlite:///")), make)
        return connect(url)
    except Exception as error:  # SQLAlchemy, its drivers and the file system each raise their own
        raise UserError(f"storage {url!r}: cannot be opened ({' '.join(str(error).split())[:160]})") from error


def _lock_before_reading(engine: Engine) -> None:
    """Make every transaction take SQLite's write lock at its beginning.

    A claim reads whether a trial waits and then writes that it runs. Optuna asks for the row's lock in between
    (SELECT ... FOR UPDATE), which SQLite does not know: two processes would both read "waits" and both run the trial.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # Python's driver would begin a transaction only at the first write
        if connection.execute("pragma journal_mode").fetchone() == ("wal",):
            # A power cut may take the last claims back, which is no loss: what was finished is found in MLflow.
            connection.execute("pragma synchronous = normal")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before this was said
