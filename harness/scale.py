"""What the bookkeeping of many trials costs: whole studies whose trainings are replayed, on stores of their own.

One run of each phase is made for real; all further ones leave the same curves and files behind, so that all that takes time
is what surrounds a training: planning, claiming, looking up, logging, reporting. How well two workers share the cores is
measured with real trainings.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from harness import keys, losses, outbox, spec, study, throughput, train, trial, workers
from harness.context import Context, Outcome, Planned, Report
from harness.devices import device_name
from harness.metrics import METRICS
from harness.tracking import Tracker

SIZES = (10, 100, 1000)
COUNTS = (1, 2, 3)  # of workers
RATES, SEEDS = 5, 5  # of each loss: ten trials, as in the full protocol
SAMPLED = 80  # updates of the runs that are made for real: enough for every look at validation
PARTS = {"log": "log", "look up": "look up an identity", "enqueue": "enqueue", "claim": "claim and tell"}
REPORT = "report"
WATCHED = (
    ("claim", study, "work"),
    ("enqueue", study.Queue, "enqueue"),
    ("look up", trial, "_known"),
    ("log", trial, "run"),
    ("log", outbox.Record, "log"),
    ("log", outbox.Record, "log_at"),
    ("log", outbox, "mark"),
    ("log", outbox, "send"),
)


class Stopwatch:
    """Seconds spent in functions, by label: a function's own, without those of the watched functions that it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            self._inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                passed = time.perf_counter() - start
                self.seconds[label] += passed - self._inner.pop()
                self._inner[-1] += passed

        return call

    @contextmanager
    def watching(self, watched: Iterable[tuple[str, Any, str]] = WATCHED) -> Iterator[None]:
        before = [(owner, name, getattr(owner, name)) for _, owner, name in watched]
        for (label, owner, name), (_, _, function) in zip(watched, before, strict=True):
            setattr(owner, name, self.timed(label, function))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)


@contextmanager
def own_home() -> Iterator[Path]:
    """A fresh folder for `runs/` and `reports/`, gone afterwards."""
    before = os.environ.get("HARNESS_HOME")
    with tempfile.TemporaryDirectory(prefix="harness-scale-") as folder:
        os.environ["HARNESS_HOME"] = folder
        (Path(folder) / "runs").mkdir()
        try:
            yield Path(folder)
        finally:
            del os.environ["HARNESS_HOME"]
            os.environ.update({} if before is None else {"HARNESS_HOME": before})


@dataclass
class Sample:
    """What one real run left behind. points: what it logged; folder: its files."""

    points: list[outbox.Point]
    folder: Path


class _Kept(outbox.Record):
    """A record that goes to no store."""

    def __init__(self) -> None:
        self.points: list[outbox.Point] = []

    def log(self, points: Iterable[outbox.Point]) -> None:
        self.points += points


def samples(context: Context, folder: Path) -> dict[str, Sample]:
    """A real run of each phase, with the study's test sets and few updates."""
    study_ = context.study
    updates = spec.Updates(tune=min(SAMPLED, study_.updates.tune), confirm=min(SAMPLED, study_.updates.confirm))
    few = study_.scenes.items.model_copy(update={"validation": 2})  # its items leave nothing behind but their mean
    scenes = study_.scenes.model_copy(update={"items": few})
    short = replace(context, study=study_.model_copy(update={"updates": updates, "scenes": scenes}))
    reference = study_.reference
    plans = [Planned(context.task.controls[0], "control")]
    plans += [Planned(reference.loss, phase, seed, reference.lr) for phase, seed in (("tune", 0), ("confirm", 1))]
    made = {}
    for planned in plans:
        record = _Kept()
        (folder / planned.phase).mkdir(parents=True)
        trial.make(short, planned, record, folder / planned.phase, lambda *_: None)
        made[planned.phase] = Sample(record.points, folder / planned.phase)
    return made


def replay(
    kept: Mapping[str, Sample],
    context: Context,
    planned: Planned,
    record: outbox.Record,
    folder: Path,
    report: Report,
) -> Outcome:
    """Log and leave what a run of this phase does, with curves as long as the study's."""
    sample = kept[planned.phase]
    shutil.copytree(sample.folder, folder, dirs_exist_ok=True)
    if (folder / "scores.csv").exists():
        _vary(folder / "scores.csv", keys.digest([planned.loss, planned.seed]))
    if planned.phase == "control":
        record.log(sample.points)
        return Outcome("finished", None)
    assert planned.lr is not None
    score = -abs(
        math.log10(planned.lr / _middle(context.study.rates))
    )  # the best rate is no edge, which would add trials
    updates = getattr(context.study.updates, planned.phase)
    table = pd.read_csv(folder / "training.csv")
    table = table.iloc[np.arange(updates) % len(table)].assign(step=np.arange(1, updates + 1))
    table.to_csv(folder / "training.csv", index=False)
    rows = table.loc[:, ~table.columns.str.startswith("penalty/")]
    names = losses.parse(planned.loss).names
    curves = train.Curves(["total", *names, *rows.columns[3 + len(names) :]], rows.to_numpy().tolist())
    validation = dict(reversed([(n, v) for n, v, _ in sample.points if n.startswith("validation/")]))
    sent = 0
    for done in trial.looks_at(planned.phase, updates):
        points = [(name, value, done) for name, value in (validation | {"validation/score": score}).items()]
        so_far = replace(curves, rows=curves.rows[:done])
        record.log([*points, *trial.curve_points(so_far, sent, updates)])
        sent = done
    record.log([point for point in sample.points if not point[0].startswith(("validation/", "train/"))])
    return Outcome("finished", score)


