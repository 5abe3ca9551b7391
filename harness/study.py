"""Tune and confirm every loss of a study: what is planned, who runs it, what was chosen. The only room that knows Optuna.

Optuna hands out the work: one Optuna study for each protocol, loss and phase, whose trials are enqueued by whichever process
sees that they are due and claimed by one process each. Enqueuing may race; two trials of the same parameters are told apart
by number, and the lower one runs. The claim is the only lock.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, event

from harness import losses, outbox, paths, spec, trial
from harness.errors import UserError, in_one_line
from harness.liveness import is_gone, mine
from harness.tracking import log_ahead, make_once
from harness.trial import Context, Outcome, Planned

BATCH = 32  # trials of a queue that are enqueued at once
EDGE_POINTS = 2  # rates that a best rate on the edge may add
HEARTBEAT = 10  # seconds between a running trial's signs of life
GRACE = 6 * HEARTBEAT  # seconds without one after which a trial is taken to be dead
PARAMETERS = {"lr": (1e-9, 1e3), "seed": (0, 1e9)}  # what a plan can hold, in ranges that hold every value
LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
OVER = (TrialState.COMPLETE, TrialState.PRUNED)  # a diverged trial is told as pruned


def default_storage() -> str:
    return f"sqlite:///{paths.runs() / 'optuna.db'}"


def open_storage(url: str | None = None) -> optuna.storages.RDBStorage:
    """The store that hands out trials. UserError where it cannot be opened."""
    url = url or default_storage()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

    def connect(address: str) -> optuna.storages.RDBStorage:
        wait = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
        store = optuna.storages.RDBStorage(
            address, engine_kwargs=wait, heartbeat_interval=HEARTBEAT, grace_period=GRACE
        )
        if wait:
            _lock_before_reading(store.engine)
        return store

    def make(path: Path) -> None:
        connect(f"sqlite:///{path}").remove_session()
        log_ahead(path)

    try:
        if url.startswith("sqlite:///"):
            make_once(Path(url.removeprefix("sqlite:///")), make)
        return connect(url)
    except Exception as error:  # SQLAlchemy, its drivers and the file system each raise their own
        raise UserError(f"storage {url!r}: cannot be opened ({' '.join(str(error).split())[:160]})") from error


def _lock_before_reading(engine: Engine) -> None:
    """Make every transaction take SQLite's write lock at its beginning.

    A claim reads whether a trial waits and then writes that it runs. Optuna asks for the row's lock in between
    (SELECT ... FOR UPDATE), which SQLite does not know: two processes would both read "waits" and both run the trial.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # Python's driver would begin a transaction only at the first write
        if connection.execute("pragma journal_mode").fetchone() == ("wal",):
            # A power cut may take the last claims back, which is no loss: what was finished is found in MLflow.
            connection.execute("pragma synchronous = normal")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before this was said


@dataclass
class Queue:
    """The trials of one loss in one phase."""

    loss: str
    phase: str
    optuna: optuna.Study
    trials: list[FrozenTrial] = field(default_factory=list)
    by_plan: dict[object, list[FrozenTrial]] = field(default_factory=dict)

    def refresh(self) -> None:
        self.trials = self.optuna.get_trials(deepcopy=False)
        self.by_plan = {}
        for t in self.trials:
            self.by_plan.setdefault(_plan_key(t.user_attrs.get("planned")), []).append(t)

    def planned(self, trial_: FrozenTrial) -> Planned:
        plan = trial_.user_attrs["planned"]
        return Planned(self.loss, self.phase, plan.get("seed"), plan.get("lr"))

    def enqueue(self, plans: list[dict[str, Any]], since: datetime) -> bool:
        """Enqueue what has no live trial; what raised an error since this study began is not tried again.
        Returns whether plans are left for later: a claim reads all that waits, so no more than `BATCH` wait at once; what
        waits is filled up when it is empty, because two processes that fill it up at once enqueue some plans twice."""
        due = []
        for plan in plans:
            same = self.by_plan.get(_plan_key(plan), [])
            broken = [
                t for t in same if "error" in t.user_attrs and t.datetime_complete and t.datetime_complete >= since
            ]
            if not broken and not any(t.state in LIVE for t in same):
                due.append(plan)
        waiting = sum(t.state == TrialState.WAITING for t in self.trials)
        now = due if len(due) + waiting <= BATCH else due[:BATCH] if not waiting else []
        for plan in now:
            self.optuna.enqueue_trial(plan, user_attrs={"planned": plan})
        if now:
            self.refresh()
        return len(now) < len(due)

    def of_plan(self, plan: dict[str, Any]) -> FrozenTrial | None:
        """The trial that stands for a plan: the first live one."""
        return next((t for t in self.by_plan.get(_plan_key(plan), ()) if t.state in LIVE), None)

    def over(self, plans: list[dict[str, Any]], since: datetime) -> bool:
        """Whether nothing of these plans waits or runs any more."""
        self.refresh()
        if self.enqueue(plans, since):
            return False
        stand = [self.of_plan(plan) for plan in plans]
        return all(t is None or t.state in OVER for t in stand)

    def waiting(self) -> bool:
        return any(t.state == TrialState.WAITING for t in self.trials)

    def bury(self) -> None:
        """Fail the running trials whose process is dead, so that they are enqueued again."""
        optuna.storages.fail_stale_trials(self.optuna)
        for t in self.trials:
            if t.state == TrialState.RUNNING and _is_dead(t):
                with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process was quicker
                    self.optuna._storage.set_trial_state_values(t._trial_id, TrialState.FAIL)


