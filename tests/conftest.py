"""One smoke study for the whole test run: real prompts, real PESQ, real MLflow and Optuna stores, two workers."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import settings as hypothesis_settings
from rich.console import Console

from harness import cli, paths, study, throughput, workers
from harness.commands import terminal
from harness.locks import held
from harness.losses import registry as loss_registry
from harness.losses.weightings import registry as weighting_registry
from harness.models import registry as model_registry
from harness.models.features import NETWORKS
from harness.tracking import SETTLED, Tracker

LONGEST = ("test_life", "test_smoke", "test_study", "test_browser", "test_exchange")  # files
torch.set_num_threads(1)  # on the small tensors of tests two threads mostly wait for each other
# A busy machine is no fault of what is tested, and what fails here fails in every run.
hypothesis_settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis_settings.load_profile("tests")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # a proxy would not find the servers of tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: where tests run in several processes, none is left to the end with them."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True, scope="session")
def untrained() -> Iterator[None]:
    """The random network stands in for the trained one, which takes minutes to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "trained", NETWORKS["random"])
        yield


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a plug-in registers is gone after its test."""
    for module, name in (
        (loss_registry, "_LOSSES"),
        (loss_registry, "_ALIASES"),
        (model_registry, "_MODELS"),
        (weighting_registry, "_WEIGHTINGS"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("harness_plugin_"):
            del sys.modules[name]


def harness(*arguments: str, home: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, with runs and reports under `home`."""
    environment = {**os.environ, "HARNESS_HOME": str(home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@lru_cache
def blank() -> Path:
    """A home of empty stores, which take seconds to make, for tests that are not about that."""
    home = Path(tempfile.mkdtemp(prefix="blank-stores-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(home))
        Tracker()
        study.open_storage().remove_session()
    return home


def here(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The same within this process, on stores that are ready, and what losses cost measured briefly: spares the seconds of each
    where nothing is said of it. As on a machine of one core, so that it takes nothing from what other tests do meanwhile;
    workers are processes here too."""
    output, errors = io.StringIO(), io.StringIO()
    if arguments[0] in ("study", "import") and home.parent.is_dir() and not (home / "runs").exists():
        shutil.copytree(blank() / "runs", home / "runs")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setenv("HARNESS_HOME", str(home))
        patch.setattr(sys, "argv", ["harness", *arguments])
        patch.setattr(terminal, "console", Console(highlight=False, width=200))
        patch.setattr(workers, "cores", lambda: 1)
        patch.setattr(throughput, "STEPS", 2)
        patch.setattr(throughput, "ROUNDS", 1)
        patch.setattr(throughput, "MIN_RUN_SECONDS", 0.02)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code or 0, output.getvalue(), errors.getvalue())


@dataclass(frozen=True)
class Smoke:
    """A finished smoke study: where it ran and what it printed."""

    home: Path
    output: str

    def copied(self, home: Path) -> Path:
        """The same home once more, for what writes to it. SQLite itself copies its files: their logs come and go, and hold what
        is not in them yet, while other processes read them."""
        shutil.copytree(self.home, home, ignore=shutil.ignore_patterns("*.db", "*.db-*"))
        for path in (self.home / "runs").glob("*.db"):
            with closing(sqlite3.connect(path)) as whole, closing(sqlite3.connect(home / "runs" / path.name)) as copy:
                whole.backup(copy)
        return home


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Made by the first process of this test run that wants it; the others read it, so that no test may change it."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke"
    with held(home, lambda: None):
        if not (home / "output").exists():
            done = here("study", "smoke", "--workers", "2", home=home)
            assert done.returncode == 0, done.stdout + done.stderr
            (home / "output").write_text(done.stdout)
    return Smoke(home, (home / "output").read_text())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file of seconds: the smoke study with fewer updates, items and seeds."""
    raw = yaml.safe_load((paths.STUDIES / "smoke.yaml").read_text())
    raw |= {"updates": {"tune": 4, "confirm": 6}, "seeds": 1, "losses": ["snr"], "objective": "si_sdr"}
    raw["scenes"]["items"] = {"validation": 2, "matched": 2, "mismatched": 2, "dnsmos_every": 2}
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def settled(home: Path) -> list[dict[str, str]]:
    runs = Tracker(f"sqlite:///{home / 'runs' / 'mlflow.db'}").search()
    return [
        run.data.tags
        for run in runs
        if run.data.tags.get("state") in SETTLED and run.data.tags["phase"] != "throughput"
    ]
