"""How many questions a second the store answers to one process."""

from __future__ import annotations

import time
import uuid
import warnings

import optuna

from harness.study.storage import Store

EACH = 4  # operations that a trial costs at the least: enqueued, claimed, named, told


def operations(store: Store, trials: int = 50) -> float:
    """Operations a second, on a study of its own, which is deleted afterwards."""
    name = f"operations/{uuid.uuid4()}"
    made = optuna.create_study(storage=store, study_name=name, direction="maximize")
    try:
        with warnings.catch_warnings():
            # Optuna says that these trials give no sign of life, which none of them lives long enough for.
            warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
            start = time.perf_counter()
            for _ in range(trials):
                made.enqueue_trial({"lr": 1e-3})
                claimed = made.ask()
                claimed.set_user_attr("owner", name)
                made.tell(claimed, 0.0)
            return EACH * trials / (time.perf_counter() - start)
    finally:
        optuna.delete_study(study_name=name, storage=store)
