"""The trials of one entrant in one phase: enqueued by whichever process sees that they are due, claimed by one process each.

Enqueuing may race; two trials of the same parameters are told apart by number, and the lower one runs. The claim is the only
lock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from harness import keys, trial
from harness.context import Context, Outcome, Planned, Report
from harness.entrants import Entrant
from harness.liveness import is_gone, mine
from harness.study.storage import GRACE

BATCH = 32  # trials of a queue that are enqueued at once
PARAMETERS = {"lr": (1e-9, 1e3), "seed": (0, 1e9), "updates": (1, 1e12)}  # in ranges that hold every value
OTHERS = (-1e12, 1e12)  # what a search has set, in the trials that confirm it
LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
OVER = (TrialState.COMPLETE, TrialState.PRUNED)  # a diverged trial is told as pruned
DEATHS = 3  # of the processes that made a trial, after which it is given up: one may be chance, or a user's
TOO_OFTEN = f"ended its process {DEATHS} times: out of memory? make `batch` or `scenes: seconds` smaller, or take fewer --workers"

BEGUN = "begun"  # said of a trial by whoever begins to make it
PUT_BACK = "put_back"  # said of it by whoever stops before its end, and lives to say so

Plan = dict[str, Any]  # what a trial is to do: a rate, a seed, what a search has set, updates; by name


@dataclass
class Queue:
    """The trials of one entrant in one phase."""

    entrant: Entrant
    phase: str
    optuna: optuna.Study
    trials: list[FrozenTrial] = field(default_factory=list)
    by_plan: dict[object, list[FrozenTrial]] = field(default_factory=dict)
    unnamed: dict[int, float] = field(
        default_factory=dict
    )  # trials that nobody has put a name to, and since when we see them
    witnessed: set[int] = field(default_factory=set)  # trials that this process has seen unfinished, or seen come
    given_up: list[Planned] = field(default_factory=list)  # by this process, for whoever tells of it
    looked: bool = False

    def refresh(self) -> None:
        before = len(self.trials) if self.looked else None
        self.trials, self.looked = self.optuna.get_trials(deepcopy=False), True
        self.by_plan = {}
        for t in self.trials:
            self.by_plan.setdefault(_plan_key(t.user_attrs.get("planned")), []).append(t)
            came = before is not None and t.number >= before
            if came or t.state in (TrialState.WAITING, TrialState.RUNNING):
                self.witnessed.add(t.number)

    def planned(self, plan: Plan) -> Planned:
        given = dict(plan)
        seed, lr, updates = (given.pop(name, None) for name in ("seed", "lr", "updates"))
        return Planned(self.entrant.loss, self.phase, seed, lr, self.entrant.weighting, given, updates)

    def make(self, context: Context, planned: Planned, report: Report) -> Outcome:
        """Make the run of a claimed trial, or reuse it."""
        return trial.run(context, planned, report)

    def enqueue(self, plans: list[Plan], since: datetime) -> bool:
        """Enqueue what has no live trial; what raised an error since this study began is not tried again, nor what has ended its
        process too often.
        Returns whether plans are left for later: a claim reads all that waits, so no more than `BATCH` wait at once; what
        waits is filled up when it is empty, because two processes that fill it up at once enqueue some plans twice."""
        due: list[Plan] = []
        deadly: list[Plan] = []
        for plan in plans:
            same = self.by_plan.get(_plan_key(plan), [])
            if not any(t.state in LIVE or self.raised(t, since) for t in same):
                (deadly if _deaths(same) >= DEATHS else due).append(plan)
        for plan in deadly:
            self._give_up(plan)
        waiting = sum(t.state == TrialState.WAITING for t in self.trials)
        now = due if len(due) + waiting <= BATCH else due[:BATCH] if not waiting else []
        for plan in now:
            self.optuna.enqueue_trial(plan, user_attrs={"planned": plan})
        if now or deadly:
            self.refresh()
        return len(now) < len(due)

    def _give_up(self, plan: Plan) -> None:
        """Leave an error of a plan that ends whoever makes it. What is finished takes no more words: it is a trial of its own."""
        said = {"planned": plan, "error": TOO_OFTEN, "error_at": time.time()}
        self.optuna.add_trial(create_trial(state=TrialState.FAIL, user_attrs=said))
        self.given_up.append(self.planned(plan))

    def raised(self, t: FrozenTrial, since: datetime) -> bool:
        """Whether a trial raised an error since then, by the clocks of its machine and this one, or before our eyes."""
        return "error" in t.user_attrs and (
            t.number in self.witnessed or t.user_attrs.get("error_at", 0.0) >= since.timestamp()
        )

    def of_plan(self, plan: Plan) -> FrozenTrial | None:
        """The trial that stands for a plan: the first live one."""
        return next((t for t in self.by_plan.get(_plan_key(plan), ()) if t.state in LIVE), None)

    def over(self, plans: list[Plan], since: datetime) -> bool:
        """Whether nothing of these plans waits or runs any more."""
        self.refresh()
        if self.enqueue(plans, since):
            return False
        stand = [self.of_plan(plan) for plan in plans]
        return all(t is None or t.state in OVER for t in stand)

    def ready(self) -> bool:
        """Whether there is a trial to claim."""
        return any(t.state == TrialState.WAITING for t in self.trials)

    def take(self, claimed: Trial) -> Plan | None:
        """What a claimed trial is to do; None where another one stands for it."""
        plan = claimed.user_attrs.get("planned")
        self.refresh()
        first = self.of_plan(plan) if plan is not None else None
        if plan is None or first is None or first.number != claimed.number:
            return None
        self.write(claimed, plan)
        return plan

    def write(self, claimed: Trial, plan: Plan) -> None:
        """Write what was enqueued down as the trial's parameters."""
        for name in plan:
            claimed.suggest_float(name, *PARAMETERS.get(name, OTHERS))

    def look(self, claimed: Trial, done: int, score: float | None) -> bool:
        """Told how a trial fares; whether it is to be ended."""
        return False

    def bury(self) -> None:
        """Fail the running trials whose process is dead, so that they are enqueued again. To be called while this process runs
        none: one that bears its name is one whose end the store did not hear of."""
        optuna.storages.fail_stale_trials(self.optuna)
        for t in self.trials:
            if t.state == TrialState.RUNNING and self._is_dead(t):
                with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process was quicker
                    if t.user_attrs.get("owner") == mine():
                        self.optuna._storage.set_trial_user_attr(t._trial_id, PUT_BACK, True)
                    self.optuna._storage.set_trial_state_values(t._trial_id, TrialState.FAIL)

    def _is_dead(self, running: FrozenTrial) -> bool:
        owner = running.user_attrs.get("owner")
        if owner is not None:
            return owner == mine() or is_gone(owner)
        # Killed before its first word and its first heartbeat: nothing but time tells, and no clock but ours.
        return time.monotonic() - self.unnamed.setdefault(running.number, time.monotonic()) > GRACE


