"""The one live view of all workers of a command: trial, update, score, time left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich import progress as bars
from rich.console import Console

from harness.study import Event, PlanRow


@dataclass
class _Line:
    """What is shown of one worker."""

    task: Any
    done: int = 0
    of: int = 0


class View:
    """A line a worker and one for all, whose bar counts updates; without a terminal, a line for each finished trial."""

    def __init__(self, console: Console, plan: list[PlanRow]) -> None:
        self.console = console
        self.failures: list[str] = []
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.completed:.0f}/{task.total:.0f} updates"),
            bars.TextColumn("{task.fields[score]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
        )
        self._progress = bars.Progress(
            *columns, console=console, disable=not console.is_terminal, transient=True, speed_estimate_period=300
        )
        self._trials = sum(row.trials for row in plan)
        self._settled = sum(row.settled for row in plan)
        updates = sum(row.updates * row.trials for row in plan)
        self._all = self._progress.add_task(
            self._count(), total=updates, completed=sum(row.updates * row.settled for row in plan), score=""
        )
        self._lines: dict[int, _Line] = {}

    def __enter__(self) -> View:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if event.worker not in self._lines:
            self._lines[event.worker] = _Line(self._progress.add_task("", total=0, score=""))
        line = self._lines[event.worker]
        if event.outcome is None:
            self._move(line, event.done, event.of)
            score = "" if event.score is None else f"score {event.score:.3f}"
            self._progress.update(line.task, description=event.title, completed=event.done, total=event.of, score=score)
            return
        if event.outcome.reused:
            return
        self._move(line, line.of, line.of)  # a trial that diverged has no more updates to come
        line.done = line.of = 0
        self._settled += 1
        self._trials = max(self._trials, self._settled)  # rates beyond the grid are not foreseen
        self._progress.update(self._all, description=self._count())
        self.console.print(*_words(event), **_style(event))
        if event.outcome.state == "failed":
            self.failures += _words(event)

    def _move(self, line: _Line, done: int, of: int) -> None:
        if of > 1:
            self._progress.advance(self._all, done - line.done)
            line.done, line.of = done, of

    def _count(self) -> str:
        return f"trials {self._settled}/{self._trials}"


def _words(event: Event) -> list[str]:
    assert event.outcome is not None
    outcome = event.outcome
    value = "" if outcome.value is None else f", score {outcome.value:.3f}"
    more = "; ".join(text for text in (outcome.reason, outcome.note) if text)
    return [f"{event.title}: {outcome.state}{value} ({event.seconds:.0f} s)" + (f": {more}" if more else "")]


def _style(event: Event) -> dict[str, Any]:
    assert event.outcome is not None
    return {"style": "red" if event.outcome.state == "failed" else "", "markup": False, "highlight": False}
