"""One bar for all that comes before the trials: bytes with their speed and the time left, or recordings one by one."""

from __future__ import annotations

from rich import progress
from rich.console import Console, RenderableType
from rich.text import Text


class DataBar:
    """A `data.progress.Progress` on a terminal; elsewhere nothing, because what is said in lines is enough there."""

    def __init__(self, console: Console) -> None:
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), _Amount(), _Pace())
        self._bars = progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._shown: tuple[str, progress.TaskID] | None = None

    def __enter__(self) -> DataBar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, of: int, unit: str = "") -> None:
        if self._shown is None or self._shown[0] != what:
            if self._shown is not None:
                self._bars.remove_task(self._shown[1])
            # What a resumed download had before counts as done, not as speed.
            self._shown = what, self._bars.add_task(what, total=of or None, completed=done, bytes=unit == "B")
        self._bars.update(self._shown[1], completed=done, total=of or None)


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