def open_queue(
    kind: type[Queue], context: Context, store: optuna.storages.RDBStorage, entrant: Entrant, phase: str
) -> Any:
    """The queue of an entrant in a phase, made where it does not exist."""
    control = entrant.loss in context.task.controls
    key = entrant.loss if control else keys.digest(context.key(entrant.loss, entrant.weighting))
    objectives = len(context.study.objectives) if phase == "tune" else 1
    made = optuna.create_study(
        storage=store,
        study_name=f"{context.protocol_digest}/{key}/{phase}",
        directions=["maximize"] * objectives,
        sampler=optuna.samplers.RandomSampler(seed=0),  # not asked where every trial is planned
        load_if_exists=True,
    )
    queue = kind(entrant, phase, made, given_up=context.given_up)
    queue.refresh()
    return queue


def _deaths(same: list[FrozenTrial]) -> int:
    """How many processes have ended in the middle of these trials of one plan, without a word, since an error was told of it. A
    Ctrl-C, a TERM and the end of a parent leave a word, and so do errors; a `kill -9` does not, nor does a power cut."""
    deaths = 0
    for t in same:
        if "error" in t.user_attrs:
            deaths = 0
        elif t.state == TrialState.FAIL and BEGUN in t.user_attrs and PUT_BACK not in t.user_attrs:
            deaths += 1
    return deaths


def _plan_key(plan: Plan | None) -> object:
    return None if plan is None else tuple(sorted(plan.items()))
