"""Run one planned trial: a control or a training, judged and logged as one MLflow run. Knows nothing of Optuna."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness import losses, models, outbox, spec, tasks, train
from harness.data import corpora
from harness.data.scenes import list_digest, noise_card
from harness.errors import UserError, in_one_line
from harness.judging import control_means, control_outputs, judge, judge_all, means, outputs
from harness.losses.registry import RegisteredLoss
from harness.metrics import Scorer
from harness.tracking import Tracker, commit

TUNING_SEED = 0  # confirming seeds begin at 1
LOOKS = {"tune": 2, "confirm": 4}  # at validation in the course of a training
CURVE_POINTS = 50  # of a training curve in MLflow, or more where updates are many
SETS = ("validation", "matched", "mismatched")
MORE_SETS = ("training", "open_set", "real_words")  # those that a study asks for: a protocol without them knows of none
Report = Callable[[str, int, int, float | None], None]  # what is being done, updates done, of how many, last score


@dataclass(frozen=True)
class Planned:
    """One run to make. loss: expression, or the control's name; phase: "control", "tune" or "confirm"."""

    loss: str
    phase: str
    seed: int | None = None
    lr: float | None = None

    @property
    def title(self) -> str:
        parts = [self.loss, self.phase if self.phase != self.loss else ""]
        parts += [f"lr {self.lr:.3g}"] if self.lr is not None else []
        return " ".join([*parts, f"seed {self.seed}"] if self.phase == "confirm" else parts).strip()


@dataclass
class Outcome:
    """What a run came to. value: the selection score, None where it diverged."""

    state: str
    value: float | None
    reason: str = ""
    reused: bool = False
    note: str = ""  # where its results are, if not in the store


