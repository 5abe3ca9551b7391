"""How long a planned study takes, from the clocks of runs that were made on the same device."""

from __future__ import annotations

import statistics

from harness.context import Context
from harness.devices import device_name
from harness.study import PlanRow
from harness.workers import Options, worker_count

PHASES = ("control", "tune", "confirm", "equal_time")
GUESS = {
    "update": 0.055,
    "tune": 6.0,
    "confirm": 25.0,
    "equal_time": 25.0,
    "control": 20.0,
}  # seconds on a CPU core where nothing was measured


def sentence(context: Context, rows: list[PlanRow], options: Options) -> str:
    """The time left, in words, and what it rests on."""
    clocks, workers = _measured(context), worker_count(options)
    left = {phase: sum(row.trials - row.settled for row in rows if row.phase == phase) for phase in PHASES}
    updates = sum((row.trials - row.settled) * row.updates for row in rows)
    seconds = updates * clocks["update"] + sum(count * clocks[phase] for phase, count in left.items())
    basis = f"measured on {device_name(context.device)}" if clocks != GUESS else "a guess: nothing measured here yet"
    runs = sum(left.values())
    minutes = seconds / 60 / workers
    more = "; best rates on the edge add runs" if context.study.search is None else ""
    return f"{runs} runs to make, about {minutes:.1f} minutes with {workers} workers ({basis}){more}"


def _measured(context: Context) -> dict[str, float]:
    """Median seconds of an update, and of what comes beside the updates in a run of each phase."""
    runs = context.tracker.search(f"tags.state = 'finished' and tags.model = '{context.study.model}'")
    name = device_name(context.device)
    here = [run for run in runs if run.data.tags.get("device") == name and run.data.metrics.get("step_ms")]
    clocks = dict(GUESS)
    if here:
        clocks["update"] = statistics.median(run.data.metrics["step_ms"] for run in here[-20:]) / 1000
    for phase in PHASES[1:]:
        same = {"phase": phase, "protocol": context.protocol_digest}.items()
        beside = [_beside(run.data.metrics) for run in here if run.data.tags.items() >= same]
        clocks[phase] = statistics.median(beside) if beside else GUESS[phase]
    return clocks


def _beside(clocks: dict[str, float]) -> float:
    return clocks["seconds/evaluation"] + clocks["seconds/logging"]
