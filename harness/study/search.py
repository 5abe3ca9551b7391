"""Settings that Optuna's TPE draws, as many for every entrant: how they are claimed, lost, found again, and which is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness import keys, outbox, spec, trial
from harness.context import Context
from harness.entrants import Entrant
from harness.space import Dimension, space
from harness.study.queue import LIVE, OVER, Plan, Queue, open_queue
from harness.study.tuning import Choice
from harness.tracking import SETTLED
from harness.trial import TUNING_SEED

TOP = 0.25  # share of the trials that importances are told by: five of twenty


@dataclass
class Draws(Queue):
    """The trials of a search. A trial is asked for only while fewer than `quota` are live; of two that race for the last place
    the one with the lower number runs. known: settings that MLflow has runs of, from a search whose store is lost."""

    space: Sequence[Dimension] = ()
    quota: int = 0
    since: datetime = field(default_factory=datetime.now)
    known: Sequence[Plan] = ()
    looks: Sequence[int] = ()  # updates after which a pruner is asked

    def room(self) -> int:
        return self.quota - sum(map(self._counts, self.trials))

    def restore(self) -> None:
        """Enqueue again what was drawn and is not settled: the trials that were interrupted or whose process died, and those
        whose runs are known."""
        self.refresh()
        drawn = [t.user_attrs["planned"] for t in self.trials if "planned" in t.user_attrs]
        due = [plan for plan in (*self.known, *drawn) if self._is_lost(plan)]
        unique = list({tuple(sorted(plan.items())): plan for plan in due}.values())
        self.enqueue(unique[: max(self.room(), 0)], self.since)

    def _is_lost(self, plan: Plan) -> bool:
        same = self.by_plan.get(tuple(sorted(plan.items())), ())
        return not any(self._counts(t) for t in same)

    def _counts(self, t: FrozenTrial) -> bool:
        return t.state in LIVE or self.raised(t, self.since)

    def ready(self) -> bool:
        return super().ready() or self.room() > 0

    def take(self, claimed: optuna.Trial) -> Plan | None:
        self.refresh()
        ahead = [t for t in self.trials if t.number < claimed.number and self._counts(t)]
        plan = claimed.user_attrs.get("planned")
        first = self.of_plan(plan) if plan is not None else None
        if len(ahead) >= self.quota or (first is not None and first.number != claimed.number):
            return None
        drawn = {dimension.name: _drawn(claimed, dimension) for dimension in self.space}
        if plan is None:
            plan = {"seed": TUNING_SEED, **drawn}
            claimed.set_user_attr("planned", plan)
        return plan

    def look(self, claimed: optuna.Trial, done: int, score: float | None) -> bool:
        if score is None or done not in self.looks:
            return False
        claimed.report(score, done)
        return claimed.should_prune()


@dataclass
class Search:
    """The setting of an entrant by TPE."""

    context: Context
    queue: Draws

    def chosen(self) -> Choice | None:
        """Put back what is lost; what was chosen, None while anything waits, runs or is still to be drawn."""
        self.queue.restore()
        if self.queue.ready() or any(t.state == TrialState.RUNNING for t in self.queue.trials):
            return None
        best = self._best()
        lr, values = best["lr"], {d.name: best[d.name] for d in self.queue.space if d.name != "lr"}
        settled = [t for t in self.queue.trials if t.state in OVER]
        more: dict[str, Any] = {
            "trials": len(settled),
            "edge": [d.name for d in self.queue.space if d.at_the_edge(best[d.name])],
        }
        if len(self.context.study.objectives) > 1:
            more["front"] = [self._on_front(t) for t in self.queue.optuna.best_trials]
        return Choice(lr, "tuned", values=values, more=more, importance=self._importance())

    def _best(self) -> Plan:
        """The setting of the best score; of several objectives, that on the front whose mean on their shared scale is best. Ties
        go to the smaller rate, as does a search in which nothing ended well."""
        several = len(self.context.study.objectives) > 1
        complete = [t for t in self.queue.trials if t.state == TrialState.COMPLETE]
        candidates = self.queue.optuna.best_trials if several and complete else complete

        def order(t: FrozenTrial) -> tuple[float, float, int]:
            score = t.user_attrs.get("score") if several else t.value
            return -(score or 0.0), t.user_attrs["planned"]["lr"], t.number

        drawn = [t for t in self.queue.trials if "planned" in t.user_attrs]
        return min(candidates or drawn, key=order).user_attrs["planned"]

    def _on_front(self, t: FrozenTrial) -> dict[str, Any]:
        drawn = {d.name: t.user_attrs["planned"][d.name] for d in self.queue.space}
        return {"values": drawn, "objectives": dict(zip(self.context.study.objectives, t.values, strict=True))}

    def _importance(self) -> Mapping[str, float]:
        """How much each setting decides whether a trial is among the best, by PED-ANOVA (Watanabe et al. 2023): shares of 1.
        Nothing of fewer than LEAST_TRIALS that ended by themselves: those that a pruner ended it does not know."""
        if sum(t.state == TrialState.COMPLETE for t in self.queue.trials) < spec.LEAST_TRIALS:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TOP)
        return optuna.importance.get_param_importances(self.queue.optuna, evaluator=evaluator)


def open_search(context: Context, store: optuna.storages.RDBStorage, entrant: Entrant, since: datetime) -> Search:
    """The search of an entrant, made where it does not exist."""
    asked = context.study.search
    assert asked is not None
    queue: Draws = open_queue(Draws, context, store, entrant, "tune")
    queue.space, queue.quota, queue.since = space(context, entrant), asked.trials, since
    if queue.room() > 0:
        queue.known = known(context, entrant, queue.space)
        limits = {d.name: [d.low, d.high, d.log, d.whole] for d in queue.space}
        parent = context.parent(entrant.loss, entrant.weighting)
        outbox.mark(context.tracker, context.study.task, parent, space=json.dumps(limits))
    queue.optuna.sampler = _Tpe()
    if asked.pruner is not None:
        updates = context.study.updates.tune
        queue.looks = trial.looks_at("tune", updates, asked.pruner)[:-1]  # at the last one there is nothing left to end
        queue.optuna.pruner = _pruner(asked.pruner, queue.looks, updates)
    return Search(context, queue)


def known(context: Context, entrant: Entrant, dimensions: Sequence[Dimension]) -> list[Plan]:
    """The settings of an entrant that MLflow has settled runs of."""
    identity = context.parent(entrant.loss, entrant.weighting).identity

    def ask() -> list[Plan]:
        found = context.tracker.search(f"tags.identity = '{identity}'")
        runs = context.tracker.search(_children(found[0].info.run_id)) if found else []
        settled = [run.data.params for run in runs if run.data.tags.get("state") in SETTLED]
        whole = [params for params in settled if all(d.name in params for d in dimensions)]
        return [{"seed": TUNING_SEED, **{d.name: _number(params[d.name], d) for d in dimensions}} for params in whole]

    return outbox.answer(context.tracker, ask) or []


def _children(parent: str) -> str:
    return f"tags.phase = 'tune' and tags.`mlflow.parentRunId` = '{parent}'"


def _number(text: str, dimension: Dimension) -> float:
    return int(float(text)) if dimension.whole else float(text)


def _drawn(claimed: optuna.Trial, dimension: Dimension) -> float:
    """What TPE draws, or what was enqueued; to six digits, by which identities tell settings apart."""
    if dimension.whole:
        return claimed.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.log)
    drawn = claimed.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)
    return min(max(float(f"{drawn:.6g}"), dimension.low), dimension.high)


class _Tpe(optuna.samplers.BaseSampler):
    """TPE whose seed follows from the search and the number of the trial, which no other trial has: what a search draws does not
    depend on which process draws it, and two that draw at once draw different settings. A search that was resumed draws
    others than one left in peace, because lost trials have numbers too."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        seed = int(keys.digest([study.study_name, trial.number]), 16) % 2**32
        self._tpe = optuna.samplers.TPESampler(seed=seed)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: Any) -> Any:
        return self._tpe.sample_independent(study, trial, name, distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._tpe.after_trial(study, trial, state, values)


def _pruner(name: str, looks: Sequence[int], updates: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    if name == "wilcoxon":
        return optuna.pruners.WilcoxonPruner()
    least = looks[0] if looks else updates
    return optuna.pruners.HyperbandPruner(min_resource=least, max_resource=updates, reduction_factor=2)
