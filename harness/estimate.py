"""How long a planned study takes, from the clocks of runs that were made on the same device."""

from __future__ import annotations

import statistics

from harness.study import PlanRow
from harness.trial import Context, device_name

GUESS = {
    "update": 0.055,
    "tune": 6.0,
    "confirm": 25.0,
    "control": 20.0,
}  # seconds on a CPU core where nothing was measured


def sentence(context: Context, rows: list[PlanRow], workers: int) -> str:
    """The time left, in words, and what it rests on."""
    clocks = _measured(context)
    left = {
        phase: sum(row.trials - row.settled for row in rows if row.phase == phase)
        for phase in ("control", "tune", "confirm")
    }
    updates = sum((row.trials - row.settled) * row.updates for row in rows)
    seconds = updates * clocks["update"] + sum(count * clocks[phase] for phase, count in left.items())
    basis = f"measured on {device_name(context.device)}" if clocks != GUESS else "a guess: nothing measured here yet"
    runs = sum(left.values())
    return f"{runs} runs to make, about {seconds / 60 / workers:.1f} minutes with {workers} workers ({basis}); best rates on the edge add runs"


def _measured(context: Context) -> dict[str, float]:
    """Median seconds of an update, and of what comes beside the updates in a run of each phase."""
    runs = context.tracker.search(f"tags.state = 'finished' and tags.model = '{context.study.model}'")
    here = [
        r for r in runs if r.data.tags.get("device") == device_name(context.device) and r.data.metrics.get("step_ms")
    ]
    clocks = dict(GUESS)
    if here:
        clocks["update"] = statistics.median(r.data.metrics["step_ms"] for r in here[-20:]) / 1000
    for phase in ("tune", "confirm"):
        same = [
            r
            for r in here
            if r.data.tags.get("phase") == phase and r.data.tags.get("protocol") == context.protocol_digest
        ]
        if same:
            clocks[phase] = statistics.median(
                r.data.metrics["seconds/evaluation"] + r.data.metrics["seconds/logging"] for r in same
            )
    return clocks