def _middle(rates: tuple[float, ...]) -> float:
    return rates[len(rates) // 2]


def _vary(path: Path, key: str) -> None:
    """Give the loss and seed scores of their own, as a training would: a report of equal scores has nothing to rank."""
    table = pd.read_csv(path)
    noise = np.random.default_rng(int(key, 16))
    for name in table.columns.intersection(list(METRICS)):
        scale = 0.1 * float(table[name].std() or 1.0)
        table[name] += scale * (noise.normal() + noise.normal(size=len(table)))
    table.to_csv(path, index=False)


def enlarged(loaded: spec.Study, trials: int) -> spec.Study:
    """The study with so many trials (a multiple of ten): as many losses as it takes, at five rates and with five seeds."""
    settings = np.linspace(10, 50, max(trials // (RATES + SEEDS), 1))[1:]
    losses = (loaded.reference.loss, *(f"si_sdr(max_db={value:.6g})" for value in settings))
    return loaded.model_copy(update={"losses": losses, "rates": tuple(spec.default_rates(RATES)), "seeds": SEEDS})


def replayed(context: Context, kept: Mapping[str, Sample], of: spec.Study, clock: Stopwatch | None = None) -> Context:
    """A context on the store of the home that is set now, whose trainings are replayed."""
    make = functools.partial(replay, kept)
    return replace(
        context, study=of, tracker=Tracker(), make=clock.timed("replay", make) if clock else make, controls={}
    )


def bookkeeping(context: Context, kept: Mapping[str, Sample], trials: int) -> dict[str, float]:
    """Seconds of each part for so many trials on a fresh store."""
    clock = Stopwatch()
    with own_home():
        sized = replayed(context, kept, enlarged(context.study, trials), clock)
        store = study.open_storage()
        with clock.watching():
            study.work(sized, store, lambda event: None, datetime.now())
        clock.timed(REPORT, _report)(sized.tracker)
    return {part: clock.seconds[part] for part in (*PARTS, REPORT)}


def _report(tracker: Tracker) -> None:
    from harness import paths
    from harness.report import page, ranking, runs

    results = runs.read(tracker)
    page.write_report(results, paths.reports(), ranking.analyse(results))


def growth(small: float, large: float, sizes: tuple[int, int]) -> float:
    """Exponent by which a total grows from one number of trials to another: 1 is linear."""
    return math.log(large / small) / math.log(sizes[1] / sizes[0])


@dataclass
class _Quiet:
    """Stands for the live view: keeps when trials began and ended. Seconds are `time.monotonic()`."""

    first: float = math.inf
    last: float = 0.0
    ended: int = 0
    busy: float = 0.0
    console: Console = field(default_factory=lambda: Console(quiet=True))
    failures: list[str] = field(default_factory=list)

    def show(self, event: study.Event) -> None:
        now = time.monotonic()
        self.first = min(self.first, now)
        if event.outcome is not None:
            self.first = min(self.first, now - event.seconds)
            self.last, self.ended, self.busy = now, self.ended + 1, self.busy + event.seconds


def efficiency(loaded: spec.Study, options: workers.Options, updates: int = 50, points: int = 4) -> dict[str, Any]:
    """Seconds for the same short trainings by one worker of one thread and by two, from the first claim to the last end, and
    the efficiency: one's time over two's, halved. The start of the processes, the same for both, is not in it.
    per_hour: trials an hour by each number of workers in `COUNTS`.

    busy: the share of two's time in which they had a trial in hand. Where it is near 1 and the efficiency is not, the
    trials themselves took longer: the two had less than a core each.
    """
    few = loaded.scenes.items.model_copy(update={"validation": 2, "matched": 2, "mismatched": 2})
    short = loaded.model_copy(
        update={
            "losses": ("mse", "si_sdr", "snr", "l1"),
            "scenes": loaded.scenes.model_copy(update={"items": few}),
            "updates": spec.Updates(tune=updates, confirm=updates),
            "rates": tuple(spec.default_rates(points)),
            "seeds": points,
            "objective": "si_sdr",
        }
    )
    seconds: dict[int, float] = {}
    busy = 0.0
    for count in COUNTS:
        with own_home():
            seen: Any = _Quiet()
            workers.run_processes(short, options, count, seen, datetime.now(), math.inf, threads=1)
            if seen.failures:
                raise RuntimeError(seen.failures[0])
            seconds[count] = seen.last - seen.first
            trials = seen.ended
            busy = seen.busy / count / seconds[count] if count == 2 else busy
    gain = seconds[1] / seconds[2]
    per_hour = {str(count): 3600 * trials / took for count, took in seconds.items()}
    measured = {"trials": trials, "one": seconds[1], "two": seconds[2], "efficiency": gain / 2, "busy": busy}
    return measured | {"per_hour": per_hour}


def answers(storage: str | None) -> dict[str, float]:
    """Operations a second of a fresh SQLite file and of the storage that is named."""
    with own_home():
        found = {"sqlite": study.operations(study.open_storage())}
    if storage is not None:
        store = study.open_storage(storage)
        found[store.engine.dialect.name] = study.operations(store)
    return found


def measure(
    loaded: spec.Study, options: workers.Options, sizes: tuple[int, ...], say: Callable[[str], None]
) -> dict[str, Any]:
    """Milliseconds a trial of each part at each size, how their totals grow from the last size but one to the last, the
    workers' efficiency, how many operations a second stores answer, and the share of the bookkeeping in the time that the
    trainings take."""
    with own_home() as home:
        context = workers.open_study(loaded, options, 1, say)
        say("one run of each phase, for its curves and files")
        kept = samples(context, home / "samples")
        steps, found = [_step_ms(context)], {}
        for trials in sizes:
            say(f"{trials} trials")
            found[trials] = bookkeeping(context, kept, trials)
            steps.append(_step_ms(context))  # beside each size: other work on the machine slows both
        say("short trainings by one worker, then by more")
        shared = efficiency(loaded, replace(options, storage=None))
        asked = answers(options.storage)
    last = sizes[-1]
    updates = (RATES * loaded.updates.tune + SEEDS * loaded.updates.confirm) / (RATES + SEEDS)
    step = sum(steps[-2:]) / 2
    parts = [*PARTS, REPORT]
    grows = {p: growth(found[sizes[-2]][p], found[last][p], (sizes[-2], last)) for p in parts} if len(sizes) > 1 else {}
    return {
        "device": device_name(context.device),
        "sizes": list(sizes),
        "ms_per_trial": {p: [1e3 * found[trials][p] / trials for trials in sizes] for p in parts},
        "growth": grows,
        "workers": shared,
        "operations_per_s": asked,
        "step_ms": step,
        "training_s_per_trial": step * updates / 1e3,
        "share": sum(found[last][part] for part in PARTS) / (last * step * updates / 1e3),
    }


def _step_ms(context: Context) -> float:
    """Milliseconds of one update with the reference, which is the cheapest loss."""
    batches = [context.scenes.batch(0, step, context.study.batch, context.device) for step in range(4)]
    return throughput.training_step(context.study.model, context.study.reference.loss, batches, context.device)


def table(found: Mapping[str, Any]) -> Table:
    """What was measured, as the command prints it."""
    made = Table("ms a trial", title=f"{found['device']}, 1 thread")
    for trials in found["sizes"]:
        made.add_column(f"{trials:,} trials", justify="right")
    made.add_column("growth", justify="right")
    for part, row in found["ms_per_trial"].items():
        exponent = f"{found['growth'][part]:.2f}" if found["growth"] else ""
        made.add_row(PARTS.get(part, part), *(f"{value:.1f}" for value in row), exponent)
    return made


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The workers' efficiency, what they and the stores can do, and at last the share of the bookkeeping."""
    shared = found["workers"]
    hours = [f"{rate:.0f} by {count}" for count, rate in shared["per_hour"].items()]
    stores = [f"{name} {rate:.0f}" for name, rate in found["operations_per_s"].items()]
    return [
        f"{shared['trials']} short trainings: {shared['one']:.1f} s by one worker of one thread, {shared['two']:.1f} s by two: "
        f"{shared['one'] / shared['two']:.2f} times as fast, an efficiency of {shared['efficiency']:.2f} "
        f"(they had a trial in hand {100 * shared['busy']:.0f} % of the time)",
        f"trials an hour, of this length and on this machine: {', '.join(hours)} workers; "
        f"operations a second that a store answers to one process: {', '.join(stores)}",
        f"bookkeeping of {found['sizes'][-1]:,} trials: {100 * found['share']:.2f} % of their training time "
        f"({found['training_s_per_trial']:.1f} s a trial, at {found['step_ms']:.1f} ms an update)",
    ]
