"""Whether the process that claimed a trial still lives, where this machine can tell: sooner than a heartbeat that stops.

Nothing here asks what time it is. A wall clock that is set, by hand or by NTP, moves the time at which a machine says that it was
started, and with it the times at which its processes were.
"""

from __future__ import annotations

import os
import socket
import uuid
from functools import cache
from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux's name for the time since it was started
UNTOLD = "-"  # in place of a birth, where no clock tells one that stays as it is


@cache
def _machine() -> str:
    """This machine since it was started, and this container on it: where process numbers mean the same processes. Where a system
    has no name for that, the machine alone (of no address, by chance: a stranger to all others)."""
    started = BOOT.read_text().strip() if BOOT.exists() else f"{uuid.getnode():012x}"
    namespace = Path("/proc/self/ns/pid")
    return "/".join([socket.gethostname(), started, os.readlink(namespace) if namespace.exists() else ""])


def mine() -> str:
    """This process, told apart from a later one with the same number where the system can."""
    return f"{_machine()} {os.getpid()} {_born(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether that process was one of this machine and has ended. Of other machines' processes nothing is known, nor of those that
    an earlier version named otherwise: their signs of life tell."""
    machine, *process = owner.rsplit(" ", 2)
    if machine != _machine() or len(process) != 2:
        return False
    number, born = int(process[0]), process[1]
    try:
        return _born(number) != born or psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return False
    except psutil.NoSuchProcess:
        return not _is_hidden(number)


def _born(number: int) -> str:
    """When a process began, in ticks since its machine did (field 22 of Linux's `stat`; the name before it may hold anything)."""
    if not BOOT.exists():
        return UNTOLD
    try:
        return Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(number) from error


def _is_hidden(number: int) -> bool:
    """Whether there is such a process after all: of another user, whom /proc is mounted not to show (`hidepid`)."""
    if os.name != "posix":
        return False  # elsewhere a signal 0 would end it
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False
