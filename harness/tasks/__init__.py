"""Tasks by name. A task says what is given, what is predicted and what is judged."""

from __future__ import annotations

from harness.errors import unknown
from harness.tasks.classify import Keywords, Voices
from harness.tasks.count import Count
from harness.tasks.denoise import Denoise
from harness.tasks.digits import Digits
from harness.tasks.labels import Labels
from harness.tasks.locate import Locate
from harness.tasks.separate import Separate
from harness.tasks.tags import Tags
from harness.tasks.task import Scenes, Task

__all__ = ["TASKS", "Scenes", "Task", "get"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (Denoise(), Separate(), Keywords(), Voices(), Tags(), Digits(), Count(), Locate(), Labels())
}


def get(name: str) -> Task:
    """The task of that name; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "harness losses")
    return TASKS[name]
