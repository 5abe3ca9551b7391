"""What a study has to do, entrant by entrant: tune, decide, confirm, and confirm once more in equal time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from harness import entrants, outbox
from harness.context import Context
from harness.entrants import Entrant
from harness.study import equal_time, frozen, parents
from harness.study.queue import Plan, Queue, open_queue
from harness.study.racing import Race
from harness.study.search import Search, open_search
from harness.study.storage import Store
from harness.study.tuning import Choice, Grid


class Work(Protocol):
    """Something that trials are made for."""

    def advance(self) -> Queue | None:
        """Plan what is due; the queue that holds the work, None where all is done."""


@dataclass
class Job:
    """One entrant: tune, decide, confirm. shipped: the rate of a reference that is not tuned; race: that it takes part in."""

    context: Context
    entrant: Entrant
    store: Store
    since: datetime
    shipped: float | None = None
    chosen: Choice | None = None
    race: Race | None = None
    tuning: Grid | Search = field(init=False)
    confirm: Queue = field(init=False)

    def __post_init__(self) -> None:
        self.confirm = open_queue(Queue, self.context, self.store, self.entrant, "confirm")
        self.tuning = self._tuning()

    def _tuning(self) -> Grid | Search:
        if self.context.study.search is not None and self.shipped is None:
            return open_search(self.context, self.store, self.entrant, self.since)
        queue = open_queue(Queue, self.context, self.store, self.entrant, "tune")
        return Grid(queue, self.context.study.rates, self.since)

    def advance(self) -> Queue | None:
        """Plan what is due; the queue that holds the work, None where all is done."""
        if self.chosen is None:
            found = self.tuning.chosen() if self.shipped is None else Choice(self.shipped, "shipped")
            if found is None:
                return self.tuning.queue
            self._decide(found)
        seeds = self.context.study.seed_list[: self.race.due(self.entrant) if self.race else None]
        if not self.confirm.over([self.choice().plan(seed) for seed in seeds], self.since):
            return self.confirm
        return None if self.race is None or self.race.over(self.entrant, self.choice()) else self.confirm

    def choice(self) -> Choice:
        """What was decided; to be asked for when that is over."""
        assert self.chosen is not None
        return self.chosen

    def _decide(self, choice: Choice) -> None:
        """Keep the decision where reports find it. A tuned rate replaces a shipped one, never the other way round."""
        self.chosen = choice
        study = self.context.study
        parent = self.context.parent(self.entrant.loss, self.entrant.weighting)
        marks = {"selected": json.dumps(choice.as_data()), "study": study.name}
        twins = [group for group in study.identity_groups if self.entrant in map(Entrant, group)]
        if twins:  # a study that names none leaves those of another be
            marks["identities"] = json.dumps(twins)
        files = {"importance.json": dict(choice.importance)} if choice.importance else {}
        outbox.mark(self.context.tracker, study.task, parent, files, **marks)


@dataclass
class Again:
    """An entrant whose setting is chosen, in equal time. plans: of its runs."""

    queue: Queue
    plans: Sequence[Plan]
    since: datetime

    def advance(self) -> Queue | None:
        return None if self.queue.over(list(self.plans), self.since) else self.queue


def stages(context: Context, store: Store, since: datetime) -> Iterator[Sequence[Work]]:
    """The work of a study, in parts: each begins when nothing of the one before waits or runs in any process."""
    first = jobs(context, store, since)
    yield [*controls(context, store, since), *first]
    learned = [job for job in first if job.entrant in entrants.learned(context.study)]
    ended = [frozen.of(context, job.entrant, job.choice()) for job in learned]
    later = [Job(context, entrant, store, since) for entrant in dict.fromkeys(ended) if entrant is not None]
    yield later
    if context.study.equal_time:
        settings = {job.entrant: job.choice() for job in [*first, *later]}
        yield [equal_time.measuring(context, store, since, settings)]
        yield [
            Again(open_queue(Queue, context, store, entrant, "equal_time"), plans, since)
            for entrant, plans in equal_time.plans(context, settings).items()
        ]


def jobs(context: Context, store: Store, since: datetime) -> list[Job]:
    """A job for each loss under each weighting and each control of combinations, and one for the reference at its shipped rate
    unless it is, or has been, tuned."""
    found = [*entrants.asked(context.study), *entrants.controls(context.study)]
    made = [Job(context, entrant, store, since) for entrant in found]
    reference = entrants.reference(context.study)
    if reference not in found:
        selected = parents.selection(context, reference)
        tuned = selected is not None and selected["tuning"] == "tuned"
        choice = Choice(selected["lr"], "tuned", values=selected.get("values", {})) if selected and tuned else None
        shipped = choice.lr if choice else context.study.reference.lr
        made.append(Job(context, reference, store, since, shipped, choice))
    if context.study.racing:
        race = Race(context, [job.entrant for job in made])
        for job in made:
            job.race = race
    return made


def controls(context: Context, store: Store, since: datetime) -> list[Again]:
    """Every control of the task: nothing to tune, one run."""
    queues = [open_queue(Queue, context, store, Entrant(name), "control") for name in context.task.controls]
    return [Again(queue, [{}], since) for queue in queues]
