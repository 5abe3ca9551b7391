"""One smoke study for the whole test run: real prompts, real PESQ, real MLflow and Optuna stores, two workers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


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
