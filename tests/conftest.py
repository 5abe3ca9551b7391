"""One smoke study for the whole test run: real prompts, real PESQ, real MLflow and Optuna stores, two workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from harness import paths
from harness.models.features import NETWORKS
from harness.tracking import SETTLED, Tracker

LONGEST = ("test_life", "test_smoke", "test_study", "test_browser", "test_exchange")  # files
torch.set_num_threads(1)  # on the small tensors of tests two threads mostly wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: where tests run in several processes, none is left to the end with them."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True, scope="session")
def untrained() -> Iterator[None]:
    """The random network stands in for the trained one, which takes minutes to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "trained", NETWORKS["random"])
        yield


def harness(*arguments: str, home: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, with runs and reports under `home`."""
    environment = {**os.environ, "HARNESS_HOME": str(home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@dataclass(frozen=True)
class Smoke:
    """A finished smoke study: where it ran and what it printed."""

    home: Path
    output: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    home = tmp_path_factory.mktemp("smoke")
    done = harness("study", "smoke", "--workers", "2", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return Smoke(home, done.stdout)


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
