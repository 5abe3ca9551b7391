"""Run one planned trial: a control or a training, judged and logged as one MLflow run. Knows nothing of Optuna."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness import entrants, losses, models, outbox, spec, train, usage
from harness.context import TESTED, Context, Outcome, Planned, Report
from harness.data import corpora
from harness.data.scenes import noise_card
from harness.devices import device_name
from harness.errors import in_one_line
from harness.judging import control_means, control_outputs, judge, judge_all, means, outputs, scores
from harness.losses.registry import RegisteredLoss
from harness.tracking import commit

TUNING_SEED = 0  # confirming seeds begin at 1
FRESH_SEEDS = 1000  # the first seed of the equal-time phase, less 1: confirming has those below
# Looks at validation in the course of a training; where a pruner is named, tuning has those that it needs to tell a bad one.
LOOKS = {"tune": 2, "confirm": 4, "equal_time": 4, "median": 4, "hyperband": 4, "wilcoxon": 8}
CURVE_POINTS = 50  # of a training curve in MLflow, or more where updates are many


class Pruned(Exception):
    """Whoever looks on ends a training that promises nothing."""


def settled(context: Context, planned: Planned) -> Outcome | None:
    """The outcome of the settled run of the same identity, whatever study made it, sent or still waiting to be."""
    return _waiting(context, planned) or _stored(context, planned)


def _waiting(context: Context, planned: Planned) -> Outcome | None:
    kept = outbox.find(context.tracker, context.identity(planned))
    if kept is None:
        return None
    last = {name: value for name, value, *_ in kept["points"]}
    return _outcome(context, planned, kept["state"], last, kept["reason"])


def _stored(context: Context, planned: Planned, *, claimed: bool = False) -> Outcome | None:
    """claimed: the trial is ours, so that what is half-made under its identity may be closed."""
    run = context.tracker.find(context.identity(planned), claimed=claimed)
    if run is None:
        return None
    return _outcome(context, planned, run.data.tags["state"], run.data.metrics, run.data.tags.get("reason", ""))


def _outcome(context: Context, planned: Planned, state: str, last: Mapping[str, float], reason: str) -> Outcome:
    """What a settled run came to. last: the last value of each of its metrics."""
    values = objective_values(context.study, last) if planned.phase != "control" and state == "finished" else ()
    return Outcome(state, last.get("validation/score"), reason, reused=True, values=values)


def objective_values(study: spec.Study, last: Mapping[str, float]) -> tuple[float, ...]:
    """The value of each objective, where a study has several."""
    several = study.objectives if len(study.objectives) > 1 else ()
    return tuple(last[f"validation/{name}"] for name in several)


def _known(context: Context, planned: Planned) -> Outcome | None:
    """As `settled`, having closed what a dead process left half-made. A store that is away is taken to know nothing:
    should it know the run after all, ours is dropped when it is sent."""
    # What waits on this disk is known even then.
    return _waiting(context, planned) or outbox.answer(context.tracker, lambda: _stored(context, planned, claimed=True))


def leave(context: Context, planned: Planned) -> None:
    """Close, as interrupted, what was left half-made of a run that nobody makes any more."""
    outbox.answer(context.tracker, lambda: _stored(context, planned, claimed=True))


def run(context: Context, planned: Planned, report: Report) -> Outcome:
    """Make the run, or reuse it. On an exception the run is closed as failed or interrupted and the exception goes on."""
    known = _known(context, planned)
    if known is not None:
        return known
    tags = context.tags(planned.loss, planned.weighting) | {
        "identity": context.identity(planned),
        "phase": planned.phase,
        "seed": "" if planned.seed is None else str(planned.seed),
        "commit": commit(),
        "device": device_name(context.device),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if planned.phase != "tune":
        tags |= {"test_list": " ".join(context.protocol["lists"][name] for name in ("matched", "mismatched"))}
    params = {
        "loss": tags["loss"],
        "phase": planned.phase,
        "seed": planned.seed,
        "lr": planned.lr,
        "model": context.study.model,
        **planned.tuned,
    }
    parent = context.parent(planned.loss, planned.weighting)
    context.overdue.clear()
    record: outbox.Record | None = None
    try:
        record = outbox.Record(context.tracker, context.study.task, planned.title, parent, tags, params)
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            with usage.watched(context.device) as used:
                outcome = (context.make or make)(context, planned, record, Path(folder), report)
            if context.overdue:
                late = f"taken as failed after {context.scorer.limit:g} s: {'; '.join(dict.fromkeys(context.overdue))}"
                outcome.reason = "; ".join(filter(None, (outcome.reason, late)))
            record.log_at(used.points())
            record.close(outcome.state, Path(folder), outcome.reason)
    except KeyboardInterrupt:
        _end(context, planned, record, "interrupted")
        raise
    except Exception as error:
        _end(context, planned, record, "failed", in_one_line(error))
        raise
    if record.lost:
        outcome.note = f"waits in runs/outbox, because MLflow did not take it: {record.lost}"
    return outcome


def _end(context: Context, planned: Planned, record: outbox.Record | None, state: str, reason: str = "") -> None:
    """Close a run that came to nothing. Without a record its beginning was cut short: the store may hold it all the same, and
    only a search tells."""
    if record is None:
        leave(context, planned)
    else:
        record.close(state, reason=reason)


def make(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
    """Judge the control, or train and judge; what is kept lies in the folder."""
    return (_control if planned.phase == "control" else _training)(context, planned, record, folder, report)


def _control(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
    def made(test_set: str) -> list[Any]:
        report(planned.title, 0, 1, None)
        return control_outputs(context, planned.loss, test_set)

    points = judge_all(context, made, list(context.sets), folder)
    _write_spec(context, planned, folder, {})
    record.log(points)
    return Outcome("finished", None)


def _training(context: Context, planned: Planned, record: outbox.Record, folder: Path, report: Report) -> Outcome:
    study, seed, lr = context.study, planned.seed, planned.lr
    assert seed is not None
    assert lr is not None
    updates = planned.updates or getattr(study.updates, planned.phase)
    combination, weighting = entrants.with_values(planned.loss, planned.weighting, planned.values)
    sizes = context.sizes
    optimiser, settings = study.conditions(combination)
    torch.manual_seed(seed)  # equal seeds: equal initial weights, whatever the loss
    model = models.build(study.model, settings, sizes).to(context.device)
    objective = losses.Objective(combination, weighting, sizes).to(context.device)
    recipe = train.Recipe(
        updates, lr, optimiser.weight_decay, optimiser.warmup, optimiser.clip_percentile, study.precision == "bf16"
    )
    looks = looks_at(planned.phase, updates, study.pruner)
    validation: list[dict[str, float]] = []
    seconds = {"evaluation": 0.0, "logging": 0.0}
    penalties: list[dict[str, Any]] = []
    sent = 0
    seen = train.Curves([])  # so far, for a training that is ended

    def watch(done: int, curves: train.Curves) -> None:
        nonlocal sent, seen
        seen = curves
        report(planned.title, done, updates, validation[-1]["score"] if validation else None)
        penalties.append({"step": done} | {f"penalty/{name}": value for name, value in _penalties(model).items()})
        if done not in looks:
            return
        start = time.perf_counter()
        made = outputs(context, model, seed, "validation")
        now = means(judge(context, "validation", made, context.task.watched), context.task.watched)
        now |= scores(context, now)
        validation.append(now | {"step": done, "seconds": curves.train_seconds})
        judged = time.perf_counter()
        points = [(f"validation/{name}", value, done) for name, value in now.items()]
        unsent = [
            (name, row[name], row["step"]) for row in penalties if row["step"] > sent for name in row if name != "step"
        ]
        record.log([*points, *curve_points(curves, sent, updates), *unsent])
        sent = len(curves.rows)
        seconds["evaluation"] += judged - start
        seconds["logging"] += time.perf_counter() - judged
        if report(planned.title, done, updates, now["score"]) and done < updates:
            raise Pruned

    def keep(curves: train.Curves, more: list[outbox.Point]) -> None:
        """What every training that did not diverge leaves behind."""
        start = time.perf_counter()
        pd.DataFrame(validation).to_csv(folder / "validation.csv", index=False)
        updates_table = pd.DataFrame(curves.rows, columns=["step", "seconds", *curves.columns])
        updates_table.merge(pd.DataFrame(penalties), "left", on="step").to_csv(folder / "training.csv", index=False)
        _write_spec(context, planned, folder, {"controls": control_means(context)})
        clocks = {"train": curves.train_seconds, "data": curves.data_seconds, **seconds}
        clocks["logging"] += time.perf_counter() - start
        done = len(curves.rows)
        points = [*more, *((f"seconds/{name}", value, 0) for name, value in clocks.items())]
        points += [("step_ms", 1000 * curves.train_seconds / done, 0), ("updates", done, 0)]
        built = [loss for loss in objective.losses if isinstance(loss, RegisteredLoss)]
        void = {loss.info.name: loss.void_share for loss in built}
        points += [(f"void/{name}", share, 0) for name, share in void.items() if share is not None]
        record.log([*points, ("parameters", sum(p.numel() for p in model.parameters()), 0)])

    try:
        curves = train.fit(
            model,
            objective,
            lambda step: context.scenes.batch(seed, step, study.batch, context.device),
            recipe,
            context.device,
            inputs=models.get(study.model).fields,
            watch=watch,
        )
    except train.Diverged as diverged:
        _write_spec(context, planned, folder, {})
        return Outcome("diverged", None, str(diverged))
    except Pruned:
        keep(seen, [])
        return Outcome("pruned", validation[-1]["score"], f"pruned after {len(seen.rows)} of {updates} updates")
    start = time.perf_counter()
    tested = []
    if planned.phase in TESTED:
        # The only place that reads the test sets for a trained model.
        sets = [name for name in context.sets if name != "validation"]
        tested = judge_all(context, lambda test_set: outputs(context, model, seed, test_set), sets, folder, seed)
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, folder / "model.pt")
    seconds["evaluation"] += time.perf_counter() - start
    keep(curves, tested)
    last = {f"validation/{name}": value for name, value in validation[-1].items()}
    return Outcome("finished", validation[-1]["score"], values=objective_values(study, last))


def looks_at(phase: str, updates: int, pruner: str | None = None) -> list[int]:
    """The updates after which validation is judged: evenly spread, where the curves are read."""
    count = LOOKS[pruner if pruner is not None and phase == "tune" else phase]
    even = (round(updates * (look + 1) / count) for look in range(count))
    return sorted({min(-(-look // train.READ_EVERY) * train.READ_EVERY, updates) for look in even})


def curve_points(curves: train.Curves, since: int, updates: int) -> list[outbox.Point]:
    """The rows of the curves from place `since` on, for MLflow: means over a few updates each.

    A point costs the store as much as some updates of a small net cost a GPU; `training.csv` holds every update.
    """
    every = min(train.READ_EVERY, -(-updates // CURVE_POINTS))
    points = []
    for place in range(since, len(curves.rows), every):
        rows = curves.rows[place : place + every]
        means = np.mean([row[2:] for row in rows], axis=0).tolist()
        points += [
            (f"train/{name}", value, int(rows[-1][0])) for name, value in zip(curves.columns, means, strict=True)
        ]
    return points


def _penalties(model: torch.nn.Module) -> dict[str, float]:
    """How large the weights have become, whatever holds them down: a penalty in the loss, or decay in the optimiser, which no
    printed loss contains."""
    weights = [weight.detach() for weight in train.weights(model)]
    if not weights:
        return {}
    return {"l1": float(losses.l1_penalty(weights)), "l2": float(losses.l2_penalty(weights))}


def _notes(context: Context) -> list[str]:
    """Whose recordings these are, and what is wrong with them: printed wherever their sound or scores are."""
    own = context.card
    cards = [own, *(noise_card(name, own) for name in context.study.scenes.noises)]
    cards += [corpora.card(name) for name in context.study.scenes.places]
    said = [f"{card.title}. {card.attribution} {' '.join(card.flaws)}".strip() for card in cards]
    banks = (getattr(context.scenes, name, None) for name in ("speech", "bank"))
    if own.root is not None and (bank := next(filter(None, banks), None)) is not None:
        said[0] = " ".join([said[0], *(f"{remark[0].upper()}{remark[1:]}." for remark in bank.remarks())])
    return said


def _write_spec(context: Context, planned: Planned, folder: Path, more: Mapping[str, Any]) -> None:
    """Everything that the run followed from."""
    content = {
        "identity": context.identity(planned),
        "protocol": context.protocol,
        "protocol_digest": context.protocol_digest,
        "loss": context.key(planned.loss, planned.weighting),
        "phase": planned.phase,
        "seed": planned.seed,
        "lr": planned.lr,
        "tuned": planned.tuned,
        "study": context.study.model_dump(mode="json"),
        "notes": _notes(context),
        "classes": context.task.classes(context.scenes),
        **more,
    }
    (folder / "spec.json").write_text(json.dumps(content, indent=1))
