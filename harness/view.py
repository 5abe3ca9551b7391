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
    title: str = ""
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
            bars.TextColumn("{task.fields[count]}"),
            bars.TextColumn("{task.fields[score]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
        )
        self._progress = bars.Progress(
            *columns, console=console, disable=not console.is_terminal, transient=True, speed_estimate_period=300
        )
        self._trials = sum(row.trials for row in plan)
        self._settled = sum(row.settled for row in plan)
        self._updates = sum(row.updates * row.trials for row in plan)
        self._done = sum(row.updates * row.settled for row in plan)
        self._all = self._progress.add_task("", score="", count="")
        self._show_all()
        self._lines: dict[int, _Line] = {}

    def __enter__(self) -> View:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)

    def show(self, event: Event) -> None:
        if event.note:
            self.say(event.note)
        if event.note or event.begun:
            return
        if event.worker not in self._lines:
            self._lines[event.worker] = _Line(self._progress.add_task("", score="", count=""))
        line = self._lines[event.worker]
        if event.outcome is None:
            self._advance(line, event)
            return
        if event.outcome.reused:
            return
        self._done += line.of - line.done  # a trial that diverged has no more updates to come
        line.title, line.done, line.of = "", 0, 0
        self._settled += 1
        self._trials = max(self._trials, self._settled)  # rates beyond the grid are not foreseen
        self._show_all()
        self.console.print(*_words(event), **_style(event))
        if event.outcome.state == "failed":
            self.failures += _words(event)

    def _advance(self, line: _Line, event: Event) -> None:
        if line.title != event.title:
            self._progress.reset(line.task, description=event.title, score="", count="")
            line.title, line.done = event.title, 0
            line.of = event.of if event.of > 1 else 0  # a control has no updates
        if not line.of:
            return
        self._done, line.done = self._done + event.done - line.done, event.done
        score = "" if event.score is None else f"score {event.score:.3f}"
        count = f"{line.done}/{line.of} updates"
        self._progress.update(line.task, completed=line.done, total=line.of, score=score, count=count)
        self._show_all()

    def _show_all(self) -> None:
        self._updates = max(self._updates, self._done)
        title, count = f"trials {self._settled}/{self._trials}", f"{self._done}/{self._updates} updates"
        self._progress.update(self._all, description=title, completed=self._done, total=self._updates, count=count)


def _words(event: Event) -> list[str]:
    assert event.outcome is not None
    outcome = event.outcome
    value = "" if outcome.value is None else f", score {outcome.value:.3f}"
    more = "; ".join(text for text in (outcome.reason, outcome.note) if text)
    return [f"{event.title}: {outcome.state}{value} ({event.seconds:.0f} s)" + (f": {more}" if more else "")]


def _style(event: Event) -> dict[str, Any]:
    assert event.outcome is not None
    return {"style": "red" if event.outcome.state == "failed" else "", "markup": False, "highlight": False}