@dataclass
class Context:
    """All that the trials of one study share in one process.

    picture: draws (noisy, clean, estimate, sample rate) as PNG bytes; handed in, because plotting is a room above.
    make: fills the record and the folder of a planned run, and says what it came to; another one where only what
        surrounds a training is wanted.
    controls: validation means of the controls, filled when first needed.
    """

    study: spec.Study
    scenes: tasks.Scenes
    device: torch.device
    tracker: Tracker
    scorer: Scorer
    picture: Callable[..., bytes]
    make: Callable[[Context, Planned, outbox.Record, Path, Report], Outcome] = field(
        default_factory=lambda: make, repr=False
    )
    sets: dict[str, Sequence[Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = self.study.scenes.items
        asked = (*SETS, *(name for name in MORE_SETS if wanted.of(name)))
        self.sets = {name: self.scenes.items(name, wanted.of(name)) for name in asked}

    @cached_property
    def task(self) -> tasks.Task:
        return tasks.get(self.study.task)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        lists = {name: list_digest(items) for name, items in self.sets.items()}
        return spec.protocol(self.study, self.scenes.digest, lists)

    @cached_property
    def protocol_digest(self) -> str:
        return spec.digest(self.protocol)

    @cached_property
    def examples(self) -> dict[str, list[dict[str, torch.Tensor]]]:
        """Fields of every judged item, mixed once a process."""
        return {name: [self.scenes.example(item) for item in items] for name, items in self.sets.items()}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """What models, and losses with state, are to be built for."""
        known, info = self.task.sizes(self.scenes), models.get(self.study.model)
        if "embedding" not in info.gives:
            return known
        example = self.scenes.example(self.sets["validation"][0])
        with torch.random.fork_rng(), torch.inference_mode():
            model = models.build(info.name, sizes=known).eval()
            return known | {"dim": model(*(example[name][None] for name in info.fields))["embedding"].shape[-1]}

    def key(self, loss: str) -> dict[str, Any]:
        """What makes a loss (or a control) the same one in an identity."""
        if loss in self.task.controls:
            return {"control": loss}
        return spec.loss_key(losses.parse(loss), self.study.weighting)

    def identity(self, planned: Planned) -> str:
        tuned = {} if planned.lr is None else {"lr": planned.lr}
        return spec.identity(self.protocol_digest, self.key(planned.loss), planned.phase, planned.seed, tuned)

    def control_identity(self, name: str) -> str:
        return self.identity(Planned(name, "control"))

    def parent(self, loss: str) -> outbox.Parent:
        """The parent run, one for each protocol and loss."""
        identity = spec.digest({"protocol": self.protocol_digest, "parent": self.key(loss)})
        shown = loss if loss in self.task.controls else losses.parse(loss).expression
        return outbox.Parent(shown, identity, self.tags(loss))

    def tags(self, loss: str) -> dict[str, str]:
        """What every run of a loss says of itself."""
        control = loss in self.task.controls
        combination = None if control else losses.parse(loss)
        return {
            "protocol": self.protocol_digest,
            "study": self.study.name,
            "task": self.study.task,
            "corpus": corpora.card(self.study.corpus).name,
            "model": self.study.model,
            "loss": loss if combination is None else combination.expression,
            "role": "control" if control else "loss",
            "reference": losses.parse(self.study.reference.loss).expression,
            "weighting": "" if control else self.study.weighting,
            "loss_versions": json.dumps({} if combination is None else combination.versions),
            "targets": " ".join(() if combination is None else combination.targets),
            "result_version": str(spec.RESULT_VERSION),
            "preliminary": str(self.study.preliminary),
        }


def device_name(device: torch.device) -> str:
    """The device as it stands in every figure: the processor's or the card's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.is_file()
        else []
    )
    return f"CPU {names[0] if names else platform.machine()}"


def pick_device(name: str) -> torch.device:
    """The device of that name ("auto": a GPU where there is one)."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: must be auto, cpu, cuda or cuda:<number>") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; try --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: must be auto, cpu, cuda or cuda:<number>")
    return device


def settled(context: Context, planned: Planned) -> Outcome | None:
    """The outcome of the settled run of the same identity, whatever study made it, sent or still waiting to be."""
    return _waiting(context, planned) or _stored(context, planned)


def _waiting(context: Context, planned: Planned) -> Outcome | None:
    kept = outbox.find(context.tracker, context.identity(planned))
    if kept is None:
        return None
    scores = [value for name, value, *_ in kept["points"] if name == "validation/score"]
    return Outcome(kept["state"], scores[-1] if scores else None, kept["reason"], reused=True)


def _stored(context: Context, planned: Planned, *, claimed: bool = False) -> Outcome | None:
    """claimed: the trial is ours, so that what is half-made under its identity may be closed."""
    run = context.tracker.find(context.identity(planned), claimed=claimed)
    if run is None:
        return None
    value = run.data.metrics.get("validation/score")
    return Outcome(run.data.tags["state"], value, run.data.tags.get("reason", ""), reused=True)


def _known(context: Context, planned: Planned) -> Outcome | None:
    """As `settled`, having closed what a dead process left half-made. A store that is away is taken to know nothing:
    should it know the run after all, ours is dropped when it is sent."""
    # What waits on this disk is known even then.
    return _waiting(context, planned) or outbox.answer(context.tracker, lambda: _stored(context, planned, claimed=True))


def run(context: Context, planned: Planned, report: Report) -> Outcome:
    """Make the run, or reuse it. On an exception the run is closed as failed or interrupted and the exception goes on."""
    known = _known(context, planned)
    if known is not None:
        return known
    tags = context.tags(planned.loss) | {
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
    }
    record = outbox.Record(
        context.tracker, context.study.task, planned.title, context.parent(planned.loss), tags, params
    )
    try:
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            outcome = context.make(context, planned, record, Path(folder), report)
            record.close(outcome.state, Path(folder), outcome.reason)
    except KeyboardInterrupt:
        record.close("interrupted")
        raise
    except Exception as error:
        record.close("failed", reason=in_one_line(error))
        raise
    if record.lost:
        outcome.note = f"waits in runs/outbox, because MLflow did not take it: {record.lost}"
    return outcome


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
    updates = getattr(study.updates, planned.phase)
    combination, sizes = losses.parse(planned.loss), context.sizes
    optimiser, settings = study.conditions(combination)
    torch.manual_seed(seed)  # equal seeds: equal initial weights, whatever the loss
    model = models.build(study.model, settings, sizes).to(context.device)
    objective = losses.Objective(combination, study.weighting, sizes).to(context.device)
    recipe = train.Recipe(
        updates, lr, optimiser.weight_decay, optimiser.warmup, optimiser.clip_percentile, study.precision == "bf16"
    )
    looks = looks_at(planned.phase, updates)
    validation: list[dict[str, float]] = []
    seconds = {"evaluation": 0.0, "logging": 0.0}
    penalties: list[dict[str, Any]] = []
    sent = 0

    def watch(done: int, curves: train.Curves) -> None:
        nonlocal sent
        report(planned.title, done, updates, validation[-1]["score"] if validation else None)
        penalties.append({"step": done} | {f"penalty/{name}": value for name, value in _penalties(model).items()})
        if done not in looks:
            return
        start = time.perf_counter()
        made = outputs(context, model, seed, "validation")
        now = means(judge(context, "validation", made, context.task.watched), context.task.watched)
        now["score"] = context.task.selection(study.objective, now, control_means(context))
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
    start = time.perf_counter()
    tested = []
    if planned.phase == "confirm":
        # The only place that reads the test sets for a trained model.
        sets = [name for name in context.sets if name != "validation"]
        tested = judge_all(context, lambda test_set: outputs(context, model, seed, test_set), sets, folder, seed)
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, folder / "model.pt")
    seconds["evaluation"] += time.perf_counter() - start
    start = time.perf_counter()
    pd.DataFrame(validation).to_csv(folder / "validation.csv", index=False)
    updates_table = pd.DataFrame(curves.rows, columns=["step", "seconds", *_columns(curves)])
    updates_table.merge(pd.DataFrame(penalties), "left", on="step").to_csv(folder / "training.csv", index=False)
    _write_spec(context, planned, folder, {"controls": control_means(context)})
    clocks = {"train": curves.train_seconds, "data": curves.data_seconds, **seconds}
    clocks["logging"] += time.perf_counter() - start
    points = [*tested, *((f"seconds/{name}", value, 0) for name, value in clocks.items())]
    points += [("step_ms", 1000 * curves.train_seconds / updates, 0), ("updates", updates, 0)]
    built = [loss for loss in objective.losses if isinstance(loss, RegisteredLoss)]
    void = {loss.info.name: loss.void_share for loss in built}
    points += [(f"void/{name}", share, 0) for name, share in void.items() if share is not None]
    record.log([*points, ("parameters", sum(p.numel() for p in model.parameters()), 0)])
    return Outcome("finished", validation[-1]["score"])


