"""Judge what a model, or a control, makes of the judged sets: scores of every item, their means, and what else is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from harness import models, outbox
from harness.metrics import METRICS, ScoringError
from harness.tasks.task import Judged

if TYPE_CHECKING:
    from harness.context import Context

UNSEEN = 10**6  # the step from which on batches are made that no update sees


def outputs(context: Context, model: torch.nn.Module, seed: int, test_set: str) -> list[Any]:
    """What a model, trained on batches of this seed, makes of every item of a judged set."""

    def batches(step: int) -> dict[str, torch.Tensor]:
        return context.scenes.batch(seed, UNSEEN + step, context.study.batch, context.device)

    return context.task.outputs(model, context.examples[test_set], context.device, batches)


def control_outputs(context: Context, name: str, test_set: str) -> list[Any]:
    """What a control makes of every item of a judged set."""
    model: Any = models.get(context.study.model).build
    return context.task.control(name, context.examples[test_set], context.scenes, model)


def control_means(context: Context) -> dict[str, dict[str, float]]:
    """Validation means of every control: from their runs, or measured here where those are not settled yet."""
    watched = context.task.watched
    for name in context.task.controls:
        if name in context.controls:
            continue
        run = outbox.answer(context.tracker, partial(context.tracker.find, context.control_identity(name)))
        if run is not None:
            context.controls[name] = {metric: run.data.metrics[f"validation/{metric}"] for metric in watched}
        else:
            made = control_outputs(context, name, "validation")
            context.controls[name] = means(judge(context, "validation", made, watched), watched)
    return context.controls


def judge(context: Context, test_set: str, made: Sequence[Any], names: tuple[str, ...]) -> pd.DataFrame:
    """Per-item scores: what the item was, its metrics (NaN = missing), which fell to their floor, which were not asked for."""
    every = getattr(context.study.scenes.items, "dnsmos_every", 1)
    cheap = tuple(name for name in names if not name.startswith("dnsmos"))
    asked = [names if place % every == 0 else cheap for place in range(len(made))]
    try:
        scores = context.task.score(made, context.examples[test_set], asked, context.scorer)
    except ScoringError as error:
        bad = context.sets[test_set][error.place].id
        raise RuntimeError(f"scoring item {bad} of the {test_set} set: {error.reason}") from error
    for place, late in context.scorer.overdue.items():
        context.overdue.append(f"{' '.join(late)} of item {context.sets[test_set][place].id} of the {test_set} set")
    rows = []
    # What only some items can be judged by is not missing from the others.
    some = {name for values, _ in scores for name in values if name in METRICS} - set(names)
    for item, (values, floored) in zip(context.sets[test_set], scores, strict=True):
        about = {
            "test_set": test_set,
            "item": item.id,
            "cluster": item.cluster,
            "input_snr": item.snr,
            "noise": item.noise,
        }
        unasked = " ".join(name for name in (*names, *sorted(some)) if name not in {*values, *floored})
        about |= {"speaker": item.speaker, "floored": " ".join(floored), "unasked": unasked}
        rows.append(about | dict.fromkeys(names, float("nan")) | values)
    return pd.DataFrame(rows)


def means(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    """Mean of each metric over the items where it is not missing; a metric missing everywhere is left out."""
    return {name: float(table[name].mean()) for name in names if len(table) and table[name].notna().any()}


def scores(context: Context, now: Mapping[str, float]) -> dict[str, float]:
    """The selection score of validation means; where a study has several objectives, their mean on a shared scale, and the
    value of each that is no metric."""
    names, task = context.study.objectives, context.task
    if len(names) == 1:
        return {"score": task.selection(names[0], now, control_means(context))}
    shares = [task.share(name, now, control_means(context)) for name in names]
    composed = {name: task.selection(name, now, control_means(context)) for name in names if name not in now}
    return {**composed, "score": sum(shares) / len(shares)}


def judge_all(
    context: Context, made: Callable[[str], Sequence[Any]], sets: Sequence[str], folder: Path, seed: int | None = None
) -> list[outbox.Point]:
    """Judge what is `made` of each of the sets and keep it in the folder: scores.csv of all but validation, and what the task
    keeps besides. Returns the means. seed: of the training."""
    points: list[outbox.Point] = []
    tables = []
    judged: dict[str, Judged] = {}
    for name in filter(context.sets.get, sets):  # a corpus that holds nothing out has nothing mismatched
        # No answer to a word of the open set is right.
        names = {"validation": context.task.watched, "open_set": ()}.get(name, context.task.judged)
        output = made(name)
        table = judge(context, name, output, names)
        summary = context.task.summary(table) if len(table) else {}
        points += [(f"{name}/{metric}", value, 0) for metric, value in (means(table, names) | summary).items()]
        tables += [table] if name != "validation" else []
        ids, clusters = ([getattr(item, part) for item in context.sets[name]] for part in ("id", "cluster"))
        judged[name] = Judged(name, seed, ids, clusters, context.examples[name], output, table)
        context.task.keep(folder, judged[name], context.picture)
    points += [(metric, value, 0) for metric, value in context.task.across(judged).items()]
    pd.concat(tables).to_csv(folder / "scores.csv", index=False)
    return points
