"""What there is to choose from: losses, models, tasks, weightings."""

from __future__ import annotations

from typing import Any

from harness import losses, models, tasks
from harness.losses.weighting import WEIGHTINGS
from harness.tasks import fields


def fits(info: losses.LossInfo, task: str) -> bool:
    """Whether a task provides all fields of a loss, derived ones and the model's parameters included."""
    given = tasks.get(task)
    return fields.available({*given.given, *given.predicted, "parameters"}) >= set(info.fields)


def trainable(task: str) -> list[str]:
    """Losses that can train a task by themselves: a penalty cannot."""
    return [
        name for name, info in losses.all_losses().items() if fits(info, task) and set(info.fields) != {"parameters"}
    ]


def as_data() -> dict[str, Any]:
    """The catalogue as JSON data."""
    rows = []
    for name, info in losses.all_losses().items():
        settings = {key: {"default": s.default, "valid": s.valid, "kind": s.kind} for key, s in info.settings.items()}
        rows.append(
            {
                "name": name,
                "aliases": list(info.aliases),
                "family": info.family,
                "summary": info.summary,
                "fields": list(info.fields),
                "optional_fields": list(info.optional_fields),
                "settings": settings,
                "minimum": info.minimum(),
                "unit": info.unit,
                "tasks": [task for task in tasks.TASKS if fits(info, task)],
                "targets": list(info.targets),
                "batchwise": info.batchwise,
                "reference": info.reference,
                "version": info.version,
            }
        )
    return {"losses": rows, **others()}


def others() -> dict[str, list[str]]:
    return {"models": list(models.all_models()), "tasks": list(tasks.TASKS), "weightings": list(WEIGHTINGS)}