def looks_at(phase: str, updates: int) -> list[int]:
    """The updates after which validation is judged: evenly spread, where the curves are read."""
    even = (round(updates * (look + 1) / LOOKS[phase]) for look in range(LOOKS[phase]))
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
            (f"train/{name}", value, int(rows[-1][0])) for name, value in zip(_columns(curves), means, strict=True)
        ]
    return points


def _penalties(model: torch.nn.Module) -> dict[str, float]:
    """How large the weights have become, whatever holds them down: a penalty in the loss, or decay in the optimiser, which no
    printed loss contains."""
    weights = [weight.detach() for weight in train.weights(model)]
    if not weights:
        return {}
    return {"l1": float(losses.l1_penalty(weights)), "l2": float(losses.l2_penalty(weights))}


def _columns(curves: train.Curves) -> list[str]:
    """Names of what a row of the curves holds after step and seconds; MLflow takes no brackets or stars in them."""
    plain = [losses.parse(term).terms[0].name for term in curves.terms]
    terms = [f"{name}_{number}" if plain.count(name) > 1 else name for number, name in enumerate(plain, 1)]
    return ["total", *terms, "gradient_norm", "lr"]


def _notes(context: Context) -> list[str]:
    """Whose recordings these are, and what is wrong with them: printed wherever their sound or scores are."""
    own = corpora.card(context.study.corpus)
    cards = [own, *(noise_card(name, own) for name in context.study.scenes.noises)]
    return [f"{card.title}. {card.attribution} {' '.join(card.flaws)}".strip() for card in cards]


def _write_spec(context: Context, planned: Planned, folder: Path, more: Mapping[str, Any]) -> None:
    """Everything that the run followed from."""
    content = {
        "identity": context.identity(planned),
        "protocol": context.protocol,
        "protocol_digest": context.protocol_digest,
        "loss": context.key(planned.loss),
        "phase": planned.phase,
        "seed": planned.seed,
        "lr": planned.lr,
        "study": context.study.model_dump(mode="json"),
        "notes": _notes(context),
        "classes": context.task.classes(context.scenes),
        **more,
    }
    (folder / "spec.json").write_text(json.dumps(content, indent=1))
