"""Tasks by name. A task says what is given, what is predicted and what is judged."""

from __future__ import annotations

from harness.errors import unknown
from harness.tasks.denoise import Denoise

TASKS = {"denoise": Denoise()}


def get(name: str) -> Denoise:
    """The task of that name; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "harness losses")
    return TASKS[name]
