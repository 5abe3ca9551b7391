"""Tune and confirm every entrant of a study: what is planned, who runs it, what was chosen. The only rooms that know Optuna.

Optuna hands out the work: one Optuna study for each protocol, entrant and phase. A room a concern: `storage` the store, `joining`
who may work on it, `queue` the trials of an entrant in a phase, `tuning` and `search` how its setting is chosen, `jobs` what is
due, `frozen` and `equal_time` what begins when all is confirmed, `worker` the loop of a process, `planning` what would be done,
`operations` what the store can take.
"""

from harness.study.jobs import Job, stages
from harness.study.joining import joined
from harness.study.operations import operations
from harness.study.planning import PlanRow, plan, spaces, trained
from harness.study.queue import BATCH, Queue
from harness.study.storage import Store, default_storage, open_storage
from harness.study.tuning import best_rate, next_edge
from harness.study.worker import Event, work

__all__ = [
    "BATCH",
    "Event",
    "Job",
    "PlanRow",
    "Queue",
    "Store",
    "best_rate",
    "default_storage",
    "joined",
    "next_edge",
    "open_storage",
    "operations",
    "plan",
    "spaces",
    "stages",
    "trained",
    "work",
]