def _plan_key(plan: dict[str, Any] | None) -> object:
    return None if plan is None else tuple(sorted(plan.items()))


def _is_dead(running: FrozenTrial) -> bool:
    owner = running.user_attrs.get("owner")
    if owner is not None:
        return is_gone(owner)
    # Killed before its first word and its first heartbeat: nothing but time tells.
    return running.datetime_start is not None and datetime.now() - running.datetime_start > timedelta(seconds=GRACE)


def best_rate(scores: dict[float, float | None]) -> float:
    """The rate with the best score; ties and an all-diverged grid go to the smallest."""
    finished = {rate: score for rate, score in scores.items() if score is not None}
    return min(finished, key=lambda rate: (-finished[rate], rate)) if finished else min(scores)


def next_edge(scores: dict[float, float | None], grid: tuple[float, ...]) -> float | None:
    """The rate that a best rate on the edge adds: the next half decade out, at most `EDGE_POINTS` beyond the grid."""
    best = best_rate(scores)
    if len(scores) - len(grid) >= EDGE_POINTS or all(score is None for score in scores.values()):
        return None
    if best not in (min(scores), max(scores)):
        return None
    out = 1 if best == max(scores) else -1
    return float(f"{10 ** ((round(2 * math.log10(best)) + out) / 2):.4g}")


@dataclass
class Job:
    """One loss of the study: tune, decide, confirm. shipped: the rate of a reference that is not tuned."""

    context: Context
    loss: str
    store: optuna.storages.RDBStorage
    since: datetime
    shipped: float | None = None
    tuning: Queue = field(init=False)
    confirm: Queue = field(init=False)
    decided: float | None = None

    def __post_init__(self) -> None:
        self.tuning, self.confirm = (self._queue(phase) for phase in ("tune", "confirm"))

    def _queue(self, phase: str) -> Queue:
        key = spec.digest(self.context.key(self.loss))
        name = f"{self.context.protocol_digest}/{key}/{phase}"
        sampler = optuna.samplers.RandomSampler(seed=0)  # never asked: every trial is planned
        made = optuna.create_study(
            storage=self.store, study_name=name, direction="maximize", sampler=sampler, load_if_exists=True
        )
        queue = Queue(self.loss, phase, made)
        queue.refresh()
        return queue

    def rates(self) -> list[float]:
        """The grid, and the rates beyond its ends that were added or tried before."""
        grid = self.context.study.rates
        tried = {t.user_attrs["planned"]["lr"] for t in self.tuning.trials if "planned" in t.user_attrs}
        return sorted({*grid, *(rate for rate in tried if not grid[0] <= rate <= grid[-1])})

    def scores(self) -> dict[float, float | None]:
        """Selection score of every rate, None where it diverged or failed."""
        stand = {rate: self.tuning.of_plan(_tuning_plan(rate)) for rate in self.rates()}
        return {
            rate: t.value if t is not None and t.state == TrialState.COMPLETE else None for rate, t in stand.items()
        }

    def advance(self) -> Queue | None:
        """Plan what is due; the queue that holds the work, None where all is done."""
        if self.decided is None and self.shipped is not None:
            self._decide(self.shipped, "shipped", {})
        if self.decided is None:
            if not self._tuned():
                return self.tuning
            scores = self.scores()
            edge = next_edge(scores, self.context.study.rates)
            if edge is not None:
                self.tuning.enqueue([_tuning_plan(edge)], self.since)
                return self.tuning
            self._decide(best_rate(scores), "tuned", scores)
        assert self.decided is not None
        plans = [{"lr": self.decided, "seed": seed} for seed in self.context.study.seed_list]
        return None if self.confirm.over(plans, self.since) else self.confirm

    def _tuned(self) -> bool:
        """Whether nothing waits or runs at any rate: also at one beyond the edge that another process has just added, which
        would else be taken to have diverged."""
        while True:
            rates = self.rates()
            if not self.tuning.over([_tuning_plan(rate) for rate in rates], self.since):
                return False
            if self.rates() == rates:
                return True

    def _decide(self, rate: float, how: str, scores: dict[float, float | None]) -> None:
        """Keep the decision where reports find it. A tuned rate replaces a shipped one, never the other way round."""
        selected = {"lr": rate, "tuning": how, "scores": {f"{r:.4g}": s for r, s in scores.items()}}
        self.decided = rate
        study = self.context.study
        parent = self.context.parent(self.loss)
        marks = {"selected": json.dumps(selected), "study": study.name}
        twins = [group for group in study.identity_groups if losses.parse(self.loss).expression in group]
        if twins:  # a study that names none leaves those of another be
            marks["identities"] = json.dumps(twins)
        outbox.mark(self.context.tracker, study.task, parent, **marks)


