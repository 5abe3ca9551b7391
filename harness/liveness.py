"""Whether the process that claimed a trial still lives, where this machine can tell: sooner than a heartbeat that stops."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

import psutil


@cache
def _machine() -> str:
    """This machine since it was started, and this container on it: where process numbers mean the same processes."""
    parts = [socket.gethostname(), str(int(psutil.boot_time()))]
    namespace = Path("/proc/self/ns/pid")
    return "/".join([*parts, os.readlink(namespace) if namespace.exists() else ""])


def mine() -> str:
    """This process, told apart from a later one with the same number."""
    return f"{_machine()} {os.getpid()} {psutil.Process().create_time():.2f}"


def is_gone(owner: str) -> bool:
    """Whether that process was one of this machine and has ended. Of other machines' processes nothing is known."""
    machine, number, born = owner.rsplit(" ", 2)
    if machine != _machine():
        return False
    try:
        process = psutil.Process(int(number))
        return abs(process.create_time() - float(born)) > 1 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
