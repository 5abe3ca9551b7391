"""One bar for all that comes before the trials: bytes with their speed and the time left, or recordings one by one."""

from __future__ import annotations

import sys
import time

from rich import progress
from rich.console import Console, RenderableType
from rich.text import Text

PATIENCE = 5.0  # seconds that something may take without a line: most of what is done takes less
TENTHS = 10


class DataBar:
    """A `data.progress.Progress` on a terminal; elsewhere, as in the log of a job, a line on the standard error at every tenth of
    what takes long."""

    def __init__(self, console: Console) -> None:
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), _Amount(), _Pace())
        self._bars = progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._shown: tuple[str, progress.TaskID] | None = None
        self._lines = None if console.is_terminal else _Tenths()

    def __enter__(self) -> DataBar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, of: int, unit: str = "") -> None:
        if self._lines is not None:
            self._lines(what, done, of, unit)
            return
        if self._shown is None or self._shown[0] != what:
            if self._shown is not None:
                self._bars.remove_task(self._shown[1])
            # What a resumed download had before counts as done, not as speed.
            self._shown = what, self._bars.add_task(what, total=of or None, completed=done, bytes=unit == "B")
        self._bars.update(self._shown[1], completed=done, total=of or None)


class _Tenths:
    """Lines in place of a bar. A tenth that was reached before PATIENCE is not told afterwards."""

    def __init__(self) -> None:
        self._what, self._since, self._told = "", 0.0, 0

    def __call__(self, what: str, done: int, of: int, unit: str = "") -> None:
        tenth = TENTHS * done // of if of else 0
        if what != self._what:
            self._what, self._since, self._told = what, time.monotonic(), tenth
        elif tenth > self._told:
            self._told = tenth
            if time.monotonic() - self._since >= PATIENCE:
                amount = f"{done / 1e6:,.0f} of {of / 1e6:,.0f} MB" if unit == "B" else f"{done:,} of {of:,}"
                print(f"{what}: {100 * tenth // TENTHS} % ({amount})", file=sys.stderr, flush=True)


class _Amount(progress.ProgressColumn):
    """Bytes of bytes, or a number of a number, where that is known."""

    bytes, number = progress.DownloadColumn(), progress.MofNCompleteColumn()

    def render(self, task: progress.Task) -> RenderableType:
        if task.total is None and not task.completed:
            return Text()
        return (self.bytes if task.fields["bytes"] else self.number).render(task)


class _Pace(progress.ProgressColumn):
    """Speed of a download, and the time that is left."""

    speed, left = progress.TransferSpeedColumn(), progress.TimeRemainingColumn()

    def render(self, task: progress.Task) -> RenderableType:
        left = self.left.render(task)
        return self.speed.render(task).append("  ").append_text(left) if task.fields["bytes"] else left
