"""What there is to choose from: losses, models, tasks, weightings.

`python -m harness.catalogue` writes the README's tables of losses and weightings again, after one was added or changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from harness import losses, models, paths, tasks
from harness.data import corpora
from harness.losses.expressions import literal
from harness.readme import with_section
from harness.settings import Setting
from harness.tasks import fields


def fits(info: losses.LossInfo, task: str) -> bool:
    """Whether a task provides all fields of a loss, derived ones and the model's parameters included."""
    return fields.available({*tasks.get(task).offered, "parameters"}) >= set(info.fields)


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
        (len(needed - task.offered), place, name)
        for place, (name, task) in enumerate(among.items())
        if task.picked and fields.available(task.offered) >= needed
    ]
    return min(able)[2] if able else next(iter(among))


def as_data() -> dict[str, Any]:
    """The catalogue as JSON data."""
    rows = []
    for name, info in losses.all_losses().items():
        rows.append(
            {
                "name": name,
                "aliases": list(info.aliases),
                "family": info.family,
                "summary": info.summary,
                "fields": list(info.fields),
                "optional_fields": list(info.optional_fields),
                "settings": _settings(info.settings),
                "minimum": info.minimum(),
                "unit": info.unit,
                "tasks": [task for task in tasks.TASKS if fits(info, task)],
                "targets": list(info.targets),
                "batchwise": info.batchwise,
                "reference": info.reference,
                "version": info.version,
            }
        )
    return {
        "losses": rows,
        "models": list(models.all_models()),
        "tasks": list(tasks.TASKS),
        "weightings": [
            {
                "name": name,
                "summary": info.summary,
                "settings": _settings(info.settings),
                "needs_minima": info.minima,
                "scale_free": info.scale_free,
                "scale_free_unless": dict(info.unless),
                "reference": info.reference,
                "version": info.version,
            }
            for name, info in losses.all_weightings().items()
        ],
        "recipes": list(recipes()),
    }


def _settings(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {
        key: {
            "default": s.default,
            "valid": s.valid,
            "kind": s.kind,
            "range": s.range and {"low": s.range.low, "high": s.range.high, "log": s.range.log},
            "choices": list(s.choices),
        }
        for key, s in settings.items()
    }


def recipes() -> tuple[str, ...]:
    """Combinations that are in use and ready to take: those of the study that compares them."""
    return tuple(yaml.safe_load((paths.STUDIES / "recipes.yaml").read_text())["losses"])


def others() -> dict[str, list[str]]:
    """What the losses can be used with, by name; of weightings the settings too."""
    weightings = [_called(info) for info in losses.all_weightings().values()]
    return {
        "models": list(models.all_models()),
        "tasks": list(tasks.TASKS),
        "weightings": weightings,
        "recipes": list(recipes()),
    }


def _called(info: losses.WeightingInfo) -> str:
    settings = ", ".join(f"{key}={literal(setting.default)}" for key, setting in info.settings.items())
    return f"{info.name}({settings})" if settings else info.name


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


def weightings_table() -> str:
    """One row a weighting, as Markdown."""
    lines = ["| weighting | settings | what it is | paper |", "|---|---|---|---|"]
    for name, info in losses.all_weightings().items():
        settings = ", ".join(f"`{key}={literal(setting.default)}`" for key, setting in info.settings.items())
        lines.append(f"| `{name}` | {settings} | {info.summary} | {info.reference} |")
    return "\n".join(lines)


def with_tables(readme: str) -> str:
    """A README with the tables of losses and weightings as they should be now."""
    for what, table in (("losses", as_table()), ("weightings", weightings_table())):
        readme = with_section(readme, what, "python -m harness.catalogue", table)
    return readme


if __name__ == "__main__":
    file = paths.ROOT / "README.md"
    file.write_text(with_tables(file.read_text()))
