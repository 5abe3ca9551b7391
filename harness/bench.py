"""Measure what losses cost and keep it in MLflow, so that rows of several devices stand in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from harness import keys, loads, losses, outbox, throughput
from harness.context import Context
from harness.devices import device_name
from harness.errors import in_one_line

EXPERIMENT = "throughput"
MEASURED = 2  # raised when rows come to be measured in another way


def measure(
    context: Context,
    expressions: Iterable[str],
    again: bool,
    say: Callable[[str, int, int], None],
    weighting: str = "fixed",
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of `throughput.csv` for these losses on this device, and what could not be measured and why. again: measure even
    where a row is known; weighting: of those of several terms, a single loss has none.

    mse and the task's reference are measured in turn with each of them, so that a ratio is one of the same seconds.
    """
    combinations = [losses.parse(text) for text in expressions]
    several, alone = losses.get_weighting(weighting).expression, "fixed"
    wanted = {combination.expression: several if len(combination.terms) > 1 else alone for combination in combinations}
    name = device_name(context.device)
    known = (
        {}
        if again
        else {
            loss: run
            for loss, how in wanted.items()
            if (
                run := outbox.answer(
                    context.tracker, partial(context.tracker.find, _identity(context, loss, how, name))
                )
            )
        }
    )
    missing = [loss for loss in wanted if loss not in known]
    failures: list[str] = []
    rows: dict[str, dict[str, Any]] = {loss: {**run.data.params, **run.data.metrics} for loss, run in known.items()}
    if missing:
        batches = [context.scenes.batch(0, step, context.study.batch, context.device) for step in range(4)]
        for done, loss in enumerate(missing):
            say(loss, done, len(missing))
            try:
                cost = throughput.measure(
                    loss,
                    context.study.model,
                    batches,
                    context.device,
                    name,
                    context.task.reference,
                    context.sizes,
                    wanted[loss],
                )
                row = cost.row()
                _keep(context, row, loss, wanted[loss], name)
            except Exception as error:  # a plug-in's own: its trials have failed, and said so, before; or a full disk
                failures.append(f"throughput of {loss}: {in_one_line(error)}")
                continue
            rows[loss] = row
    return [rows[loss] for loss in wanted if loss in rows], failures


def overhead(context: Context, expression: str) -> list[float]:
    """Time of the harness's loop over that of a bare loop on the same batches, once per round."""
    batches = [context.scenes.batch(0, step, context.study.batch, context.device) for step in range(4)]
    return throughput.overhead(context.study.model, expression, batches, context.device, sizes=context.sizes)


def data_share(context: Context, step_ms: float) -> float:
    """Time to make one training batch as a share of a training step."""
    step = iter(range(10_000))
    median, _ = throughput.timed(lambda: context.scenes.batch(0, next(step), context.study.batch, context.device))
    return median / step_ms


def speech(context: Context, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean recordings, 8 x seconds at 16 kHz: training windows in a row."""
    windows = -(-round(seconds * loads.RATE) // round(context.study.scenes.seconds * loads.RATE))
    batches = [context.scenes.batch(0, step, loads.ITEMS, context.device) for step in range(windows)]
    samples = round(seconds * loads.RATE)
    noisy, clean = (torch.cat([batch[name] for batch in batches], -1)[:, :samples] for name in ("noisy", "clean"))
    return noisy.contiguous(), clean.contiguous()


def _identity(context: Context, loss: str, weighting: str, device: str) -> str:
    key = keys.loss_key(losses.parse(loss), weighting)
    setting = {"model": context.study.model, "batch": context.study.batch, "seconds": context.study.scenes.seconds}
    how = {"device": device, "threads": torch.get_num_threads(), "measured": MEASURED}
    return keys.digest({"loss": key, **how, **setting})


def _keep(context: Context, row: dict[str, Any], loss: str, weighting: str, device: str) -> None:
    words = {name: row[name] for name in ("loss", "device", "threads", "dtype")}
    tags = {
        "identity": _identity(context, loss, weighting, device),
        "loss": loss,
        "family": " ".join(losses.parse(loss).families),
        "weighting": weighting,
        "phase": "throughput",
        "device": device,
        "model": context.study.model,
    }
    record = outbox.Record(context.tracker, EXPERIMENT, f"{row['loss']} throughput", None, tags, words)
    record.log([(name, value, 0) for name, value in row.items() if name not in words])
    record.close("finished")