def _tuning_plan(rate: float) -> dict[str, Any]:
    return {"lr": rate, "seed": trial.TUNING_SEED}


def jobs(context: Context, store: optuna.storages.RDBStorage, since: datetime) -> list[Job]:
    """A job for each loss, and one for the reference at its shipped rate unless it is, or has been, tuned."""
    expressions = {losses.parse(text).expression: text for text in context.study.losses}
    made = [Job(context, expression, store, since) for expression in expressions]
    reference = losses.parse(context.study.reference.loss).expression
    if reference not in expressions:
        selected = selection(context, reference)
        rate = selected["lr"] if selected and selected["tuning"] == "tuned" else context.study.reference.lr
        job = Job(context, reference, store, since, shipped=rate)
        if selected and selected["tuning"] == "tuned":
            job.decided = rate
        made.append(job)
    return made


def selection(context: Context, loss: str) -> dict[str, Any] | None:
    """What was decided for a loss under this protocol: rate, "tuned" or "shipped", and the scores behind it."""
    identity = spec.digest({"protocol": context.protocol_digest, "parent": context.key(loss)})
    runs = context.tracker.search(f"tags.identity = '{identity}'")
    return json.loads(runs[0].data.tags["selected"]) if runs and "selected" in runs[0].data.tags else None


@dataclass
class Control:
    """A control of the task: nothing to tune, one run."""

    queue: Queue
    since: datetime

    def advance(self) -> Queue | None:
        return None if self.queue.over([{}], self.since) else self.queue


def controls(context: Context, store: optuna.storages.RDBStorage, since: datetime) -> list[Control]:
    """Every control of the task."""
    made = []
    for name in context.task.controls:
        study_name = f"{context.protocol_digest}/{name}/control"
        sampler = optuna.samplers.RandomSampler(seed=0)
        handle = optuna.create_study(
            storage=store, study_name=study_name, direction="maximize", sampler=sampler, load_if_exists=True
        )
        made.append(Control(Queue(name, "control", handle), since))
    return made


@dataclass
class Event:
    """Something to show: a trial's progress (`done` of `of` updates, last validation score), or a finished one (`outcome`)."""

    worker: int
    title: str
    done: int = 0
    of: int = 0
    score: float | None = None
    outcome: Outcome | None = None
    seconds: float = 0.0


def work(
    context: Context,
    store: optuna.storages.RDBStorage,
    show: Callable[[Event], None],
    since: datetime,
    worker: int = 0,
    until: float = math.inf,
) -> None:
    """Claim and run trials until nothing of the study waits or runs, in this process or any other.

    until: a time (`time.time()`) by which a trial must be expected to end, or it is not begun.
    """
    left: list[Control | Job] = [*controls(context, store, since), *jobs(context, store, since)]
    seconds: dict[str, float] = {}  # the longest trial of each phase so far
    while True:
        ready, busy = _due(left)
        if ready is not None:
            if time.time() + seconds.get(ready.phase, 0.0) > until:
                return
            start = time.monotonic()
            _claim(context, ready, show, worker)
            seconds[ready.phase] = max(seconds.get(ready.phase, 0.0), time.monotonic() - start)
            outbox.send(context.tracker)
        elif busy:
            for queue in busy:
                queue.bury()
            time.sleep(0.5)
        else:
            return


