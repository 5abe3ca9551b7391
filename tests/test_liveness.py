"""Who lives and who does not, whatever the clock says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import liveness

NAMED = "from harness.liveness import mine; print(mine(), flush=True); input()"


@pytest.fixture(params=["linux", "elsewhere"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A system that names its time since it was started, and one that does not."""
    name = str(request.param)
    if name == "linux" and not liveness.BOOT.exists():
        pytest.skip("needs Linux")
    if name == "elsewhere":
        monkeypatch.setattr(liveness, "BOOT", Path("/nowhere"))
    liveness._machine.cache_clear()
    yield name
    monkeypatch.undo()
    liveness._machine.cache_clear()


def named(process: int) -> str:
    """What that process calls itself."""
    return f"{liveness._machine()} {process} {liveness._born(process)}"


def step(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the clock: psutil adds what is then said of the machine's start to what the system knows of a process's."""
    now, boot = time.time, psutil.boot_time()
    patch.setattr(time, "time", lambda: now() + seconds)
    patch.setattr(psutil._psplatform, "boot_time", lambda: boot + seconds)


@pytest.mark.parametrize("seconds", [-7200, -2, 2, 7200])
def test_a_clock_that_is_set_makes_nobody_dead(system: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        owners = liveness.mine(), named(other.pid)
        born = psutil.Process(other.pid).create_time()
        with monkeypatch.context() as patch:
            step(patch, seconds)
            if system == "linux":
                assert psutil.Process(other.pid).create_time() == pytest.approx(born + seconds, abs=0.1)
            assert not any(liveness.is_gone(owner) for owner in owners)
            assert liveness.mine() == owners[0]
            liveness._machine.cache_clear()  # as who begins after the step sees them
            assert not any(liveness.is_gone(owner) for owner in owners)
            assert liveness.mine() == owners[0]
        other.kill()
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert liveness.is_gone(owners[1])  # nobody has asked yet how it ended
        other.wait()
    assert liveness.is_gone(owners[1])


def test_two_processes_name_themselves_and_each_other_alike() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        owner = other.stdout.readline().strip()
        assert owner == named(other.pid)
        assert not liveness.is_gone(owner)
        other.communicate("\n")
    assert liveness.is_gone(owner)


def test_a_later_process_of_the_same_number_is_another(system: str) -> None:
    machine, number, born = liveness.mine().rsplit(" ", 2)
    if system == "linux":
        assert liveness.is_gone(f"{machine} {number} {int(born) - 1}")
    else:
        assert not liveness.is_gone(f"{machine} {number} {liveness.UNTOLD}")  # left to its signs of life


def test_of_other_machines_other_versions_and_nonsense_nothing_is_known() -> None:
    machine, number, born = liveness.mine().rsplit(" ", 2)
    host, _, namespace = machine.split("/", 2)
    earlier = f"{host}/{int(psutil.boot_time())}/{namespace} {number} {psutil.Process().create_time() - 100:.2f}"
    for owner in (earlier, f"else/{machine} {number} {born}", "", "nobody", machine, f"{machine} {number}"):
        assert not liveness.is_gone(owner), owner


def test_who_is_hidden_from_this_user_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(number: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(liveness.os, "kill", refused)
    machine, _, born = liveness.mine().rsplit(" ", 2)
    assert not liveness.is_gone(f"{machine} 4194304 {born}")


def test_a_name_that_looks_like_the_end_of_a_name_changes_nothing(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as other:
        assert not liveness.is_gone(named(other.pid))
        assert named(other.pid).rsplit(" ", 1)[1].isdigit()
        other.kill()
