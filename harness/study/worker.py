"""Claim and run trials until a study is done: what every worker process does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import optuna

from harness import outbox, trial
from harness.context import Context, Outcome
from harness.errors import in_one_line
from harness.liveness import mine
from harness.study.jobs import Work, stages
from harness.study.queue import BEGUN, PUT_BACK, TOO_OFTEN, Queue
from harness.study.storage import Store, is_away

LOSSES = 10  # of the connection, one upon the other, after which a database is given up


@dataclass
class Event:
    """Something to show: a trial's progress (`done` of `of` updates, last validation score), a finished one (`outcome`), or a
    word on what surrounds it (`note`). begun: no more than that a trial begins, for whoever starts processes."""

    worker: int
    title: str
    done: int = 0
    of: int = 0
    score: float | None = None
    outcome: Outcome | None = None
    seconds: float = 0.0
    note: str = ""
    begun: bool = False


@dataclass
class _Worker:
    """One process at work. seconds: the longest trial of each phase so far."""

    context: Context
    show: Callable[[Event], None]
    number: int
    until: float
    seconds: dict[str, float] = field(default_factory=dict)


def work(
    context: Context,
    store: Store,
    show: Callable[[Event], None],
    since: datetime,
    worker: int = 0,
    until: float = math.inf,
) -> None:
    """Claim and run trials until nothing of the study waits or runs, in this process or any other.

    until: a time (`time.monotonic()`) by which a trial must be expected to end, or it is not begun.
    """
    me = _Worker(context, show, worker, until)
    for stage in stages(context, store, since):
        if not _finish(stage, me):
            return


def _finish(stage: Sequence[Work], me: _Worker) -> bool:
    """Work until nothing of a stage is left; False where the time is over first."""
    left, lost = list(stage), 0
    while True:
        try:
            over = _step(left, me)
        except Exception as error:
            lost += 1
            if not is_away(error) or lost > LOSSES:
                raise
            continue  # the next question waits until the database is back
        lost = 0
        if over is not None:
            return over


def _step(left: list[Work], me: _Worker) -> bool | None:
    """Run a trial, or wait for those of others; True where nothing is left, False where the time is over."""
    ready, busy = due(left)
    _tell_given_up(me)
    if ready is not None:
        if time.monotonic() + me.seconds.get(ready.phase, 0.0) > me.until:
            return False
        start = time.monotonic()
        _claim(ready, me)
        me.seconds[ready.phase] = max(me.seconds.get(ready.phase, 0.0), time.monotonic() - start)
        outbox.send(me.context.tracker)
    elif busy:
        for queue in busy:
            queue.bury()
        time.sleep(0.5)
    else:
        return True
    return None


def _tell_given_up(me: _Worker) -> None:
    given_up = me.context.given_up
    while given_up:
        planned = given_up[0]
        if planned.phase != "measured":  # which is no run
            trial.leave(me.context, planned)
        me.show(Event(me.number, planned.title, outcome=Outcome("failed", None, TOO_OFTEN)))
        given_up.pop(0)


def due(left: list[Work]) -> tuple[Queue | None, list[Queue]]:
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
            return (queue if queue.phase == "tune" and queue.ready() else ready), busy
        if queue.ready():
            ready = queue
            if ready.phase != "confirm":
                break
    return ready, busy


def _claim(queue: Queue, me: _Worker) -> None:
    """Run one waiting trial; where another process was quicker, nothing."""
    ended: list[int] = []  # the trial, once all that is left is to tell

    def objective(claimed: optuna.Trial) -> float | tuple[float, ...]:
        try:
            value = told(claimed, attempted(claimed))
        except (optuna.TrialPruned, _Surplus, _Failed):
            ended.append(claimed._trial_id)
            raise
        except BaseException:  # interrupted, or without a database
            with suppress(Exception):  # or another process has given it up meanwhile
                claimed.set_user_attr(PUT_BACK, True)
            raise
        ended.append(claimed._trial_id)
        return value

    def attempted(claimed: optuna.Trial) -> Outcome:
        claimed.set_user_attr("owner", mine())
        plan = queue.take(claimed)
        if plan is None:
            raise _Surplus
        planned = queue.planned(plan)
        claimed.set_user_attr(BEGUN, True)
        me.show(Event(me.number, planned.title, begun=True))
        start = time.monotonic()

        def report(title: str, done: int, of: int, score: float | None) -> bool:
            me.show(Event(me.number, title, done, of, score))
            return queue.look(claimed, done, score)

        try:
            outcome = queue.make(me.context, planned, report)
        except Exception as error:
            if is_away(error):
                raise
            reason = in_one_line(error)
            claimed.set_user_attr("error_at", time.time())
            claimed.set_user_attr("error", reason)
            broken = Outcome("failed", None, reason)
            me.show(Event(me.number, planned.title, outcome=broken, seconds=time.monotonic() - start))
            raise _Failed from error
        me.show(Event(me.number, planned.title, outcome=outcome, seconds=time.monotonic() - start))
        return outcome

    try:
        queue.optuna.optimize(objective, n_trials=1, catch=(_Surplus, _Failed))
    except Exception:
        # Of a process that stood still for long others think that it died, and enqueue its trial again. What it has made is in
        # MLflow, where whoever claims that trial finds it.
        if not ended or not queue.optuna._storage.get_trial(ended[0]).state.is_finished():
            raise


def told(claimed: optuna.Trial, outcome: Outcome) -> float | tuple[float, ...]:
    """What Optuna is told of an outcome."""
    if outcome.state in ("diverged", "pruned"):
        raise optuna.TrialPruned(outcome.reason)
    if len(claimed.study.directions) > 1:
        claimed.set_user_attr("score", outcome.value)
        return outcome.values
    return outcome.value if outcome.value is not None else 0.0  # a control has no score


class _Surplus(Exception):
    """A trial beyond the plan: asked for when the last waiting one had just been claimed, or enqueued twice."""


class _Failed(Exception):
    """The trial raised; it has been shown and logged."""