def _due(left: list[Control | Job]) -> tuple[Queue | None, list[Queue]]:
    """The queue whose trial is to be claimed next, None where nothing waits, and those looked at that are not over. Jobs that are
    done are dropped and not looked at again: the cost of a claim must not grow with what is done.

    Jobs take turns, but that a loss is tuned before the one ahead of it is confirmed: while a grid grows rate by rate, those
    confirmations are what other workers do.
    """
    ready, busy = None, []
    for job in list(left):
        queue = job.advance()
        if queue is None:
            left.remove(job)
            continue
        busy.append(queue)
        if ready is not None:
            return (queue if queue.phase == "tune" and queue.waiting() else ready), busy
        if queue.waiting():
            ready = queue
            if ready.phase != "confirm":
                break
    return ready, busy


def _claim(context: Context, queue: Queue, show: Callable[[Event], None], worker: int) -> None:
    """Run one waiting trial; where another process was quicker, nothing."""

    def objective(claimed: optuna.Trial) -> float:
        claimed.set_user_attr("owner", mine())
        plan = claimed.user_attrs.get("planned")
        queue.refresh()
        first = queue.of_plan(plan) if plan is not None else None
        if plan is None or first is None or first.number != claimed.number:
            raise _Surplus
        for name in plan:  # what was enqueued, written down as the trial's parameters
            claimed.suggest_float(name, *PARAMETERS[name])
        planned = queue.planned(first)
        start = time.monotonic()

        def report(title: str, done: int, of: int, score: float | None) -> None:
            show(Event(worker, title, done, of, score))

        try:
            outcome = trial.run(context, planned, report)
        except Exception as error:
            reason = in_one_line(error)
            claimed.set_user_attr("error", reason)
            broken = Outcome("failed", None, reason)
            show(Event(worker, planned.title, outcome=broken, seconds=time.monotonic() - start))
            raise _Failed from error
        show(Event(worker, planned.title, outcome=outcome, seconds=time.monotonic() - start))
        if outcome.state == "diverged":
            raise optuna.TrialPruned(outcome.reason)
        return outcome.value if outcome.value is not None else 0.0  # a control has no score

    queue.optuna.optimize(objective, n_trials=1, catch=(_Surplus, _Failed))


class _Surplus(Exception):
    """A trial beyond the plan: asked for when the last waiting one had just been claimed, or enqueued twice."""


class _Failed(Exception):
    """The trial raised; it has been shown and logged."""


@dataclass(frozen=True)
class PlanRow:
    """One line of `harness plan`: trials of a loss and phase, how many of them are settled already."""

    loss: str
    phase: str
    trials: int
    settled: int
    updates: int


def plan(context: Context) -> list[PlanRow]:
    """What `work` would run and what it would reuse. Starts nothing. Rates that an edge may add are not foreseen."""
    rows = []
    for name in context.task.controls:
        rows.append(PlanRow(name, "control", 1, _settled(context, [Planned(name, "control")]), 0))
    study = context.study
    reference = losses.parse(study.reference.loss).expression
    expressions = list(dict.fromkeys(losses.parse(text).expression for text in study.losses))
    for loss in [*expressions, *([] if reference in expressions else [reference])]:
        selected = selection(context, loss)
        rate = selected["lr"] if selected else study.reference.lr if loss not in expressions else None
        if loss in expressions:
            tried = sorted({*study.rates, *(float(r) for r in (selected or {}).get("scores", {}))})
            tuning = [Planned(loss, "tune", trial.TUNING_SEED, lr) for lr in tried]
            rows.append(PlanRow(loss, "tune", len(tried), _settled(context, tuning), study.updates.tune))
        confirming = [Planned(loss, "confirm", seed, rate) for seed in study.seed_list if rate is not None]
        rows.append(PlanRow(loss, "confirm", study.seeds, _settled(context, confirming), study.updates.confirm))
    return rows


def _settled(context: Context, plans: list[Planned]) -> int:
    return sum(trial.settled(context, planned) is not None for planned in plans)
