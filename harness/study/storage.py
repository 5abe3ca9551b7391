"""The store that hands out trials: Optuna's database, made once and opened by every process of a study.

A database that goes away for a while is waited for; what a process was asking at that moment is asked again (`is_away`).
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from harness import paths
from harness.addresses import scrubbed, shown
from harness.errors import UserError
from harness.tracking import log_ahead, make_once

HEARTBEAT = 10  # seconds between a running trial's signs of life
GRACE = 6 * HEARTBEAT  # seconds without one after which a trial is taken to be dead
PATIENCE = 600  # seconds for which a database that went away is waited for
MAKING = 7_304_115  # the number of the lock under which tables are made
LIBPQ = ("psycopg", "psycopg2")  # drivers that hand these to PostgreSQL's own library: s, s, s, times, ms
LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
Say = Callable[[str], None]


def default_storage() -> str:
    return f"sqlite:///{paths.runs() / 'optuna.db'}"


class Store(optuna.storages.RDBStorage):
    """Optuna's own, whose signs of life survive a database that is away, and that takes no trial for dead at one look: a clock
    that jumps makes all of them look so, until the next sign of life."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
        self._silent: dict[
            int, dict[int, float]
        ] = {}  # for each study its silent trials, and since when we see them so

    def record_heartbeat(self, trial_id: int) -> None:
        # Called from threads, which an error would end, and with them the signs of life of a process that lives: the next one will
        # do. Optuna's own handler trips over a lost connection; what else is wrong with the store, others hear of who ask it.
        with suppress(Exception):
            super().record_heartbeat(trial_id)

    def silent(self, study_id: int) -> list[int]:
        """The running trials that give no sign of life, at this look."""
        return super()._get_stale_trial_ids(study_id)

    def dead(self, study_id: int) -> list[int]:
        """The running trials that give no sign of life at two looks, both taken here: between them a living one gives some."""
        self._get_stale_trial_ids(study_id)
        time.sleep(2.1 * HEARTBEAT)
        return self._get_stale_trial_ids(study_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        now, before = time.monotonic(), self._silent.get(study_id, {})
        seen = {trial: before.get(trial, now) for trial in self.silent(study_id)}
        self._silent[study_id] = seen
        return [trial for trial, since in seen.items() if now - since > 2 * HEARTBEAT]


def open_storage(url: str | None = None, say: Say = lambda line: None) -> Store:
    """The store that hands out trials. say: told when it goes away and when it is back. UserError where it cannot be opened."""
    url = url or default_storage()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

    def make(path: Path) -> None:
        _of_a_file(f"sqlite:///{path}").remove_session()
        log_ahead(path)

    try:
        if url.startswith("sqlite"):
            if url.startswith("sqlite:///"):
                make_once(Path(url.removeprefix("sqlite:///")), make)
            return _of_a_file(url)
        return _of_a_server(url, say)
    except Exception as error:  # SQLAlchemy, its drivers and the file system each raise their own
        reason = " ".join(scrubbed(str(error), url).split())[:160]
        raise UserError(f"storage {shown(url)!r}: cannot be opened ({reason})") from error


def is_away(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that the connection to the database was lost."""
    while error is not None:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_a_file(url: str) -> Store:
    store = Store(url, engine_kwargs={"connect_args": {"timeout": 60}})
    _lock_before_reading(store.engine)
    return store


def _of_a_server(url: str, say: Say) -> Store:
    # A connection is tried before it is used: the database may have been restarted since.
    with _one_at_a_time(url):
        store = Store(url, engine_kwargs={"pool_pre_ping": True, "connect_args": _limits(url)})
    _be_patient(store.engine, shown(url), say)
    return store


def _limits(url: str) -> dict[str, int]:
    """What keeps a connection from waiting for ever for a network that went silent; what the address itself says goes first."""
    asked = make_url(url)
    if asked.get_backend_name() != "postgresql" or asked.get_dialect().driver not in LIBPQ:
        return {}
    return {name: value for name, value in LIMITS.items() if name not in asked.query}


@contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Machines that begin at once on a new database would all make its tables, and all but one fail."""
    if not url.startswith("postgresql"):
        yield
        return
    with create_engine(url, poolclass=NullPool, connect_args=_limits(url)).connect() as connection:
        connection.exec_driver_sql(f"select pg_advisory_lock({MAKING})")  # given back with the connection
        yield


def _be_patient(engine: Engine, address: str, say: Say) -> None:
    """Let every new connection wait for a database that has answered before."""
    alone = threading.Lock()  # signs of life come from a thread of their own

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: object, given: Any, named: Any) -> Any:
        with alone:
            since, away = time.monotonic(), False
            while True:
                try:
                    made = dialect.connect(*given, **named)
                except dialect.loaded_dbapi.OperationalError as error:
                    if time.monotonic() - since > PATIENCE:
                        raise
                    if not away:
                        reason = " ".join(scrubbed(str(error)).split())[:160]
                        say(
                            f"storage {address!r} is away ({reason}); waiting for it, {PATIENCE / 60:g} minutes at most"
                        )
                    away = True
                    time.sleep(1)
                    continue
                if away:
                    say(f"storage {address!r} is back after {time.monotonic() - since:.0f} s")
                return made


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
