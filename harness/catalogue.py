"""What there is to choose from: losses, models, tasks, weightings.

`python -m harness.catalogue` writes the README's table of losses again, after a loss was added or changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness import losses, models, paths, tasks
from harness.data import corpora
from harness.losses.combination import literal
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


def best_task(expressions: Iterable[str], corpus: str | None = None) -> str:
    """The task that losses fit best: all of them, with the fewest fields that have to be derived; of equals the first. The
    first task where there is none: what is wrong is said when they are checked against it. corpus: the tasks that take it, where
    any does."""
    kind = None if corpus is None else corpora.card(corpus).kind
    among = {name: task for name, task in tasks.TASKS.items() if kind in task.rules} or tasks.TASKS
    needed = {field for expression in expressions for field in losses.parse(expression).fields} - {"parameters"}
    able = [
        (len(needed - {*task.given, *task.predicted}), place, name)
        for place, (name, task) in enumerate(among.items())
        if fields.available({*task.given, *task.predicted}) >= needed
    ]
    return min(able)[2] if able else next(iter(among))


def as_data() -> dict[str, Any]:
    """The catalogue as JSON data."""
    rows = []
    for name, info in losses.all_losses().items():
        settings = {
            key: {
                "default": s.default,
                "valid": s.valid,
                "kind": s.kind,
                "range": s.range and {"low": s.range.low, "high": s.range.high, "log": s.range.log},
                "choices": list(s.choices),
            }
            for key, s in info.settings.items()
        }
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


def as_table() -> str:
    """One row a loss, as Markdown: what the README shows."""
    heads = ("loss", "fields", "settings", "minimum", "targets", "paper")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, info in losses.all_losses().items():
        names = " = ".join(f"`{each}`" for each in (name, *info.aliases))
        optional = [f"[{field}]" for field in info.optional_fields]
        minimum = info.minimum()
        cells = (
            names,
            " ".join([*info.fields, *optional]),
            ", ".join(f"`{key}={literal(setting.default)}`" for key, setting in info.settings.items()),
            "" if minimum is None else f"{minimum:g} {info.unit}",
            " ".join(info.targets),
            info.reference,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


START, END = "<!-- losses: written by python -m harness.catalogue -->", "<!-- end of losses -->"


def with_table(readme: str) -> str:
    """A README with the table of losses as it should be now."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{as_table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    file = paths.ROOT / "README.md"
    file.write_text(with_table(file.read_text()))
